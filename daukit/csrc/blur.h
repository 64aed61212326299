// Separable correlation of planes (docs/math.md, section 2): the Gaussian blur and its derivatives, in lanes.
//
// Rows are transposed into lanes one after the other, correlated along x, and kept in a ring of as many rows as the taps
// reach; four rows of the result at a time are correlated along y from there. All of that stays in the L1 cache.
#pragma once

#include "pack.h"

namespace daukit {
namespace DAUKIT_ISA {

// What happens to a plane before it is packed: nothing where along_y is null, or one blur for each map,
//   along_y (x) along_x,  and with a slope  slope (x) along_x  and  along_y (x) slope.
// along_y and along_x are even, slope is odd, each 2 radius + 1 taps.
struct Blur {
    int64_t radius = 0;
    const float *along_y = nullptr, *along_x = nullptr, *slope = nullptr;

    Blur() = default;
    Blur(int64_t radius_, const float* along_y_, const float* along_x_, const float* slope_)
        : radius(radius_), along_y(along_y_), along_x(along_x_), slope(slope_) {}

    int maps() const { return slope ? 3 : 1; }
};

constexpr int kBlurTile = 4;  // results beside each other that share their loads

// Taps of radius R, or of any radius (R = -1), of which half are needed.
template <int L, int R, bool Odd>
struct HalfTaps {
    Vec<L> tap[R + 1];
    HalfTaps(const float* taps, int64_t) {
        for (int j = 0; j <= R; j++) tap[j] = broadcast<L>(taps[R + j]);
    }
    // sum[i] = the taps about input i + R; `input(i)` loads input i.
    template <int N, class Input>
    DAUKIT_INLINE void correlate(Input input, Vec<L>* sum) const {
        Vec<L> in[N + 2 * R];
        DAUKIT_UNROLL
        for (int i = 0; i < N + 2 * R; i++) in[i] = input(i);
        DAUKIT_UNROLL
        for (int n = 0; n < N; n++) {
            const Vec<L>* centre = in + n + R;
            sum[n] = Odd ? Vec<L>{} : tap[0] * centre[0];
            DAUKIT_UNROLL
            for (int j = 1; j <= R; j++) sum[n] += tap[j] * (Odd ? centre[j] - centre[-j] : centre[j] + centre[-j]);
        }
    }
};

template <int L, bool Odd>
struct HalfTaps<L, -1, Odd> {
    const float* tap;
    int64_t radius;
    HalfTaps(const float* taps, int64_t radius_) : tap(taps + radius_), radius(radius_) {}
    template <int N, class Input>
    DAUKIT_INLINE void correlate(Input input, Vec<L>* sum) const {
        DAUKIT_UNROLL
        for (int n = 0; n < N; n++) sum[n] = Odd ? Vec<L>{} : broadcast<L>(tap[0]) * input(radius + n);
        for (int64_t j = 1; j <= radius; j++) {
            Vec<L> t = broadcast<L>(tap[j]);
            DAUKIT_UNROLL
            for (int n = 0; n < N; n++) {
                Vec<L> before = input(radius + n - j), after = input(radius + n + j);
                sum[n] += t * (Odd ? after - before : after + before);
            }
        }
    }
};

// Correlate `count` columns of a row, to a whole number of tiles of them; `row` begins a radius before the first.
template <int L, class Taps>
void correlate_along(const float* row, int64_t count, const Taps& taps, float* to) {
    for (int64_t x = 0; x < count; x += kBlurTile) {
        Vec<L> sum[kBlurTile];
        taps.template correlate<kBlurTile>([&](int64_t i) { return load<L>(row + (x + i) * L); }, sum);
        DAUKIT_UNROLL
        for (int n = 0; n < kBlurTile; n++) store<L>(to + (x + n) * L, sum[n]);
    }
}

// Correlate N rows down; rows[0] lies a radius above the first.
template <int L, int N, class Taps>
void correlate_down(const float* const* rows, int64_t count, const Taps& taps, float* to, int64_t row_stride) {
    for (int64_t x = 0; x < count; x++) {
        Vec<L> sum[N];
        taps.template correlate<N>([&](int64_t i) { return load<L>(rows[i] + x * L); }, sum);
        DAUKIT_UNROLL
        for (int n = 0; n < N; n++) store<L>(to + n * row_stride + x * L, sum[n]);
    }
}

// Working memory of a sweep over `columns` columns of a plane.
template <int L>
struct SweepRoom {
    SpareLines<L> spare;
    int64_t raw = 0, row = 0, slots = 0,
            rings = 0;  // a row of lanes before the taps along x, and after them; rows kept

