// The whole operator for one number of lanes: passes over far displacements, packing, jobs, unpacking.
#pragma once

#include <vector>

#include "blur.h"
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

constexpr int64_t kWindowBytes = 44 << 10;   // one window, all its input channels: about the L1 cache
constexpr int64_t kSumBytes = 400 << 10;     // sums of one job: well within the L2 cache
constexpr int64_t kPackedBytes = 32 << 20;   // bundles packed at a time, unless one alone is larger
constexpr int64_t kJobsPerThread = 4;        // so that the last jobs end at about the same time

// Split a span into pieces of kReach, dropping none: far displacements cost passes, not memory.
inline std::vector<Span> split_span(const Span& span) {
    std::vector<Span> pieces;
    for (float y = span.y0; y <= span.y1; y += kReach)
        for (float x = span.x0; x <= span.x1; x += kReach)
            pieces.push_back(
                {y, std::min(span.y1, y + kReach - 1), x, std::min(span.x1, x + kReach - 1), span.moved});
    return pieces;
}

inline bool holds_any(const UnitSource& s, int64_t total, const Span& span) {
    for (int64_t u = 0; u < total; u++)
        if (span.holds(std::floor(s.mu_y[u]), std::floor(s.mu_x[u]))) return true;
    return false;
}

// What a pass reads (`in`, displaced) and writes (`out`): the forward reads images, its adjoint reads output gradients.
struct PassSizes {
    int64_t in_channels, out_channels;  // of one group
    int64_t groups;
};

// How a pass is cut into jobs: a region of a bundle times a block of output channels of a group. Within a job, blocks
// of input channels run outermost, so that their list is built once and their window stays in L1.
template <int L>
struct Jobs {
    int64_t rows, columns;        // of a region
    int64_t strips, chunks;       // regions down and across a tile
    int64_t out_block, in_block;  // channels
    int64_t out_blocks;           // of one group

    Jobs(const Tiling& t, const PackedPlane& plane, const PassSizes& sizes, int64_t max_rows, int64_t tile_columns,
         int64_t bytes_per_sum, int64_t threads, double units) {
        strips = ceil_div(t.tile_h, max_rows);
        rows = ceil_div(t.tile_h, strips);
        chunks = ceil_div(t.tile_w, 16);
        columns = chunks == 1 ? t.tile_w : 16;
        int64_t fit = std::max<int64_t>(8, kSumBytes / (rows * columns * L * bytes_per_sum));
        int64_t blocks = ceil_div(sizes.out_channels, fit);
        int64_t others = t.bundles * strips * chunks * sizes.groups;
        while (threads > 1 && blocks * others < kJobsPerThread * threads && sizes.out_channels / (blocks + 1) >= 12)
            blocks++;
        out_block = ceil_div(sizes.out_channels, blocks);
        out_blocks = ceil_div(sizes.out_channels, out_block);
        int64_t window = (rows + plane.box.height()) * (tile_columns + plane.box.width()) * L * 4;
        // At least eight units a visit of the sums, where L1 allows it twice over.
        int64_t want = std::max<int64_t>(1, kWindowBytes / window), most = std::max<int64_t>(1, 2 * kWindowBytes / window);
        if (units > 0) want = std::max(want, std::min<int64_t>(most, int64_t(std::ceil(8 / units))));
        in_block = std::min(want, sizes.in_channels);
    }
    int64_t regions() const { return strips * chunks; }
    Region region(const Tiling& t, int64_t bundle, int64_t number) const {
        int64_t y = number / chunks * rows, x = number % chunks * columns;
        return {bundle, y, x, std::min(rows, t.tile_h - y), std::min(columns, t.tile_w - x)};
    }
};

