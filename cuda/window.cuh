// Tiles of outputs in registers, and the windows of the image that they read, staged in shared memory.
//
// A lane owns a tile of R x C outputs. LX tiles side by side are a strip; its window, R + 2 halo rows, is stored once,
// in natural order. A warp owns 32 tiles: G = 32 / LX strips, from any rows of any images. A unit's displacement is one
// number for the whole warp, so it moves all lanes by the same count of words: loads have no bank conflict, whatever
// the displacement, if the 32 tile origins lie in 32 different banks. `layout` pads the distance of the strips until
// they do.
#pragma once

#include "device.cuh"
#include "sizes.cuh"

#ifndef DAU_TILE_ROWS
#define DAU_TILE_ROWS 8
#endif
#ifndef DAU_TILE_COLUMNS
#define DAU_TILE_COLUMNS 8
#endif
#ifndef DAU_STRIP_TILES
#define DAU_STRIP_TILES 4
#endif
#ifndef DAU_HALO
#define DAU_HALO 4
#endif
#ifndef DAU_STAGE_CHANNELS
#define DAU_STAGE_CHANNELS 2
#endif
#ifndef DAU_STAGES
#define DAU_STAGES 2
#endif
#ifndef DAU_WARPS
#define DAU_WARPS 16
#endif
#ifndef DAU_MIN_BLOCKS
#define DAU_MIN_BLOCKS 1
#endif
#ifndef DAU_STRIDE_Y
#define DAU_STRIDE_Y 1
#endif
#ifndef DAU_STRIDE_X
#define DAU_STRIDE_X 1
#endif

namespace {

constexpr int R = DAU_TILE_ROWS, C = DAU_TILE_COLUMNS, LX = DAU_STRIP_TILES, G = 32 / LX, D = DAU_HALO;
constexpr int YS = DAU_STRIDE_Y, XS = DAU_STRIDE_X;
constexpr int STAGE_CHANNELS = DAU_STAGE_CHANNELS, STAGES = DAU_STAGES, WARPS = DAU_WARPS;
constexpr int THREADS = WARPS * 32;
static_assert(32 % LX == 0 && STAGES >= 2 && D >= 1,
              "a strip is a power of two of tiles, and copies run a stage ahead");

// Window of a strip: its outputs read the taps from -D to D. Eight threads copy a row.
constexpr int WINDOW_ROWS = (R - 1) * YS + 1 + 2 * D;
constexpr int WINDOW_COLUMNS = (LX * C - 1) * XS + 1 + 2 * D;
constexpr int ROW_THREADS = 8;
constexpr int ROW_COPIES = (WINDOW_COLUMNS + ROW_THREADS - 1) / ROW_THREADS;
constexpr int ROW_WORDS = ROW_COPIES * ROW_THREADS;
constexpr int STRIP_WORDS = WINDOW_ROWS * ROW_WORDS;

// Strip g lies at (g % inner) near + (g / inner) far.
struct Layout {
    int inner, near, far;
};

__host__ __device__ constexpr int strip_offset(Layout layout, int g) {
    return g % layout.inner * layout.near + g / layout.inner * layout.far;
}

__host__ __device__ constexpr bool is_free_of_conflicts(Layout layout) {
    unsigned used = 0;
    for (int g = 0; g < G; g++)
        for (int tile = 0; tile < LX; tile++) {
            const unsigned bank = 1u << ((strip_offset(layout, g) + tile * C * XS) & 31);
            if (used & bank) return false;
            used |= bank;
        }
    return true;
}

__host__ __device__ constexpr Layout find_layout() {
    for (int inner = G; inner >= 1; inner /= 2)
        for (int a = 0; a < 32; a++)
            for (int b = 0; b < (inner == G ? 1 : 32); b++) {
                const int near = STRIP_WORDS + a;
                const Layout layout = {inner, near, inner * near + b};
                if (is_free_of_conflicts(layout)) return layout;
            }
    return {G, STRIP_WORDS, G * STRIP_WORDS};
}

constexpr Layout LAYOUT = find_layout();
static_assert(is_free_of_conflicts(LAYOUT), "tile origins share a bank");

constexpr int PLANE = strip_offset(LAYOUT, G - 1) + STRIP_WORDS;  // words of one staged channel
constexpr int STAGE_WORDS = STAGE_CHANNELS * PLANE;
#ifdef DAU_SHARED_BYTES
static_assert(4 * STAGES * STAGE_WORDS <= DAU_SHARED_BYTES, "more shared memory is needed than will be asked for");
#endif

// Byte offset, from a tile's origin, of a unit's first tap in a stage.
__device__ __forceinline__ int tap_offset(int channel, int tap_y, int tap_x) {
    return 4 * (channel % STAGE_CHANNELS * PLANE + (tap_y + D) * ROW_WORDS + tap_x + D);
}

// A strip: its image, its row of tiles, its first tile in that row.
struct Strip {
    int image, tile_row, first_tile;
};

// Strips of all images, numbered row by row. A block owns G of them.
struct Grid {
    int images, tile_rows, strips_in_row;

    __device__ __forceinline__ Grid(int images, int height, int width)
        : images(images), tile_rows(divide_up(height, R)), strips_in_row(divide_up(width, LX * C)) {}

    __device__ __forceinline__ Strip strip(int g) const {
        const int number = blockIdx.x * G + g, row = number / strips_in_row;
        return {row / tile_rows, row % tile_rows, number % strips_in_row * LX};
    }
    __device__ __forceinline__ int first_image() const { return blockIdx.x * G / (tile_rows * strips_in_row); }
};

}  // namespace
