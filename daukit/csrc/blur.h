// Separable correlation of one plane (docs/math.md, section 2): the Gaussian blur and its derivatives.
#pragma once

#include "layout.h"

namespace daukit {
namespace DAUKIT_ISA {

// A plane copied to where rows are whole vectors, and one line between the two passes.
struct BlurScratch {
    int64_t row, line, size;

    BlurScratch() = default;
    BlurScratch(int lanes, int64_t height, int64_t width, int64_t radius) {
        row = round_up(width, lanes);
        line = round_up(row + 2 * radius + lanes, 16);
        size = round_up(height * row + line, 16);
    }
};

inline void copy_plane(const float* plane, int64_t height, int64_t width, int64_t row_stride, float* to) {
    for (int64_t y = 0; y < height; y++) std::memcpy(to + y * row_stride, plane + y * width, size_t(4 * width));
}

// Correlate the copy (rows of whole vectors; what lies beyond the width is ignored) with along_y (x) along_x, and write
// `height` rows of `row_stride`; columns from the width up to a whole vector become zero. `line` must hold zeros at
// either end; radius_y is 0 where along_y is a single tap.
template <int L>
void correlate_plane(const float* copy, int64_t height, int64_t width, int64_t radius, const float* along_y,
                     const float* along_x, float* line, float* to, int64_t row_stride) {
    int64_t row = round_up(width, L);
    for (int64_t y = 0; y < height; y++) {
        int64_t first = std::max<int64_t>(0, y - radius), last = std::min(height - 1, y + radius);
        for (int64_t x = 0; x < row; x += L) {
            Vec<L> sum{};
            for (int64_t i = first; i <= last; i++)
                sum += broadcast<L>(along_y[i - y + radius]) * load_unaligned<L>(copy + i * row + x);
            store_unaligned<L>(line + radius + x, sum);
        }
        for (int64_t x = width; x < row; x++) line[radius + x] = 0;
        for (int64_t x = 0; x < row; x += L) {
            Vec<L> sum{};
            for (int64_t j = 0; j <= 2 * radius; j++) sum += broadcast<L>(along_x[j]) * load_unaligned<L>(line + x + j);
            store_unaligned<L>(to + y * row_stride + x, sum);
        }
        for (int64_t x = width; x < row; x++) to[y * row_stride + x] = 0;
    }
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