inline double mean_units(const UnitSource& s, int64_t total, int64_t outputs) {
    return double(total) / double(std::max<int64_t>(1, outputs * s.inputs));
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
        source = {units.weight, units.mu_y, units.mu_x, units.unit_ptr, inputs, sizes.units};
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

    // Fill the canvases of one bundle's images for one channel: a copy, or one blur for each map.
    struct Blur {
        int64_t radius;
        const float *along_y[3], *along_x[3];
        int maps;  // 0: copy
    };
    int64_t fill_canvases(const Tiling& t, const Canvas& canvas, const Blur& blur, const BlurScratch& room,
                          const float* tensor, int64_t channels, int64_t bundle, int64_t channel, float* scratch,
                          float* canvases) const {
        int64_t first = bundle * t.images_per_bundle, count = std::min(t.images_per_bundle, t.images - first);
        for (int64_t i = 0; i < count; i++) {
            const float* plane = tensor + ((first + i) * channels + channel) * t.height * t.width;
            float* to = canvases + i * canvas.size + canvas.left;
            if (blur.maps == 0) {
                copy_plane(plane, t.height, t.width, canvas.row_stride, to);
                continue;
            }
            copy_plane(plane, t.height, t.width, room.row, scratch);
            for (int m = 0; m < blur.maps; m++)
                correlate_plane<L>(scratch, t.height, t.width, blur.radius, blur.along_y[m], blur.along_x[m],
                                   scratch + t.height * room.row, to + m * t.images_per_bundle * canvas.size,
                                   canvas.row_stride);
        }
        return count;
    }

    // Sums of one span's units: the forward (Adjoint false: `from` images to outputs) or its adjoint.
    template <bool Adjoint>
    bool read_pass(const Span& span, bool drop, bool add, const Blur& blur, const float* bias, const float* from,
                   float* to) const;
    template <bool Exact>
    bool backward_pass(const Span& span, bool drop, bool add, const Blur& blur, const float* grad_output,
                       const float* input, float* grad_blurred, float* partial, int64_t slices) const;
    void finish_gradients(const float* partial, int64_t slices, bool exact, float* grad_weight, float* grad_mu) const;

    template <class Pass>
    bool each_span(Pass pass) const {
        Span all = live_span(source, total, sizes.height, sizes.width, threads);
        std::vector<Span> spans = split_span(all);
        bool whole = spans.size() == 1, add = false;
        // With a single span only units that cannot touch the image lie outside it.
        bool drop = !whole || outside(all);
        for (const Span& span : spans) {
            bool last = &span == &spans.back();
            if (!whole && !(last && !add) && !holds_any(source, total, span)) continue;
            if (!pass(span, drop, add)) return false;
            add = true;
        }
        return true;
    }
    bool outside(const Span& span) const {
        int out = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : out) schedule(static) if (total > 65536)
        for (int64_t u = 0; u < total; u++) {
            float y = std::floor(source.mu_y[u]), x = std::floor(source.mu_x[u]);
            out += (y < span.y0) | (y > span.y1) | (x < span.x0) | (x > span.x1);
        }
        return out != 0;
    }
};

