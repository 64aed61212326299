// From an NCHW tensor into lanes: rows of all tiles of a bundle are read where they lie, and transposed in registers.
#pragma once

#include "layout.h"

namespace daukit {
namespace DAUKIT_ISA {

struct Range {
    int64_t begin, end;
    bool holds(int64_t i) const { return i >= begin && i < end; }
    int64_t count() const { return std::max<int64_t>(0, end - begin); }
    Range within(int64_t low, int64_t high) const { return {std::max(begin, low), std::min(end, high)}; }
};

// One axis of a packed plane: position i of a lane is the image's pixel start[lane] + i.
template <int L>
struct LaneAxis {
    alignas(64) int32_t start[L];
    int64_t size;       // of the image
    Range some, every;  // positions that lie in the image for some lane, and for every lane

    LaneAxis(int64_t size_, const int64_t* starts) : size(size_) {
        int64_t low = *std::min_element(starts, starts + L), high = *std::max_element(starts, starts + L);
        for (int lane = 0; lane < L; lane++) start[lane] = int32_t(starts[lane]);
        some = {-high, size - low};
        every = {-low, size - high};
    }
    // Zero the lanes of a vector whose position i lies outside the image.
    DAUKIT_INLINE void clip(float* vector, int64_t i) const {
        store<L>(vector, where_between<L>(load<L>(vector), start, int32_t(-i), int32_t(size - i)));
    }
    // Do so with every vector of a line, whose position 0 lies at `line`.
    void clip_outside(float* line, const Range& positions) const {
        int64_t from = std::max(positions.begin, std::min(positions.end, every.begin)), to = std::max(from, every.end);
        for (int64_t i = positions.begin; i < from; i++) clip(line + i * L, i);
        for (int64_t i = to; i < positions.end; i++) clip(line + i * L, i);
    }
};

// Where the lanes of packed planes lie in the images of a bundle.
template <int L>
struct Lanes {
    int64_t image[L];  // of the bundle
    LaneAxis<L> y, x;

    Lanes(const Tiling& t, const Box& box) : y(axis(t, box, true)), x(axis(t, box, false)) {
        for (int lane = 0; lane < L; lane++) image[lane] = lane / (t.tiles_y * t.tiles_x);
    }

private:
    static LaneAxis<L> axis(const Tiling& t, const Box& box, bool down) {
        int64_t starts[L];
        for (int64_t lane = 0; lane < L; lane++)
            starts[lane] =
                down ? lane / t.tiles_x % t.tiles_y * t.tile_h + box.y0 : lane % t.tiles_x * t.tile_w + box.x0;
        return LaneAxis<L>(down ? t.height : t.width, starts);
    }
};

// One channel of a bundle in a tensor of `channels`.
template <int L>
struct PlaneSource {
    const float* tensor;
    int64_t floats;     // in the tensor
    int64_t offset[L];  // of position (0, 0), which may lie outside the image and the tensor; lanes ascend
    int64_t present;    // lanes; the others are empty

    PlaneSource(const Tiling& t, const Lanes<L>& lanes, const float* tensor_, int64_t channels, int64_t bundle,
                int64_t channel)
        : tensor(tensor_), floats(t.images * channels * t.height * t.width), present(0) {
        for (int lane = 0; lane < L; lane++) {
            int64_t image = bundle * t.images_per_bundle + lanes.image[lane];
            if (image < t.images) present = lane + 1;
            offset[lane] =
                ((image * channels + channel) * t.height + lanes.y.start[lane]) * t.width + lanes.x.start[lane];
        }
    }
};

// Working memory of read_row for up to `columns` columns: a line of zeros, and one line a lane.
template <int L>
struct SpareLines {
    int64_t line;
    explicit SpareLines(int64_t columns) : line(round_up(columns, L)) {}
    int64_t floats() const { return (L + 1) * line; }
};

// Row y of a lane where it can be read as it is: zeros outside the image, a copy where whole vectors would leave the tensor.
template <int L>
const float* readable_row(const Lanes<L>& lanes, const PlaneSource<L>& source, int lane, int64_t y, int64_t from,
                          int64_t count, const SpareLines<L>& spare, float* lines) {
    int64_t at = lanes.y.start[lane] + y;
    if (lane >= source.present || at < 0 || at >= lanes.y.size) return lines;
    if (from >= 0 && from + count <= source.floats) return source.tensor + from;
    float* copy = lines + (1 + lane) * spare.line;
    Range inside = Range{0, count}.within(-from, source.floats - from);
    std::memset(copy, 0, size_t(4 * count));
    if (inside.count())
        std::memcpy(copy + inside.begin, source.tensor + from + inside.begin, size_t(4 * inside.count()));
    return copy;
}

// Write `columns` of row y of every lane to `to`, [column][lane]; zeros outside the image. `lines` begins with zeros.
template <int L>
void read_row(const Lanes<L>& lanes, const PlaneSource<L>& source, int64_t y, const Range& columns,
              const SpareLines<L>& spare, float* lines, float* to) {
    int64_t from = y * lanes.x.size + columns.begin, count = columns.end - columns.begin;
    int64_t whole = std::max<int64_t>(count, L);
    bool plain = source.present == L && lanes.y.every.holds(y) && source.offset[0] + from >= 0 &&
                 source.offset[L - 1] + from + whole <= source.floats;
    const float* row[L];
    for (int lane = 0; lane < L; lane++) {
        int64_t at = source.offset[lane] + from;
        row[lane] = plain ? source.tensor + at : readable_row<L>(lanes, source, lane, y, at, whole, spare, lines);
    }
    for (int64_t x = 0; x + L <= whole; x = next_vector<L>(x, whole)) {
        Vec<L> block[L];
        load_columns<L>(row, x, block);
        if (count < L) {
            std::memcpy(to, block, sizeof(Vec<L>) * size_t(count));
            break;
        }
        DAUKIT_UNROLL
        for (int i = 0; i < L; i++) store<L>(to + (x + i) * L, block[i]);
    }
    // Beside the image a lane's row goes on with pixels of another row.
    lanes.x.clip_outside(to - columns.begin * L, columns);
}

template <int L>
DAUKIT_INLINE void zero_columns(float* row, int64_t begin, int64_t end) {
    Vec<L> zero{};
    keep(zero);  // or a call of memset for a few columns
    for (int64_t x = begin; x < end; x++) store<L>(row + x * L, zero);
}

// Pack one channel of a bundle as it is.
template <int L>
void pack_copy(const PackedPlane& plane, const Lanes<L>& lanes, const PlaneSource<L>& source,
               const SpareLines<L>& spare, float* lines, float* packed) {
    Range columns = lanes.x.some.within(0, plane.columns);
    for (int64_t y = 0; y < plane.rows; y++) {
        float* to = packed + y * plane.row_stride;
        if (!lanes.y.some.holds(y) || !columns.count()) {
            zero_columns<L>(to, 0, plane.columns);
            continue;
        }
        zero_columns<L>(to, 0, columns.begin);
        read_row<L>(lanes, source, y, columns, spare, lines, to + columns.begin * L);
        zero_columns<L>(to, columns.end, plane.columns);
    }
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
