// Fused backward of the aggregation (docs/math.md, section 4): one read of the output gradient a unit gives both its
// part of the gradient of the blurred input and the unit's own sums. The adjoint of reading at p + mu is reading at q -
// mu, so this is the forward with transposed lists, for which the maps of the input are at hand where they are needed.
#include "cells.cuh"
#include "sizes.cuh"
#include "staging.cuh"
#include "unit_sums.cuh"

#ifndef DAU_SEVERAL_STRIPS
#define DAU_SEVERAL_STRIPS 0  // 1: a block goes through several strips, for whose sums there is memory once
#endif

// A unit as the loops want it. With h(r) = E(r, 0) + beta E(r, 1) and e = h(0) + gamma h(1), the cell's value is the
// weight of its first tap times e; that weight is kept out of the loop. The value of a unit on a whole pixel is that
// pixel's, which a negative beta says.
struct alignas(16) BackwardUnit {
    float beta, gamma;
    float weight;  // the unit's times the first tap's; zero of a far unit
    int offset;    // of the first tap in a stage, in bytes

    __device__ __forceinline__ bool is_whole() const { return beta < 0.f; }
};

namespace {

// The cell at minus the displacement. The exact gradient needs the mirrored one: its slope at an integer is another.
struct AdjointCell {
    Cell y, x;
    float first_y, first_x;  // weights of the first tap

    __device__ __forceinline__ AdjointCell(float mu_y, float mu_x)
        : y(EXACT ? mirrored(near_cell(mu_y, HALO)) : near_cell(-mu_y, HALO)),
          x(EXACT ? mirrored(near_cell(mu_x, HALO)) : near_cell(-mu_x, HALO)),
          first_y(fmaxf(1.f - y.fraction, least_weight)),
          first_x(fmaxf(1.f - x.fraction, least_weight)) {}
};

// Which tap of its cell, along both axes, a unit on a whole pixel reads: the exact gradient needs those before it.
constexpr int WHOLE_TAP = EXACT ? 1 : 0;

constexpr bool SEVERAL_STRIPS = DAU_SEVERAL_STRIPS;

}  // namespace

// Lists by input channel: its units for all output channels of its group, which begin at unit_ptr_t (ragged layers),
// and the units' numbers in the arguments. One more entry ends them. Far units get the weight 0 and are counted. A
// thread owns a unit. Grid: units + 1 threads in blocks of any size.
extern "C" __global__ void dau_plan_backward(const Sizes sizes, const float* __restrict__ weight,
                                             const float* __restrict__ mu, const int* __restrict__ unit_ptr,
                                             const int* __restrict__ unit_ptr_t, BackwardUnit* __restrict__ units,
                                             int* __restrict__ numbers, int* __restrict__ far) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u > sizes.units) return;
    int at = u;
    BackwardUnit unit = {-1.f, 0.f, 0.f, 0};
    if (u < sizes.units) {
        const Transposed transposed(sizes, unit_ptr, unit_ptr_t, u);
        at = transposed.place;
        const float mu_y = mu[u], mu_x = mu[sizes.units + u];
        if (is_far(mu_y, mu_x, HALO, EXACT)) {
            atomicAdd(far, 1);
        } else if (is_whole(mu_y, mu_x)) {
            unit = {-1.f, 0.f, weight[u], tap_offset(transposed.out, -(int)mu_y - WHOLE_TAP, -(int)mu_x - WHOLE_TAP)};
        } else {
            const AdjointCell cell(mu_y, mu_x);
            unit = {cell.x.fraction / cell.first_x, cell.y.fraction / cell.first_y,
                    weight[u] * cell.first_y * cell.first_x, tap_offset(transposed.out, cell.y.tap, cell.x.tap)};
        }
    }
    units[at] = unit;
    numbers[at] = u;
}

namespace {

// A lane's tile of the input: the gradient that is summed up, and the maps that the units' sums need.
struct InputTile {
    float gradient[ROWS][COLUMNS];
    float maps[MAPS][ROWS][COLUMNS];
};

// Where the lane's tile lies in the phase images.
struct Place {
    int y, x;
    bool exists;
    long long first;  // pixel, in elements

