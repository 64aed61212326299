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

// Keep a pointer as it was computed.
DAUKIT_INLINE void keep_pointer(const float*& p) { asm("" : "+r"(p)); }

// The lanes of v whose number lies in low .. high - 1; zero in the others.
template <int L>
DAUKIT_INLINE Vec<L> where_between(Vec<L> v, const int32_t* numbers, int32_t low, int32_t high) {
    typedef int32_t Ints __attribute__((vector_size(4 * L)));
    Ints n;
    std::memcpy(&n, numbers, sizeof n);
    return Vec<L>(Ints(v) & (n >= low) & (n < high));
}

// Lane `index(i)` of a and b, one after the other, for each lane i of the result.
template <int L, class Index, std::size_t... I>
DAUKIT_INLINE Vec<L> shuffle_lanes(Vec<L> a, Vec<L> b, Index, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, Index::of(int(I))...);
#else
    typedef int index __attribute__((vector_size(4 * L)));
    return __builtin_shuffle(a, b, index{Index::of(int(I))...});
#endif
}
// Zip blocks of `Block` lanes within parts of `Part` lanes, their lower or their upper halves: with blocks of one lane and
// a single part (a0, b0, a1, b1, ...).
template <int L, int Part, int Block, bool High>
struct ZipIndex {
    static constexpr int of(int i) {
        int part = i / Part, block = i % Part / Block, lane = i % Block;
        return part * Part + (High ? Part / 2 : 0) + block / 2 * Block + lane + (block % 2 ? L : 0);
    }
};
template <int L, int Part, int Block>
DAUKIT_INLINE Vec<L> zip_low(Vec<L> a, Vec<L> b) {
    return shuffle_lanes<L>(a, b, ZipIndex<L, Part, Block, false>(), std::make_index_sequence<L>());
}
template <int L, int Part, int Block>
DAUKIT_INLINE Vec<L> zip_high(Vec<L> a, Vec<L> b) {
    return shuffle_lanes<L>(a, b, ZipIndex<L, Part, Block, true>(), std::make_index_sequence<L>());
}

// Transpose the 4 x 4 lanes in each quarter of four vectors: instructions that stay within 128 bits are the cheapest.
template <int L>
DAUKIT_INLINE void transpose_quarters(Vec<L>* v) {
    Vec<L> a = zip_low<L, 4, 1>(v[0], v[1]), b = zip_high<L, 4, 1>(v[0], v[1]);
    Vec<L> c = zip_low<L, 4, 1>(v[2], v[3]), d = zip_high<L, 4, 1>(v[2], v[3]);
    v[0] = zip_low<L, 4, 2>(a, c);
    v[1] = zip_high<L, 4, 2>(a, c);
    v[2] = zip_low<L, 4, 2>(b, d);
    v[3] = zip_high<L, 4, 2>(b, d);
}

// Transpose L vectors in registers: within 128 bits, then log2(L / 4) rounds that zip blocks of four lanes.
template <int L>
DAUKIT_INLINE void transpose(Vec<L>* rows) {
    DAUKIT_UNROLL
    for (int i = 0; i < L; i += 4) transpose_quarters<L>(rows + i);
    Vec<L> next[L];
    DAUKIT_UNROLL
    for (int round = 4; round < L; round *= 2) {
        // Row 4 q + r, of block row q: zip it with block row q + L / 8.
        DAUKIT_UNROLL
        for (int i = 0; i < L / 2; i++) {
            int to = i / 4 * 8 + i % 4;
            next[to] = zip_low<L, L, 4>(rows[i], rows[i + L / 2]);
            next[to + 4] = zip_high<L, L, 4>(rows[i], rows[i + L / 2]);
        }
        DAUKIT_UNROLL
        for (int i = 0; i < L; i++) rows[i] = next[i];
    }
}

template <int L, std::size_t... I>
DAUKIT_INLINE Vec<L> join(Vec<L / 2> low, Vec<L / 2> high, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(low, high, I...);
#else
    return Vec<L>{(I < L / 2 ? low[I % (L / 2)] : high[I % (L / 2)])...};
#endif
}
// Four floats of every fourth of L lines.
template <int L>
DAUKIT_INLINE Vec<L> load_quarters(const float* const* lines, int64_t offset) {
    if constexpr (L == 4)
        return load_unaligned<4>(lines[0] + offset);
    else
        return join<L>(load_quarters<L / 2>(lines, offset), load_quarters<L / 2>(lines + L / 2, offset),
                       std::make_index_sequence<L>());
}

// The columns of L lines of L floats: quarters are brought to their place by loads, shuffles stay within 128 bits.
template <int L>
DAUKIT_INLINE void load_columns(const float* const* lines, int64_t offset, Vec<L>* columns) {
    DAUKIT_UNROLL
    for (int i = 0; i < L; i += 4) {
        DAUKIT_UNROLL
        for (int line = 0; line < 4; line++) columns[i + line] = load_quarters<L>(lines + line, offset + i);
        transpose_quarters<L>(columns + i);
    }
}

// The sums of four vectors' lanes, within each quarter: lane i of a quarter is the sum of vector i's.
template <int L>
DAUKIT_INLINE Vec<L> sum_quarters(Vec<L> a, Vec<L> b, Vec<L> c, Vec<L> d) {
    Vec<L> ab = zip_low<L, 4, 1>(a, b) + zip_high<L, 4, 1>(a, b);
    Vec<L> cd = zip_low<L, 4, 1>(c, d) + zip_high<L, 4, 1>(c, d);
    return zip_low<L, 4, 2>(ab, cd) + zip_high<L, 4, 2>(ab, cd);
}

// Sum the quarters of each of L / 4 vectors; quarter i of the result is the sum of vector i's.
template <int L>
DAUKIT_INLINE Vec<L> sum_each_quarters(const Vec<L>* v) {
    if constexpr (L == 4) return v[0];
    Vec<L> sums[L / 4];
    DAUKIT_UNROLL
    for (int i = 0; i < L / 8; i++)
        sums[i] = zip_low<L, L, 4>(v[2 * i], v[2 * i + 1]) + zip_high<L, L, 4>(v[2 * i], v[2 * i + 1]);
    if constexpr (L == 16) sums[0] = zip_low<L, L, 8>(sums[0], sums[1]) + zip_high<L, L, 8>(sums[0], sums[1]);
    return sums[0];
}

// Sum each of L vectors; lane i of the result is the sum of vector i. Within 128 bits first, where shuffles are cheap.
template <int L>
DAUKIT_INLINE Vec<L> sum_each(const Vec<L>* v) {
    Vec<L> sums[L / 4];
    DAUKIT_UNROLL
    for (int i = 0; i < L / 4; i++) sums[i] = sum_quarters<L>(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
    return sum_each_quarters<L>(sums);
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
