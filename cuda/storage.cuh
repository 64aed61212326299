// How images are stored: float32, float16 or bfloat16. All arithmetic is float32. Written out, so that NVRTC needs no
// header of CUDA's and the emulator converts as a GPU does: to nearest, ties to even.
#pragma once

#ifndef DAU_STORAGE
#define DAU_STORAGE 0  // 0: float32, 1: float16, 2: bfloat16
#endif

struct Half {
    unsigned short bits;
};

struct BFloat16 {
    unsigned short bits;
};

union Word {
    float value;
    unsigned bits;
};

__device__ __forceinline__ float bits_to_float(unsigned bits) {
    Word word;
    word.bits = bits;
    return word.value;
}

__device__ __forceinline__ unsigned float_to_bits(float value) {
    Word word;
    word.value = value;
    return word.bits;
}

__device__ __forceinline__ float to_float(float value) { return value; }

__device__ __forceinline__ float to_float(BFloat16 value) { return bits_to_float((unsigned)value.bits << 16); }

__device__ __forceinline__ float to_float(Half value) {
    const unsigned sign = (unsigned)(value.bits & 0x8000) << 16, exponent = value.bits >> 10 & 31,
                   mantissa = value.bits & 1023;
    if (exponent == 0) return bits_to_float(sign | float_to_bits((float)mantissa * 0x1p-24f));  // zero and subnormal
    if (exponent == 31) return bits_to_float(sign | 0x7f800000 | mantissa << 13);               // infinity and NaN
    return bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

__device__ __forceinline__ void store(float* at, float value) { *at = value; }

__device__ __forceinline__ void store(BFloat16* at, float value) {
    const unsigned bits = float_to_bits(value);
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    at->bits = (unsigned short)(is_nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ void store(Half* at, float value) {
    const unsigned bits = float_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    unsigned half;
    if (magnitude > 0x7f800000) {
        half = 0x7e00;  // NaN
    } else if (magnitude >= 0x477ff000) {
        half = 0x7c00;  // rounds to 65536 or more
    } else if (magnitude < 0x38800000) {
        // Subnormal: adding 0.5, whose last bit is worth 2^-24, rounds to that grid.
        half = float_to_bits(bits_to_float(magnitude) + 0.5f) - float_to_bits(0.5f);
    } else {
        half = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
    }
    at->bits = (unsigned short)(sign | half);
}

#if DAU_STORAGE == 1
typedef Half Stored;
#elif DAU_STORAGE == 2
typedef BFloat16 Stored;
#else
typedef float Stored;
#endif

// Four neighbours of a row at once; `at` is aligned to all four.
template <class T>
struct alignas(4 * sizeof(T)) Four {
    T items[4];
};

template <class T>
__device__ __forceinline__ void store_four(T* at, const float* values) {
    Four<T> four;
#pragma unroll
    for (int i = 0; i < 4; i++) store(&four.items[i], values[i]);
    *(Four<T>*)at = four;
}
