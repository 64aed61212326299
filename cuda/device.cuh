// What differs between a GPU and the emulator of tests/cuda: asynchronous copies, and hints to the compiler.
#pragma once

// Copies between global and shared memory that run beside the arithmetic. `copy_or_zero` starts one of a float, which
// need not be readable where `inside` is false; `close_group` ends a group; `wait_group<n>` waits until at most the
// last n groups are under way.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ __forceinline__ void copy_or_zero(float* to, const float* from, bool inside) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(inside ? 4 : 0));
}

__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;"); }

template <int under_way>
__device__ __forceinline__ void wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(under_way) : "memory");
}
#elif defined(__CUDA_ARCH__)  // before sm_80: the copy is done when it is asked for
__device__ __forceinline__ void copy_or_zero(float* to, const float* from, bool inside) { *to = inside ? *from : 0.f; }
__device__ __forceinline__ void close_group() {}
template <int under_way>
__device__ __forceinline__ void wait_group() {}
#else                         // the emulator has its own
using emulator::close_group;
using emulator::copy_or_zero;
using emulator::wait_group;
#endif

// Addresses in shared memory as numbers, so that a sum of them is one instruction.
#ifdef __CUDA_ARCH__
typedef unsigned SharedAddress;
__device__ __forceinline__ SharedAddress shared_address(const float* at) { return __cvta_generic_to_shared(at); }
__device__ __forceinline__ const float* at_shared(SharedAddress address) {
    return (const float*)__cvta_shared_to_generic(address);
}
#else
typedef unsigned long long SharedAddress;
__device__ __forceinline__ SharedAddress shared_address(const float* at) { return (SharedAddress)at; }
__device__ __forceinline__ const float* at_shared(SharedAddress address) { return (const float*)address; }
#endif

// Add to what lies in global memory, of which nothing is read. CUDA's atomicAdd would ask first which memory it is.
__device__ __forceinline__ void add_to_global(float* to, float value) {
#ifdef __CUDA_ARCH__
    asm volatile("red.global.add.f32 [%0], %1;" ::"l"(__cvta_generic_to_global(to)), "f"(value));
#else
    atomicAdd(to, value);
#endif
}

// Keeps the compiler from computing a value again in a loop, as it does when registers are short.
#ifdef __CUDA_ARCH__
#define DAU_KEEP(value) asm volatile("" : "+r"(value))
#define DAU_KEEP_POINTER(value) asm volatile("" : "+l"(value))
#else
#define DAU_KEEP(value)
#define DAU_KEEP_POINTER(value)
#endif

// A number that all lanes share, in a register of each: in a uniform register it would have to be copied for every
// address that is computed from it. A lane's number is below 32, which the compiler does not know.
__device__ __forceinline__ int in_every_lane(int value) {
#ifdef __CUDA_ARCH__
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return value + (lane >> 5);
#else
    return value;
#endif
}

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }
