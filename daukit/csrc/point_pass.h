// A forward whose units all read the pixel that they write: convolutions of one pixel, most of them with zeros. Nothing is
// packed into lanes: pixels, counted through all images, are vectors as they lie in the tensors.
#pragma once

#include "call.h"

namespace daukit {
namespace DAUKIT_ISA {

constexpr int64_t kPointBytes =
    96 << 10;                        // pixels of a tile, all channels that it reads at a time: within the L2 cache
constexpr int64_t kPointsAhead = 2;  // output channels ahead whose lines are asked for
constexpr int kPointVectors = 12;    // pixels of a tile, in vectors: sums that stay in registers

// A unit as a row of a tile reads it.
struct Point {
    int32_t offset;  // into the window, in floats
    float weight;
};

// Sums of one output channel over a tile of V vectors: from `sums`, or from zero.
template <int L, int V>
DAUKIT_INLINE void add_points(const float* window, const Point* first, const Point* last, Vec<L>* sum) {
    for (const Point* point = first; point < last; point++) {
        const float* row = window + point->offset;
        Vec<L> a = broadcast<L>(point->weight);
        DAUKIT_UNROLL
        for (int v = 0; v < V; v++) sum[v] += a * load<L>(row + v * L);
    }
}
template <int L, int V>
void point_row(const float* window, const Point* first, const Point* last, const float* sums, const Finish<L>& finish,
               int64_t channel, float* to) {
    Vec<L> sum[V];
    DAUKIT_UNROLL
    for (int v = 0; v < V; v++) sum[v] = sums ? load<L>(sums + v * L) : Vec<L>{};
    add_points<L, V>(window, first, last, sum);
    DAUKIT_UNROLL
    for (int v = 0; v < V; v++) store_unaligned<L>(to + v * L, finish(sum[v], channel));
}
template <int L>
using PointRow = void (*)(const float*, const Point*, const Point*, const float*, const Finish<L>&, int64_t, float*);
template <int L, int V = kPointVectors>
PointRow<L> point_row_of(int64_t vectors) {
    if constexpr (V > 1)
        if (vectors < V) return point_row_of<L, V - 1>(vectors);
    return point_row<L, V>;
}

template <int L>
class PointPass {
public:
    // Whether all units read their own pixel, unblurred, and of enough channels.
    static bool takes(const Call<L>& call, const Span& span, bool drop, const Blur& blur) {
        return span.units == Units::whole && !drop && span.y0 == 0 && span.y1 == 0 && span.x0 == 0 && span.x1 == 0 &&
               blur.radius == 0 && call.source.phases() == 1 && call.source.inputs >= 8;
    }

    explicit PointPass(const Call<L>& call)
        : inputs_(call.source.inputs),
          groups_(call.sizes.groups),
          outputs_(call.sizes.out_channels / groups_),
          image_(call.sizes.height * call.sizes.width),
          pixels_(call.sizes.batch * image_) {
        tiles_ = std::max<int64_t>(1, ceil_div(pixels_, kPointVectors * L));
        vectors_ = ceil_div(ceil_div(pixels_, L), tiles_);
        tile_ = vectors_ * L;
        in_blocks_ = ceil_div(inputs_ * tile_ * 4, kPointBytes);
        in_block_ = ceil_div(inputs_, in_blocks_);
        in_blocks_ = ceil_div(inputs_, in_block_);
        int64_t blocks = 1;
        while (call.threads > 1 && blocks * tiles_ * groups_ < kJobsPerThread * call.threads &&
               outputs_ / (blocks + 1) >= 12)
            blocks++;
        out_block_ = ceil_div(outputs_, blocks);
        out_blocks_ = ceil_div(outputs_, out_block_);
        list(call);
    }

    int64_t bytes() const { return int64_t(points_.size() * sizeof(Point) + bounds_.size() * sizeof(bounds_[0])); }

