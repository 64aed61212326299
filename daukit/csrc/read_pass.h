// A pass that sums the reads of one span: the forward, and the image gradient alone, which is its adjoint.
#pragma once

#include "call.h"
#include "tiles.h"

namespace daukit {
namespace DAUKIT_ISA {

// Adjoint false: images in, outputs out, the input blurred. Adjoint true: output gradients in, image gradients out.
template <int L, bool Adjoint>
class ReadPass {
public:
    ReadPass(const Call<L>& call, const Span& span, bool drop, bool add, const Blur& blur)
        : source_(call.source),
          span_(span),
          drop_(drop),
          add_(add),
          blur_(blur),
          threads_(call.threads),
          outputs_(call.sizes.out_channels / call.sizes.groups),
          sizes_(Adjoint ? PassSizes{outputs_, source_.inputs, call.sizes.groups}
                         : PassSizes{source_.inputs, outputs_, call.sizes.groups}),
          box_(Adjoint ? span.adjoint_box() : span.forward_box()),
          tiling_(Tiling::choose(L, call.sizes.batch, call.sizes.height, call.sizes.width, box_)),
          plane_(tiling_, box_),
          canvas_(tiling_, box_),
          room_(L, tiling_.height, tiling_.width, blur.radius),
          jobs_(tiling_, plane_, sizes_, kRows, kColumns, 4, threads_, call.mean_units()),
          read_(sizes_.in_channels * sizes_.groups),
          workers_(static_cast<size_t>(threads_)) {
        int64_t out = jobs_.out_block, in = jobs_.in_block;
        units_ = largest_block(source_, sizes_.groups, outputs_, Adjoint ? in : out, Adjoint ? out : in) + 64;
        round_ = std::min(tiling_.bundles, std::max<int64_t>(1, kPackedBytes / (read_ * plane_.stride * 4)));
    }

    // False when memory ran out.
    bool run(const float* bias, const float* from, float* to) {
        Scratch scratch(carve(Carver()));
        if (!scratch.data()) return false;
        carve(Carver(scratch.data()));
        std::memset(zeros_, 0, size_t(4 * zeros_floats()));
        int64_t regions = jobs_.regions() * sizes_.groups * jobs_.out_blocks;
#pragma omp parallel num_threads(threads_)
        {
            const Worker& worker = workers_[size_t(thread_number())];
            std::memset(worker.canvases, 0, size_t(4 * canvas_floats()));
            if (blur_.maps) std::memset(worker.blur, 0, size_t(4 * room_.size));
            for (int64_t start = 0; start < tiling_.bundles; start += round_) {
                int64_t count = std::min(round_, tiling_.bundles - start);
#pragma omp for schedule(dynamic, 4)
                for (int64_t i = 0; i < count * read_; i++) pack(worker, start, i, from);
#pragma omp for schedule(dynamic, 1)
                for (int64_t job = 0; job < count * regions; job++) run_job(worker, start, job, bias, to);
            }
        }
        return true;
    }

private:
    struct Worker {
        float *canvases, *blur, *sums, *list, *run;
    };

    int64_t zeros_floats() const { return canvas_.row_stride + plane_.columns + L; }
    int64_t canvas_floats() const { return tiling_.images_per_bundle * canvas_.size + canvas_.row_stride + L; }

    int64_t carve(Carver carver) {
        packed_ = carver.take(round_ * read_ * plane_.stride);
        zeros_ = carver.take(zeros_floats());
        for (Worker& worker : workers_) {
            worker.canvases = carver.take(canvas_floats());
            worker.blur = carver.take(blur_.maps ? room_.size : 0);
            worker.sums = carver.take(jobs_.out_block * jobs_.rows * jobs_.columns * L);
            worker.list = carver.take(UnitLists::floats(units_, jobs_.out_block));
            worker.run = carver.take(Adjoint ? 4 * units_ : 0);
        }
        return carver.used();
    }

    // Pack plane i of the round: channel i % read of bundle start + i / read.
    void pack(const Worker& worker, int64_t start, int64_t i, const float* from) {
        int64_t present = fill_canvases<L>(tiling_, canvas_, blur_, room_, from, read_, start + i / read_, i % read_,
                                           worker.blur, worker.canvases);
        pack_plane<L>(tiling_, plane_, canvas_, worker.canvases, present, zeros_, packed_ + i * plane_.stride);
    }

    void run_job(const Worker& worker, int64_t start, int64_t job, const float* bias, float* to) {
        int64_t block = job % jobs_.out_blocks, group = job / jobs_.out_blocks % sizes_.groups;
        int64_t number = job / (jobs_.out_blocks * sizes_.groups), bundle = number / jobs_.regions();
        Region region = jobs_.region(tiling_, start + bundle, number % jobs_.regions());
        int64_t w0 = block * jobs_.out_block, w1 = std::min(sizes_.out_channels, w0 + jobs_.out_block);
        Sums sums{worker.sums, w1 - w0, kColumns};
        UnitLists list(worker.list, units_);
        const float* first = packed_ + (bundle * read_ + group * sizes_.in_channels) * plane_.stride +
                             region.y * plane_.row_stride + region.x * L;
        for (int64_t r0 = 0; r0 < sizes_.in_channels; r0 += jobs_.in_block) {
            int64_t r1 = std::min(sizes_.in_channels, r0 + jobs_.in_block), o = group * outputs_;
            if constexpr (Adjoint)
                list_adjoint(source_, o + r0, o + r1, w0, w1, span_, drop_, Use::image, plane_, L, worker.run, units_,
                             list);
            else
                list_forward(source_, o + w0, o + w1, r0, r1, span_, drop_, plane_, L, list);
            for (int64_t x = 0; x < region.columns; x += kColumns)
                read_tile_of<L>(region.rows, std::min<int64_t>(kColumns, region.columns - x))(
                    first + r0 * plane_.stride + x * L, plane_.row_stride, list, w1 - w0, sums.tile(region, x, L),
                    sums.channel_stride(region, x, L), r0 == 0,
                    prefetch_after<L>(first, plane_, region, x, kColumns, r0, r1, sizes_.in_channels, jobs_.in_block,
                                      w1 - w0));
        }
        RegionTarget<L> target(tiling_, region, to, sizes_.out_channels * sizes_.groups);
        for (int64_t w = w0; w < w1; w++) {
            int64_t channel = group * sizes_.out_channels + w;
            unpack_region<L>(target, region, sums, w - w0, channel * tiling_.height * tiling_.width, tiling_.width,
                             bias && !add_ ? bias[channel] : 0, add_);
        }
    }

    const UnitSource& source_;
    Span span_;
    bool drop_, add_;
    const Blur& blur_;
    int threads_;
    int64_t outputs_;  // output channels of a group
    PassSizes sizes_;
    Box box_;
    Tiling tiling_;
    PackedPlane plane_;
    Canvas canvas_;
    BlurScratch room_;
    Jobs<L> jobs_;
    int64_t read_;  // channels packed
    std::vector<Worker> workers_;
    int64_t units_ = 0, round_ = 0;  // most units of a list; bundles packed at a time
    float *packed_ = nullptr, *zeros_ = nullptr;
};

}  // namespace DAUKIT_ISA
}  // namespace daukit
