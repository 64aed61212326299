// Copies that run beside the arithmetic, and what else all kernels use.
#pragma once

#include "ptx.cuh"

#ifndef DAU_ASYNC_COPIES
#define DAU_ASYNC_COPIES (__CUDA_ARCH__ >= 800)  // 0: a copy is done when it is asked for
#endif

// Copies from global to shared memory. `copy_or_zero` starts one of a float, which need not be readable where `inside`
// is false; `close_group` ends a group; `wait_group<n>` waits until at most the last n groups are under way.
__device__ __forceinline__ void copy_or_zero(float* to, const float* from, bool inside) {
#if DAU_ASYNC_COPIES
    ptx::cp_async(ptx::shared_address(to), from, inside ? 4 : 0);
#else
    *to = inside ? *from : 0.f;
#endif
}

__device__ __forceinline__ void close_group() {
#if DAU_ASYNC_COPIES
    ptx::cp_async_commit_group();
#endif
}

template <int under_way>
__device__ __forceinline__ void wait_group() {
#if DAU_ASYNC_COPIES
    ptx::cp_async_wait_group<under_way>();
#endif
}

// A number that all lanes share, in a register of each: in a uniform register it would have to be copied for every
// address that is computed from it. A lane's number is below 32, which the compiler does not know.
__device__ __forceinline__ int in_every_lane(int value) { return value + (ptx::lane() >> 5); }

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }
