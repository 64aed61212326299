// A pass that sums the reads of one span: the forward, and the image gradient alone, which is its adjoint.
#pragma once

#include "call.h"
#include "tiles.h"

namespace daukit {
namespace DAUKIT_ISA {

// Adjoint false: images in, outputs out, the input blurred. Adjoint true: output gradients in, image gradients out.
// A strided layer's images come as phases, each a plane of its own; only lists and planes know it.
template <int L, bool Adjoint>
class ReadPass {
public:
    ReadPass(const Call<L>& call, const Span& span, bool drop, bool add, const Blur& blur)
        : source_(call.source),
          span_(span),
          drop_(drop),
          add_(add),
          blur_(blur),
          outputs_(call.sizes.out_channels / call.sizes.groups),
          phases_(call.source.phases()),
          sizes_(Adjoint ? PassSizes{outputs_, source_.inputs, call.sizes.groups}
                         : PassSizes{source_.inputs, outputs_, call.sizes.groups}),
          box_(Adjoint ? span.adjoint_box() : span.forward_box()),
          tiling_(Tiling::choose(L, call.sizes.batch, call.sizes.height, call.sizes.width, box_)),
          plane_(tiling_, box_),
          lanes_(tiling_, box_),
          room_(plane_.columns, blur),
          copies_(small_windows(call.mean_units())),
          jobs_(tiling_, plane_, sizes_, span.units == Units::whole ? kWholeRows : kRows, kColumns, 4, call.threads,
                call.mean_units(), phases_, copies_ ? kCopyBytes : kWindowBytes),
          window_(copies_ ? plane_.window(jobs_.rows, kColumns, L) : plane_),
          read_(sizes_.in_channels * sizes_.groups * phases_) {
        int64_t out = jobs_.out_block, in = jobs_.in_block;
        units_ = largest_block(source_, sizes_.groups, outputs_, Adjoint ? in : out, Adjoint ? out : in) + 64;
        round_ = std::min(tiling_.bundles, std::max<int64_t>(1, kPackedBytes / (read_ * plane_.stride * 4)));
        shares_ = span_.units == Units::whole;
    }

    // Build all lists, so that runs read them and never look at the units again.
    void prepare() {
        std::vector<int64_t> places = place_lists();
        prepared_.resize(size_t(places.back()));
        std::vector<float> run(static_cast<size_t>(run_floats()));
        for (int64_t i = 0; i < lists() / in_blocks(); i++) build_shared(prepared_.data(), places, i, run.data());
        places_ = std::move(places);
    }
    int64_t prepared_bytes() const { return int64_t(prepared_.size()) * 4; }

    // False when memory ran out.
    bool run(int threads, const float* bias, bool relu, const float* from, float* to) const {
        Memory memory(static_cast<size_t>(threads));
        if (builds_shared()) memory.places = place_lists();
        Scratch scratch(carve(Carver(), memory));
        if (!scratch.data()) return false;
        carve(Carver(scratch.data()), memory);
        int64_t regions = jobs_.regions() * sizes_.groups * jobs_.out_blocks;
#pragma omp parallel num_threads(threads)
        {
            const Worker& worker = memory.workers[size_t(thread_number())];
            if (builds_shared()) {
#pragma omp for schedule(dynamic, 1) nowait
                for (int64_t i = 0; i < lists() / in_blocks(); i++)
                    build_shared(memory.lists, memory.places, i, worker.run);
            }
            for (int64_t start = 0; start < tiling_.bundles; start += round_) {
                int64_t count = std::min(round_, tiling_.bundles - start);
#pragma omp for schedule(dynamic, 4)
                for (int64_t i = 0; i < count * read_; i++) pack(memory, worker, start, i, from);
#pragma omp for schedule(dynamic, 1)
                for (int64_t job = 0; job < count * regions; job++) run_job(memory, worker, start, job, bias, relu, to);
            }
        }
        return true;
    }

private:
    struct Worker {
        float *room, *sums, *list, *run, *window;
    };
    struct Memory {
        float *packed = nullptr, *lists = nullptr;
        std::vector<int64_t> places;  // of shared lists
        std::vector<Worker> workers;
        explicit Memory(size_t threads) : workers(threads) {}
    };