template <int L>
template <bool Adjoint>
bool Call<L>::read_pass(const Span& span, bool drop, bool add, const Blur& blur, const float* bias, const float* from,
                        float* to) const {
    int64_t G = sizes.groups, O = sizes.out_channels, outputs = O / G;
    PassSizes pass = Adjoint ? PassSizes{outputs, source.inputs, G} : PassSizes{source.inputs, outputs, G};
    int64_t read = pass.in_channels * G, written = pass.out_channels * G;
    Box box = Adjoint ? span.adjoint_box() : span.forward_box();
    Tiling t = Tiling::choose(L, sizes.batch, sizes.height, sizes.width, box);
    PackedPlane plane(t, box);
    Canvas canvas(t, box);
    BlurScratch room(L, t.height, t.width, blur.radius);
    Jobs<L> jobs(t, plane, pass, kRows, kColumns, 4, threads, mean_units(source, total, O));
    int64_t units = Adjoint ? largest_block(source, G, outputs, jobs.in_block, jobs.out_block)
                            : largest_block(source, G, outputs, jobs.out_block, jobs.in_block);
    int64_t round = std::min(t.bundles, std::max<int64_t>(1, kPackedBytes / (read * plane.stride * 4)));

    float *packed = nullptr, *zeros = nullptr;
    struct Room {
        float *canvases, *blur, *sums, *list, *run;
    };
    std::vector<Room> rooms(static_cast<size_t>(threads));
    auto carve = [&](Carver carver) {
        packed = carver.take(round * read * plane.stride);
        zeros = carver.take(canvas.row_stride + plane.columns + L);
        for (Room& r : rooms) {
            r.canvases = carver.take(t.images_per_bundle * canvas.size + canvas.row_stride + L);
            r.blur = carver.take(blur.maps ? room.size : 0);
            r.sums = carver.take(jobs.out_block * jobs.rows * jobs.columns * L);
            r.list = carver.take(UnitLists::floats(units + 64, jobs.out_block));
            r.run = carver.take(Adjoint ? 4 * (units + 64) : 0);
        }
        return carver.used();
    };
    Scratch scratch(carve(Carver()));
    if (!scratch.data()) return false;
    carve(Carver(scratch.data()));
    std::memset(zeros, 0, size_t(4 * (canvas.row_stride + plane.columns + L)));

#pragma omp parallel num_threads(threads)
    {
        const Room& mine = rooms[size_t(thread_number())];
        std::memset(mine.canvases, 0, size_t(4 * (t.images_per_bundle * canvas.size + canvas.row_stride + L)));
        if (blur.maps) std::memset(mine.blur, 0, size_t(4 * room.size));
        for (int64_t start = 0; start < t.bundles; start += round) {
            int64_t count = std::min(round, t.bundles - start);
#pragma omp for schedule(dynamic, 4)
            for (int64_t i = 0; i < count * read; i++) {
                int64_t present = fill_canvases(t, canvas, blur, room, from, read, start + i / read, i % read, mine.blur,
                                                mine.canvases);
                pack_plane<L>(t, plane, canvas, mine.canvases, present, zeros, packed + i * plane.stride);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t job = 0; job < count * jobs.regions() * G * jobs.out_blocks; job++) {
                int64_t block = job % jobs.out_blocks, group = job / jobs.out_blocks % G;
                int64_t number = job / (jobs.out_blocks * G);
                Region region = jobs.region(t, start + number / jobs.regions(), number % jobs.regions());
                int64_t w0 = block * jobs.out_block, w1 = std::min(pass.out_channels, w0 + jobs.out_block);
                Sums sums{mine.sums, w1 - w0, kColumns};
                UnitLists list(mine.list, units + 64);
                const float* bundle = packed + (number / jobs.regions() * read + group * pass.in_channels) * plane.stride +
                                      region.y * plane.row_stride + region.x * L;
                for (int64_t r0 = 0; r0 < pass.in_channels; r0 += jobs.in_block) {
                    int64_t r1 = std::min(pass.in_channels, r0 + jobs.in_block), o = group * outputs;
                    if (Adjoint)
                        list_adjoint(source, o + r0, o + r1, w0, w1, span, drop, Use::image, plane, L, mine.run, units + 64,
                                     list);
                    else
                        list_forward(source, o + w0, o + w1, r0, r1, span, drop, plane, L, list);
                    for (int64_t x = 0; x < region.columns; x += kColumns) {
                        int64_t columns = std::min<int64_t>(kColumns, region.columns - x);
                        bool last = x + kColumns >= region.columns;
                        const float* window = bundle + r0 * plane.stride + x * L;
                        int64_t reach = kColumns + box.width(), height = region.rows + box.height();
                        Prefetch next;
                        if (!last)
                            next = Prefetch(window + reach * L, r1 - r0, height, plane.row_stride, plane.stride,
                                            kColumns * L, w1 - w0);
                        else if (r1 < pass.in_channels)
                            next = Prefetch(bundle + r1 * plane.stride, std::min(jobs.in_block, pass.in_channels - r1),
                                            height, plane.row_stride, plane.stride, reach * L, w1 - w0);
                        read_tile_of<L>(region.rows, columns)(window, plane.row_stride, list, w1 - w0,
                                                              sums.tile(region, x, L), sums.channel_stride(region, x, L), r0 == 0,
                                                              next);
                    }
                }
                RegionTarget<L> target(t, region, to, written);
                for (int64_t w = w0; w < w1; w++) {
                    int64_t channel = group * pass.out_channels + w;
                    unpack_region<L>(target, region, sums, w - w0, channel * t.height * t.width, t.width,
                                     bias && !add ? bias[channel] : 0, add);
                }
            }
        }
    }
    return true;
}

