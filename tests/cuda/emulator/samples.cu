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

extern "C" __global__ void two_shuffles(float* out) {
    const float x = (float)threadIdx.x;
    out[threadIdx.x] = threadIdx.x < 16 ? __shfl_xor_sync(0xffffffffu, x, 1) : -__shfl_xor_sync(0xffffffffu, x, 2);
}

extern "C" __global__ void two_masks(float* out) {
    out[threadIdx.x] = __shfl_xor_sync(threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u, (float)threadIdx.x, 1);
}

extern "C" __global__ void own_mask(float* out) {
    out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, (float)threadIdx.x, 1);
}

extern "C" __global__ void other_half(float* out) {
    out[threadIdx.x] = __shfl_xor_sync(threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u, (float)threadIdx.x, 16);
}

// Each half meets on its own, and the upper one alone has a second shuffle.
extern "C" __global__ void halves(float* out) {
    const bool upper = threadIdx.x >= 16;
    float x = __shfl_xor_sync(upper ? 0xffff0000u : 0x0000ffffu, (float)threadIdx.x, 1);
    if (upper) x = __shfl_xor_sync(0xffff0000u, x, 2);
    out[threadIdx.x] = x;
}

extern "C" __global__ void from_who_has_left(float* out) {
    if (threadIdx.x == 5) return;
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (float)threadIdx.x, 1);
}

extern "C" __global__ void four_at_once(float* out, int from) {
    if (threadIdx.x == 0) store_four((float*)out + from, out);
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
