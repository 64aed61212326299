// The inner loops of the backward: image gradient and dot products of one tile of input pixels.
#pragma once

#include "tiles.h"

namespace daukit {
namespace DAUKIT_ISA {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kBackwardRows = 8, kWholeBackwardRows = 8, kBackwardColumns = 2;  // 16 sums, 6 dot products
constexpr int kTapUnits = 2;                                                    // 16 dot products
#else
constexpr int kBackwardRows = 7, kWholeBackwardRows = 10, kBackwardColumns = 1;  // 10 or 7 sums, 3 dot products
constexpr int kTapUnits = 1;                                                     // 8 dot products
#endif
constexpr int kTapRows = 16, kTapColumns = 2;

// Maps that the gradients of weights and displacements are dot products with, packed without a halo.
struct MapTile {
    const float* base;  // map 0 of the list's first row, at the tile
    int64_t channel_stride, map_stride, row_stride;
};

// Dot products of one unit with its maps take as many numbers: one, or four of which the last is unused.
constexpr int dots_of(int maps) { return maps == 1 ? 1 : 4; }

// The dot products of units, one after the other, added to memory whenever they fill a vector: of one map those of L units,
// else those of L / 4.
template <int L, int Maps>
struct Dots {
    static constexpr int kPending = Maps == 3 ? L / 4 : L, kEach = L / kPending;
    Vec<L> pending[kPending];
    int count = 0;
    float* to;

    explicit DAUKIT_INLINE Dots(float* dots) : to(dots) {}
    template <int C>
    DAUKIT_INLINE void take(const Vec<L> (*dot)[C]) {
        Vec<L> total[Maps];
        DAUKIT_UNROLL
        for (int m = 0; m < Maps; m++) {
            total[m] = dot[m][0];
            DAUKIT_UNROLL
            for (int c = 1; c < C; c++) total[m] += dot[m][c];
        }
        if constexpr (Maps == 3)
            add_four(total[0], total[1], total[2], Vec<L>{});
        else
            add(total[0]);
    }
    // Add the sums of four vectors.
    DAUKIT_INLINE void add_four(Vec<L> a, Vec<L> b, Vec<L> c, Vec<L> d) { add(sum_quarters<L>(a, b, c, d)); }
    DAUKIT_INLINE void add(Vec<L> next) {
        pending[count++] = next;
        if (count == kPending) flush();
    }
    DAUKIT_INLINE void flush() {
        for (int i = count; i < kPending; i++) pending[i] = Vec<L>{};
        Vec<L> sums;
        if constexpr (Maps == 3)
            sums = sum_each_quarters<L>(pending);
        else
            sums = sum_each<L>(pending);
        if (count == kPending) {
            store_unaligned<L>(to, load_unaligned<L>(to) + sums);
        } else {
            for (int i = 0; i < kEach * count; i++) to[i] += reinterpret_cast<const float*>(&sums)[i];
        }
        to += kEach * count;
        count = 0;
    }
    DAUKIT_INLINE void finish() {
        if (count) flush();
    }
};

// Row r of every map of one list's row, asked for in order.
template <int Maps>
struct MapRows {
    const float* row[Maps];
    int64_t stride;

