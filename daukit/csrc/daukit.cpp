// The C interface: picks the kernels of the best instruction set that this processor has.
#include "daukit.h"

#include <cstring>
#include <vector>

#include "kernels.h"

namespace daukit {

#if defined(DAUKIT_X86)
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
namespace generic {
extern const Kernels kernels;
}

namespace {

const Kernels* choose(const char* name) {
    auto wanted = [name](const char* candidate) { return !name || !std::strcmp(name, candidate); };
#if defined(DAUKIT_X86)
    __builtin_cpu_init();
    if (wanted("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
        return &avx512::kernels;
    if (wanted("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2::kernels;
#endif
    return wanted("generic") ? &generic::kernels : nullptr;
}

const Kernels* chosen = choose(nullptr);

}  // namespace

int64_t widest_reach = kReach;
}  // namespace daukit

using daukit::chosen;

int32_t daukit_abi_version(void) { return DAUKIT_ABI_VERSION; }

const char* daukit_instruction_set(void) { return chosen->name; }

int32_t daukit_use_instruction_set(const char* name) {
    const daukit::Kernels* kernels = daukit::choose(name);
    if (kernels) chosen = kernels;
    return kernels != nullptr;
}

void daukit_use_reach(int64_t taps) { daukit::widest_reach = taps > 0 ? taps : daukit::kReach; }

int32_t daukit_forward(const daukit_sizes* sizes, const daukit_units* units, const float* gaussian, const float* bias,
                       const float* input, float* output) {
    return chosen->forward(*sizes, *units, gaussian, bias, input, output);
}

int32_t daukit_backward_image(const daukit_sizes* sizes, const daukit_units* units, const float* grad_output,
                              float* grad_blurred) {
    return chosen->backward_image(*sizes, *units, grad_output, grad_blurred);
}

int32_t daukit_backward(const daukit_sizes* sizes, const daukit_units* units, const float* gaussian, const float* slope,
                        const float* grad_output, const float* input, float* grad_blurred, float* grad_weight,
                        float* grad_mu) {
    return chosen->backward(*sizes, *units, gaussian, slope, grad_output, input, grad_blurred, grad_weight, grad_mu);
}

int32_t daukit_plan(const daukit_sizes* sizes, const daukit_units* units, const float* gaussian,
                    struct daukit_plan** plan) {
    return chosen->plan(*sizes, *units, gaussian, reinterpret_cast<daukit::Plan**>(plan));
}

int32_t daukit_plan_run(const struct daukit_plan* plan, int64_t threads, const float* bias, int32_t relu,
                        const float* input, float* output) {
    return reinterpret_cast<const daukit::Plan*>(plan)->run(int(threads), bias, relu != 0, input, output);
}

int64_t daukit_plan_bytes(const struct daukit_plan* plan) {
    return reinterpret_cast<const daukit::Plan*>(plan)->bytes();
}

void daukit_plan_free(struct daukit_plan* plan) { delete reinterpret_cast<daukit::Plan*>(plan); }

int32_t daukit_blur(int64_t planes, int64_t height, int64_t width, int64_t radius, const float* along_y,
                    const float* along_x, const float* input, float* output, int64_t threads) {
    return chosen->blur(planes, height, width, radius, along_y, along_x, input, output, threads);
}

double daukit_measure_peak(int64_t threads) { return chosen->peak(threads); }