    // False when memory ran out.
    bool run(int threads, const float* bias, bool relu, const float* from, float* to) const {
        int64_t window = round_up(in_block_ * tile_, 16), sums = round_up(in_blocks_ > 1 ? out_block_ * tile_ : 0, 16);
        int64_t each = window + sums + round_up(tile_, 16);
        Scratch scratch(each * threads);
        if (!scratch.data()) return false;
        Finish<L> finish(bias, relu, false);
        const int64_t jobs = tiles_ * groups_ * out_blocks_;
        // In pieces: a tile prefetches the next one for the same thread.
        const int64_t piece = std::max<int64_t>(1, jobs / (8 * threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, piece)
        for (int64_t job = 0; job < jobs; job++) {
            float* memory = scratch.data() + thread_number() * each;
            run_job(job, memory, memory + window, memory + window + sums, finish, from, to);
        }
        return true;
    }

private:
    // Pixels of a tile that follow each other in one image.
    struct Run {
        int64_t image, pixel, count, at;  // `at`: the first one's place in the tile
    };
    template <class Body>
    void each_run(int64_t tile, Body body) const {
        int64_t end = std::min(pixels_, (tile + 1) * tile_);
        for (int64_t q = tile * tile_; q < end;) {
            int64_t pixel = q % image_, count = std::min(image_ - pixel, end - q);
            body(Run{q / image_, pixel, count, q - tile * tile_});
            q += count;
        }
    }

    // Units in the order of the layer's, which is that of output channels, then of input channels.
    void list(const Call<L>& call) {
        const UnitSource& source = call.source;
        points_.resize(size_t(call.total));
        bounds_.resize(size_t(groups_ * outputs_ * in_blocks_ + 1));
#pragma omp parallel for num_threads(call.threads) schedule(static) if (groups_ * outputs_ * inputs_ > 16384)
        for (int64_t out = 0; out < groups_ * outputs_; out++)
            for (int64_t in = 0; in < inputs_; in++) {
                int64_t begin = source.begin(out, in), end = source.begin(out, in + 1);
                if (in % in_block_ == 0) bounds_[size_t(out * in_blocks_ + in / in_block_)] = begin;
                for (int64_t u = begin; u < end; u++)
                    points_[size_t(u)] = {int32_t(in % in_block_ * tile_), source.weight[u]};
            }
        bounds_.back() = call.total;
    }

    static DAUKIT_INLINE void copy(const float* from, int64_t count, float* to) {
        int64_t i = 0;
        for (; i + L <= count; i += L) store_unaligned<L>(to + i, load_unaligned<L>(from + i));
        for (; i < count; i++) to[i] = from[i];
    }
    // The pixels of a tile in channels c0 .. c1, [channel][pixel].
    void copy_window(int64_t tile, int64_t c0, int64_t c1, const float* from, float* window) const {
        int64_t filled = 0;
        each_run(tile, [&](const Run& run) {
            const float* first = from + (run.image * groups_ * inputs_ + c0) * image_ + run.pixel;
            for (int64_t c = 0; c < c1 - c0; c++) copy(first + c * image_, run.count, window + c * tile_ + run.at);
            filled += run.count;
        });
        for (int64_t c = 0; filled < tile_ && c < c1 - c0; c++)
            std::fill(window + c * tile_ + filled, window + (c + 1) * tile_, 0.0f);
    }

    void run_job(int64_t job, float* window, float* sums, float* line, const Finish<L>& finish, const float* from,
                 float* to) const {
        int64_t block = job % out_blocks_, tile = job / out_blocks_ % tiles_, group = job / (out_blocks_ * tiles_);
        int64_t first = group * outputs_ + block * out_block_;
        int64_t last = std::min((group + 1) * outputs_, first + out_block_);
        bool straight = image_ - tile * tile_ % image_ >= tile_ && (tile + 1) * tile_ <= pixels_;
        PointRow<L> row = point_row_of<L>(vectors_);
        Finish<L> keep_sums(nullptr, false, false);
        for (int64_t b = 0; b < in_blocks_; b++) {
            int64_t c0 = b * in_block_, c1 = std::min(inputs_, c0 + in_block_);
            copy_window(tile, group * inputs_ + c0, group * inputs_ + c1, from, window);
            Prefetch next = prefetch_after(tile, group, b, from, last - first);
            for (int64_t out = first; out < last; out++) {
                next.step();
                if (b + 1 == in_blocks_ && straight && out + kPointsAhead < last)
                    for (int64_t i = 0; i < tile_; i += 16)
                        __builtin_prefetch(place(to, tile * tile_, out + kPointsAhead) + i, 1, 2);
                const int64_t* bound = &bounds_[size_t(out * in_blocks_ + b)];
                const Point *begin = points_.data() + bound[0], *end = points_.data() + bound[1];
                float* sum = sums + (out - first) * tile_;
                const float* before = b > 0 ? sum : nullptr;
                if (b + 1 < in_blocks_) {
                    row(window, begin, end, before, keep_sums, out, sum);
                } else if (straight) {
                    row(window, begin, end, before, finish, out, place(to, tile * tile_, out));
                } else {
                    row(window, begin, end, before, finish, out, line);
                    each_run(tile, [&](const Run& run) {
                        copy(line + run.at, run.count, place(to, tile * tile_ + run.at, out));
                    });
                }
            }
        }
    }
    // What is copied next: the tile's next channels, or the next tile's first ones.
    Prefetch prefetch_after(int64_t tile, int64_t group, int64_t block, const float* from, int64_t steps) const {
        bool last = block + 1 == in_blocks_;
        int64_t c0 = last ? 0 : (block + 1) * in_block_, q = (tile + last) * tile_;
        if (q + tile_ > pixels_ || image_ < tile_) return Prefetch();
        const float* first = from + (q / image_ * groups_ * inputs_ + group * inputs_ + c0) * image_ + q % image_;
        return Prefetch(first, std::min(in_block_, inputs_ - c0), 1, image_, image_, tile_ + 16, steps);
    }
    float* place(float* to, int64_t pixel, int64_t out) const {
        return to + (pixel / image_ * groups_ * outputs_ + out) * image_ + pixel % image_;
    }

    int64_t inputs_, groups_, outputs_;  // inputs and outputs of a group
    int64_t image_, pixels_;             // pixels of an image; of all
    int64_t tiles_, vectors_, tile_;     // tiles of pixels, and the size of one in vectors and in pixels
    int64_t in_blocks_, in_block_, out_blocks_, out_block_;
    std::vector<Point> points_;
    std::vector<int64_t> bounds_;  // of the units of each output channel and block of input channels
};

}  // namespace DAUKIT_ISA
}  // namespace daukit