    SweepRoom(int64_t columns, const Blur& blur) : spare(columns + 2 * blur.radius) {
        if (!blur.along_y) return;
        raw = round_up((round_up(columns, kBlurTile) + 2 * blur.radius) * L, 16);
        row = (round_up(columns, kBlurTile) | 1) * L;  // an odd number of vectors, as in PackedPlane
        slots = kBlurTile + 2 * blur.radius;
        rings = blur.slope ? 2 : 1;
    }
    // Pointers to the rows of each ring come first, two floats of room each.
    int64_t pointers() const { return round_up(rings * slots * 2, 16); }
    int64_t floats() const { return pointers() + spare.floats() + raw + rings * slots * row; }
};

// A sweep down one channel of a bundle, with a blur of radius R, or any (R = -1).
template <int L, int R>
class Sweep {
public:
    Sweep(const Lanes<L>& lanes, const PlaneSource<L>& source, const Blur& blur, const SweepRoom<L>& room,
          float* memory, const Range& columns)
        : lanes_(lanes),
          source_(source),
          room_(room),
          columns_(columns),
          radius_(blur.radius),
          down_(blur.along_y, radius_),
          along_(blur.along_x, radius_),
          slope_(blur.slope ? blur.slope : blur.along_x, radius_),
          rows_(reinterpret_cast<float**>(memory)),
          lines_(memory + room.pointers()),
          raw_(lines_ + room.spare.floats()),
          inside_(lanes.x.some.within(columns.begin - radius_, columns.end + radius_)) {
        std::memset(lines_, 0, size_t(4 * room.spare.line));
        std::memset(raw_, 0, size_t(4 * room.raw));
        for (int64_t i = 0; i < room.rings * room.slots; i++) rows_[i] = raw_ + room.raw + i * room.row;
    }

    // Write the maps of `rows`, four at a time: out(map, y) says where row y lies, the others `row_stride` after it;
    // done(y, count) follows.
    template <class Out, class Done>
    void run(const Range& rows, int64_t row_stride, Out out, Done done) {
        int64_t keep = 2 * radius_;
        for (int64_t i = 0; i < keep; i++) fill(rows.begin - radius_ + i, i);
        for (int64_t y = rows.begin; y < rows.end; y += kBlurTile) {
            int64_t count = std::min<int64_t>(kBlurTile, rows.end - y);
            for (int64_t i = 0; i < count; i++) fill(y + radius_ + i, keep + i);
            write(down_, 0, count, out(0, y), row_stride);
            if (room_.rings == 2) {
                write(slope_, 0, count, out(1, y), row_stride);
                write(down_, 1, count, out(2, y), row_stride);
            }
            for (int64_t ring = 0; ring < room_.rings; ring++) {
                float** first = rows_ + ring * room_.slots;
                std::rotate(first, first + count, first + room_.slots);
            }
            done(y, count);
        }
    }

private:
    // Row y, correlated along x, into slot i of each ring.
    void fill(int64_t y, int64_t i) {
        bool image = lanes_.y.some.holds(y) && inside_.count() > 0;
        if (image)
            read_row<L>(lanes_, source_, y, inside_, room_.spare, lines_,
                        raw_ + (inside_.begin - columns_.begin + radius_) * L);
        for (int64_t ring = 0; ring < room_.rings; ring++) {
            float* to = rows_[ring * room_.slots + i];
            if (!image)
                zero_columns<L>(to, 0, columns_.count());
            else if (ring == 0)
                correlate_along<L>(raw_, columns_.count(), along_, to);
            else
                correlate_along<L>(raw_, columns_.count(), slope_, to);
        }
    }

