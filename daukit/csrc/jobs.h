// How a pass is cut into jobs that threads take one after the other.
#pragma once

#include "lists.h"

namespace daukit {
namespace DAUKIT_ISA {

constexpr int64_t kWindowBytes = 44 << 10;  // one window, all its input channels: about the L1 cache
constexpr int64_t kCopyBytes = 26 << 10;    // the same, copied without gaps, see ReadPass
constexpr int64_t kSumBytes = 400 << 10;    // sums of one job: well within the L2 cache
constexpr int64_t kJobsPerThread = 4;       // so that the last jobs end at about the same time

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
         int64_t bytes_per_sum, int64_t threads, double units, int64_t phases = 1,
         int64_t window_bytes = kWindowBytes) {
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
        int64_t window = (rows + plane.box.height()) * (tile_columns + plane.box.width()) * L * 4 * phases;
        // At least eight units a visit of the sums, where L1 allows it twice over.
        int64_t want = std::max<int64_t>(1, window_bytes / window),
                most = std::max<int64_t>(1, 2 * window_bytes / window);
        if (units > 0) want = std::max(want, std::min<int64_t>(most, int64_t(std::ceil(8 / units))));
        in_block = std::min(want, sizes.in_channels);
    }
    int64_t regions() const { return strips * chunks; }
    Region region(const Tiling& t, int64_t bundle, int64_t number) const {
        int64_t y = number / chunks * rows, x = number % chunks * columns;
        return {bundle, y, x, std::min(rows, t.tile_h - y), std::min(columns, t.tile_w - x)};
    }
};

}  // namespace DAUKIT_ISA
}  // namespace daukit