    __device__ __forceinline__ Place(const Sizes& sizes, const Grid& grid, const Channel& channel) {
        const int lane = threadIdx.x % 32;
        const Strip strip = grid.strip(lane / STRIP_TILES);
        y = strip.tile_row * ROWS;
        x = (strip.first_tile + lane % STRIP_TILES) * COLUMNS;
        exists = channel.exists && strip.image < grid.images;
        const long long plane = (long long)strip.image * sizes.in_channels + channel.number;
        first = plane * sizes.phase_pixels() + (long long)y * sizes.phase_width + x;
    }
    __device__ __forceinline__ bool has(int r, int c, int height, int width) const {
        return exists && y + r < height && x + c < width;
    }
};

// Add a unit to the tile's gradient, and the tile to the unit's sums (the paper's: without the weight of the first
// tap).
__device__ __forceinline__ Sums add_unit(InputTile& tile, const float* at, const BackwardUnit& unit) {
    Sums sums = {};
    float above[COLUMNS], taps_above[COLUMNS + 1];
#pragma unroll
    for (int row = 0; row <= ROWS; row++) {
        float taps[COLUMNS + 1];
#pragma unroll
        for (int c = 0; c <= COLUMNS; c++) taps[c] = at[row * ROW_WORDS + c];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            const float h = fmaf(unit.beta, taps[c + 1], taps[c]);
            if (row > 0) {
                const float e = fmaf(unit.gamma, h, above[c]);
                tile.gradient[row - 1][c] = fmaf(unit.weight, e, tile.gradient[row - 1][c]);
                if constexpr (EXACT) {
                    // Minus the displacement mirrors the cell: its last tap is read where the forward has the first.
                    const float pixel = tile.maps[0][row - 1][c];
                    sums.of[0] = fmaf(taps[c + 1], pixel, sums.of[0]);
                    sums.of[1] = fmaf(taps[c], pixel, sums.of[1]);
                    sums.of[2] = fmaf(taps_above[c + 1], pixel, sums.of[2]);
                    sums.of[3] = fmaf(taps_above[c], pixel, sums.of[3]);
                } else {
#pragma unroll
                    for (int map = 0; map < MAPS; map++)
                        sums.of[map] = fmaf(e, tile.maps[map][row - 1][c], sums.of[map]);
                }
            }
            above[c] = h;
        }
#pragma unroll
        for (int c = 0; c <= COLUMNS; c++) taps_above[c] = taps[c];
    }
    return sums;
}

// The same for a unit on a whole pixel.
__device__ __forceinline__ Sums add_whole_unit(InputTile& tile, const float* at, const BackwardUnit& unit) {
    Sums sums = {};
    float taps_above[COLUMNS + WHOLE_TAP];
#pragma unroll
    for (int row = 0; row < ROWS + WHOLE_TAP; row++) {
        float taps[COLUMNS + WHOLE_TAP];
#pragma unroll
        for (int c = 0; c < COLUMNS + WHOLE_TAP; c++) taps[c] = row + c == 0 && EXACT ? 0.f : at[row * ROW_WORDS + c];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            if (row < WHOLE_TAP) continue;
            const int r = row - WHOLE_TAP;
            const float e = taps[c + WHOLE_TAP];
            tile.gradient[r][c] = fmaf(unit.weight, e, tile.gradient[r][c]);
#pragma unroll
            for (int map = 0; map < MAPS; map++) sums.of[map] = fmaf(e, tile.maps[map][r][c], sums.of[map]);
            if constexpr (EXACT) {
                sums.of[1] = fmaf(taps[c], tile.maps[0][r][c], sums.of[1]);
                sums.of[2] = fmaf(taps_above[c + 1], tile.maps[0][r][c], sums.of[2]);
            }
        }
#pragma unroll
        for (int c = 0; c < COLUMNS + WHOLE_TAP; c++) taps_above[c] = taps[c];
    }
    return sums;
}