    template <class Taps>
    void write(const Taps& taps, int64_t ring, int64_t count, float* to, int64_t row_stride) const {
        const float* const* rows = rows_ + ring * room_.slots;
        if (count == kBlurTile) {
            correlate_down<L, kBlurTile>(rows, columns_.count(), taps, to, row_stride);
            return;
        }
        for (int64_t i = 0; i < count; i++)
            correlate_down<L, 1>(rows + i, columns_.count(), taps, to + i * row_stride, row_stride);
    }

    const Lanes<L>& lanes_;
    const PlaneSource<L>& source_;
    const SweepRoom<L>& room_;
    Range columns_;
    int64_t radius_;
    HalfTaps<L, R, false> down_, along_;
    HalfTaps<L, R, true> slope_;
    float **rows_, *lines_, *raw_;
    Range inside_;
};

// Call with the radius as a constant where it is the usual one, that of sigma = 0.5.
template <class Body>
void with_radius(int64_t radius, Body body) {
    if (radius == 3)
        body(std::integral_constant<int, 3>());
    else
        body(std::integral_constant<int, -1>());
}

// Zero what a sweep wrote of a packed plane beside the images, and what it left out.
template <int L>
void clear_outside(const PackedPlane& plane, const Lanes<L>& lanes, const Range& rows, const Range& columns,
                   float* packed) {
    for (int64_t y = 0; y < plane.rows; y++) {
        float* row = packed + y * plane.row_stride;
        if (!rows.holds(y)) {
            zero_columns<L>(row, 0, plane.columns);
            continue;
        }
        if (!lanes.y.every.holds(y))
            for (int64_t x = columns.begin; x < columns.end; x++) lanes.y.clip(row + x * L, y);
        lanes.x.clip_outside(row, columns);
        zero_columns<L>(row, 0, columns.begin);
        zero_columns<L>(row, columns.end, plane.columns);
    }
}

// Pack one channel of a bundle: its maps, `map_stride` apart.
template <int L>
void pack_plane(const PackedPlane& plane, const Lanes<L>& lanes, const PlaneSource<L>& source, const Blur& blur,
                const SweepRoom<L>& room, float* memory, float* packed, int64_t map_stride) {
    if (!blur.along_y) {
        std::memset(memory, 0, size_t(4 * room.spare.line));
        pack_copy<L>(plane, lanes, source, room.spare, memory, packed);
        return;
    }
    Range rows = lanes.y.some.within(0, plane.rows), columns = lanes.x.some.within(0, plane.columns);
    if (rows.count() && columns.count())
        with_radius(blur.radius, [&](auto radius) {
            Sweep<L, radius()>(lanes, source, blur, room, memory, columns)
                .run(
                    rows, plane.row_stride,
                    [&](int map, int64_t y) {
                        return packed + map * map_stride + y * plane.row_stride + columns.begin * L;
                    },
                    [](int64_t, int64_t) {});
        });
    for (int map = 0; map < blur.maps(); map++)
        clear_outside<L>(plane, lanes, rows, columns, packed + map * map_stride);
}

// Blur a bundle of images of one channel; `memory` holds a sweep's room and `kBlurTile` lines.
template <int L>
void blur_planes(const Tiling& t, const Lanes<L>& lanes, const Blur& blur, const SweepRoom<L>& room, float* memory,
                 int64_t bundle, const float* input, float* output) {
    PlaneSource<L> source(t, lanes, input, 1, bundle, 0);
    Region tile{bundle, 0, 0, t.tile_h, t.tile_w};
    RegionTarget<L> target(t, tile, output, 1);
    float* lines = memory + room.floats();
    int64_t stride = round_up(t.tile_w, L) * L;
    with_radius(blur.radius, [&](auto radius) {
        Sweep<L, radius()>(lanes, source, blur, room, memory, Range{0, t.tile_w})
            .run(
                {0, t.tile_h}, stride, [&](int, int64_t) { return lines; },
                [&](int64_t y, int64_t count) { unpack_rows<L>(target, tile, lines, stride, y, count, t.width); });
    });
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
