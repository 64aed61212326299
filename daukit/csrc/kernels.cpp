// The kernels for one instruction set. CMake compiles this file once for each, with DAUKIT_ISA set to its name.
#include "kernels.h"

#include <chrono>
#include <memory>

#include "backward_pass.h"
#include "point_pass.h"
#include "read_pass.h"

namespace daukit {
namespace DAUKIT_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kFewLanes = 8;  // half as many lanes where a small batch would leave many of 16 empty
#elif defined(__AVX__)
constexpr int kLanes = 8, kFewLanes = 8;
#else
constexpr int kLanes = 4, kFewLanes = 4;
#endif

// Run `body` with the number of lanes that wastes least.
template <class Body>
int32_t with_lanes(const daukit_sizes& sizes, Body body) {
    Box halo{-4, 4, -4, 4};
    double many = Tiling::choose(kLanes, sizes.batch, sizes.height, sizes.width, halo).cost(halo);
    double few = Tiling::choose(kFewLanes, sizes.batch, sizes.height, sizes.width, halo).cost(halo);
    if constexpr (kFewLanes != kLanes)
        if (1.05 * few < many) return body(std::integral_constant<int, kFewLanes>());
    return body(std::integral_constant<int, kLanes>());
}

// The blur of images before they are read: none where there is nothing to do.
inline Blur blur_of(const daukit_sizes& sizes, const float* gaussian, const float* slope = nullptr) {
    return sizes.radius == 0 ? Blur() : Blur(sizes.radius, gaussian, gaussian, slope);
}

int32_t forward(const daukit_sizes& sizes, const daukit_units& units, const float* gaussian, const float* bias,
                const float* input, float* output) {
    return with_lanes(sizes, [&](auto lanes) {
        constexpr int L = lanes();
        Call<L> call(sizes, units);
        if (!call.finite()) return int32_t(DAUKIT_NOT_FINITE);
        Blur blur = blur_of(sizes, gaussian);
        bool done = call.each_span([&](const Span& span, bool drop, bool add) {
            if (PointPass<L>::takes(call, span, drop, blur))
                return PointPass<L>(call).run(call.threads, bias, false, input, output);
            return ReadPass<L, false>(call, span, drop, add, blur).run(call.threads, bias, false, input, output);
        });
        return int32_t(done ? DAUKIT_OK : DAUKIT_OUT_OF_MEMORY);
    });
}

int32_t backward_image(const daukit_sizes& sizes, const daukit_units& units, const float* grad_output,
                       float* grad_blurred) {
    return with_lanes(sizes, [&](auto lanes) {
        Call<lanes()> call(sizes, units);
        if (!call.finite()) return int32_t(DAUKIT_NOT_FINITE);
        Blur copy;
        bool done = call.each_span([&](const Span& span, bool drop, bool add) {
            ReadPass<lanes(), true> pass(call, span, drop, add, copy);
            return pass.run(call.threads, nullptr, false, grad_output, grad_blurred);
        });
        return int32_t(done ? DAUKIT_OK : DAUKIT_OUT_OF_MEMORY);
    });
}

// The backward with so many maps of the input, see BackwardPass.
template <int L, int Maps>
int32_t backward_by(const Call<L>& call, const Blur& blur, const float* grad_output, const float* input,
                    float* grad_blurred, float* grad_weight, float* grad_mu) {
    // Few input channels make few jobs: then the regions are sliced as well, each slice with sums of its own.
    const daukit_sizes& sizes = call.sizes;
    int64_t blocks = sizes.groups * ceil_div(sizes.in_channels / sizes.groups, 24);
    int64_t slices = sizes.threads == 1 ? 1 : ceil_div(kJobsPerThread * sizes.threads, blocks);
    if (blocks >= 2 * sizes.threads) slices = 1;
    std::vector<float> partial;
    try {
        partial.assign(size_t(dots_of(Maps) * slices * call.total), 0.0f);
    } catch (const std::bad_alloc&) {
        return DAUKIT_OUT_OF_MEMORY;
    }
    bool done = call.each_span([&](const Span& span, bool drop, bool add) {
        BackwardPass<L, Maps> pass(call, span, drop, add, blur, slices);
        if (Maps > 0) return pass.run(grad_output, input, grad_blurred, partial.data());
        Blur copy;
        if (!pass.run(grad_output, input, nullptr, partial.data())) return false;
        ReadPass<L, true> image(call, span, drop, add, copy);
        return !grad_blurred || image.run(call.threads, nullptr, false, grad_output, grad_blurred);
    });
    if (!done) return DAUKIT_OUT_OF_MEMORY;
    finish_gradients<Maps>(call.source, call.total, call.threads, partial.data(), slices, grad_weight, grad_mu);
    return DAUKIT_OK;
}

int32_t backward(const daukit_sizes& sizes, const daukit_units& units, const float* gaussian, const float* slope,
                 const float* grad_output, const float* input, float* grad_blurred, float* grad_weight,
                 float* grad_mu) {
    return with_lanes(sizes, [&](auto lanes) {
        constexpr int L = lanes();
        Call<L> call(sizes, units);
        if (!call.finite()) return int32_t(DAUKIT_NOT_FINITE);
        // The maps of docs/math.md, section 4: G * X, dG/dmu_y * X, dG/dmu_x * X.
        Blur blur = blur_of(sizes, gaussian, grad_mu ? slope : nullptr);
        auto run = !grad_mu ? backward_by<L, 1> : slope ? backward_by<L, 3> : backward_by<L, 0>;
        return run(call, blur, grad_output, input, grad_blurred, grad_weight, grad_mu);
    });
}

// A plan for one number of lanes: one pass over points, or one or more that read around every pixel.
template <int L>
struct PlanOf : Plan {
    std::vector<float> gaussian;
    std::unique_ptr<PointPass<L>> points;
    std::vector<ReadPass<L, false>> passes;

