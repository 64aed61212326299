// Kernels whose behaviour is known beforehand, right ones and wrong ones: the emulator is tested with them.
#include "../../../cuda/device.cuh"
#include "../../../cuda/storage.cuh"

extern "C" __global__ void reverse(const float* in, float* out) {
    extern __shared__ float shared[];
    copy_or_zero(shared + threadIdx.x, in + threadIdx.x, threadIdx.x != 0);
    close_group();
    wait_group<0>();
    __syncthreads();
    out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void reverse_without_barrier(const float* in, float* out) {
    extern __shared__ float shared[];
    shared[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void reverse_without_wait(const float* in, float* out) {
    extern __shared__ float shared[];
    copy_or_zero(shared + threadIdx.x, in + threadIdx.x, true);
    close_group();
    __syncthreads();
    out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

// The second copy begins while other threads may still read what the first brought.
extern "C" __global__ void refill_too_early(const float* in, float* out) {
    extern __shared__ float shared[];
    for (int i = 0; i < 2; i++) {
        copy_or_zero(shared + threadIdx.x, in + threadIdx.x, true);
        close_group();
        wait_group<0>();
        __syncthreads();
        out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
    }
}

extern "C" __global__ void divergent(float* out) {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.f, 1);
}

extern "C" __global__ void two_barriers(float* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
        out[threadIdx.x] = 0.f;
    } else {
        __syncthreads();
        out[threadIdx.x] = 1.f;
    }
}

extern "C" __global__ void past_the_end(const float* in, float* out) { out[threadIdx.x + 1] = in[threadIdx.x]; }

extern "C" __global__ void same_place(float* out) { out[threadIdx.x] = (float)blockIdx.x; }

extern "C" __global__ void count(int* total) { atomicAdd(total, 1); }

extern "C" __global__ void read_apart(const float* in, float* out, int words) {
    extern __shared__ float shared[];
    for (int i = threadIdx.x; i < 32 * words; i += blockDim.x) shared[i] = 1.f;
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x * words] + in[threadIdx.x * words];
}

extern "C" __global__ void sum_of_warp(const float* in, float* out) {
    float sum = in[threadIdx.x];
    for (int bit = 16; bit >= 1; bit /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bit);
    out[threadIdx.x] = sum + __shfl_sync(0xffffffffu, sum, 3);
}

extern "C" __global__ void convert(const Stored* stored, const float* values, float* widened, Stored* narrowed) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    widened[i] = to_float(stored[i]);
    store(narrowed + i, values[i]);
}