// The backward by one list: of the paper's mu gradient everything; of the exact one (where the image gradient is a pass
// of its own) the dot products. A job is a slice of the regions times a block of input channels: it alone adds to the dot products
// of its units in its slice, so that results do not depend on which thread runs it.
template <int L>
template <bool Exact>
bool Call<L>::backward_pass(const Span& span, bool drop, bool add, const Blur& blur, const float* grad_output,
                            const float* input, float* grad_blurred, float* partial, int64_t slices) const {
    constexpr int tile_columns = kBackwardColumns;
    int64_t G = sizes.groups, C = sizes.in_channels, O = sizes.out_channels, outputs = O / G, inputs = source.inputs;
    Box box = span.adjoint_box();
    Tiling t = Tiling::choose(L, sizes.batch, sizes.height, sizes.width, box);
    PackedPlane plane(t, box), map_plane(t, Box{0, 0, 0, 0});
    Canvas canvas(t, box);
    BlurScratch room(L, t.height, t.width, blur.radius);
    Jobs<L> jobs(t, plane, PassSizes{outputs, inputs, G}, kBackwardRows, tile_columns, 4 * (1 + blur.maps), threads,
                 mean_units(source, total, O));
    int64_t units = largest_block(source, G, outputs, jobs.in_block, jobs.out_block);
    int64_t job_units = largest_block(source, G, outputs, outputs, jobs.out_block);
    int64_t maps = blur.maps, bundle_floats = O * plane.stride + C * maps * map_plane.stride;
    int64_t round = std::min(t.bundles, std::max<int64_t>(1, kPackedBytes / (bundle_floats * 4)));

    float *packed = nullptr, *packed_maps = nullptr, *zeros = nullptr;
    struct Room {
        float *canvases, *blur, *sums, *list, *run, *dots, *index;
    };
    std::vector<Room> rooms(static_cast<size_t>(threads));
    int64_t canvas_floats = maps * t.images_per_bundle * canvas.size + canvas.row_stride + L;
    auto carve = [&](Carver carver) {
        packed = carver.take(round * O * plane.stride);
        packed_maps = carver.take(round * C * maps * map_plane.stride);
        zeros = carver.take(canvas.row_stride + plane.columns + L);
        for (Room& r : rooms) {
            r.canvases = carver.take(canvas_floats);
            r.blur = carver.take(room.size);
            r.sums = carver.take(jobs.out_block * jobs.rows * jobs.columns * L);
            r.list = carver.take(UnitLists::floats(units + 64, jobs.out_block));
            r.run = carver.take(4 * (units + 64));
            r.dots = carver.take(4 * job_units);
            r.index = carver.take(job_units);
        }
        return carver.used();
    };
    Scratch scratch(carve(Carver()));
    if (!scratch.data()) return false;
    carve(Carver(scratch.data()));
    std::memset(zeros, 0, size_t(4 * (canvas.row_stride + plane.columns + L)));
    Blur copy{0, {}, {}, 0};

#pragma omp parallel num_threads(threads)
    {
        const Room& mine = rooms[size_t(thread_number())];
        std::memset(mine.canvases, 0, size_t(4 * canvas_floats));
        std::memset(mine.blur, 0, size_t(4 * room.size));
        for (int64_t start = 0; start < t.bundles; start += round) {
            int64_t count = std::min(round, t.bundles - start);
#pragma omp for schedule(dynamic, 4)
            for (int64_t i = 0; i < count * (O + C); i++) {
                int64_t bundle = start + i / (O + C), channel = i % (O + C);
                if (channel < O) {
                    int64_t present = fill_canvases(t, canvas, copy, room, grad_output, O, bundle, channel, mine.blur,
                                                    mine.canvases);
                    pack_plane<L>(t, plane, canvas, mine.canvases, present, zeros,
                                  packed + ((bundle - start) * O + channel) * plane.stride);
                    continue;
                }
                channel -= O;
                int64_t present =
                    fill_canvases(t, canvas, blur, room, input, C, bundle, channel, mine.blur, mine.canvases);
                for (int64_t m = 0; m < maps; m++)
                    pack_plane<L>(t, map_plane, canvas, mine.canvases + m * t.images_per_bundle * canvas.size, present,
                                  zeros, packed_maps + (((bundle - start) * C + channel) * maps + m) * map_plane.stride);
            }
            int64_t regions = count * jobs.regions();
#pragma omp for schedule(dynamic, 1)
            for (int64_t job = 0; job < slices * G * jobs.out_blocks; job++) {
                int64_t block = job % jobs.out_blocks, group = job / jobs.out_blocks % G;
                int64_t slice = job / (jobs.out_blocks * G);
                int64_t c0 = block * jobs.out_block, c1 = std::min(inputs, c0 + jobs.out_block), o = group * outputs;
                int32_t* index = reinterpret_cast<int32_t*>(mine.index);
                UnitLists list(mine.list, units + 64);
                std::memset(mine.dots, 0, size_t(16 * job_units));
                int64_t listed = 0;
                for (int64_t number = regions * slice / slices; number < regions * (slice + 1) / slices; number++) {
                    Region region = jobs.region(t, start + number / jobs.regions(), number % jobs.regions());
                    Sums sums{mine.sums, c1 - c0, tile_columns};
                    int64_t local = number / jobs.regions();
                    const float* window_base = packed + (local * O + o) * plane.stride + region.y * plane.row_stride +
                                               region.x * L;
                    const float* map_base = packed_maps + (local * C + group * inputs + c0) * maps * map_plane.stride +
                                            region.y * map_plane.row_stride + region.x * L;
                    listed = 0;
                    for (int64_t r0 = 0; r0 < outputs; r0 += jobs.in_block) {
                        int64_t r1 = std::min(outputs, r0 + jobs.in_block);
                        int64_t n = list_adjoint(source, o + r0, o + r1, c0, c1, span, drop, Exact ? Use::dots : Use::fused, plane,
                                                 L, mine.run, units + 64, list);
                        std::memcpy(index + listed, list.index, size_t(4 * n));
                        for (int64_t x = 0; x < region.columns; x += tile_columns) {
                            int64_t columns = std::min<int64_t>(tile_columns, region.columns - x);
                            bool last = x + tile_columns >= region.columns;
                            const float* window = window_base + r0 * plane.stride + x * L;
                            int64_t reach = tile_columns + box.width(), height = region.rows + box.height();
                            Prefetch next;
                            if (!last)
                                next = Prefetch(window + reach * L, r1 - r0, height, plane.row_stride, plane.stride,
                                                tile_columns * L, c1 - c0);
                            else if (r1 < outputs)
                                next = Prefetch(window_base + r1 * plane.stride, std::min(jobs.in_block, outputs - r1),
                                                height, plane.row_stride, plane.stride, reach * L, c1 - c0);
                            MapTile tile = {map_base + x * L, maps * map_plane.stride, map_plane.stride,
                                            map_plane.row_stride};
                            backward_tile_of<L, Exact>(region.rows, columns)(
                                window, plane.row_stride, list, c1 - c0, sums.tile(region, x, L),
                                sums.channel_stride(region, x, L), tile, r0 == 0, mine.dots + 4 * listed, next);
                        }
                        listed += n;
                    }
                    if (!grad_blurred) continue;
                    RegionTarget<L> target(t, region, grad_blurred, C);
                    for (int64_t c = c0; c < c1; c++)
                        unpack_region<L>(target, region, sums, c - c0, (group * inputs + c) * t.height * t.width, t.width, 0, add);
                }
                float* to = partial + slice * 4 * total;
                for (int64_t n = 0; n < listed; n++)
                    for (int i = 0; i < 4; i++) to[4 * int64_t(index[n]) + i] += mine.dots[4 * n + i];
            }
        }
    }
    return true;
}

