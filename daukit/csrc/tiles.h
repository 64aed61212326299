// The inner loops: one register tile of R rows by C columns of vectors, and all units of one row of a list.
#pragma once

#include "units.h"

namespace daukit {
namespace DAUKIT_ISA {

// Vector registers decide the largest tile: sums, one row of h, three broadcast coefficients.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8, kColumns = 2;                  // forward: 16 sums
constexpr int kBackwardRows = 8, kBackwardColumns = 2;  // backward: 16 sums, 6 dot products
#else
constexpr int kRows = 5, kColumns = 2;
constexpr int kBackwardRows = 4, kBackwardColumns = 1;
#endif

// Fetches the next window into L1 while the present one is worked on, a few rows at each step.
struct Prefetch {
    const float* row = nullptr;
    int64_t rows_per_plane = 1, row_stride = 0, plane_gap = 0, lines = 0, left = 0, per_step = 0, in_plane = 0;

    Prefetch() = default;
    // `floats` of each of `rows` rows in each of `planes` planes, spread over `steps` steps.
    Prefetch(const float* first, int64_t planes, int64_t rows, int64_t row_stride_, int64_t plane_stride,
             int64_t floats, int64_t steps)
        : row(first),
          rows_per_plane(rows),
          row_stride(row_stride_),
          plane_gap(plane_stride - rows * row_stride_),
          lines(ceil_div(floats, 16)),
          left(planes * rows),
          per_step(ceil_div(left, std::max<int64_t>(steps, 1))) {}

    DAUKIT_INLINE void step() {
        for (int64_t i = 0; i < per_step && left > 0; i++, left--) {
            for (int64_t line = 0; line < lines; line++) __builtin_prefetch(row + 16 * line, 0, 2);
            row += row_stride;
            if (++in_plane == rows_per_plane) {
                in_plane = 0;
                row += plane_gap;
            }
        }
    }
};

// One row of the window, interpolated along x: h[c] = x[c] + beta x[c + 1].
template <int L, int C>
DAUKIT_INLINE void interpolate_row(const float* row, Vec<L> beta, Vec<L>* h) {
    DAUKIT_UNROLL
    for (int c = 0; c <= C; c++) {
        Vec<L> x = load<L>(row + c * L);
        if (c > 0 && c < C) keep(x);
        if (c > 0) h[c - 1] += beta * x;
        if (c < C) h[c] = x;
    }
}

// Sums of the rows of a list over one window: 3 + 1/R fused multiply-adds a unit and vector.
// Rows lie `sums_stride` apart in `sums`, each [column][row][lane].
template <int L, int R, int C>
void read_tile(const float* window, int64_t row_stride, const UnitLists& list, int64_t rows, float* sums,
               int64_t sums_stride, bool first, Prefetch next) {
    for (int64_t row = 0; row < rows; row++, sums += sums_stride) {
        next.step();
        Vec<L> sum[C][R];
        DAUKIT_UNROLL
        for (int c = 0; c < C; c++) {
            DAUKIT_UNROLL
            for (int r = 0; r < R; r++) sum[c][r] = first ? Vec<L>{} : load<L>(sums + (c * R + r) * L);
        }
        for (int32_t u = list.start[row]; u < list.start[row + 1]; u++) {
            const float* at = window + list.offset[u];
            Vec<L> beta = broadcast<L>(list.beta[u]), a = broadcast<L>(list.a[u]), b = broadcast<L>(list.b[u]);
            Vec<L> h[C];
            interpolate_row<L, C>(at, beta, h);
            DAUKIT_UNROLL
            for (int r = 0; r < R; r++) {
                at += row_stride;
                DAUKIT_UNROLL
                for (int c = 0; c < C; c++) sum[c][r] += a * h[c];
                interpolate_row<L, C>(at, beta, h);
                DAUKIT_UNROLL
                for (int c = 0; c < C; c++) sum[c][r] += b * h[c];
            }
        }
        DAUKIT_UNROLL
        for (int c = 0; c < C; c++) {
            DAUKIT_UNROLL
            for (int r = 0; r < R; r++) store<L>(sums + (c * R + r) * L, sum[c][r]);
        }
    }
}

// Maps that the gradients of weights and displacements are dot products with, packed without a halo.
struct MapTile {
    const float* base;  // map 0 of the list's first row, at the tile
    int64_t channel_stride, map_stride, row_stride;
};

// Add lanes 4 i .. 4 i + 3 of the sums of L vectors to four numbers a unit.
template <int L>
DAUKIT_INLINE void add_dots(Vec<L>* vectors, float* dots, int units) {
    Vec<L> sums = sum_each<L>(vectors);
    if (4 * units == L) {
        store_unaligned<L>(dots, load_unaligned<L>(dots) + sums);
    } else {
        for (int i = 0; i < 4 * units; i++) dots[i] += reinterpret_cast<const float*>(&sums)[i];
    }
}

// The whole backward of one tile of input pixels, for the paper's mu gradient: interpolate the output gradient once,
// then add it to the image gradient and take its dot products with the blurred image and its two derivatives,
//   e = h[r] + gamma h[r + 1],  sum += a e,  dots = (e B, e B_y, e B_x):   6 + 1/R fused multiply-adds.
template <int L, int R, int C>
void backward_tile(const float* window, int64_t row_stride, const UnitLists& list, int64_t rows, float* sums,
                   int64_t sums_stride, const MapTile& maps, bool first, float* dots, Prefetch next) {
    for (int64_t row = 0; row < rows; row++, sums += sums_stride) {
        next.step();
        const float* map = maps.base + row * maps.channel_stride;
        Vec<L> sum[C][R];
        DAUKIT_UNROLL
        for (int c = 0; c < C; c++) {
            DAUKIT_UNROLL
            for (int r = 0; r < R; r++) sum[c][r] = first ? Vec<L>{} : load<L>(sums + (c * R + r) * L);
        }
        Vec<L> pending[L];
        int units = 0;
        float* to = dots + 4 * int64_t(list.start[row]);
        for (int32_t u = list.start[row]; u < list.start[row + 1]; u++) {
            const float* at = window + list.offset[u];
            Vec<L> beta = broadcast<L>(list.beta[u]), a = broadcast<L>(list.a[u]), gamma = broadcast<L>(list.b[u]);
            Vec<L> dot[3][C] = {};
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
                    const float* pixel = map + r * maps.row_stride + c * L;
                    DAUKIT_UNROLL
                    for (int m = 0; m < 3; m++) dot[m][c] += e[c] * load<L>(pixel + m * maps.map_stride);
                }
            }
            DAUKIT_UNROLL
            for (int m = 0; m < 3; m++) {
                Vec<L> total = dot[m][0];
                DAUKIT_UNROLL
                for (int c = 1; c < C; c++) total += dot[m][c];
                pending[4 * units + m] = total;
            }
            pending[4 * units + 3] = Vec<L>{};
            if (++units == L / 4) {
                add_dots<L>(pending, to, units);
                to += 4 * units;
                units = 0;
            }
        }
        if (units) {
            for (int i = 4 * units; i < L; i++) pending[i] = Vec<L>{};
            add_dots<L>(pending, to, units);
        }
        DAUKIT_UNROLL
        for (int c = 0; c < C; c++) {
            DAUKIT_UNROLL
            for (int r = 0; r < R; r++) store<L>(sums + (c * R + r) * L, sum[c][r]);
        }
    }
}