    DAUKIT_INLINE MapRows(const float* map, const MapTile& maps) : stride(maps.row_stride) {
        DAUKIT_UNROLL
        for (int m = 0; m < Maps; m++) {
            row[m] = map + m * maps.map_stride;
            keep_pointer(
                row[m]);  // or GCC computes the addresses of all rows before the units, and keeps them in memory
        }
    }
    DAUKIT_INLINE const float* next(int m, int r) { return next_row(row[m], stride, r); }
};

// The backward of units first .. last - 1 at whole pixels: 1 + Maps fused multiply-adds.
template <int L, int Maps, int R, int C>
DAUKIT_INLINE void back_whole(const float* window, int64_t row_stride, const UnitLists& list, int32_t first,
                              int32_t last, const float* map, const MapTile& maps, Vec<L> (*sum)[R],
                              Dots<L, Maps>& dots) {
    for (int32_t u = first; u < last; u++) {
        const float* row = window + list.offset[u];
        MapRows<Maps> pixels(map, maps);
        Vec<L> a = broadcast<L>(list.a[u]);
        Vec<L> dot[Maps][C] = {};
        DAUKIT_UNROLL
        for (int r = 0; r < R; r++) {
            const float* at = next_row(row, row_stride, r);
            Vec<L> e[C];
            DAUKIT_UNROLL
            for (int c = 0; c < C; c++) {
                e[c] = load<L>(at + c * L);
                keep(e[c]);
                sum[c][r] += a * e[c];
            }
            DAUKIT_UNROLL
            for (int m = 0; m < Maps; m++) {
                const float* pixel = pixels.next(m, r);
                DAUKIT_UNROLL
                for (int c = 0; c < C; c++) dot[m][c] += e[c] * load<L>(pixel + c * L);
            }
        }
        dots.template take<C>(dot);
    }
}

// The backward of units first .. last - 1 between pixels: interpolate the output gradient once, then add it to the image
// gradient and take its dot products with the blurred image and, for the paper's mu gradient, its two derivatives,
//   e = h[r] + gamma h[r + 1],  sum += a e,  dots = (e B, e B_y, e B_x):   3 + Maps + 1/R fused multiply-adds.
template <int L, int Maps, int R, int C>
DAUKIT_INLINE void back_between(const float* window, int64_t row_stride, const UnitLists& list, int32_t first,
                                int32_t last, const float* map, const MapTile& maps, Vec<L> (*sum)[R],
                                Dots<L, Maps>& dots) {
    for (int32_t u = first; u < last; u++) {
        const float* at = window + list.offset[u];
        MapRows<Maps> pixels(map, maps);
        Vec<L> beta = broadcast<L>(list.beta[u]), a = broadcast<L>(list.a[u]), gamma = broadcast<L>(list.b[u]);
        Vec<L> dot[Maps][C] = {};
        Vec<L> h[C];
        interpolate_row<L, C>(at, beta, h);
        DAUKIT_UNROLL
        for (int r = 0; r < R; r++) {
            at += row_stride;
            Vec<L> e[C];
            DAUKIT_UNROLL
            for (int c = 0; c < C; c++) e[c] = h[c];
            interpolate_row<L, C>(at, beta, h);
            DAUKIT_UNROLL
            for (int c = 0; c < C; c++) {
                e[c] += gamma * h[c];
                keep(e[c]);
                sum[c][r] += a * e[c];
            }
            DAUKIT_UNROLL
            for (int m = 0; m < Maps; m++) {
                const float* pixel = pixels.next(m, r);
                DAUKIT_UNROLL
                for (int c = 0; c < C; c++) dot[m][c] += e[c] * load<L>(pixel + c * L);
            }
        }
        dots.template take<C>(dot);
    }
}

// The whole backward of one tile of input pixels.
template <int L, Units Kind, int Maps, int R, int C>
void backward_tile(const float* window, int64_t row_stride, const UnitLists& list, int64_t rows, float* sums,
                   int64_t sums_stride, const MapTile& maps, bool first, float* dots, Prefetch next) {
    for (int64_t row = 0; row < rows; row++, sums += sums_stride) {
        next.step();
        const float* map = maps.base + row * maps.channel_stride;
        Vec<L> sum[C][R];
        load_sums<L, R, C>(sums, first, sum);
        int32_t begin = list.start[row], end = list.start[row + 1], between = begin;
        if (Kind == Units::whole) between = end;
        if (Kind == Units::mixed) between = list.between[row];
        Dots<L, Maps> to(dots + dots_of(Maps) * int64_t(begin));
        back_whole<L, Maps, R, C>(window, row_stride, list, begin, between, map, maps, sum, to);
        if (Kind != Units::whole)
            back_between<L, Maps, R, C>(window, row_stride, list, between, end, map, maps, sum, to);
        to.finish();
        store_sums<L, R, C>(sums, sum);
    }
}

// The dot products of `rows` rows of a map with the output gradient at the four taps of U cells, which share what is read of
// the map.
template <int L, int U, int C>
DAUKIT_INLINE void tap_dots(const float* window, int64_t row_stride, const int32_t* offset, const float* map,
                            int64_t map_stride, int64_t rows, Dots<L, 3>& dots) {
    const float* at[U];
    Vec<L> tap[U][4][C] = {};  // (row, column) of the cell: (0, 0), (0, 1), (1, 0), (1, 1)
    Vec<L> x[U][C + 1];
    DAUKIT_UNROLL
    for (int u = 0; u < U; u++) {
        at[u] = window + offset[u];
        DAUKIT_UNROLL
        for (int c = 0; c <= C; c++) x[u][c] = load<L>(at[u] + c * L);
    }
    for (int64_t r = 0; r < rows; r++, map += map_stride) {
        Vec<L> pixel[C];
        DAUKIT_UNROLL
        for (int c = 0; c < C; c++) {
            pixel[c] = load<L>(map + c * L);
            keep(pixel[c]);
        }
        DAUKIT_UNROLL
        for (int u = 0; u < U; u++) {
            at[u] += row_stride;
            DAUKIT_UNROLL
            for (int c = 0; c < C; c++) {
                tap[u][0][c] += pixel[c] * x[u][c];
                tap[u][1][c] += pixel[c] * x[u][c + 1];
            }
            DAUKIT_UNROLL
            for (int c = 0; c <= C; c++) {
                x[u][c] = load<L>(at[u] + c * L);
                keep(x[u][c]);
            }
            DAUKIT_UNROLL
            for (int c = 0; c < C; c++) {
                tap[u][2][c] += pixel[c] * x[u][c];
                tap[u][3][c] += pixel[c] * x[u][c + 1];
            }
        }
    }
    DAUKIT_UNROLL
    for (int u = 0; u < U; u++) {
        DAUKIT_UNROLL
        for (int t = 0; t < 4; t++) {
            DAUKIT_UNROLL
            for (int c = 1; c < C; c++) tap[u][t][0] += tap[u][t][c];
        }
        dots.add_four(tap[u][0][0], tap[u][1][0], tap[u][2][0], tap[u][3][0]);
    }
}

// For the exact mu gradient: dot products of the blurred image with the output gradient at the four taps of each cell. As
// no pixel has a sum of its own, a tile may be of any height, and one sum over lanes serves all of its rows.
template <int L, int C>
void tap_dots_tile(const float* window, int64_t row_stride, const UnitLists& list, int64_t rows, const MapTile& maps,
                   int64_t tile_rows, float* dots, Prefetch next) {
    for (int64_t row = 0; row < rows; row++) {
        next.step();
        const float* map = maps.base + row * maps.channel_stride;
        Dots<L, 3> to(dots + 4 * int64_t(list.start[row]));
        int32_t u = list.start[row];
        for (; u + kTapUnits <= list.start[row + 1]; u += kTapUnits)
            tap_dots<L, kTapUnits, C>(window, row_stride, list.offset + u, map, maps.row_stride, tile_rows, to);
        for (; u < list.start[row + 1]; u++)
            tap_dots<L, 1, C>(window, row_stride, list.offset + u, map, maps.row_stride, tile_rows, to);
        to.finish();
    }
}
template <int L>
auto tap_dots_of(int64_t columns) {
    return columns == 1 ? tap_dots_tile<L, 1> : tap_dots_tile<L, kTapColumns>;
}

// The instance for a tile of `rows` x `columns` vectors.
template <int L>
using BackwardTile = void (*)(const float*, int64_t, const UnitLists&, int64_t, float*, int64_t, const MapTile&, bool,
                              float*, Prefetch);

template <int L, Units Kind, int Maps, int R>
BackwardTile<L> backward_tile_of_rows(int64_t rows, int64_t columns) {
    if constexpr (R > 1)
        if (rows < R) return backward_tile_of_rows<L, Kind, Maps, R - 1>(rows, columns);
    return columns == 1 ? backward_tile<L, Kind, Maps, R, 1> : backward_tile<L, Kind, Maps, R, kBackwardColumns>;
}
template <int L, int Maps>
BackwardTile<L> backward_tile_of(Units kind, int64_t rows, int64_t columns) {
    if (kind == Units::whole) return backward_tile_of_rows<L, Units::whole, Maps, kWholeBackwardRows>(rows, columns);
    if (kind == Units::mixed) return backward_tile_of_rows<L, Units::mixed, Maps, kBackwardRows>(rows, columns);
    return backward_tile_of_rows<L, Units::between, Maps, kBackwardRows>(rows, columns);
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