// Lanes without the bit get the sum of `a` over both lanes of a pair, the others that of `b`.
__device__ __forceinline__ float fold(float a, float b, int bit, int has_bit) {
    return (has_bit ? b : a) + __shfl_xor_sync(0xffffffffu, has_bit ? a : b, bit);
}

// The sums over all lanes: four of them in the lanes 0, 16, 8 and 24, a single one in all.
__device__ __forceinline__ float sum_of_warp(const Sums& s, int has_16, int has_8) {
    float sum = s.of[0];
    if constexpr (SUMS > 1)
        sum = fold(fold(s.of[0], s.of[1], 16, has_16), fold(s.of[2], s.of[3], 16, has_16), 8, has_8);
#pragma unroll
    for (int bit = SUMS > 1 ? 4 : 16; bit >= 1; bit /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bit);
    return sum;
}

}  // namespace

// A lane owns a tile of ROWS x COLUMNS pixels of one input channel: gradient and maps stay in registers over all output
// channels, because they are read where they lie; only the output gradient is displaced. A warp owns 32 tiles of one
// channel, a block WARPS channels of the same tiles. Grid: (strips / STRIPS, groups x input channels of a group / WARPS,
// splits), or with SEVERAL_STRIPS fewer blocks, which take every gridDim.x-th strips. Shared memory: STAGES * STAGE_WORDS
// floats. `sums`: SUMS of every unit of every block (of grid.x), and zero where there are several strips.
extern "C" __global__ void __launch_bounds__(THREADS, DAU_MIN_BLOCKS)
    dau_backward(const Sizes sizes, const float* __restrict__ errors, const float* __restrict__ map,
                 const float* __restrict__ map_y, const float* __restrict__ map_x,
                 const BackwardUnit* __restrict__ units, const int* __restrict__ numbers,
                 const int* __restrict__ unit_ptr_t, float* __restrict__ grad_blurred, float* __restrict__ sums) {
    extern __shared__ float shared[];
    const int height = sizes.phase_height, width = sizes.phase_width, count = sizes.group_outputs();
    Grid grid(sizes.batch * sizes.phases(), height, width);
    const Channel in(sizes.group_inputs());
    const Share share(count, sizes.splits, blockIdx.z);

    const int lane = threadIdx.x % 32;
    const float* first_tap = shared + strip_offset(LAYOUT, lane / STRIP_TILES) + lane % STRIP_TILES * COLUMNS;
    int has_16 = lane & 16, has_8 = lane & 8;
    const int which = lane / 16 + lane / 8 % 2 * 2;
    int stores = in.exists && lane % 8 == 0 && which < SUMS;
    float* my_sums = sums + (long long)blockIdx.x * sizes.units * SUMS + which;
    ptx::keep(has_16);
    ptx::keep(has_8);
    ptx::keep(stores);
    ptx::keep(my_sums);
    do {
        const Place place(sizes, grid, in);
        InputTile tile;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                const bool is_pixel = place.has(r, c, height, width);
                const long long at = is_pixel ? place.first + (long long)r * width + c : 0;
                tile.gradient[r][c] = 0.f;
                tile.maps[0][r][c] = is_pixel ? map[at] : 0.f;
                if constexpr (MAPS > 1) {
                    tile.maps[1][r][c] = is_pixel ? map_y[at] : 0.f;
                    tile.maps[2][r][c] = is_pixel ? map_x[at] : 0.f;
                }
            }

        const int first_image = grid.first_image();
        const auto locate = [&](int of_block) {
            const Strip strip = grid.strip(of_block);
            if (strip.image >= grid.images) return Origin{-1, 0, 0};
            return Origin{strip.image - first_image, strip.tile_row * ROWS, strip.first_tile * COLUMNS};
        };
        const Rows rows = find_rows(locate, sizes.out_channels, height, width);
        const long long first_plane = (long long)first_image * sizes.out_channels + in.group * count + share.begin;
        Pipeline pipeline(shared, errors + first_plane * sizes.phase_pixels(), share.end - share.begin,
                          sizes.phase_pixels(), rows);
        const long long first_pair = (long long)in.number * count;
        int u = first_unit(sizes, unit_ptr_t, first_pair + share.begin);
        BackwardUnit next = units[u];
        int next_number = numbers[u];

        int number = 0;
        const auto keep = [&](const Sums& s) {
            const float sum = sum_of_warp(s, has_16, has_8);
            float* to = my_sums + (long long)number * SUMS;
            if (!stores) return;
            if constexpr (SEVERAL_STRIPS)
                ptx::red_add(to, sum);  // nobody else adds to it: the order is that of the strips
            else
                *to = sum;
        };
        for (int channel = share.begin; channel < share.end; channel += STAGE_CHANNELS) {
            unsigned origin = ptx::shared_address(first_tap) + pipeline.next(rows);
            ptx::keep(origin);
            const int after = channel + STAGE_CHANNELS < share.end ? channel + STAGE_CHANNELS : share.end;
            const int end = in.exists ? first_unit(sizes, unit_ptr_t, first_pair + after) : u;
            const auto take = [&] {
                const BackwardUnit unit = next;
                number = next_number;
                next = units[++u];
                next_number = numbers[u];
                return unit;
            };
            while (u < end) {  // one run of units of a kind after another
#pragma unroll 1
                while (u < end && next.is_whole()) {
                    const BackwardUnit unit = take();
                    keep(add_whole_unit(tile, ptx::at_shared(origin + unit.offset), unit));
                }
#pragma unroll 1
                while (u < end && !next.is_whole()) {
                    const BackwardUnit unit = take();
                    keep(add_unit(tile, ptx::at_shared(origin + unit.offset), unit));
                }
            }
        }

        float* to = grad_blurred + blockIdx.z * (long long)grid.images * sizes.in_channels * sizes.phase_pixels();
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                if (place.has(r, c, height, width)) to[place.first + (long long)r * width + c] = tile.gradient[r][c];
        if constexpr (SEVERAL_STRIPS) __syncthreads();  // all have left the windows of these strips
        grid.number += gridDim.x;
    } while (SEVERAL_STRIPS && grid.number < grid.count());
}

