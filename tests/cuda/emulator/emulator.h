// CUDA kernels on the CPU: what a kernel's source sees in place of CUDA's own words.
//
// One fiber a CUDA thread, one block at a time. A fiber runs until it waits at a barrier or a shuffle, then the next
// one runs, in an order that the launch chooses. Shared memory holds NaN before each block. An asynchronous copy lands
// only when its thread waits for it. Scheduling is in emulator.cpp; checked builds report every access to checks.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// What kernels call of <cmath>, which takes longer to read than a kernel takes to compile.
extern "C" {
float fabsf(float) noexcept;
float expf(float) noexcept;
float floorf(float) noexcept;
float fmaf(float, float, float) noexcept;
float fmaxf(float, float) noexcept;
float fminf(float, float) noexcept;
}

#define __global__
#define __device__
#define __host__
#define __shared__  // kernels have dynamic shared memory only: `extern float shared[]`, defined in emulator.cpp
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
// The emulator's own accesses are no accesses of the kernel.
#define EMULATOR_UNSEEN __attribute__((no_sanitize_thread))

struct uint3 {
    unsigned x, y, z;
};

namespace emulator {

// None of these changes while a thread runs, so that the compiler may ask once.
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) uint3 block_size();
__attribute__((const)) uint3 grid_size();

void wait_for_block(const char* where);
// Values of a warp's lanes meet: each gives `value` and gets that of lane `source`, its own if there is no such lane.
uint64_t exchange(unsigned mask, uint64_t value, int source, const char* where, void* at);
int lane();
int add(int* at, int value);  // atomicAdd
float add(float* at, float value);

void begin_copy(float* to, const float* from);  // of zero where `from` is null
void close_copies();
void wait_for_copies(int under_way);

// Not inlined, so that it returns to the shuffle's own place in the kernel.
template <class T>
__attribute__((noinline)) EMULATOR_UNSEEN T shuffle(unsigned mask, T value, int source, const char* where) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source, where, __builtin_return_address(0));
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

[[noreturn]] void fail(const char* why);  // ends the launch, from a thread of it

// A kernel and its arguments, each behind a pointer as cuLaunchKernel wants them.
typedef void (*Body)(void** arguments);
struct Registration {
    Registration(const char* name, Body body);
};

template <class... Arguments, size_t... Indices>
EMULATOR_UNSEEN void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<Indices...>) {
    kernel(*(std::remove_reference_t<Arguments>*)arguments[Indices]...);
}

template <class... Arguments>
EMULATOR_UNSEEN void call(void (*kernel)(Arguments...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Arguments...>{});
}

}  // namespace emulator

// In place of the instructions of cuda/ptx.cuh. Addresses in shared memory are counted from its begin.
extern float shared[];
namespace ptx {

inline unsigned shared_address(const float* at) { return (unsigned)((const char*)at - (const char*)shared); }
inline const float* at_shared(unsigned address) { return (const float*)((const char*)shared + address); }

__attribute__((always_inline)) inline void cp_async(unsigned to, const float* from, int bytes) {
    emulator::begin_copy((float*)at_shared(to), bytes ? from : nullptr);
}
inline void cp_async_commit_group() { emulator::close_copies(); }
template <int under_way>
void cp_async_wait_group() {
    emulator::wait_for_copies(under_way);
}

inline void red_add(float* to, float value) { emulator::add(to, value); }
inline int lane() { return emulator::lane(); }
template <class T>
void keep(T&) {}

}  // namespace ptx

#ifndef DAU_ASYNC_COPIES
#define DAU_ASYNC_COPIES 1  // as from sm_80 on; 0 for what older GPUs do
#endif

#define EMULATOR_TEXT2(x) #x
#define EMULATOR_TEXT(x) EMULATOR_TEXT2(x)
#define EMULATOR_HERE __FILE__ ":" EMULATOR_TEXT(__LINE__)
#define EMULATOR_KERNEL(kernel) \
    static emulator::Registration registration_of_##kernel(#kernel, [](void** a) { emulator::call(kernel, a); });

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())
#define assert(condition) ((condition) ? (void)0 : emulator::fail("assertion " #condition " failed at " EMULATOR_HERE))
#define __syncthreads() emulator::wait_for_block(EMULATOR_HERE)
#define __shfl_sync(mask, value, source) emulator::shuffle(mask, value, (source) & 31, EMULATOR_HERE)
#define __shfl_xor_sync(mask, value, bits) emulator::shuffle(mask, value, emulator::lane() ^ (bits), EMULATOR_HERE)
#define __shfl_down_sync(mask, value, by) emulator::shuffle(mask, value, emulator::lane() + (by), EMULATOR_HERE)
#define atomicAdd(at, value) emulator::add(at, value)