    // Where a unit is one multiply-add and windows are small, it pays to copy what a tile reads: it then stays in L1, whatever
    // the distances of rows and channels are. Small is what leaves room for a dozen units of an output channel.
    bool small_windows(double units) const {
        int64_t rows = kWholeRows + box_.height(), columns = kColumns + box_.width();
        return span_.units == Units::whole && units * double(kCopyBytes / (rows * columns * L * 4 * phases_)) >= 12;
    }
    bool builds_shared() const { return shares_ && places_.empty(); }
    int64_t in_blocks() const { return ceil_div(sizes_.in_channels, jobs_.in_block); }

    int64_t carve(Carver carver, Memory& memory) const {
        memory.packed = carver.take(round_ * read_ * plane_.stride);
        bool prepared = !places_.empty();
        memory.lists = carver.take(builds_shared() ? memory.places.back() : 0);
        for (Worker& worker : memory.workers) {
            worker.room = carver.take(room_.floats());
            worker.window = carver.take(copies_ ? jobs_.in_block * phases_ * window_.stride : 0);
            worker.sums = carver.take(jobs_.out_block * jobs_.rows * jobs_.columns * L);
            worker.list = carver.take(prepared || shares_ ? 0 : list_floats(units_));
            worker.run = carver.take(prepared ? 0 : run_floats());
        }
        return carver.used();
    }

    // Pack plane i of the round: plane i % read of bundle start + i / read.
    void pack(const Memory& memory, const Worker& worker, int64_t start, int64_t i, const float* from) const {
        PlaneSource<L> source(tiling_, lanes_, from, read_, start + i / read_, i % read_);
        pack_plane<L>(plane_, lanes_, source, blur_, room_, worker.room, memory.packed + i * plane_.stride, 0);
    }

    int64_t lists() const { return sizes_.groups * jobs_.out_blocks * in_blocks(); }
    int64_t run_floats() const {
        if (Adjoint) return 4 * units_;
        return span_.units == Units::whole ? 2 * largest_block(source_, sizes_.groups, outputs_, 1, source_.inputs) : 0;
    }
    int64_t list_floats(int64_t units) const { return UnitLists::floats(span_.units, units, jobs_.out_block, false); }

    // A list: of a group, a block of written and a block of read channels.
    struct Block {
        int64_t o, w0, w1, r0, r1;  // first output channel of the group; channels within it
    };
    Block block_of(int64_t number) const {
        int64_t r0 = number % in_blocks() * jobs_.in_block, block = number / in_blocks();
        int64_t w0 = block % jobs_.out_blocks * jobs_.out_block;
        return {block / jobs_.out_blocks * outputs_, w0, std::min(sizes_.out_channels, w0 + jobs_.out_block), r0,
                std::min(sizes_.in_channels, r0 + jobs_.in_block)};
    }
    int64_t units_of_block(const Block& b) const {
        return Adjoint ? units_of(source_, b.o + b.r0, b.o + b.r1, b.w0, b.w1)
                       : units_of(source_, b.o + b.w0, b.o + b.w1, b.r0, b.r1);
    }
    // Where each list begins, one after the other, and where the last one ends.
    std::vector<int64_t> place_lists() const {
        std::vector<int64_t> places{0};
        for (int64_t i = 0; i < lists(); i++)
            places.push_back(places.back() + list_floats(units_of_block(block_of(i))));
        return places;
    }
    UnitLists build(float* memory, int64_t number, float* run) const {
        Block b = block_of(number);
        UnitLists list(span_.units, memory, list_floats(units_of_block(b)), jobs_.out_block);
        if constexpr (Adjoint)
            list_adjoint(source_, b.o + b.r0, b.o + b.r1, b.w0, b.w1, span_, drop_, Use::image, window_, L, run, units_,
                         list);
        else
            list_forward(source_, b.o + b.w0, b.o + b.w1, b.r0, b.r1, span_, drop_, window_, L, list);
        return list;
    }

    // All lists of one block of written channels.
    void build_shared(float* memory, const std::vector<int64_t>& places, int64_t block, float* run) const {
        int64_t first = block * in_blocks();
        if (Adjoint || span_.units != Units::whole) {
            for (int64_t i = first; i < first + in_blocks(); i++) build(memory + places[size_t(i)], i, run);
            return;
        }
        std::vector<UnitLists> lists;
        for (int64_t i = first; i < first + in_blocks(); i++) lists.push_back(list_at(memory, places, i));
        Block b = block_of(first);
        list_whole(source_, b.o + b.w0, b.o + b.w1, jobs_.in_block, span_, drop_, window_, L,
                   reinterpret_cast<int32_t*>(run), run_floats() / 2, lists.data());
    }
    UnitLists list_at(float* memory, const std::vector<int64_t>& places, int64_t number) const {
        int64_t floats = places[size_t(number) + 1] - places[size_t(number)];
        return UnitLists(span_.units, memory + places[size_t(number)], floats, jobs_.out_block);
    }

