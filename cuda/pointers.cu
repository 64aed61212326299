// The pointers of a ragged layer: whether they add up, and their order for the adjoint.
#include "sizes.cuh"

namespace {

constexpr int THREADS = 1024;

// 1 if the pointers of all pairs rise from 0 to the number of units, else 0; for all threads of the block.
__device__ __forceinline__ int rise(const Sizes& sizes, const int* unit_ptr, int* right) {
    const int pairs = sizes.out_channels * sizes.group_inputs(), me = threadIdx.x;
    int mine = unit_ptr[0] == 0 && unit_ptr[pairs] == sizes.units;
    for (int pair = me; pair < pairs; pair += THREADS) mine &= unit_ptr[pair] <= unit_ptr[pair + 1];
    right[me] = mine;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (me < half) right[me] &= right[me + half];
    }
    __syncthreads();
    return right[0];
}

}  // namespace

// Grid: one block of THREADS. Shared memory: as many words.
extern "C" __global__ void __launch_bounds__(THREADS)
    dau_check_pointers(const Sizes sizes, const int* __restrict__ unit_ptr, int* __restrict__ right) {
    extern __shared__ float shared[];
    const int all = rise(sizes, unit_ptr, (int*)shared);
    if (threadIdx.x == 0) *right = all;
}

// The first unit of every pair in the order (input channel, output channel of its group), and behind them the number of
// all; and whether the pointers are right. A thread owns a run of pairs. Grid: one block of THREADS. Shared memory: twice
// as many words.
extern "C" __global__ void __launch_bounds__(THREADS)
    dau_transpose_pointers(const Sizes sizes, const int* __restrict__ unit_ptr, int* __restrict__ unit_ptr_t,
                           int* __restrict__ right) {
    extern __shared__ float shared[];
    int* sums = (int*)shared;
    const int inputs = sizes.group_inputs(), outputs = sizes.group_outputs();
    const int pairs = sizes.in_channels * outputs, me = threadIdx.x, run = (pairs + THREADS - 1) / THREADS;
    const int all = rise(sizes, unit_ptr, sums);
    if (me == 0) *right = all;
    __syncthreads();  // all have read what is overwritten
    const auto count = [&](int place) {
        const int in = place / outputs, out = in / inputs * outputs + place % outputs;
        const int* pair = unit_ptr + (long long)out * inputs + in % inputs;
        return pair[1] - pair[0];
    };
    const int begin = me * run < pairs ? me * run : pairs, end = begin + run < pairs ? begin + run : pairs;
    int sum = 0, from = 0;
    for (int place = begin; place < end; place++) sum += count(place);
    sums[me] = sum;
    __syncthreads();
    for (int step = 1; step < THREADS; step *= 2) {  // sums of all threads up to each
        const int* before = sums + from * THREADS;
        from = 1 - from;
        sums[from * THREADS + me] = before[me] + (me >= step ? before[me - step] : 0);
        __syncthreads();
    }
    int first = sums[from * THREADS + me] - sum;
    for (int place = begin; place < end; place++) {
        unit_ptr_t[place] = first;
        first += count(place);
    }
    if (me == THREADS - 1) unit_ptr_t[pairs] = first;
}
