// The units of a layer, and the spans of displacements that passes handle.
#pragma once

#include <cmath>
#include <limits>

#include "daukit.h"
#include "layout.h"

namespace daukit {
namespace DAUKIT_ISA {

// Weights of a near tap below this are zero: the cell then moves on by one, so that beta stays below 2^24 and a
// displacement at an integer reads nothing but its one pixel.
constexpr float kTiny = 5.9604645e-8f;

struct UnitSource {
    const float *weight, *mu_y, *mu_x;
    const int32_t* unit_ptr;
    int64_t inputs, units;  // input channels of a group, units of a pair
    float step_y, step_x;   // of a strided layer, whose images come as step_y * step_x phases a channel; else 1

    // The cell in which a unit reads, as a number of pixels; of a strided layer, of its phase.
    float cell_y(int64_t u) const { return std::floor(mu_y[u] / step_y); }
    float cell_x(int64_t u) const { return std::floor(mu_x[u] / step_x); }
    int64_t phases() const { return int64_t(step_y * step_x); }
    int64_t begin(int64_t out, int64_t in) const {
        int64_t pair = out * inputs + in;
        return unit_ptr ? unit_ptr[pair] : pair * units;
    }
};

// Where the units of a layer lie: between pixels, all at whole pixels (a loop of their own, of one multiply-add), or some
// here and some there.
enum class Units { between, whole, mixed };

// The taps floor(mu) that one pass handles: y0..y1, x0..x1 inclusive, in floats because they are compared with mu.
struct Span {
    float y0, y1, x0, x1;
    bool moved;  // some cell has moved on by one, see kTiny
    Units units;
    bool holds(float y, float x) const { return y >= y0 && y <= y1 && x >= x0 && x <= x1; }
    // What the forward reads around p, and what its adjoint reads around q: of whole pixels no neighbours.
    Box forward_box() const {
        int64_t more = units == Units::whole ? 0 : 1 + moved;
        return {int64_t(y0), int64_t(y1) + more, int64_t(x0), int64_t(x1) + more};
    }
    Box adjoint_box() const {
        if (units == Units::whole) return {-int64_t(y1), -int64_t(y0), -int64_t(x1), -int64_t(x0)};
        return {-int64_t(y1) - 1, -int64_t(y0) + moved, -int64_t(x1) - 1, -int64_t(x0) + moved};
    }
};

// What a scan of units gathers, lane by lane: in loops of this form compilers find vectors, in plain reductions they
// do not.
struct Scan {
    static constexpr int lanes = 16;
    float y0[lanes], y1[lanes], x0[lanes], x1[lanes];
    int32_t moved[lanes] = {}, whole[lanes] = {}, between[lanes] = {};

    explicit Scan(const Span& live) {
        for (int i = 0; i < lanes; i++) {
            y0[i] = live.y1;
            y1[i] = live.y0;
            x0[i] = live.x1;
            x1[i] = live.x0;
        }
    }
    // Take `lanes` units with displacements mu_y and mu_x; those outside of `live` do not count.
    DAUKIT_INLINE void take(const float* mu_y, const float* mu_x, float step_y, float step_x, const Span& live) {
        for (int i = 0; i < lanes; i++) {
            float my = mu_y[i], mx = mu_x[i];
            float y = std::floor(my / step_y), x = std::floor(mx / step_x);
            float fy = my - std::floor(my), fx = mx - std::floor(mx);
            bool in = (y >= live.y0) & (y <= live.y1) & (x >= live.x0) & (x <= live.x1);
            bool at_pixel = (fy == 0) & (fx == 0);
            bool next = (fy < kTiny) | (fx < kTiny) | (fy > 1 - kTiny) | (fx > 1 - kTiny);
            moved[i] |= in & next;
            whole[i] |= in & at_pixel;
            between[i] |= in & !at_pixel;
            y0[i] = in & (y < y0[i]) ? y : y0[i];
            y1[i] = in & (y > y1[i]) ? y : y1[i];
            x0[i] = in & (x < x0[i]) ? x : x0[i];
            x1[i] = in & (x > x1[i]) ? x : x1[i];
        }
    }
    Span span() const {
        Span all{y0[0], y1[0], x0[0], x1[0], false, Units::whole};
        int any_moved = 0, any_whole = 0, any_between = 0;
        for (int i = 0; i < lanes; i++) {
            all.y0 = std::min(all.y0, y0[i]);
            all.y1 = std::max(all.y1, y1[i]);
            all.x0 = std::min(all.x0, x0[i]);
            all.x1 = std::max(all.x1, x1[i]);
            any_moved |= moved[i];
            any_whole |= whole[i];
            any_between |= between[i];
        }
        if (all.y0 > all.y1 || all.x0 > all.x1) return {0, 0, 0, 0, false, Units::whole};  // none
        all.moved = any_moved != 0;
        all.units = !any_between ? Units::whole : any_whole ? Units::mixed : Units::between;
        return all;
    }
};

// Bounding span of the units that can touch the image; a unit whose every tap lies outside is exactly zero.
inline Span live_span(const UnitSource& s, int64_t total, int64_t height, int64_t width) {
    Span live = {float(-height), float(height - 1), float(-width), float(width - 1), false, Units::between};
    Scan scan(live);
    int64_t u = 0;
    for (; u + Scan::lanes <= total; u += Scan::lanes) scan.take(s.mu_y + u, s.mu_x + u, s.step_y, s.step_x, live);
    if (u < total) {
        float y[Scan::lanes], x[Scan::lanes];
        for (int i = 0; i < Scan::lanes; i++) {
            bool exists = u + i < total;
            y[i] = exists ? s.mu_y[u + i] : std::numeric_limits<float>::max();  // outside
            x[i] = exists ? s.mu_x[u + i] : 0;
        }
        scan.take(y, x, s.step_y, s.step_x, live);
    }
    return scan.span();
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
