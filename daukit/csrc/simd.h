// Vectors of L floats by the GCC/Clang vector extensions: the only file that knows an instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#define DAUKIT_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define DAUKIT_UNROLL _Pragma("unroll")
#else
#define DAUKIT_UNROLL _Pragma("GCC unroll 32")
#endif

namespace daukit {
namespace DAUKIT_ISA {

template <int L>
struct Simd {
    typedef float vec __attribute__((vector_size(4 * L)));
    typedef float unaligned __attribute__((vector_size(4 * L), aligned(4)));
};
template <int L>
using Vec = typename Simd<L>::vec;

// Written as a subtraction because GCC turns an element-wise fill into L masked inserts.
template <int L>
DAUKIT_INLINE Vec<L> broadcast(float x) {
    return x - Vec<L>{};
}

template <int L>
DAUKIT_INLINE Vec<L> load(const float* p) {
    return *reinterpret_cast<const Vec<L>*>(p);
}
template <int L>
DAUKIT_INLINE void store(float* p, Vec<L> v) {
    *reinterpret_cast<Vec<L>*>(p) = v;
}
template <int L>
DAUKIT_INLINE Vec<L> load_unaligned(const float* p) {
    return *reinterpret_cast<const typename Simd<L>::unaligned*>(p);
}
template <int L>
DAUKIT_INLINE void store_unaligned(float* p, Vec<L> v) {
    *reinterpret_cast<typename Simd<L>::unaligned*>(p) = v;
}

// Store the first `count` < L lanes, by powers of two.
template <int L>
DAUKIT_INLINE void store_first(float* p, Vec<L> v, int count) {
    alignas(64) float lanes[L];
    store<L>(lanes, v);
    const float* from = lanes;
    for (int part = L / 2; part >= 1; part /= 2) {
        if (!(count & part)) continue;
        if (part == 8)
            std::memcpy(p, from, 32);
        else if (part == 4)
            std::memcpy(p, from, 16);
        else if (part == 2)
            std::memcpy(p, from, 8);
        else
            std::memcpy(p, from, 4);
        p += part;
        from += part;
    }
}

// Keep a value in a register: otherwise GCC repeats the load as a memory operand of every FMA that uses it.
template <class V>
DAUKIT_INLINE void keep(V& v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__AVX__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#else
    (void)v;
#endif
}

template <int L, bool High, std::size_t... I>
DAUKIT_INLINE Vec<L> zip_lanes(Vec<L> a, Vec<L> b, std::index_sequence<I...>) {
    constexpr int start = High ? L / 2 : 0;
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, (start + int(I) / 2 + (I % 2 ? L : 0))...);
#else
    typedef int index __attribute__((vector_size(4 * L)));
    return __builtin_shuffle(a, b, index{(start + int(I) / 2 + (I % 2 ? L : 0))...});
#endif
}
// (a0, b0, a1, b1, ...) of the lower or the upper halves.
template <int L>
DAUKIT_INLINE Vec<L> zip_low(Vec<L> a, Vec<L> b) {
    return zip_lanes<L, false>(a, b, std::make_index_sequence<L>());
}
template <int L>
DAUKIT_INLINE Vec<L> zip_high(Vec<L> a, Vec<L> b) {
    return zip_lanes<L, true>(a, b, std::make_index_sequence<L>());
}

// Transpose L vectors in registers: log2(L) rounds that zip vector i with vector i + L/2.
template <int L>
DAUKIT_INLINE void transpose(Vec<L>* rows) {
    Vec<L> next[L];
    DAUKIT_UNROLL
    for (int round = 1; round < L; round *= 2) {
        DAUKIT_UNROLL
        for (int i = 0; i < L / 2; i++) {
            next[2 * i] = zip_low<L>(rows[i], rows[i + L / 2]);
            next[2 * i + 1] = zip_high<L>(rows[i], rows[i + L / 2]);
        }
        DAUKIT_UNROLL
        for (int i = 0; i < L; i++) rows[i] = next[i];
    }
}

// Sum each of L vectors; lane i of the result is the sum of vector i. A tree of zips and adds.
template <int L>
DAUKIT_INLINE Vec<L> sum_each(Vec<L>* v) {
    DAUKIT_UNROLL
    for (int n = L / 2; n >= 1; n /= 2) {
        DAUKIT_UNROLL
        for (int i = 0; i < n; i++) v[i] = zip_low<L>(v[i], v[i + n]) + zip_high<L>(v[i], v[i + n]);
    }
    return v[0];
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
