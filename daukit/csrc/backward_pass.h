// A pass of the whole backward: one run through the units gives image gradient and dot products.
#pragma once

#include "backward_tiles.h"
#include "call.h"

namespace daukit {
namespace DAUKIT_ISA {

// With one map it gives the gradients of images and weights, with three the paper's mu gradient too. With none it gives
// the dot products at the four taps, for the exact mu gradient, and the image gradient is a pass of its own. A job is a
// slice of the regions times a block of input channels: it alone adds to the dot products of its units in its slice, so
// that results do not depend on which thread runs it.
template <int L, int Maps>
class BackwardPass {
public:
    BackwardPass(const Call<L>& call, const Span& span, bool drop, bool add, const Blur& blur, int64_t slices)
        : source_(call.source),
          span_(Maps == 0 ? four_taps(span) : span),
          drop_(drop),
          add_(add),
          blur_(blur),
          threads_(call.threads),
          groups_(call.sizes.groups),
          in_channels_(call.sizes.in_channels),
          out_channels_(call.sizes.out_channels),
          outputs_(out_channels_ / groups_),
          inputs_(source_.inputs),
          total_(call.total),
          slices_(slices),
          tiling_(Tiling::choose(L, call.sizes.batch, call.sizes.height, call.sizes.width, span_.adjoint_box())),
          plane_(tiling_, span_.adjoint_box()),
          map_plane_(tiling_, Box{0, 0, 0, 0}),
          lanes_(tiling_, plane_.box),
          map_lanes_(tiling_, map_plane_.box),
          room_(plane_.columns, blur),
          jobs_(tiling_, plane_, PassSizes{outputs_, inputs_, groups_}, most_rows(span_.units, slices), kColumns,
                4 * ((Maps > 0) + blur.maps()), threads_, call.mean_units()),
          workers_(static_cast<size_t>(threads_)) {
        units_ = largest_block(source_, groups_, outputs_, jobs_.in_block, jobs_.out_block) + 64;
        job_units_ = largest_block(source_, groups_, outputs_, outputs_, jobs_.out_block);
        int64_t bundle = out_channels_ * plane_.stride + in_channels_ * blur.maps() * map_plane_.stride;
        round_ = std::min(tiling_.bundles, std::max<int64_t>(1, kPackedBytes / (bundle * 4)));
    }

    // Add the dot products of every unit to each slice's part of `partial`; grad_blurred may be null. False: out of memory.
    bool run(const float* grad_output, const float* input, float* grad_blurred, float* partial) {
        Scratch scratch(carve(Carver()));
        if (!scratch.data()) return false;
        carve(Carver(scratch.data()));
        int64_t planes = out_channels_ + in_channels_;
#pragma omp parallel num_threads(threads_)
        {
            const Worker& worker = workers_[size_t(thread_number())];
            for (int64_t start = 0; start < tiling_.bundles; start += round_) {
                int64_t count = std::min(round_, tiling_.bundles - start);
#pragma omp for schedule(dynamic, 4)
                for (int64_t i = 0; i < count * planes; i++) {
                    if (i % planes < out_channels_)
                        pack_error(worker, start, i / planes, i % planes, grad_output);
                    else
                        pack_maps(worker, start, i / planes, i % planes - out_channels_, input);
                }
#pragma omp for schedule(dynamic, 1)
                for (int64_t job = 0; job < slices_ * groups_ * jobs_.out_blocks; job++)
                    run_job(worker, start, count * jobs_.regions(), job, grad_blurred, partial);
            }
        }
        return true;
    }

private:
    static constexpr int kDots = dots_of(Maps), kColumns = Maps == 0 ? kTapColumns : kBackwardColumns;
    // Slices are there because jobs are few: then regions are not made fewer.
    static int64_t most_rows(Units units, int64_t slices) {
        if (Maps == 0) return slices == 1 ? kTapRows : kBackwardRows;
        return units == Units::whole ? kWholeBackwardRows : kBackwardRows;
    }
    static Span four_taps(Span span) {
        span.units = Units::between;
        return span;
    }
    struct Worker {
        float *room, *sums, *list, *run, *dots, *index;
    };

