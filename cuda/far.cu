// Far units: those whose cell lies beyond the windows that the aggregation kernels stage. They are read from global
// memory, slowly, and added to what the near units gave. Where there are none these kernels return at once: nobody
// needs to ask the GPU how many there are.
#include "cells.cuh"
#include "device.cuh"
#include "sizes.cuh"
#include "storage.cuh"
#include "unit_sums.cuh"

namespace {

// A channel of a phase image, zero outside.
struct Plane {
    const float* __restrict__ pixels;
    int height, width;

    __device__ __forceinline__ Plane(const Sizes& sizes, const float* images, long long number)
        : pixels(images + number * sizes.phase_pixels()), height(sizes.phase_height), width(sizes.phase_width) {}

    __device__ __forceinline__ float pixel(int y, int x) const {
        return (unsigned)y < (unsigned)height && (unsigned)x < (unsigned)width ? pixels[(long long)y * width + x] : 0.f;
    }
    __device__ __forceinline__ void read_cell(float (&taps)[4], int y, int x) const {
        for (int k = 0; k < 4; k++) taps[k] = pixel(y + k / 2, x + k % 2);
    }
    __device__ __forceinline__ float interpolated(int y, int x, Cell along_y, Cell along_x) const {
        float taps[4];
        read_cell(taps, y + along_y.tap, x + along_x.tap);
        return interpolate(taps, along_y.fraction, along_x.fraction);
    }
};

__device__ __forceinline__ bool is_far_unit(const Sizes& sizes, const float* mu, int u, bool exact) {
    return is_far(mu[u], mu[sizes.units + u], sizes.halo, exact);
}

// Every pixel of `planes` planes, of which a block takes every gridDim.x-th chunk: few blocks return faster than many
// where nothing is far.
template <class Add>  // void add(long long plane, int pixel)
__device__ __forceinline__ void for_each_pixel(long long planes, int pixels, const Add& add) {
    const int chunks = divide_up(pixels, blockDim.x);
    for (long long chunk = blockIdx.x; chunk < planes * chunks; chunk += gridDim.x) {
        const int pixel = (int)(chunk % chunks) * blockDim.x + threadIdx.x;
        if (pixel < pixels) add(chunk / chunks, pixel);
    }
}

}  // namespace

// A thread adds to a pixel of the output at a time. Grid: any number of blocks of any size.
extern "C" __global__ void dau_far_forward(const Sizes sizes, const int* __restrict__ far,
                                           const float* __restrict__ blurred, const float* __restrict__ weight,
                                           const float* __restrict__ mu, const int* __restrict__ unit_ptr,
                                           Stored* __restrict__ output) {
    if (*far == 0) return;
    const int pixels = sizes.out_height * sizes.out_width, inputs = sizes.group_inputs();
    for_each_pixel((long long)sizes.batch * sizes.out_channels, pixels, [&](long long number, int pixel) {
        const int out = (int)(number % sizes.out_channels), group = out / sizes.group_outputs();
        const int y = pixel / sizes.out_width * sizes.stride_y, x = pixel % sizes.out_width * sizes.stride_x;
        const long long image = number / sizes.out_channels;
        const long long phase =
            (image * sizes.dilation_y + y % sizes.dilation_y) * sizes.dilation_x + x % sizes.dilation_x;
        float sum = 0.f;
        for (int c = 0; c < inputs; c++) {
            const Plane plane(sizes, blurred, phase * sizes.in_channels + group * inputs + c);
            const long long pair = (long long)out * inputs + c;
            const int end = first_unit(sizes, unit_ptr, pair + 1);
            for (int u = first_unit(sizes, unit_ptr, pair); u < end; u++)
                if (is_far_unit(sizes, mu, u, false))
                    sum = fmaf(weight[u],
                               plane.interpolated(y / sizes.dilation_y, x / sizes.dilation_x, any_cell(mu[u]),
                                                  any_cell(mu[sizes.units + u])),
                               sum);
        }
        Stored* at = output + number * pixels + pixel;
        store(at, to_float(*at) + sum);
    });
}

