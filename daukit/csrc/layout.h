// Where pixels lie in memory while the kernels run: "lane = tile" (docs/performance.md, "How the CPU kernels work").
//
// The batch is cut into tiles, each an image or a rectangle of one, and L tiles, one a lane, form a bundle. A packed
// plane holds one channel of a bundle as [row][column][lane], every tile with a halo of its own as wide as the
// displacements reach. A displacement is then one pointer offset for all lanes; loads are aligned, image borders and odd
// sizes need no code in the kernels.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "simd.h"

namespace daukit {
namespace DAUKIT_ISA {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Where the vector after the one at x begins in a line of `count` >= L: the last one ends with the line and may lie over
// the one before.
template <int L>
DAUKIT_INLINE int64_t next_vector(int64_t x, int64_t count) {
    return x + L < count ? std::min(x + L, count - L) : count;
}

// Rows y0..y1 and columns x0..x1, inclusive, that are read around an output pixel.
struct Box {
    int64_t y0, y1, x0, x1;
    int64_t height() const { return y1 - y0; }
    int64_t width() const { return x1 - x0; }
};

// How images are cut into tiles, and tiles gathered into bundles. A bundle holds whole images.
struct Tiling {
    int lanes;
    int64_t images, height, width;
    int64_t tiles_y, tiles_x, tile_h, tile_w;
    int64_t images_per_bundle, bundles;

    Tiling() = default;
    Tiling(int lanes_, int64_t images_, int64_t h, int64_t w, int64_t ty, int64_t tx)
        : lanes(lanes_), images(images_), height(h), width(w), tiles_y(ty), tiles_x(tx) {
        tile_h = ceil_div(h, ty);
        tile_w = ceil_div(w, tx);
        images_per_bundle = lanes / (ty * tx);
        bundles = ceil_div(images, images_per_bundle);
    }

    // Lane-pixels computed, empty lanes and ragged edges included, plus a tenth of those packed with their halo.
    double cost(const Box& box) const {
        double pixels = double(tile_h * tile_w), packed = double((tile_h + box.height()) * (tile_w + box.width()));
        return double(bundles * lanes) * (pixels + 0.1 * packed);
    }

    // The cheapest cut into a power of two of tiles.
    static Tiling choose(int lanes, int64_t images, int64_t h, int64_t w, const Box& box) {
        Tiling best(lanes, images, h, w, 1, 1);
        for (int64_t ty = 1; ty <= lanes && ty <= h; ty *= 2)
            for (int64_t tx = 1; ty * tx <= lanes && tx <= w; tx *= 2) {
                Tiling tiling(lanes, images, h, w, ty, tx);
                if (tiling.cost(box) < best.cost(box)) best = tiling;
            }
        return best;
    }
};

// One channel of a bundle with its halo, [row][column][lane]. Strides are in floats.
struct PackedPlane {
    Box box;
    int64_t rows, columns, row_stride, stride;

    PackedPlane() = default;
    PackedPlane(const Tiling& tiling, const Box& reach) : box(reach) {
        rows = tiling.tile_h + box.height();
        columns = tiling.tile_w + box.width();
        // An odd number of vectors a row and an odd number modulo 4 KiB a plane: otherwise the windows of several rows
        // and channels compete for the same few lines of the L1 cache.
        row_stride = (columns | 1) * tiling.lanes;
        int64_t page = 1024, want = 21 * 16;
        stride = rows * row_stride;
        stride += ((want - stride) % page + page) % page;
    }

    // What a register tile of `tile_rows` x `tile_columns` reads of a plane, copied without gaps.
    PackedPlane window(int64_t tile_rows, int64_t tile_columns, int64_t lanes) const {
        PackedPlane copy = *this;
        copy.rows = tile_rows + box.height();
        copy.columns = tile_columns + box.width();
        copy.row_stride = copy.columns * lanes;
        copy.stride = copy.rows * copy.row_stride;
        return copy;
    }
};

// A rectangle of a tile that one job computes: `rows` x `columns` pixels from (y, x) of the tile.
struct Region {
    int64_t bundle, y, x, rows, columns;
};

// Where the lanes of a region lie in an NCHW tensor.
template <int L>
struct RegionTarget {
    float* first[L];  // channel 0, first pixel of the region; null for an absent image
    int64_t rows[L], columns[L];
    bool whole = true;  // every lane holds the region from edge to edge

    RegionTarget(const Tiling& t, const Region& region, float* tensor, int64_t channels) {
        for (int lane = 0; lane < L; lane++) {
            int64_t image = region.bundle * t.images_per_bundle + lane / (t.tiles_y * t.tiles_x);
            int64_t y = lane / t.tiles_x % t.tiles_y * t.tile_h + region.y, x = lane % t.tiles_x * t.tile_w + region.x;
            bool exists = image < t.images && y < t.height && x < t.width;
            first[lane] = exists ? tensor + (image * channels * t.height + y) * t.width + x : nullptr;
            rows[lane] = exists ? std::min(region.rows, t.height - y) : 0;
            columns[lane] = exists ? std::min(region.columns, t.width - x) : 0;
            whole = whole && rows[lane] == region.rows && columns[lane] == region.columns;
        }
    }

