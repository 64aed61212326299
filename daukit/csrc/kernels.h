// What one instruction set offers, as function pointers: daukit.cpp picks a table when the library is loaded.
#pragma once

#include "daukit.h"

namespace daukit {

// Taps along an axis that one packed plane serves; displacements that reach farther are done in several passes, one halo
// each. All units within 32 pixels are one pass.
constexpr int64_t kReach = 72;
extern int64_t widest_reach;  // kReach, but in tests

// A forward whose lists are built: units are read when it is made, and never again.
struct Plan {
    virtual ~Plan() = default;
    virtual int32_t run(int threads, const float* bias, bool relu, const float* input, float* output) const = 0;
    virtual int64_t bytes() const = 0;
};

struct Kernels {
    const char* name;
    int32_t (*forward)(const daukit_sizes&, const daukit_units&, const float* gaussian, const float* bias,
                       const float* input, float* output);
    int32_t (*backward_image)(const daukit_sizes&, const daukit_units&, const float* grad_output, float* grad_blurred);
    int32_t (*backward)(const daukit_sizes&, const daukit_units&, const float* gaussian, const float* slope,
                        const float* grad_output, const float* input, float* grad_blurred, float* grad_weight,
                        float* grad_mu);
    int32_t (*plan)(const daukit_sizes&, const daukit_units&, const float* gaussian, Plan** made);
    int32_t (*blur)(int64_t planes, int64_t height, int64_t width, int64_t radius, const float* along_y,
                    const float* along_x, const float* input, float* output, int64_t threads);
    double (*peak)(int64_t threads);
};

}  // namespace daukit
