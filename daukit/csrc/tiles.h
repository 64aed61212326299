// The inner loops of forward and image gradient: a register tile of R rows by C columns of vectors, and all units of one
// row of a list.
#pragma once

#include "lists.h"

namespace daukit {
namespace DAUKIT_ISA {

// Vector registers decide the largest tile: sums, one row of h, three broadcast coefficients.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8, kWholeRows = 8, kColumns = 2;  // forward: 16 sums
#else
constexpr int kRows = 5, kWholeRows = 7, kColumns = 2;
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

// Load the sums of a tile, or start them at zero, and store them: [column][row][lane].
template <int L, int R, int C>
DAUKIT_INLINE void load_sums(const float* sums, bool first, Vec<L> (*sum)[R]) {
    DAUKIT_UNROLL
    for (int c = 0; c < C; c++) {
        DAUKIT_UNROLL
        for (int r = 0; r < R; r++) sum[c][r] = first ? Vec<L>{} : load<L>(sums + (c * R + r) * L);
    }
}
template <int L, int R, int C>
DAUKIT_INLINE void store_sums(float* sums, const Vec<L> (*sum)[R]) {
    DAUKIT_UNROLL
    for (int c = 0; c < C; c++) {
        DAUKIT_UNROLL
        for (int r = 0; r < R; r++) store<L>(sums + (c * R + r) * L, sum[c][r]);
    }
}

// Row r of rows one after the other, asked for in order. Three of them from one pointer, by the factors of an address: GCC
// alone computes the addresses of all rows first, and keeps them in memory or in a chain of additions.
DAUKIT_INLINE const float* next_row(const float*& row, int64_t stride, int r) {
    if (r > 0 && r % 3 == 0) {
        row += 3 * stride;
        keep_pointer(row);
    }
    return row + r % 3 * stride;
}

// Add units first .. last - 1, all at whole pixels: one fused multiply-add a unit and vector.
template <int L, int R, int C>
DAUKIT_INLINE void add_whole(const float* window, int64_t row_stride, const UnitLists& list, int32_t first,
                             int32_t last, Vec<L> (*sum)[R]) {
    for (int32_t u = first; u < last; u++) {
        const float* row = window + list.offset[u];
        Vec<L> a = broadcast<L>(list.a[u]);
        DAUKIT_UNROLL
        for (int r = 0; r < R; r++) {
            const float* x = next_row(row, row_stride, r);
            DAUKIT_UNROLL
            for (int c = 0; c < C; c++) sum[c][r] += a * load<L>(x + c * L);
        }
    }
}

// Add units first .. last - 1, each a bilinear cell: 3 + 1/R fused multiply-adds a unit and vector.
template <int L, int R, int C>
DAUKIT_INLINE void add_between(const float* window, int64_t row_stride, const UnitLists& list, int32_t first,
                               int32_t last, Vec<L> (*sum)[R]) {
    for (int32_t u = first; u < last; u++) {
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
}

// Sums of the rows of a list over one window. Rows lie `sums_stride` apart in `sums`.
template <int L, Units Kind, int R, int C>
void read_tile(const float* window, int64_t row_stride, const UnitLists& list, int64_t rows, float* sums,
               int64_t sums_stride, bool first, Prefetch next) {
    for (int64_t row = 0; row < rows; row++, sums += sums_stride) {
        next.step();
        if (!first && list.start[row] == list.start[row + 1]) continue;
        Vec<L> sum[C][R];
        load_sums<L, R, C>(sums, first, sum);
        int32_t begin = list.start[row], end = list.start[row + 1];
        if constexpr (Kind == Units::whole) {
            add_whole<L, R, C>(window, row_stride, list, begin, end, sum);
        } else {
            int32_t between = Kind == Units::mixed ? list.between[row] : begin;
            add_whole<L, R, C>(window, row_stride, list, begin, between, sum);
            add_between<L, R, C>(window, row_stride, list, between, end, sum);
        }
        store_sums<L, R, C>(sums, sum);
    }
}

// The instance for a tile of `rows` x `columns` vectors, which the registers' limits must hold.
template <int L>
using ReadTile = void (*)(const float*, int64_t, const UnitLists&, int64_t, float*, int64_t, bool, Prefetch);
template <int L, Units Kind, int R>
ReadTile<L> read_tile_of_rows(int64_t rows, int64_t columns) {
    if constexpr (R > 1)
        if (rows < R) return read_tile_of_rows<L, Kind, R - 1>(rows, columns);
    return columns == 1 ? read_tile<L, Kind, R, 1> : read_tile<L, Kind, R, kColumns>;
}
template <int L>
ReadTile<L> read_tile_of(Units kind, int64_t rows, int64_t columns) {
    if (kind == Units::whole) return read_tile_of_rows<L, Units::whole, kWholeRows>(rows, columns);
    if (kind == Units::mixed) return read_tile_of_rows<L, Units::mixed, kRows>(rows, columns);
    return read_tile_of_rows<L, Units::between, kRows>(rows, columns);
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
