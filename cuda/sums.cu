// Sums of what several blocks have computed, in the order of the blocks: the same bits whatever the GPU's own order is.
#include "sizes.cuh"
#include "storage.cuh"

// Add the `splits` parts of a result, and the bias of its channel where there is one (planes of `plane` elements).
// A thread owns an element. Grid: `count` threads in blocks of any size.
extern "C" __global__ void dau_sum_splits(const Sizes sizes, const float* __restrict__ partial,
                                          const float* __restrict__ bias, Stored* __restrict__ output, long long count,
                                          int plane, int channels) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float sum = bias ? bias[i / plane % channels] : 0.f;
    for (int split = 0; split < sizes.splits; split++) sum += partial[split * count + i];
    store(output + i, sum);
}