// Sum what the blocks found, and make gradients of it (of far units: nonsense, far.cu has theirs). A thread sums every
// blockDim.y-th block for a unit, the first row of threads sums that: many rows, because the blocks may be thousands.
// Grid: units / blockDim.x. Shared memory: SUMS floats a thread.
extern "C" __global__ void dau_sum_gradients(const Sizes sizes, const float* __restrict__ weight,
                                             const float* __restrict__ mu, const float* __restrict__ sums, int blocks,
                                             float* __restrict__ grad_weight, float* __restrict__ grad_mu) {
    extern __shared__ float shared[];
    const int u = blockIdx.x * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    Sums total = {};
    if (u < sizes.units)
        for (int block = threadIdx.y; block < blocks; block += blockDim.y)
            for (int k = 0; k < SUMS; k++) total.of[k] += sums[((long long)block * sizes.units + u) * SUMS + k];
    float* mine = shared + threadIdx.y * blockDim.x + threadIdx.x;
    for (int k = 0; k < SUMS; k++) mine[k * threads] = total.of[k];
    __syncthreads();
    if (threadIdx.y > 0 || u >= sizes.units) return;
    const AdjointCell cell(mu[u], mu[sizes.units + u]);
    const float scale = EXACT || is_whole(mu[u], mu[sizes.units + u]) ? 1.f : cell.first_y * cell.first_x;
    for (int k = 0; k < SUMS; k++) {
        float sum = 0.f;
        for (int row = 0; row < (int)blockDim.y; row++) sum += mine[k * threads + row * blockDim.x];
        total.of[k] = sum * scale;
    }
    store_gradients(sizes, total, u, weight, mu, grad_weight, grad_mu);
}