// Add the slices in order, and give the dot products the factors that the kernels left out.
template <int L>
void Call<L>::finish_gradients(const float* partial, int64_t slices, bool exact, float* grad_weight,
                               float* grad_mu) const {
    float *grad_y = grad_mu, *grad_x = grad_mu + total;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t u = 0; u < total; u++) {
        float dot[4] = {};
        for (int64_t slice = 0; slice < slices; slice++)
            for (int i = 0; i < 4; i++) dot[i] += partial[(slice * total + u) * 4 + i];
        float w = source.weight[u];
        float fy = source.mu_y[u] - std::floor(source.mu_y[u]), fx = source.mu_x[u] - std::floor(source.mu_x[u]);
        if (exact) {
            // The adjoint's near taps are the forward's far ones: dot = (m + (1, 1), m + (1, 0), m + (0, 1), m).
            float t11 = dot[0], t10 = dot[1], t01 = dot[2], t00 = dot[3];
            grad_weight[u] = (1 - fy) * ((1 - fx) * t00 + fx * t01) + fy * ((1 - fx) * t10 + fx * t11);
            grad_y[u] = w * ((1 - fx) * (t10 - t00) + fx * (t11 - t01));
            grad_x[u] = w * ((1 - fy) * (t01 - t00) + fy * (t11 - t10));
        } else {
            float a = adjoint_near(source.mu_y[u]) * adjoint_near(source.mu_x[u]);
            grad_weight[u] = a * dot[0];
            grad_y[u] = w * a * dot[1];
            grad_x[u] = w * a * dot[2];
        }
    }
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
