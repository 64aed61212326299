// One call of the operator: its units, its passes over far displacements, and what the passes have in common.
#pragma once

#include <vector>

#include "blur.h"
#include "jobs.h"
#include "kernels.h"
#include "scratch.h"
#include "tiles.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace daukit {
namespace DAUKIT_ISA {

inline int thread_number() {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

constexpr int64_t kPackedBytes = 32 << 20;   // bundles packed at a time, unless one alone is larger
constexpr int64_t kBundleBytes = 256 << 20;  // one bundle, unless its reach is narrow
constexpr int64_t kNarrowReach = 18;

// Split a span into pieces of about one size, `reach` taps at most, dropping none.
inline std::vector<Span> split_span(const Span& span, int64_t reach) {
    auto step = [reach](float first, float last) {
        int64_t taps = int64_t(last - first) + 1;
        return float(ceil_div(taps, ceil_div(taps, reach)));
    };
    const float step_y = step(span.y0, span.y1), step_x = step(span.x0, span.x1);
    std::vector<Span> pieces;
    for (float y = span.y0; y <= span.y1; y += step_y)
        for (float x = span.x0; x <= span.x1; x += step_x)
            pieces.push_back(
                {y, std::min(span.y1, y + step_y - 1), x, std::min(span.x1, x + step_x - 1), span.moved, span.units});
    return pieces;
}

// Make a span the bounding one of the units that it holds. False: it holds none.
inline bool shrink(const UnitSource& s, int64_t total, Span& span) {
    Span held{span.y1, span.y0, span.x1, span.x0, span.moved, span.units};
    bool any = false;
    for (int64_t u = 0; u < total; u++) {
        float y = s.cell_y(u), x = s.cell_x(u);
        if (!span.holds(y, x)) continue;
        any = true;
        held = {std::min(held.y0, y), std::max(held.y1, y), std::min(held.x0, x),
                std::max(held.x1, x), span.moved,           span.units};
    }
    if (any) span = held;
    return any;
}

// The window after the one at column x and planes r0..r1, of which `units` units read: the next columns, or the first ones
// of the next planes. Nothing where units read but a part of a window.
template <int L>
Prefetch prefetch_after(const float* first, const PackedPlane& plane, const Region& region, int64_t x, int64_t columns,
                        int64_t r0, int64_t r1, int64_t planes, int64_t block, int64_t steps, int64_t units) {
    int64_t reach = columns + plane.box.width(), height = region.rows + plane.box.height();
    if (units * (region.rows + 1) * (columns + 1) < 2 * (r1 - r0) * height * reach) return Prefetch();
    if (x + columns < region.columns)
        return Prefetch(first + r0 * plane.stride + (x + reach) * L, r1 - r0, height, plane.row_stride, plane.stride,
                        columns * L, steps);
    if (r1 < planes)
        return Prefetch(first + r1 * plane.stride, std::min(block, planes - r1), height, plane.row_stride, plane.stride,
                        reach * L, steps);
    return Prefetch();
}

// One call on tensors of one size, with everything its passes share.
template <int L>
struct Call {
    const daukit_sizes& sizes;
    UnitSource source;
    int64_t total;  // units
    int threads;

    Call(const daukit_sizes& sizes_, const daukit_units& units) : sizes(sizes_) {
        int64_t inputs = sizes.in_channels / sizes.groups;
        source = {units.weight,          units.mu_y,           units.mu_x, units.unit_ptr, inputs, sizes.units,
                  float(sizes.stride_y), float(sizes.stride_x)};
        total = source.begin(sizes.out_channels, 0);
        threads = int(sizes.threads);
    }

    // Whether every displacement is a number; x - x is zero for those and NaN for the others.
    bool finite() const {
        int bad = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : bad) schedule(static) if (total > 65536)
        for (int64_t u = 0; u < total; u++) {
            float y = source.mu_y[u], x = source.mu_x[u];
            bad += ((y - y) + (x - x)) != 0;
        }
        return bad == 0;
    }

    double mean_units() const {
        return double(total) / double(std::max<int64_t>(1, sizes.out_channels * source.inputs));
    }

    // Taps of a span that one pass reads along an axis. Another pass packs and adds everything once more and takes longer than
    // a wider halo, so that this bounds memory and little else.
    int64_t reach(const Span& span) const {
        int64_t planes = std::max(sizes.in_channels * source.phases(), sizes.out_channels);
        int64_t taps = std::min(widest_reach, int64_t(std::max(span.y1 - span.y0, span.x1 - span.x0)) + 1);
        auto bytes = [&] {
            Box box{-taps / 2, taps - taps / 2, -taps / 2, taps - taps / 2};
            return planes * PackedPlane(Tiling::choose(L, sizes.batch, sizes.height, sizes.width, box), box).stride * 4;
        };
        while (taps > kNarrowReach && bytes() > kBundleBytes) taps = ceil_div(taps, 2);
        return taps;
    }

    template <class Pass>
    bool each_span(Pass pass) const {
        Span all = live_span(source, total, sizes.height, sizes.width);
        std::vector<Span> spans = split_span(all, reach(all));
        bool whole = spans.size() == 1, add = false;
        // With a single span only units that cannot touch the image lie outside it.
        bool drop = !whole || outside(all);
        for (Span& span : spans) {
            bool last = &span == &spans.back();
            if (!whole && !shrink(source, total, span) && !(last && !add)) continue;
            if (!pass(span, drop, add)) return false;
            add = true;
        }
        return true;
    }
    bool outside(const Span& span) const {
        int out = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : out) schedule(static) if (total > 65536)
        for (int64_t u = 0; u < total; u++) {
            float y = source.cell_y(u), x = source.cell_x(u);
            out += (y < span.y0) | (y > span.y1) | (x < span.x0) | (x > span.x1);
        }
        return out != 0;
    }
};

}  // namespace DAUKIT_ISA
}  // namespace daukit
