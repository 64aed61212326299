// From displacements to the flat lists that the kernels run through, in the order in which they visit units.
#pragma once

#include "units.h"

namespace daukit {
namespace DAUKIT_ISA {

// Lists of one block, as separate arrays. Row r owns start[r] .. start[r + 1] - 1, of mixed units those up to between[r]
// at whole pixels. Lists of whole pixels have no beta and no b, those of the forward no index.
struct UnitLists {
    int32_t *start, *between, *offset;  // offset into the window in floats
    float *a, *beta, *b;
    int32_t* index;  // of the unit in the layer

    static int64_t floats(Units kind, int64_t units, int64_t rows, bool indexed) {
        return 2 * round_up(rows + 1, 16) + ((kind == Units::whole ? 2 : 4) + indexed) * round_up(units, 16);
    }
    UnitLists(Units kind, float* memory, int64_t size, int64_t rows, bool indexed = false) {
        int64_t step = (size - 2 * round_up(rows + 1, 16)) / ((kind == Units::whole ? 2 : 4) + indexed);
        auto take = [&memory](int64_t floats) {
            float* taken = memory;
            memory += floats;
            return taken;
        };
        start = reinterpret_cast<int32_t*>(take(round_up(rows + 1, 16)));
        between = reinterpret_cast<int32_t*>(take(round_up(rows + 1, 16)));
        offset = reinterpret_cast<int32_t*>(take(step));
        a = take(step);
        beta = kind == Units::whole ? nullptr : take(step);
        b = kind == Units::whole ? nullptr : take(step);
        index = reinterpret_cast<int32_t*>(memory);
    }
};

// Units of a block of output and input channels.
inline int64_t units_of(const UnitSource& s, int64_t o0, int64_t o1, int64_t c0, int64_t c1) {
    if (!s.unit_ptr) return (o1 - o0) * (c1 - c0) * s.units;
    int64_t count = 0;
    for (int64_t o = o0; o < o1; o++) count += s.begin(o, c1) - s.begin(o, c0);
    return count;
}

// Most units in any block of `rows` output by `columns` input channels of a group.
inline int64_t largest_block(const UnitSource& s, int64_t groups, int64_t outputs, int64_t rows, int64_t columns) {
    if (!s.unit_ptr) return std::min(rows, outputs) * std::min(columns, s.inputs) * s.units;
    int64_t largest = 0;
    for (int64_t first = 0; first < groups * outputs; first += outputs)
        for (int64_t o = 0; o < outputs; o += rows)
            for (int64_t c = 0; c < s.inputs; c += columns)
                largest = std::max(largest, units_of(s, first + o, first + std::min(outputs, o + rows), c,
                                                     std::min(s.inputs, c + columns)));
    return largest;
}

// The cell of `count` units from u, in the three-FMA form of docs/performance.md:
//   read = A (h0) + B (h1),  h = x[0] + beta x[1],  beta = fx / (1 - fx),  A = w (1 - fx)(1 - fy),  B = w (1 - fx) fy.
// Adjoint: the cell of -mu, whose near taps are floor(mu) + 1, so that fx and 1 - fx change places.
// Corner: the first tap of the adjoint's cell and nothing else, for the exact mu gradient, which reads all four.
// Units that the span does not hold get the nearest cell and must be dropped by the caller.
enum class Cell { forward, adjoint, corner };

template <Cell Kind>
DAUKIT_INLINE void cells(const UnitSource& s, int64_t u, int64_t count, const Span& span, const PackedPlane& plane,
                         int lanes, int32_t* __restrict offset, float* __restrict a, float* __restrict beta,
                         float* __restrict b) {
    const float* __restrict mu_y = s.mu_y + u, * __restrict mu_x = s.mu_x + u, * __restrict weight = s.weight + u;
    constexpr bool Adjoint = Kind != Cell::forward;
    int32_t row = int32_t(plane.row_stride);
    for (int64_t i = 0; i < count; i++) {
        float my = std::floor(mu_y[i]), mx = std::floor(mu_x[i]);
        float fy = mu_y[i] - my, fx = mu_x[i] - mx;
        my = my < span.y0 ? span.y0 : my > span.y1 ? span.y1 : my;
        mx = mx < span.x0 ? span.x0 : mx > span.x1 ? span.x1 : mx;
        int32_t ty = int32_t(Adjoint ? span.y1 - my : my - span.y0);
        int32_t tx = int32_t(Adjoint ? span.x1 - mx : mx - span.x0);
        float near_x = Adjoint ? fx : 1 - fx, near_y = Adjoint ? fy : 1 - fy;
        bool next_x = Kind != Cell::corner && near_x < kTiny, next_y = Kind != Cell::corner && near_y < kTiny;
        near_x = next_x ? 1 : near_x;
        near_y = next_y ? 1 : near_y;
        offset[i] = (ty + next_y) * row + (tx + next_x) * lanes;
        beta[i] = (1 - near_x) / near_x;
        float w = weight[i] * near_x;
        a[i] = w * near_y;
        b[i] = w - a[i];
    }
}

// The pixel of `count` units from u, all at whole pixels. Of a strided layer the unit reads one phase of its channel.
template <bool Adjoint, bool Strided>
DAUKIT_INLINE void pixels(const UnitSource& s, int64_t u, int64_t count, const Span& span, const PackedPlane& plane,
                          int lanes, int32_t* __restrict offset) {
    const float* __restrict mu_y = s.mu_y + u, * __restrict mu_x = s.mu_x + u;
    int32_t row = int32_t(plane.row_stride), phase = int32_t(plane.stride);
    float step_y = s.step_y, step_x = s.step_x, y0 = span.y0, y1 = span.y1, x0 = span.x0, x1 = span.x1;
    auto within = [](float value, float low, float high) { return value < low ? low : value > high ? high : value; };
    for (int64_t i = 0; i < count; i++) {
        float my = Strided ? std::floor(mu_y[i] / step_y) : mu_y[i];
        float mx = Strided ? std::floor(mu_x[i] / step_x) : mu_x[i];
        float ty = within(my, y0, y1), tx = within(mx, x0, x1);
        ty = Adjoint ? y1 - ty : ty - y0;
        tx = Adjoint ? x1 - tx : tx - x0;
        int32_t at = int32_t(ty) * row + int32_t(tx) * lanes;
        if (Strided) {
            float phase_y = within(mu_y[i] - step_y * my, 0, step_y - 1);
            float phase_x = within(mu_x[i] - step_x * mx, 0, step_x - 1);
            at += int32_t(phase_y * step_x + phase_x) * phase;
        }
        offset[i] = at;
    }
}

// Bring the units of each row that read a single pixel to its front: their cell has moved on to it, see kTiny.
inline void part_rows(UnitLists& list, int64_t rows, bool indexed) {
    for (int64_t row = 0; row < rows; row++) {
        int32_t first = list.start[row], last = list.start[row + 1];
        while (first < last) {
            if (list.beta[first] == 0 && list.b[first] == 0) {
                first++;
                continue;
            }
            last--;
            std::swap(list.offset[first], list.offset[last]);
            if (indexed) std::swap(list.index[first], list.index[last]);
            std::swap(list.a[first], list.a[last]);
            std::swap(list.beta[first], list.beta[last]);
            std::swap(list.b[first], list.b[last]);
        }
        list.between[row] = first;
    }
}

// Keep the units of a list's last `count` entries, from `first` of the layer on, that the span holds; returns their number.
inline int64_t drop_units(const UnitSource& s, const Span& span, int64_t first, int64_t count, int32_t* offset,
                          float* a, float* beta, float* b) {
    int64_t kept = 0;
    for (int64_t u = 0; u < count; u++) {
        if (!span.holds(s.cell_y(first + u), s.cell_x(first + u))) continue;
        offset[kept] = offset[u];
        a[kept] = a[u];
        if (beta) {
            beta[kept] = beta[u];
            b[kept] = b[u];
        }
        kept++;
    }
    return kept;
}

// Lists of the forward: a row is an output channel o0..o1, its units lie in input channels c0..c1 of the window.
inline void list_forward(const UnitSource& s, int64_t o0, int64_t o1, int64_t c0, int64_t c1, const Span& span,
                         bool drop, const PackedPlane& plane, int lanes, UnitLists& list) {
    int64_t n = 0;
    for (int64_t o = o0; o < o1; o++) {
        list.start[o - o0] = int32_t(n);
        int64_t first = s.begin(o, c0), count = s.begin(o, c1) - first;
        int32_t* offset = list.offset + n;
        float *a = list.a + n, *beta = list.beta + n, *b = list.b + n;
        cells<Cell::forward>(s, first, count, span, plane, lanes, offset, a, beta, b);
        for (int64_t c = c0 + 1; c < c1; c++) {
            int64_t u0 = s.begin(o, c) - first, u1 = s.begin(o, c + 1) - first;
            for (int64_t u = u0; u < u1; u++) offset[u] += int32_t((c - c0) * plane.stride);
        }
        n += drop ? drop_units(s, span, first, count, offset, a, beta, b) : count;
    }
    list.start[o1 - o0] = int32_t(n);
    if (span.units == Units::mixed) part_rows(list, o1 - o0, false);
}

// The same of whole pixels, for all blocks of `block` input channels at once: rows are long then. `lists` holds one list
// for each block, `run` room for twice the units of a row.
inline void list_whole(const UnitSource& s, int64_t o0, int64_t o1, int64_t block, const Span& span, bool drop,
                       const PackedPlane& plane, int lanes, int32_t* run, int64_t run_step, UnitLists* lists) {
    int64_t blocks = ceil_div(s.inputs, block), channel = s.phases() * plane.stride;
    int32_t *offset = run, *shift = run + run_step;
    if (!s.unit_ptr)  // the shift of a channel within its block, the same for all rows
        for (int64_t c = 0; c < s.inputs; c++)
            for (int64_t k = 0; k < s.units; k++) shift[c * s.units + k] = int32_t(c % block * channel);
    for (int64_t i = 0; i < blocks; i++) lists[i].start[0] = 0;
    for (int64_t o = o0; o < o1; o++) {
        int64_t first = s.begin(o, 0), count = s.begin(o, s.inputs) - first;
        if (s.unit_ptr)
            for (int64_t c = 0, within = 0; c < s.inputs; c++, within = within + 1 == block ? 0 : within + 1)
                for (int64_t u = s.begin(o, c); u < s.begin(o, c + 1); u++)
                    shift[u - first] = int32_t(within * channel);
        if (s.phases() > 1)
            pixels<false, true>(s, first, count, span, plane, lanes, offset);
        else
            pixels<false, false>(s, first, count, span, plane, lanes, offset);
        for (int64_t u = 0; u < count; u++) offset[u] += shift[u];
        for (int64_t i = 0; i < blocks; i++) {
            int64_t u0 = s.begin(o, i * block), units = s.begin(o, std::min(s.inputs, (i + 1) * block)) - u0;
            int32_t n = lists[i].start[o - o0];
            std::copy_n(offset + (u0 - first), units, lists[i].offset + n);
            std::copy_n(s.weight + u0, units, lists[i].a + n);
            if (drop) units = drop_units(s, span, u0, units, lists[i].offset + n, lists[i].a + n, nullptr, nullptr);
            lists[i].start[o - o0 + 1] = n + int32_t(units);
        }
    }
}

// Weight of the adjoint's near tap along an axis.
DAUKIT_INLINE float adjoint_near(float mu) {
    float fraction = mu - std::floor(mu);
    return fraction < kTiny ? 1 : fraction;
}

// What an adjoint list is for: the image gradient, the fused backward, or the dot products at the four taps.
enum class Use { image, fused, dots };

// Lists of the adjoint: a row is an input channel c0..c1, its units lie in output channels o0..o1 (planes of the
// window). For the fused backward `b` holds gamma, the ratio of the far row's weight to the near row's.
// `run` is room for the units of one output channel: 4 arrays of `run_step`.
inline int64_t list_adjoint(const UnitSource& s, int64_t o0, int64_t o1, int64_t c0, int64_t c1, const Span& span,
                            bool drop, Use use, const PackedPlane& plane, int lanes, float* run, int64_t run_step,
                            UnitLists& list) {
    int32_t* start = list.start;
    bool whole = span.units == Units::whole;
    auto held = [&](int64_t u) { return !drop || span.holds(std::floor(s.mu_y[u]), std::floor(s.mu_x[u])); };
    // Count first; start[r + 1] then serves as the cursor of row r and ends as the start of row r + 1.
    start[0] = 0;
    for (int64_t c = c0; c < c1; c++) {
        int64_t count = 0;
        for (int64_t o = o0; o < o1; o++) {
            int64_t u0 = s.begin(o, c), u1 = s.begin(o, c + 1);
            if (!drop)
                count += u1 - u0;
            else
                for (int64_t u = u0; u < u1; u++) count += held(u);
        }
        start[c - c0 + 1] = start[c - c0] + int32_t(count);
    }
    int64_t total = start[c1 - c0];
    for (int64_t r = c1 - c0; r > 0; r--) start[r] = start[r - 1];
    int32_t* offset = reinterpret_cast<int32_t*>(run);
    float *a = run + run_step, *beta = run + 2 * run_step, *b = run + 3 * run_step;
    for (int64_t o = o0; o < o1; o++) {
        int64_t first = s.begin(o, c0);
        int64_t count = s.begin(o, c1) - first;
        if (whole)
            pixels<true, false>(s, first, count, span, plane, lanes, offset);
        else if (use == Use::dots)
            cells<Cell::corner>(s, first, count, span, plane, lanes, offset, a, beta, b);
        else
            cells<Cell::adjoint>(s, first, count, span, plane, lanes, offset, a, beta, b);
        int32_t shift = int32_t((o - o0) * plane.stride);
        for (int64_t c = c0; c < c1; c++) {
            int64_t u0 = s.begin(o, c), u1 = s.begin(o, c + 1);
            for (int64_t u = u0; u < u1; u++) {
                if (!held(u)) continue;
                int64_t n = start[c - c0 + 1]++, i = u - first;
                list.offset[n] = offset[i] + shift;
                if (use != Use::image) list.index[n] = int32_t(u);
                list.a[n] = whole ? s.weight[u] : a[i];
                if (whole) continue;
                list.beta[n] = beta[i];
                float near_y = adjoint_near(s.mu_y[u]);
                list.b[n] = use == Use::fused ? (1 - near_y) / near_y : b[i];
            }
        }
    }
    if (span.units == Units::mixed && use != Use::dots) part_rows(list, c1 - c0, use == Use::fused);
    return total;
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
