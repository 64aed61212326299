// Single instructions for which CUDA has no word, and nothing else: what only a GPU can run is this file. The emulator
// of tests/cuda has functions of the same names.
#pragma once

#ifdef __CUDACC__
namespace ptx {

// Addresses in shared memory as numbers, so that a sum of them is one instruction.
__device__ __forceinline__ unsigned shared_address(const float* at) { return (unsigned)__cvta_generic_to_shared(at); }
__device__ __forceinline__ const float* at_shared(unsigned address) {
    return (const float*)__cvta_shared_to_generic(address);
}

// Begin the copy of a float from global to shared memory; of `bytes` 0 nothing is read, and zero arrives.
__device__ __forceinline__ void cp_async(unsigned to, const float* from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void cp_async_commit_group() { asm volatile("cp.async.commit_group;"); }
template <int under_way>
__device__ __forceinline__ void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(under_way) : "memory");
}

// Add to what lies in global memory, of which nothing is read. CUDA's atomicAdd would ask first which memory it is.
__device__ __forceinline__ void red_add(float* to, float value) {
    asm volatile("red.global.add.f32 [%0], %1;" ::"l"(__cvta_generic_to_global(to)), "f"(value));
}

__device__ __forceinline__ int lane() {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// Keep the compiler from computing a value again in a loop, as it does when registers are short.
__device__ __forceinline__ void keep(int& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void keep(unsigned& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void keep(float*& value) { asm volatile("" : "+l"(value)); }

}  // namespace ptx
#endif
