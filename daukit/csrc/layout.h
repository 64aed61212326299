// Where pixels lie in memory while the kernels run: "lane = tile" (docs/performance.md, "How the CPU kernels work").
//
// The batch is cut into tiles, each an image or a rectangle of one, and L tiles, one a lane, form a bundle. A packed
// plane holds one channel of a bundle as [row][column][lane], every tile with a halo of its own as wide as the
// displacements reach. A displacement is then one pointer offset for all lanes; loads are aligned, image borders and odd
// sizes need no code in the kernels.
#pragma once

#include <algorithm>
#include <cstring>

#include "simd.h"

namespace daukit {
namespace DAUKIT_ISA {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

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
};

// A plane in natural order with zeros around it, wide enough that packing never asks where an image ends.
struct Canvas {
    int64_t left, row_stride, size;

    Canvas() = default;
    Canvas(const Tiling& tiling, const Box& box) {
        left = std::max<int64_t>(0, -box.x0);
        int64_t right = std::max<int64_t>(0, box.x1) + tiling.lanes;
        row_stride = round_up(left + std::max(tiling.tiles_x * tiling.tile_w, tiling.width) + right + tiling.lanes, 16);
        size = row_stride * tiling.height;
    }
};

// Pack one channel of a bundle. `canvases` holds the bundle's images one after the other, `count` of them; the lanes of
// absent images become zeros. `zeros` is a row of zeros.
template <int L>
void pack_plane(const Tiling& t, const PackedPlane& plane, const Canvas& canvas, const float* canvases, int64_t count,
                const float* zeros, float* packed) {
    const float* origin[L];  // column box.x0 of the tile, in row 0 of its image
    int64_t first_row[L];
    for (int lane = 0; lane < L; lane++) {
        int64_t image = lane / (t.tiles_y * t.tiles_x), ty = lane / t.tiles_x % t.tiles_y, tx = lane % t.tiles_x;
        origin[lane] =
            image < count ? canvases + image * canvas.size + canvas.left + tx * t.tile_w + plane.box.x0 : nullptr;
        first_row[lane] = ty * t.tile_h + plane.box.y0;
    }
    for (int64_t y = 0; y < plane.rows; y++) {
        const float* row[L];
        for (int lane = 0; lane < L; lane++) {
            int64_t at = first_row[lane] + y;
            bool inside = origin[lane] && at >= 0 && at < t.height;
            row[lane] = inside ? origin[lane] + at * canvas.row_stride : zeros;
        }
        float* to = packed + y * plane.row_stride;
        for (int64_t x = 0; x < plane.columns; x += L) {
            Vec<L> block[L];
            DAUKIT_UNROLL
            for (int lane = 0; lane < L; lane++) block[lane] = load_unaligned<L>(row[lane] + x);
            transpose<L>(block);
            if (x + L <= plane.columns) {
                DAUKIT_UNROLL
                for (int i = 0; i < L; i++) store<L>(to + (x + i) * L, block[i]);
            } else {
                for (int64_t i = 0; i < plane.columns - x; i++) store<L>(to + (x + i) * L, block[i]);
            }
        }
    }
}

// A rectangle of a tile that one job computes: `rows` x `columns` pixels from (y, x) of the tile.
struct Region {
    int64_t bundle, y, x, rows, columns;
};

// Where the lanes of a region lie in an NCHW tensor.
template <int L>
struct RegionTarget {
    float* first[L];  // channel 0, first pixel of the region; null for an absent image
    int64_t rows[L], columns[L];

    RegionTarget(const Tiling& t, const Region& region, float* tensor, int64_t channels) {
        for (int lane = 0; lane < L; lane++) {
            int64_t image = region.bundle * t.images_per_bundle + lane / (t.tiles_y * t.tiles_x);
            int64_t y = lane / t.tiles_x % t.tiles_y * t.tile_h + region.y, x = lane % t.tiles_x * t.tile_w + region.x;
            bool exists = image < t.images && y < t.height && x < t.width;
            first[lane] = exists ? tensor + (image * channels * t.height + y) * t.width + x : nullptr;
            rows[lane] = exists ? std::min(region.rows, t.height - y) : 0;
            columns[lane] = exists ? std::min(region.columns, t.width - x) : 0;
        }
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

// Write the sums of one channel to its plane of the tensor, and add `bias`. `add` adds to what is there: displacements
// that reach farther than one halo are summed in several passes.
template <int L>
void unpack_region(const RegionTarget<L>& target, const Region& region, const Sums& sums, int64_t channel,
                   int64_t plane_offset, int64_t width, float bias, bool add, bool relu = false) {
    for (int64_t x = 0; x < region.columns; x += L) {
        const float* column[L];
        for (int i = 0; i < L; i++) {
            int64_t at = std::min(x + i, region.columns - 1), tile = at / sums.tile_columns * sums.tile_columns;
            column[i] = sums.tile(region, tile, L) + channel * sums.channel_stride(region, tile, L) +
                        (at - tile) * region.rows * L;
        }
        for (int64_t r = 0; r < region.rows; r++) {
            Vec<L> block[L];
            DAUKIT_UNROLL
            for (int i = 0; i < L; i++) {
                block[i] = load<L>(column[i] + r * L) + broadcast<L>(bias);
                if (relu && !add) block[i] = block[i] < 0 ? Vec<L>{} : block[i];
            }
            transpose<L>(block);
            int64_t offset = plane_offset + r * width + x;
            for (int lane = 0; lane < L; lane++) {
                if (r >= target.rows[lane]) continue;
                float* to = target.first[lane] + offset;
                int64_t count = std::min<int64_t>(L, target.columns[lane] - x);
                if (add) {
                    for (int64_t i = 0; i < count; i++) {
                        to[i] += reinterpret_cast<const float*>(&block[lane])[i];
                        if (relu && to[i] < 0) to[i] = 0;
                    }
                } else if (count == L) {
                    store_unaligned<L>(to, block[lane]);
                } else if (count > 0) {
                    store_first<L>(to, block[lane], int(count));
                }
            }
        }
    }
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