// For the exact mu gradient: dot products of the blurred image with the output gradient at the four taps of each cell.
template <int L, int R, int C>
void tap_dots_tile(const float* window, int64_t row_stride, const UnitLists& list, int64_t rows, float*, int64_t,
                   const MapTile& maps, bool, float* dots, Prefetch next) {
    for (int64_t row = 0; row < rows; row++) {
        next.step();
        const float* map = maps.base + row * maps.channel_stride;
        for (int32_t u = list.start[row]; u < list.start[row + 1]; u++) {
            const float* at = window + list.offset[u];
            Vec<L> tap[4][C] = {};  // (row, column) of the cell: (0, 0), (0, 1), (1, 0), (1, 1)
            Vec<L> x[C + 1];
            DAUKIT_UNROLL
            for (int c = 0; c <= C; c++) x[c] = load<L>(at + c * L);
            DAUKIT_UNROLL
            for (int r = 0; r < R; r++) {
                at += row_stride;
                Vec<L> pixel[C];
                DAUKIT_UNROLL
                for (int c = 0; c < C; c++) {
                    pixel[c] = load<L>(map + r * maps.row_stride + c * L);
                    keep(pixel[c]);
                    tap[0][c] += pixel[c] * x[c];
                    tap[1][c] += pixel[c] * x[c + 1];
                }
                DAUKIT_UNROLL
                for (int c = 0; c <= C; c++) {
                    x[c] = load<L>(at + c * L);
                    keep(x[c]);
                }
                DAUKIT_UNROLL
                for (int c = 0; c < C; c++) {
                    tap[2][c] += pixel[c] * x[c];
                    tap[3][c] += pixel[c] * x[c + 1];
                }
            }
            float* to = dots + 4 * int64_t(u);
            for (int t = 0; t < 4; t++) {
                Vec<L> total = tap[t][0];
                for (int c = 1; c < C; c++) total += tap[t][c];
                float sum = 0;
                for (int lane = 0; lane < L; lane++) sum += total[lane];
                to[t] += sum;
            }
        }
    }
}

// The instance for a tile of `rows` x `columns` vectors, which the registers' limits must hold.
template <int L>
using ReadTile = void (*)(const float*, int64_t, const UnitLists&, int64_t, float*, int64_t, bool, Prefetch);
template <int L>
using BackwardTile = void (*)(const float*, int64_t, const UnitLists&, int64_t, float*, int64_t, const MapTile&, bool,
                              float*, Prefetch);

template <int L, int R = kRows>
ReadTile<L> read_tile_of(int64_t rows, int64_t columns) {
    if constexpr (R > 1)
        if (rows < R) return read_tile_of<L, R - 1>(rows, columns);
    return columns == 1 ? read_tile<L, R, 1> : read_tile<L, R, kColumns>;
}

template <int L, bool Exact, int R = kBackwardRows>
BackwardTile<L> backward_tile_of(int64_t rows, int64_t columns) {
    if constexpr (R > 1)
        if (rows < R) return backward_tile_of<L, Exact, R - 1>(rows, columns);
    if constexpr (Exact) return columns == 1 ? tap_dots_tile<L, R, 1> : tap_dots_tile<L, R, kBackwardColumns>;
    return columns == 1 ? backward_tile<L, R, 1> : backward_tile<L, R, kBackwardColumns>;
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
