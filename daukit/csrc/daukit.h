// C interface of the CPU kernels. Everything is checked by daukit/ops/native.py before the call: pointers are float32,
// contiguous, of the sizes named here. The mathematics is in docs/math.md, in these letters.
#ifndef DAUKIT_H
#define DAUKIT_H

#include <stdint.h>

#define DAUKIT_ABI_VERSION 3

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Sizes of one call at dilation 1: other dilations are rearranged into this form by the caller. So are strides, unless all
// units lie at whole pixels: then the image may come as stride_y * stride_x phases of every channel (phase y * stride_x + x
// holds the pixels from (y, x) on, a stride apart, zero where there is none), each of the output's height and width.
struct daukit_sizes {
    int64_t batch, in_channels, out_channels, groups, height, width;
    int64_t stride_y, stride_x;
    int64_t units;   // units of a pair; ignored when unit_ptr is given
    int64_t radius;  // of the blur, in taps
    int64_t threads;
};

// All units of a layer. Pair p = out * (in_channels / groups) + in owns units unit_ptr[p] .. unit_ptr[p + 1] - 1, or,
// where unit_ptr is null, units p * K .. (p + 1) * K - 1.
struct daukit_units {
    const float *weight, *mu_y, *mu_x;
    const int32_t* unit_ptr;
};

enum daukit_status { DAUKIT_OK = 0, DAUKIT_OUT_OF_MEMORY = 1, DAUKIT_NOT_FINITE = 2 };

int32_t daukit_abi_version(void);

// Name of the kernels that this processor runs: "avx512", "avx2", "generic".
const char* daukit_instruction_set(void);

// Restrict the choice to one of those names (for tests). Returns 0 when this processor or build has no such kernels.
int32_t daukit_use_instruction_set(const char* name);

// Do displacements that are farther than so many taps from each other in several passes (for tests); 0: as it is without.
void daukit_use_reach(int64_t taps);

// out[n,o,p] = bias[o] + sum_c sum_u weight * B~[n,c,p + mu], B = input blurred by gaussian (x) gaussian (2R + 1 taps).
int32_t daukit_forward(const struct daukit_sizes*, const struct daukit_units*, const float* gaussian,
                       const float* bias_or_null, const float* input, float* output);

// Adjoint of the reads alone, without the blur: grad_blurred[n,c,q] = sum_o sum_u weight * E~[n,o,q - mu].
int32_t daukit_backward_image(const struct daukit_sizes*, const struct daukit_units*, const float* grad_output,
                              float* grad_blurred);

// grad_blurred as above, with grad_weight (U) and grad_mu (2 U: all y, then all x; null where nobody asks for it).
// slope: taps of dG/dmu for the paper's mu gradient, or null for the derivative of the bilinear forward.
int32_t daukit_backward(const struct daukit_sizes*, const struct daukit_units*, const float* gaussian,
                        const float* slope_or_null, const float* grad_output, const float* input, float* grad_blurred,
                        float* grad_weight, float* grad_mu_or_null);

// A forward with everything prepared that depends on units and sizes; units and taps need not outlive the call. Runs of one
// plan may overlap. `relu`: set outputs below zero to zero.
struct daukit_plan;
int32_t daukit_plan(const struct daukit_sizes*, const struct daukit_units*, const float* gaussian,
                    struct daukit_plan**);
int32_t daukit_plan_run(const struct daukit_plan*, int64_t threads, const float* bias_or_null, int32_t relu,
                        const float* input, float* output);
int64_t daukit_plan_bytes(const struct daukit_plan*);
void daukit_plan_free(struct daukit_plan*);

// Correlate every plane with along_y (x) along_x (2 R + 1 taps each, both even), zero padding, same size.
int32_t daukit_blur(int64_t planes, int64_t height, int64_t width, int64_t radius, const float* along_y,
                    const float* along_x, const float* input, float* output, int64_t threads);

// Fused multiply-adds per second that this processor sustains in registers, for `daukit bench`.
double daukit_measure_peak(int64_t threads);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#endif
