// Windows of one channel after another on their way from global to shared memory, some stages ahead of their use.
#pragma once

#include "window.cuh"

namespace {

constexpr int ROWS_AT_ONCE = THREADS / ROW_THREADS;
constexpr int PASSES = (STRIPS * WINDOW_ROWS + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
constexpr int MASKS = (PASSES * ROW_COPIES + 31) / 32;

// Where a strip's first output lies in the images that are read; image -1: nowhere.
struct Origin {
    int image, y, x;
};

// What a thread copies of every channel: 8 threads share a row of a window, each copies every eighth column. Found
// once, because the divisions would cost a third of the loop over units. Rows start so many elements from the base
// image.
struct Rows {
    int start[PASSES];
    unsigned inside[MASKS];  // a bit a copy: whether it lies inside the image
};

template <class Locate>  // Origin locate(int strip): of a strip of the block, images counted from the base image
__device__ __forceinline__ Rows find_rows(const Locate& locate, int channels, int height, int width) {
    Rows rows;
#pragma unroll
    for (int i = 0; i < MASKS; i++) rows.inside[i] = 0;
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
        const int row = threadIdx.x / ROW_THREADS + pass * ROWS_AT_ONCE, strip = row / WINDOW_ROWS;
        const Origin origin = strip < STRIPS ? locate(strip) : Origin{-1, 0, 0};
        const int y = origin.y - HALO + row % WINDOW_ROWS, x = origin.x - HALO + (int)threadIdx.x % ROW_THREADS;
        const bool row_inside = origin.image >= 0 && (unsigned)y < (unsigned)height;
        rows.start[pass] = row_inside ? (origin.image * channels * height + y) * width + x : 0;
#pragma unroll
        for (int copy = 0; copy < ROW_COPIES; copy++)
            if (row_inside && (unsigned)(x + ROW_THREADS * copy) < (unsigned)width)
                rows.inside[(pass * ROW_COPIES + copy) / 32] |= 1u << (pass * ROW_COPIES + copy) % 32;
    }
    return rows;
}

// The channels of a block: `count` planes of `pixels` elements, the first of them (of the base image) at `from`.
struct Pipeline {
    float* shared;
    const float* from;
    int count;
    long long pixels;
    int started = 0, buffer = 0;

    __device__ __forceinline__ Pipeline(float* shared, const float* from, int count, long long pixels, const Rows& rows)
        : shared(shared), from(from), count(count), pixels(pixels) {
        for (int stage = 0; stage < STAGES - 1; stage++) start(rows, stage);
    }

    // Where the next stage begins, in bytes: complete, while the copies of a later one begin. All threads of the block
    // call it together.
    __device__ __forceinline__ int next(const Rows& rows) {
        wait_group<STAGES - 2>();
        __syncthreads();  // everybody's copies have landed, and everybody has left the buffer that is filled now
        start(rows, buffer == 0 ? STAGES - 1 : buffer - 1);
        const int stage = 4 * buffer * STAGE_WORDS;
        buffer = buffer + 1 == STAGES ? 0 : buffer + 1;
        return stage;
    }

    // What lies outside the image becomes zero here, so that the loop over units needs no test.
    __device__ __forceinline__ void start(const Rows& rows, int to_buffer) {
        if (started < count) {
#pragma unroll
            for (int pass = 0; pass < PASSES; pass++) {
                const int row = threadIdx.x / ROW_THREADS + pass * ROWS_AT_ONCE;
                if (STRIPS * WINDOW_ROWS % ROWS_AT_ONCE && row >= STRIPS * WINDOW_ROWS) break;
                float* to = shared + to_buffer * STAGE_WORDS + strip_offset(LAYOUT, row / WINDOW_ROWS) +
                            row % WINDOW_ROWS * ROW_WORDS + threadIdx.x % ROW_THREADS;
#pragma unroll
                for (int channel = 0; channel < STAGE_CHANNELS; channel++) {
                    const float* source = from + (started + channel) * pixels + rows.start[pass];
                    const unsigned is_channel = started + channel < count ? ~0u : 0u;
#pragma unroll
                    for (int copy = 0; copy < ROW_COPIES; copy++) {
                        const int bit = pass * ROW_COPIES + copy;
                        copy_or_zero(to + channel * PLANE + ROW_THREADS * copy, source + ROW_THREADS * copy,
                                     (rows.inside[bit / 32] & is_channel) >> bit % 32 & 1);
                    }
                }
            }
        }
        close_group();
        started += STAGE_CHANNELS;
    }
};

// The channel that a warp owns: a block has WARPS channels of one group.
struct Channel {
    int group, number;
    bool exists;

    __device__ __forceinline__ explicit Channel(int of_group) {
        const int blocks_of_group = divide_up(of_group, WARPS);
        // The warp's number by a shuffle: so the compiler knows that it is one for the whole warp.
        const int in_group = blockIdx.y % blocks_of_group * WARPS + __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);
        group = blockIdx.y / blocks_of_group;
        exists = in_group < of_group;
        number = group * of_group + (exists ? in_group : 0);
    }
};

// The channels that one of `splits` blocks takes of `count`: whole stages.
struct Share {
    int begin, end;

    __device__ __forceinline__ Share(int count, int splits, int split) {
        const int most = divide_up(divide_up(count, STAGE_CHANNELS), splits) * STAGE_CHANNELS;
        begin = split * most < count ? split * most : count;
        end = begin + most < count ? begin + most : count;
    }
};

}  // namespace