    int64_t list_floats() const { return UnitLists::floats(span_.units, units_, jobs_.out_block, true); }

    int64_t carve(Carver carver) {
        packed_ = carver.take(round_ * out_channels_ * plane_.stride);
        packed_maps_ = carver.take(round_ * in_channels_ * blur_.maps() * map_plane_.stride);
        for (Worker& worker : workers_) {
            worker.room = carver.take(room_.floats());
            worker.sums = carver.take(Maps == 0 ? 0 : jobs_.out_block * jobs_.rows * jobs_.columns * L);
            worker.list = carver.take(list_floats());
            worker.run = carver.take(4 * units_);
            worker.dots = carver.take(kDots * job_units_);
            worker.index = carver.take(job_units_);
        }
        return carver.used();
    }

    void pack_error(const Worker& worker, int64_t start, int64_t bundle, int64_t channel, const float* grad_output) {
        PlaneSource<L> source(tiling_, lanes_, grad_output, out_channels_, start + bundle, channel);
        pack_plane<L>(plane_, lanes_, source, Blur(), room_, worker.room,
                      packed_ + (bundle * out_channels_ + channel) * plane_.stride, 0);
    }

    void pack_maps(const Worker& worker, int64_t start, int64_t bundle, int64_t channel, const float* input) {
        PlaneSource<L> source(tiling_, map_lanes_, input, in_channels_, start + bundle, channel);
        pack_plane<L>(map_plane_, map_lanes_, source, blur_, room_, worker.room,
                      packed_maps_ + (bundle * in_channels_ + channel) * blur_.maps() * map_plane_.stride,
                      map_plane_.stride);
    }

    void run_job(const Worker& worker, int64_t start, int64_t regions, int64_t job, float* grad_blurred,
                 float* partial) {
        int64_t block = job % jobs_.out_blocks, group = job / jobs_.out_blocks % groups_;
        int64_t slice = job / (jobs_.out_blocks * groups_);
        int64_t c0 = block * jobs_.out_block, c1 = std::min(inputs_, c0 + jobs_.out_block);
        std::memset(worker.dots, 0, size_t(4 * kDots * job_units_));
        int64_t listed = 0;
        for (int64_t number = regions * slice / slices_; number < regions * (slice + 1) / slices_; number++) {
            int64_t bundle = number / jobs_.regions();
            Region region = jobs_.region(tiling_, start + bundle, number % jobs_.regions());
            Sums sums{worker.sums, c1 - c0, kColumns};
            listed = run_region(worker, region, bundle, group, c0, c1, sums);
            if (!grad_blurred) continue;
            RegionTarget<L> target(tiling_, region, grad_blurred, in_channels_);
            unpack_region<L>(target, region, sums, group * inputs_ + c0, tiling_.height, tiling_.width,
                             Finish<L>(nullptr, false, add_));
        }
        const int32_t* index = reinterpret_cast<const int32_t*>(worker.index);
        float* to = partial + slice * kDots * total_;
        for (int64_t n = 0; n < listed; n++)
            for (int i = 0; i < kDots; i++) to[kDots * int64_t(index[n]) + i] += worker.dots[kDots * n + i];
    }

