// Sizes of one call of the operator, the first argument of every kernel, and the flat list of its units.
#pragma once

#ifdef __NVCC__
#include <cassert>  // NVRTC knows assert without it
#endif

// Filled by the launcher, in this order; `ops/geometry.py` has the words. A layer of dilation d is cut into the d_y d_x
// phases of its image, each an image of its own on which the layer is undilated: image (n d_y + r_y) d_x + r_x holds
// the pixels (r_y + d_y i, r_x + d_x j) of image n, and zeros where those lie outside.
struct Sizes {
    int batch, in_channels, out_channels, groups;
    int height, width;          // of the input
    int out_height, out_width;  // ceil(size / stride)
    int stride_y, stride_x, dilation_y, dilation_x;
    int phase_height, phase_width;  // ceil(size / dilation)
    int units;                      // of all pairs together
    int units_per_pair;             // of a dense layer, whose unit_ptr is null
    int radius;                     // of the blur, in taps
    int halo;                       // units with a displacement beyond it are far (far.cu)
    int splits;                     // how many blocks share the channels of a sum

    __device__ int group_inputs() const { return in_channels / groups; }
    __device__ int group_outputs() const { return out_channels / groups; }
    __device__ int phases() const { return dilation_y * dilation_x; }
    __device__ long long phase_pixels() const { return (long long)phase_height * phase_width; }
};

// The pair (output channel, input channel within its group) that owns a unit, and the unit's number in the pair.
struct Pair {
    int out, in, unit;
};

// First unit of pair p: unit_ptr says it where the layer is ragged.
__device__ __forceinline__ int first_unit(const Sizes& sizes, const int* unit_ptr, long long p) {
    return unit_ptr ? unit_ptr[p] : (int)(p * sizes.units_per_pair);
}

// Assert that the pointers of a ragged layer rise from 0 to the number of its units, before anybody reads by them: a
// failed assertion stops what is queued behind the kernel. Each thread of the grid looks at some.
__device__ inline void assert_pointers(const Sizes& sizes, const int* unit_ptr) {
    if (!unit_ptr) return;
    const int pairs = sizes.out_channels * sizes.group_inputs(), threads = gridDim.x * blockDim.x;
    bool rise = unit_ptr[0] == 0 && unit_ptr[pairs] == sizes.units;
    for (int pair = blockIdx.x * blockDim.x + threadIdx.x; pair < pairs; pair += threads)
        rise &= unit_ptr[pair] <= unit_ptr[pair + 1];
    assert(rise && "unit_ptr must rise from 0 to the number of units");
}

// Who owns unit u: a division, or a bisection of the ragged list.
__device__ inline Pair owner(const Sizes& sizes, const int* unit_ptr, int u) {
    int low = 0, high = sizes.out_channels * sizes.group_inputs();
    if (!unit_ptr) {
        low = u / sizes.units_per_pair;
    } else {
        while (high - low > 1) {
            const int middle = low + (high - low) / 2;
            (unit_ptr[middle] <= u ? low : high) = middle;
        }
    }
    return {low / sizes.group_inputs(), low % sizes.group_inputs(), u - first_unit(sizes, unit_ptr, low)};
}

// Where a unit lies in the list by input channels, that of the adjoint: first the units of input channel 0 for all
// output channels of its group, and so on. `unit_ptr_t` says where the units of each (input, output) begin in a ragged
// layer.
struct Transposed {
    int place, out;  // out: number of the output channel in its group

    __device__ __forceinline__ Transposed(const Sizes& sizes, const int* unit_ptr, const int* unit_ptr_t, int u) {
        const Pair pair = owner(sizes, unit_ptr, u);
        const long long in = pair.out / sizes.group_outputs() * sizes.group_inputs() + pair.in;
        out = pair.out % sizes.group_outputs();
        place = first_unit(sizes, unit_ptr_t, in * sizes.group_outputs() + out) + pair.unit;
    }
};