// A thread adds to a pixel of the blurred input's gradient at a time. Grid as above.
extern "C" __global__ void dau_far_backward(const Sizes sizes, const int* __restrict__ far,
                                            const float* __restrict__ errors, const float* __restrict__ weight,
                                            const float* __restrict__ mu, const int* __restrict__ unit_ptr,
                                            float* __restrict__ grad_blurred) {
    if (*far == 0) return;
    const int pixels = sizes.phase_height * sizes.phase_width, inputs = sizes.group_inputs();
    const long long planes = (long long)sizes.batch * sizes.phases() * sizes.in_channels;
    for_each_pixel(planes, pixels, [&](long long number, int pixel) {
        const int in = (int)(number % sizes.in_channels), first = in / inputs * sizes.group_outputs();
        const int y = pixel / sizes.phase_width, x = pixel % sizes.phase_width;
        float sum = 0.f;
        for (int out = first; out < first + sizes.group_outputs(); out++) {
            const Plane plane(sizes, errors, number / sizes.in_channels * sizes.out_channels + out);
            const long long pair = (long long)out * inputs + in % inputs;
            const int end = first_unit(sizes, unit_ptr, pair + 1);
            for (int u = first_unit(sizes, unit_ptr, pair); u < end; u++)
                if (is_far_unit(sizes, mu, u, EXACT))
                    sum = fmaf(
                        weight[u],
                        plane.interpolated(y, x, mirrored(any_cell(mu[u])), mirrored(any_cell(mu[sizes.units + u]))),
                        sum);
        }
        grad_blurred[number * pixels + pixel] += sum;
    });
}

namespace {

// A thread's share of a far unit's sums: every blockDim.x-th pixel of every image.
__device__ __forceinline__ Sums sums_of_thread(const Sizes& sizes, const float* errors, const float* const (&maps)[3],
                                               int out, int in, Cell along_y, Cell along_x) {
    Sums sums = {};
    for (long long image = 0; image < (long long)sizes.batch * sizes.phases(); image++) {
        const Plane error(sizes, errors, image * sizes.out_channels + out);
        for (int pixel = threadIdx.x; pixel < sizes.phase_height * sizes.phase_width; pixel += blockDim.x) {
            const int y = pixel / sizes.phase_width, x = pixel % sizes.phase_width;
            const float e = error.pixel(y, x);
            if constexpr (EXACT) {
                float taps[4];
                Plane(sizes, maps[0], image * sizes.in_channels + in).read_cell(taps, y + along_y.tap, x + along_x.tap);
                for (int k = 0; k < 4; k++) sums.of[k] = fmaf(e, taps[k], sums.of[k]);
            } else {
                for (int k = 0; k < MAPS; k++) {
                    const Plane map(sizes, maps[k], image * sizes.in_channels + in);
                    sums.of[k] = fmaf(e, map.interpolated(y, x, along_y, along_x), sums.of[k]);
                }
            }
        }
    }
    return sums;
}

}  // namespace

// A block owns every gridDim.x-th unit, and writes the gradients of the far ones. Grid: any number of blocks of whole
// warps. Shared memory: SUMS floats a warp.
extern "C" __global__ void dau_far_gradients(const Sizes sizes, const int* __restrict__ far,
                                             const float* __restrict__ errors, const float* __restrict__ map,
                                             const float* __restrict__ map_y, const float* __restrict__ map_x,
                                             const float* __restrict__ weight, const float* __restrict__ mu,
                                             const int* __restrict__ unit_ptr, float* __restrict__ grad_weight,
                                             float* __restrict__ grad_mu) {
    extern __shared__ float shared[];
    if (*far == 0) return;
    const float* const maps[3] = {map, map_y, map_x};
    for (int u = blockIdx.x; u < sizes.units; u += gridDim.x) {
        if (!is_far_unit(sizes, mu, u, EXACT)) continue;
        const Pair pair = owner(sizes, unit_ptr, u);
        const int in = pair.out / sizes.group_outputs() * sizes.group_inputs() + pair.in;
        Sums sums = sums_of_thread(sizes, errors, maps, pair.out, in, any_cell(mu[u]), any_cell(mu[sizes.units + u]));
        for (int k = 0; k < SUMS; k++) {
            for (int bit = 16; bit >= 1; bit /= 2) sums.of[k] += __shfl_xor_sync(0xffffffffu, sums.of[k], bit);
            if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32 * SUMS + k] = sums.of[k];
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            Sums total = {};
            for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
                for (int k = 0; k < SUMS; k++) total.of[k] += shared[warp * SUMS + k];
            store_gradients(sizes, total, u, weight, mu, grad_weight, grad_mu);
        }
        __syncthreads();  // before the next unit takes the place
    }
}
