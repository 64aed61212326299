// From displacements to the flat lists that the kernels run through, in the order in which they visit units.
#pragma once

#include <cmath>

#include "daukit.h"
#include "layout.h"

namespace daukit {
namespace DAUKIT_ISA {

// Displacements that one packed plane serves; those that reach farther are done in several passes, one halo each.
constexpr int64_t kReach = 16;

// Weights of a near tap below this are zero: the cell then moves on by one, so that beta stays below 2^24 and a
// displacement at an integer reads nothing but its one pixel.
constexpr float kTiny = 5.9604645e-8f;

struct UnitSource {
    const float *weight, *mu_y, *mu_x;
    const int32_t* unit_ptr;
    int64_t inputs, units;  // input channels of a group, units of a pair

    int64_t begin(int64_t out, int64_t in) const {
        int64_t pair = out * inputs + in;
        return unit_ptr ? unit_ptr[pair] : pair * units;
    }
};

// The taps floor(mu) that one pass handles: y0..y1, x0..x1 inclusive, in floats because they are compared with mu.
struct Span {
    float y0, y1, x0, x1;
    bool moved;  // some cell has moved on by one, see kTiny
    bool holds(float y, float x) const { return y >= y0 && y <= y1 && x >= x0 && x <= x1; }
    // What the forward reads around p, and what its adjoint reads around q.
    Box forward_box() const { return {int64_t(y0), int64_t(y1) + 1 + moved, int64_t(x0), int64_t(x1) + 1 + moved}; }
    Box adjoint_box() const { return {-int64_t(y1) - 1, -int64_t(y0) + moved, -int64_t(x1) - 1, -int64_t(x0) + moved}; }
};

// Bounding span of the units that can touch the image; a unit whose every tap lies outside is exactly zero.
inline Span live_span(const UnitSource& s, int64_t total, int64_t height, int64_t width, int threads) {
    Span live = {float(-height), float(height - 1), float(-width), float(width - 1), false};
    float y0 = live.y1, y1 = live.y0, x0 = live.x1, x1 = live.x0;
    int moved = 0;
    (void)threads;  // without OpenMP
#pragma omp parallel for num_threads(threads) reduction(min : y0, x0) reduction(max : y1, x1) reduction(| : moved) \
    schedule(static) if (total > 65536)
    for (int64_t u = 0; u < total; u++) {
        float y = std::floor(s.mu_y[u]), x = std::floor(s.mu_x[u]);
        bool in = (y >= live.y0) & (y <= live.y1) & (x >= live.x0) & (x <= live.x1);
        float fy = s.mu_y[u] - y, fx = s.mu_x[u] - x;
        moved |= in & ((fy < kTiny) | (fx < kTiny) | (fy > 1 - kTiny) | (fx > 1 - kTiny));
        float low_y = in ? y : y0, high_y = in ? y : y1, low_x = in ? x : x0, high_x = in ? x : x1;
        y0 = low_y < y0 ? low_y : y0;
        y1 = high_y > y1 ? high_y : y1;
        x0 = low_x < x0 ? low_x : x0;
        x1 = high_x > x1 ? high_x : x1;
    }
    if (y0 > y1 || x0 > x1) return {0, 0, 0, 0, false};
    return {y0, y1, x0, x1, moved != 0};
}

// Lists of one block, as separate arrays. Row r owns start[r] .. start[r + 1] - 1.
struct UnitLists {
    int32_t *offset, *index, *start;  // offset into the window in floats; index of the unit in the layer
    float *beta, *a, *b;

