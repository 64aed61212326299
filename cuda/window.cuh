// Tiles of outputs in registers, and the windows of the image that they read, staged in shared memory.
//
// A lane owns a tile of ROWS x COLUMNS outputs; r and c number its rows and columns. STRIP_TILES tiles side by side are
// a strip; its window, ROWS + 2 HALO rows, is stored once, in natural order. A warp owns 32 tiles, which are STRIPS
// strips from any rows of any images. A unit's displacement is one number for the whole warp, so it moves all lanes by
// the same count of words: loads have no bank conflict, whatever the displacement, if the 32 tile origins lie in 32
// different banks. `find_layout` pads the distance of the strips until they do.
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

constexpr int ROWS = DAU_TILE_ROWS, COLUMNS = DAU_TILE_COLUMNS, HALO = DAU_HALO;
constexpr int STRIP_TILES = DAU_STRIP_TILES, STRIPS = 32 / STRIP_TILES;
constexpr int STRIDE_Y = DAU_STRIDE_Y, STRIDE_X = DAU_STRIDE_X;
constexpr int STAGE_CHANNELS = DAU_STAGE_CHANNELS, STAGES = DAU_STAGES, WARPS = DAU_WARPS;
constexpr int THREADS = WARPS * 32;
static_assert(32 % STRIP_TILES == 0 && STAGES >= 2 && HALO >= 1,
              "a strip is a power of two of tiles, and copies run a stage ahead");

// Window of a strip: its outputs read the taps from -HALO to HALO. Eight threads copy a row.
constexpr int WINDOW_ROWS = (ROWS - 1) * STRIDE_Y + 1 + 2 * HALO;
constexpr int WINDOW_COLUMNS = (STRIP_TILES * COLUMNS - 1) * STRIDE_X + 1 + 2 * HALO;
constexpr int ROW_THREADS = 8;
constexpr int ROW_COPIES = (WINDOW_COLUMNS + ROW_THREADS - 1) / ROW_THREADS;
constexpr int ROW_WORDS = ROW_COPIES * ROW_THREADS;
constexpr int STRIP_WORDS = WINDOW_ROWS * ROW_WORDS;

// A strip lies at (strip % inner) near + (strip / inner) far.
struct Layout {
    int inner, near, far;
};

__host__ __device__ constexpr int strip_offset(Layout layout, int strip) {
    return strip % layout.inner * layout.near + strip / layout.inner * layout.far;
}

__host__ __device__ constexpr bool is_free_of_conflicts(Layout layout) {
    unsigned used = 0;
    for (int strip = 0; strip < STRIPS; strip++)
        for (int tile = 0; tile < STRIP_TILES; tile++) {
            const unsigned bank = 1u << ((strip_offset(layout, strip) + tile * COLUMNS * STRIDE_X) & 31);
            if (used & bank) return false;
            used |= bank;
        }
    return true;
}

__host__ __device__ constexpr Layout find_layout() {
    for (int inner = STRIPS; inner >= 1; inner /= 2)
        for (int a = 0; a < 32; a++)
            for (int b = 0; b < (inner == STRIPS ? 1 : 32); b++) {
                const int near = STRIP_WORDS + a;
                const Layout layout = {inner, near, inner * near + b};
                if (is_free_of_conflicts(layout)) return layout;
            }
    return {STRIPS, STRIP_WORDS, STRIPS * STRIP_WORDS};
}

constexpr Layout LAYOUT = find_layout();
static_assert(is_free_of_conflicts(LAYOUT), "tile origins share a bank");

constexpr int PLANE = strip_offset(LAYOUT, STRIPS - 1) + STRIP_WORDS;  // words of one staged channel
constexpr int STAGE_WORDS = STAGE_CHANNELS * PLANE;
#ifdef DAU_SHARED_BYTES
static_assert(4 * STAGES * STAGE_WORDS <= DAU_SHARED_BYTES, "more shared memory is needed than will be asked for");
#endif

// Byte offset, from a tile's origin, of a unit's first tap in a stage.
__device__ __forceinline__ int tap_offset(int channel, int tap_y, int tap_x) {
    return 4 * (channel % STAGE_CHANNELS * PLANE + (tap_y + HALO) * ROW_WORDS + tap_x + HALO);
}

// A strip: its image, its row of tiles, its first tile in that row.
struct Strip {
    int image, tile_row, first_tile;
};

// Strips of all images, numbered row by row. Of these STRIPS at a time belong to a warp, and to its block.
struct Grid {
    int images, tile_rows, strips_in_row;
    int number = (int)blockIdx.x;  // of the block's strips

    __device__ __forceinline__ Grid(int images, int height, int width)
        : images(images), tile_rows(divide_up(height, ROWS)), strips_in_row(divide_up(width, STRIP_TILES * COLUMNS)) {}

    // How many times STRIPS there are.
    __device__ __forceinline__ int count() const { return divide_up(images * tile_rows * strips_in_row, STRIPS); }

    __device__ __forceinline__ Strip strip(int of_block) const {
        const int strip = number * STRIPS + of_block, row = strip / strips_in_row;
        return {row / tile_rows, row % tile_rows, strip % strips_in_row * STRIP_TILES};
    }
    __device__ __forceinline__ int first_image() const { return number * STRIPS / (tile_rows * strips_in_row); }
};

}  // namespace