    // Store row r of the region, columns from x: one vector a lane, `offset` after the lane's first pixel. `add`: add to
    // what is there, and make what is then below `lowest` `lowest`.
    DAUKIT_INLINE void put(const Vec<L>* block, int64_t r, int64_t x, int64_t offset, bool add = false,
                           float lowest = 0) const {
        for (int lane = 0; lane < L; lane++) {
            if (r >= rows[lane]) continue;
            float* to = first[lane] + offset;
            int64_t count = std::min<int64_t>(L, columns[lane] - x);
            if (add) {
                for (int64_t i = 0; i < count; i++) {
                    float sum = to[i] + reinterpret_cast<const float*>(&block[lane])[i];
                    to[i] = sum < lowest ? lowest : sum;
                }
            } else if (count == L) {
                store_unaligned<L>(to, block[lane]);
            } else if (count > 0) {
                store_first<L>(to, block[lane], int(count));
            }
        }
    }
    // Ask for lines that will be written soon.
    DAUKIT_INLINE void prefetch(int64_t offset) const {
        for (int lane = 0; lane < L; lane++) __builtin_prefetch(first[lane] + offset, 1, 2);
    }
    DAUKIT_INLINE void put_whole(const Vec<L>* block, int64_t offset) const {
        DAUKIT_UNROLL
        for (int lane = 0; lane < L; lane++) store_unaligned<L>(first[lane] + offset, block[lane]);
    }
};

// Sums of a region: register tiles of `tile_columns` columns one after the other, each [channel][column][row][lane], so
// that a tile's visits walk through memory without a gap (channels at a large power-of-two distance would evict the window).
struct Sums {
    float* data;
    int64_t channels, tile_columns;

    float* tile(const Region& region, int64_t x, int64_t lanes) const {
        return data + x * region.rows * channels * lanes;
    }
    int64_t channel_stride(const Region& region, int64_t x, int64_t lanes) const {
        return std::min(tile_columns, region.columns - x) * region.rows * lanes;
    }
};

// What becomes of sums on their way out: a bias is added, then what is there already (displacements that reach farther than
// one halo are summed in several passes), and what is below `lowest` becomes `lowest`.
template <int L>
struct Finish {
    const float* bias;  // or null
    float lowest;
    bool add;

    Finish(const float* bias_, bool relu, bool add_)
        : bias(bias_), lowest(relu ? 0 : -std::numeric_limits<float>::infinity()), add(add_) {}
    DAUKIT_INLINE Vec<L> operator()(Vec<L> sum, int64_t channel) const {
        Vec<L> low = broadcast<L>(lowest);
        if (bias) sum += broadcast<L>(bias[channel]);
        return add ? sum : sum < low ? low : sum;
    }
};

// Where the sums of L columns of one channel lie.
template <int L>
struct SumLines {
    const float* first[L];

    // Columns beyond the last repeat it.
    SumLines(const Region& region, const Sums& sums, int64_t x, int64_t channel) {
        const int64_t line = region.rows * L, last = region.columns - 1;
        int64_t tile = x - x % sums.tile_columns;
        for (int i = 0; i < L; i++) {
            int64_t at = std::min(x + i, last);
            if (at == tile + sums.tile_columns) tile = at;
            first[i] = sums.tile(region, tile, L) + channel * sums.channel_stride(region, tile, L) + (at - tile) * line;
        }
    }
    DAUKIT_INLINE void load_row(int64_t r, int64_t channel, const Finish<L>& finish, Vec<L>* block) const {
        DAUKIT_UNROLL
        for (int i = 0; i < L; i++) block[i] = finish(load<L>(first[i] + r * L), channel);
        transpose<L>(block);
    }
};

// Write the sums of channels from `channel` on to their planes of the tensor; `finish` says how.
template <int L>
void unpack_region(const RegionTarget<L>& target, const Region& region, const Sums& sums, int64_t channel,
                   int64_t height, int64_t width, const Finish<L>& finish) {
    const bool whole = target.whole && !finish.add;
    // In narrow images vectors run on over the next row, which is written next.
    const int64_t count = std::max<int64_t>(region.columns, L);
    const int64_t whole_rows = !whole                    ? 0
                               : count == region.columns ? region.rows
                               : region.columns == width ? std::max<int64_t>(0, region.rows - (L - 1) / width)
                                                         : 0;
    for (int64_t c = channel; c < channel + sums.channels; c++)
        for (int64_t x = 0; x < region.columns; x = whole ? next_vector<L>(x, count) : x + L) {
            SumLines<L> lines(region, sums, x, c - channel);
            const int64_t at = c * height * width + x;
            for (int64_t r = 0; r < whole_rows; r++) {
                Vec<L> block[L];
                lines.load_row(r, c, finish, block);
                target.put_whole(block, at + r * width);
                if (x == 0) target.prefetch(at + (height + r) * width);
            }
            for (int64_t r = whole_rows; r < region.rows; r++) {
                Vec<L> block[L];
                lines.load_row(r, c, finish, block);
                target.put(block, r, x, at + r * width, finish.add, finish.lowest);
            }
        }
}

// Write rows r0 .. r0 + rows of a region from lines of lanes, `line_stride` apart, to a tensor of one channel.
template <int L>
void unpack_rows(const RegionTarget<L>& target, const Region& region, const float* lines, int64_t line_stride,
                 int64_t r0, int64_t rows, int64_t width) {
    for (int64_t r = r0; r < r0 + rows; r++) {
        const float* line = lines + (r - r0) * line_stride;
        for (int64_t x = 0; x < region.columns; x += L) {
            Vec<L> block[L];
            DAUKIT_UNROLL
            for (int i = 0; i < L; i++) block[i] = load<L>(line + (x + i) * L);
            transpose<L>(block);
            if (target.whole && x + L <= region.columns)
                target.put_whole(block, r * width + x);
            else
                target.put(block, r, x, r * width + x);
        }
    }
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