    static int64_t floats(int64_t units, int64_t rows) { return 5 * round_up(units, 16) + round_up(rows + 1, 16); }
    UnitLists(float* memory, int64_t units) {
        int64_t step = round_up(units, 16);
        offset = reinterpret_cast<int32_t*>(memory);
        index = reinterpret_cast<int32_t*>(memory + step);
        beta = memory + 2 * step;
        a = memory + 3 * step;
        b = memory + 4 * step;
        start = reinterpret_cast<int32_t*>(memory + 5 * step);
    }
};

// Most units in any block of `rows` output by `columns` input channels of a group.
inline int64_t largest_block(const UnitSource& s, int64_t groups, int64_t outputs, int64_t rows, int64_t columns) {
    if (!s.unit_ptr) return std::min(rows, outputs) * std::min(columns, s.inputs) * s.units;
    int64_t largest = 0;
    for (int64_t group = 0; group < groups; group++)
        for (int64_t o = 0; o < outputs; o += rows)
            for (int64_t c = 0; c < s.inputs; c += columns) {
                int64_t count = 0;
                for (int64_t i = group * outputs + o; i < group * outputs + std::min(outputs, o + rows); i++)
                    count += s.begin(i, std::min(s.inputs, c + columns)) - s.begin(i, c);
                largest = std::max(largest, count);
            }
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
                         int lanes, int32_t* __restrict offset, float* __restrict beta, float* __restrict a,
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

// Lists of the forward: a row is an output channel o0..o1, its units lie in input channels c0..c1 (planes of the window).
inline int64_t list_forward(const UnitSource& s, int64_t o0, int64_t o1, int64_t c0, int64_t c1, const Span& span,
                            bool drop, const PackedPlane& plane, int lanes, UnitLists& list) {
    int64_t n = 0;
    int32_t* shift = list.index;  // planes of a dense pair's units; the forward has no other use for the array
    if (!s.unit_ptr)
        for (int64_t u = 0; u < (c1 - c0) * s.units; u++) shift[u] = int32_t(u / s.units * plane.stride);
    for (int64_t o = o0; o < o1; o++) {
        list.start[o - o0] = int32_t(n);
        int64_t first = s.begin(o, c0), count = s.begin(o, c1) - first;
        cells<Cell::forward>(s, first, count, span, plane, lanes, list.offset + n, list.beta + n, list.a + n,
                             list.b + n);
        if (!s.unit_ptr) {
            for (int64_t u = 0; u < count; u++) list.offset[n + u] += shift[u];
        } else {
            for (int64_t c = c0; c < c1; c++) {
                int64_t u0 = s.begin(o, c) - first, u1 = s.begin(o, c + 1) - first;
                for (int64_t u = u0; u < u1; u++) list.offset[n + u] += int32_t((c - c0) * plane.stride);
            }
        }
        if (!drop) {
            n += count;
            continue;
        }
        int64_t kept = n;
        for (int64_t u = 0; u < count; u++) {
            if (!span.holds(std::floor(s.mu_y[first + u]), std::floor(s.mu_x[first + u]))) continue;
            list.offset[kept] = list.offset[n + u];
            list.beta[kept] = list.beta[n + u];
            list.a[kept] = list.a[n + u];
            list.b[kept] = list.b[n + u];
            kept++;
        }
        n = kept;
    }
    list.start[o1 - o0] = int32_t(n);
    return n;
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
    float *beta = run + run_step, *a = run + 2 * run_step, *b = run + 3 * run_step;
    for (int64_t o = o0; o < o1; o++) {
        int64_t first = s.begin(o, c0);
        int64_t count = s.begin(o, c1) - first;
        if (use == Use::dots)
            cells<Cell::corner>(s, first, count, span, plane, lanes, offset, beta, a, b);
        else
            cells<Cell::adjoint>(s, first, count, span, plane, lanes, offset, beta, a, b);
        int32_t shift = int32_t((o - o0) * plane.stride);
        for (int64_t c = c0; c < c1; c++) {
            int64_t u0 = s.begin(o, c), u1 = s.begin(o, c + 1);
            for (int64_t u = u0; u < u1; u++) {
                if (!held(u)) continue;
                int64_t n = start[c - c0 + 1]++, i = u - first;
                list.offset[n] = offset[i] + shift;
                list.index[n] = int32_t(u);
                list.beta[n] = beta[i];
                float near_y = adjoint_near(s.mu_y[u]);
                list.a[n] = a[i];
                list.b[n] = use == Use::fused ? (1 - near_y) / near_y : b[i];
            }
        }
    }
    return total;
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