    // All units of input channels c0..c1 on one region. Lists come out in the same order on every region, so that the
    // dot products gather in list order; returns their number, with the units' indices in worker.index.
    int64_t run_region(const Worker& worker, const Region& region, int64_t bundle, int64_t group, int64_t c0,
                       int64_t c1, const Sums& sums) {
        int64_t o = group * outputs_, listed = 0, maps = blur_.maps();
        UnitLists list(span_.units, worker.list, list_floats(), jobs_.out_block, true);
        const float* first =
            packed_ + (bundle * out_channels_ + o) * plane_.stride + region.y * plane_.row_stride + region.x * L;
        const float* map = packed_maps_ + (bundle * in_channels_ + group * inputs_ + c0) * maps * map_plane_.stride +
                           region.y * map_plane_.row_stride + region.x * L;
        for (int64_t r0 = 0; r0 < outputs_; r0 += jobs_.in_block) {
            int64_t r1 = std::min(outputs_, r0 + jobs_.in_block);
            int64_t n = list_adjoint(source_, o + r0, o + r1, c0, c1, span_, drop_, Maps == 0 ? Use::dots : Use::fused,
                                     plane_, L, worker.run, units_, list);
            std::memcpy(worker.index + listed, list.index, size_t(4 * n));
            for (int64_t x = 0; x < region.columns; x += kColumns) {
                const float* window = first + r0 * plane_.stride + x * L;
                const int64_t columns = std::min<int64_t>(kColumns, region.columns - x);
                MapTile tile = {map + x * L, maps * map_plane_.stride, map_plane_.stride, map_plane_.row_stride};
                float* dots = worker.dots + kDots * listed;
                Prefetch next =
                    prefetch_after<L>(first, plane_, region, x, kColumns, r0, r1, outputs_, jobs_.in_block, c1 - c0, n);
                if constexpr (Maps == 0)
                    tap_dots_of<L>(columns)(window, plane_.row_stride, list, c1 - c0, tile, region.rows, dots, next);
                else
                    backward_tile_of<L, Maps>(span_.units, region.rows, columns)(
                        window, plane_.row_stride, list, c1 - c0, sums.tile(region, x, L),
                        sums.channel_stride(region, x, L), tile, r0 == 0, dots, next);
            }
            listed += n;
        }
        return listed;
    }

    const UnitSource& source_;
    Span span_;
    bool drop_, add_;
    const Blur& blur_;
    int threads_;
    int64_t groups_, in_channels_, out_channels_, outputs_, inputs_, total_, slices_;
    Tiling tiling_;
    PackedPlane plane_, map_plane_;
    Lanes<L> lanes_, map_lanes_;
    SweepRoom<L> room_;
    Jobs<L> jobs_;
    std::vector<Worker> workers_;
    int64_t units_ = 0, job_units_ = 0, round_ = 0;  // most units of a list, of a job; bundles packed at a time
    float *packed_ = nullptr, *packed_maps_ = nullptr;
};

// Add the slices in order, and give the dot products the factors that the kernels left out.
template <int Maps>
void finish_gradients(const UnitSource& source, int64_t total, int threads, const float* partial, int64_t slices,
                      float* grad_weight, float* grad_mu) {
    (void)threads;  // without OpenMP
    constexpr int dots = dots_of(Maps);
    float *grad_y = grad_mu, *grad_x = Maps == 1 ? nullptr : grad_mu + total;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t u = 0; u < total; u++) {
        float dot[4] = {};
        for (int64_t slice = 0; slice < slices; slice++)
            for (int i = 0; i < dots; i++) dot[i] += partial[(slice * total + u) * dots + i];
        float w = source.weight[u];
        float fy = source.mu_y[u] - std::floor(source.mu_y[u]), fx = source.mu_x[u] - std::floor(source.mu_x[u]);
        if constexpr (Maps == 0) {
            // The adjoint's near taps are the forward's far ones: dot = (m + (1, 1), m + (1, 0), m + (0, 1), m).
            float t11 = dot[0], t10 = dot[1], t01 = dot[2], t00 = dot[3];
            grad_weight[u] = (1 - fy) * ((1 - fx) * t00 + fx * t01) + fy * ((1 - fx) * t10 + fx * t11);
            grad_y[u] = w * ((1 - fx) * (t10 - t00) + fx * (t11 - t01));
            grad_x[u] = w * ((1 - fy) * (t01 - t00) + fy * (t11 - t10));
        } else {
            float a = adjoint_near(source.mu_y[u]) * adjoint_near(source.mu_x[u]);
            grad_weight[u] = a * dot[0];
            if constexpr (Maps == 1) continue;
            grad_y[u] = w * a * dot[1];
            grad_x[u] = w * a * dot[2];
        }
    }
}

}  // namespace DAUKIT_ISA
}  // namespace daukit
