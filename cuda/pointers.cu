// The pointers of a ragged layer in the order of the adjoint.
#include "sizes.cuh"

namespace {

constexpr int THREADS = 1024;

}  // namespace

// The first unit of every pair in the order (input channel, output channel of its group), and behind them the number of
// all. A thread owns a run of pairs. Grid: one block of THREADS. Shared memory: twice as many words.
extern "C" __global__ void __launch_bounds__(THREADS)
    dau_transpose_pointers(const Sizes sizes, const int* __restrict__ unit_ptr, int* __restrict__ unit_ptr_t) {
    assert_pointers(sizes, unit_ptr);
    extern __shared__ float shared[];
    int* sums = (int*)shared;
    const int inputs = sizes.group_inputs(), outputs = sizes.group_outputs();
    const int pairs = sizes.in_channels * outputs, me = threadIdx.x, run = (pairs + THREADS - 1) / THREADS;
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