    // The list of a job: prepared, shared by all jobs of the call, or built for this one.
    UnitLists list_of(const Memory& memory, const Worker& worker, int64_t number) const {
        if (!places_.empty()) return list_at(const_cast<float*>(prepared_.data()), places_, number);
        return shares_ ? list_at(memory.lists, memory.places, number) : build(worker.list, number, worker.run);
    }

    const float* copy_window(const float* from, int64_t planes, int64_t rows, int64_t columns,
                             const Worker& worker) const {
        const int64_t height = rows + box_.height(), width = (columns + box_.width()) * L;
        for (int64_t i = 0; i < planes; i++)
            for (int64_t y = 0; y < height; y++) {
                const float* row = from + i * plane_.stride + y * plane_.row_stride;
                float* to = worker.window + i * window_.stride + y * window_.row_stride;
                for (int64_t x = 0; x < width; x += L) store<L>(to + x, load<L>(row + x));
            }
        return worker.window;
    }

    void run_job(const Memory& memory, const Worker& worker, int64_t start, int64_t job, const float* bias, bool relu,
                 float* to) const {
        int64_t block = job % jobs_.out_blocks, group = job / jobs_.out_blocks % sizes_.groups;
        int64_t number = job / (jobs_.out_blocks * sizes_.groups), bundle = number / jobs_.regions();
        Region region = jobs_.region(tiling_, start + bundle, number % jobs_.regions());
        int64_t w0 = block * jobs_.out_block, w1 = std::min(sizes_.out_channels, w0 + jobs_.out_block);
        Sums sums{worker.sums, w1 - w0, kColumns};
        int64_t channel = phases_ * plane_.stride;
        const float* first = memory.packed + (bundle * read_ + group * sizes_.in_channels * phases_) * plane_.stride +
                             region.y * plane_.row_stride + region.x * L;
        for (int64_t r0 = 0; r0 < sizes_.in_channels; r0 += jobs_.in_block) {
            int64_t r1 = std::min(sizes_.in_channels, r0 + jobs_.in_block);
            UnitLists list =
                list_of(memory, worker, ((group * jobs_.out_blocks + block) * in_blocks()) + r0 / jobs_.in_block);
            const bool reads = list.start[w1 - w0] > 0;
            for (int64_t x = 0; x < region.columns; x += kColumns) {
                const int64_t columns = std::min<int64_t>(kColumns, region.columns - x);
                const float* window = first + r0 * channel + x * L;
                if (copies_ && reads) window = copy_window(window, (r1 - r0) * phases_, region.rows, columns, worker);
                read_tile_of<L>(span_.units, region.rows, columns)(
                    window, window_.row_stride, list, w1 - w0, sums.tile(region, x, L),
                    sums.channel_stride(region, x, L), r0 == 0,
                    prefetch_after<L>(first, plane_, region, x, kColumns, r0 * phases_, r1 * phases_,
                                      sizes_.in_channels * phases_, jobs_.in_block * phases_, w1 - w0,
                                      list.start[w1 - w0]));
            }
        }
        RegionTarget<L> target(tiling_, region, to, sizes_.out_channels * sizes_.groups);
        unpack_region<L>(target, region, sums, group * sizes_.out_channels + w0, tiling_.height, tiling_.width,
                         Finish<L>(add_ ? nullptr : bias, relu, add_));
    }

    UnitSource source_;
    Span span_;
    bool drop_, add_;
    Blur blur_;
    int64_t outputs_, phases_;  // output channels of a group; planes of an input channel
    PassSizes sizes_;
    Box box_;
    Tiling tiling_;
    PackedPlane plane_;
    Lanes<L> lanes_;
    SweepRoom<L> room_;
    bool copies_;  // windows
    Jobs<L> jobs_;
    PackedPlane window_;             // as lists see it
    int64_t read_;                   // planes packed
    int64_t units_ = 0, round_ = 0;  // most units of a list; bundles packed at a time
    bool shares_;                    // lists of a call among jobs: those of whole pixels take long beside what they do
    std::vector<float> prepared_;    // lists
    std::vector<int64_t> places_;    // where they begin; empty if none are prepared
};

}  // namespace DAUKIT_ISA
}  // namespace daukit