    int32_t run(int threads, const float* bias, bool relu, const float* input, float* output) const override {
        if (points && !points->run(threads, bias, relu, input, output)) return DAUKIT_OUT_OF_MEMORY;
        for (const auto& pass : passes)
            if (!pass.run(threads, bias, relu && &pass == &passes.back(), input, output)) return DAUKIT_OUT_OF_MEMORY;
        return DAUKIT_OK;
    }
    int64_t bytes() const override {
        int64_t sum = points ? points->bytes() : 0;
        for (const auto& pass : passes) sum += pass.prepared_bytes();
        return sum;
    }
};

int32_t plan(const daukit_sizes& sizes, const daukit_units& units, const float* gaussian, Plan** made) {
    return with_lanes(sizes, [&](auto lanes) {
        constexpr int L = lanes();
        Call<L> call(sizes, units);
        if (!call.finite()) return int32_t(DAUKIT_NOT_FINITE);
        try {
            auto plan = std::make_unique<PlanOf<L>>();
            plan->gaussian.assign(gaussian, gaussian + 2 * sizes.radius + 1);
            Blur blur = blur_of(sizes, plan->gaussian.data());
            call.each_span([&](const Span& span, bool drop, bool add) {
                if (PointPass<L>::takes(call, span, drop, blur)) {
                    plan->points = std::make_unique<PointPass<L>>(call);
                    return true;
                }
                plan->passes.emplace_back(call, span, drop, add, blur);
                plan->passes.back().prepare();
                return true;
            });
            *made = plan.release();
        } catch (const std::bad_alloc&) {
            return int32_t(DAUKIT_OUT_OF_MEMORY);
        }
        return int32_t(DAUKIT_OK);
    });
}

int32_t blur(int64_t planes, int64_t height, int64_t width, int64_t radius, const float* along_y, const float* along_x,
             const float* input, float* output, int64_t threads) {
    constexpr int L = kLanes;
    Box none{0, 0, 0, 0};
    Tiling tiling = Tiling::choose(L, planes, height, width, none);
    Lanes<L> lanes(tiling, none);
    Blur blur(radius, along_y, along_x, nullptr);
    SweepRoom<L> room(tiling.tile_w, blur);
    int64_t each = round_up(room.floats() + kBlurTile * round_up(tiling.tile_w, L) * L, 16);
    Scratch scratch(each * threads);
    if (!scratch.data()) return DAUKIT_OUT_OF_MEMORY;
#pragma omp parallel for num_threads(int(threads)) schedule(static)
    for (int64_t bundle = 0; bundle < tiling.bundles; bundle++)
        blur_planes<L>(tiling, lanes, blur, room, scratch.data() + thread_number() * each, bundle, input, output);
    return DAUKIT_OK;
}

double peak(int64_t threads) {
    constexpr int chains = 12, rounds = 2000000;
    double best = 0;
    for (int trial = 0; trial < 5; trial++) {
        auto start = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(int(threads))
        {
            Vec<kLanes> sum[chains], factor = broadcast<kLanes>(0.999f), term = broadcast<kLanes>(0.001f);
            DAUKIT_UNROLL
            for (int c = 0; c < chains; c++) sum[c] = term;
            for (int i = 0; i < rounds; i++) {
                DAUKIT_UNROLL
                for (int c = 0; c < chains; c++) {
                    sum[c] = sum[c] * factor + term;
                    keep(sum[c]);
                }
            }
            Vec<kLanes> total{};
            DAUKIT_UNROLL
            for (int c = 0; c < chains; c++) total += sum[c];
            asm volatile("" : : "m"(total));  // or the compiler would leave the loop out
        }
        std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        best = std::max(best, double(rounds) * chains * kLanes * double(threads) / time.count());
    }
    return best;
}

#define DAUKIT_TEXT(x) #x
#define DAUKIT_NAME(x) DAUKIT_TEXT(x)
extern const Kernels kernels;
const Kernels kernels = {DAUKIT_NAME(DAUKIT_ISA), forward, backward_image, backward, plan, blur, peak};

}  // namespace DAUKIT_ISA
}  // namespace daukit
