// Forward aggregation (docs/math.md, section 1): out[n,o,p] = b[o] + sum_c sum_u w[o,c,u] B~[n,c, s p + d mu[:,o,c,u]].
#include "cells.cuh"
#include "sizes.cuh"
#include "staging.cuh"
#include "storage.cuh"

// A near unit as the loops want it. With h(r) = x(r, 0) + beta x(r, 1) along a row, the cell's value is a h(0) + b
// h(1). That of a unit on a whole pixel is a x(0, 0), which a negative beta says.
struct alignas(16) ForwardUnit {
    float beta, a, b;
    int offset;  // of the first tap in a stage, in bytes

    __device__ __forceinline__ bool is_whole() const { return beta < 0.f; }
};

namespace {

// A far unit, and what ends the list: nothing, in the shorter loop.
constexpr ForwardUnit no_unit = {-1.f, 0.f, 0.f, 0};

__device__ __forceinline__ ForwardUnit near_unit(float weight, float mu_y, float mu_x, int channel) {
    if (is_whole(mu_y, mu_x)) return {-1.f, weight, 0.f, tap_offset(channel, (int)mu_y, (int)mu_x)};
    const Cell y = near_cell(mu_y, HALO), x = near_cell(mu_x, HALO);
    const float first = fmaxf(1.f - x.fraction, least_weight), a = weight * first;
    return {x.fraction / first, a * (1.f - y.fraction), a * y.fraction, tap_offset(channel, y.tap, x.tap)};
}

}  // namespace

// The units of an output channel are neighbours already: the list has the order of the arguments. One more entry ends
// it, because the loop reads one ahead. Far units get the weight 0 and are counted.
// A thread owns a unit. Grid: units + 1 threads in blocks of any size.
extern "C" __global__ void dau_plan_forward(const Sizes sizes, const float* __restrict__ weight,
                                            const float* __restrict__ mu, const int* __restrict__ unit_ptr,
                                            ForwardUnit* __restrict__ units, int* __restrict__ far) {
    assert_pointers(sizes, unit_ptr);
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u > sizes.units) return;
    ForwardUnit unit = no_unit;
    if (u < sizes.units) {
        const float mu_y = mu[u], mu_x = mu[sizes.units + u];
        if (is_far(mu_y, mu_x, HALO, false))
            atomicAdd(far, 1);
        else
            unit = near_unit(weight[u], mu_y, mu_x, owner(sizes, unit_ptr, u).in);
    }
    units[u] = unit;
}

// The same for the adjoint, which gives the gradient of the blurred input where no other is asked for: minus the
// displacements, in the order of the transposed lists. dau_forward then runs on the output gradient, with the channels
// of its Sizes exchanged, the phases as images, and no stride. Grid as above.
extern "C" __global__ void dau_plan_adjoint(const Sizes sizes, const float* __restrict__ weight,
                                            const float* __restrict__ mu, const int* __restrict__ unit_ptr,
                                            const int* __restrict__ unit_ptr_t, ForwardUnit* __restrict__ units,
                                            int* __restrict__ far) {
    int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u > sizes.units) return;
    ForwardUnit unit = no_unit;
    if (u < sizes.units) {
        const float w = weight[u], mu_y = mu[u], mu_x = mu[sizes.units + u];
        const Transposed transposed(sizes, unit_ptr, unit_ptr_t, u);
        if (is_far(mu_y, mu_x, HALO, false))
            atomicAdd(far, 1);
        else
            unit = near_unit(w, -mu_y, -mu_x, transposed.out);
        u = transposed.place;
    }
    units[u] = unit;
}

namespace {

// Along one axis, outputs q, q + count, q + 2 count .. all read one phase of the image (of `dilation`), `step` apart.
struct Residue {
    int count, phase, first;

    __device__ __forceinline__ Residue(int stride, int dilation, int step, int q)
        : count(dilation * step / stride), phase(stride * q % dilation), first(stride * q / dilation) {}
};

// Where the tiles of a block lie: `images` of the grid are the residue classes of outputs, of every image of the batch.
struct Outputs {
    const Sizes& sizes;
    int rows, columns;  // residue classes
    Grid grid;

    __device__ __forceinline__ explicit Outputs(const Sizes& sizes)
        : sizes(sizes),
          rows(sizes.dilation_y * STRIDE_Y / sizes.stride_y),
          columns(sizes.dilation_x * STRIDE_X / sizes.stride_x),
          grid(sizes.batch * rows * columns, divide_up(sizes.out_height, rows), divide_up(sizes.out_width, columns)) {}

    __device__ __forceinline__ int first_image() const { return grid.first_image() / (rows * columns); }

    // Of a strip of the block, in the phase images of the batch from `first_image` on.
    __device__ __forceinline__ Origin operator()(int of_block) const {
        const Strip strip = grid.strip(of_block);
        if (strip.image >= grid.images) return {-1, 0, 0};
        const int image = strip.image / (rows * columns) - first_image();
        const Residue y(sizes.stride_y, sizes.dilation_y, STRIDE_Y, strip.image / columns % rows);
        const Residue x(sizes.stride_x, sizes.dilation_x, STRIDE_X, strip.image % columns);
        return {(image * sizes.dilation_y + y.phase) * sizes.dilation_x + x.phase,
                y.first + strip.tile_row * ROWS * STRIDE_Y, x.first + strip.first_tile * COLUMNS * STRIDE_X};
    }

    // Store the lane's tile; `channel` is its channel of the first image.
    template <class T>
    __device__ __forceinline__ void store(const float (&sums)[ROWS][COLUMNS], T* __restrict__ channel) const {
        const int lane = threadIdx.x % 32;
        const Strip strip = grid.strip(lane / STRIP_TILES);
        if (strip.image >= grid.images) return;
        const int image = strip.image / (rows * columns), height = sizes.out_height, width = sizes.out_width;
        const int y = strip.image / columns % rows + strip.tile_row * ROWS * rows;
        const int x = strip.image % columns + (strip.first_tile + lane % STRIP_TILES) * COLUMNS * columns;
        T* to = channel + (long long)image * sizes.out_channels * height * width;
        const bool in_fours = COLUMNS % 4 == 0 && columns == 1 && width % 4 == 0;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (y + r * rows >= height) return;
            T* row = to + (long long)(y + r * rows) * width + x;
            if (in_fours) {
#pragma unroll
                for (int c = 0; c + 3 < COLUMNS; c += 4)
                    if (x + c < width) store_four(row + c, &sums[r][c]);
            } else {
#pragma unroll
                for (int c = 0; c < COLUMNS; c++)
                    if (x + c * columns < width) ::store(row + c * columns, sums[r][c]);
            }
        }
    }
};

// Add a unit to a tile. `at` is the unit's first tap for the tile's first output.
__device__ __forceinline__ void add_unit(float (&sums)[ROWS][COLUMNS], const float* at, const ForwardUnit& unit) {
#pragma unroll
    for (int row = 0; row <= (ROWS - 1) * STRIDE_Y + 1; row++) {
        if (row % STRIDE_Y > 1) continue;  // between the cells
        float taps[(COLUMNS - 1) * STRIDE_X + 2];
#pragma unroll
        for (int i = 0; i < (COLUMNS - 1) * STRIDE_X + 2; i++) taps[i] = at[row * ROW_WORDS + i];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            const float h = fmaf(unit.beta, taps[c * STRIDE_X + 1], taps[c * STRIDE_X]);
            if (row > 0 && (row - 1) % STRIDE_Y == 0)
                sums[(row - 1) / STRIDE_Y][c] = fmaf(unit.b, h, sums[(row - 1) / STRIDE_Y][c]);
            if (row % STRIDE_Y == 0 && row / STRIDE_Y < ROWS)
                sums[row / STRIDE_Y][c] = fmaf(unit.a, h, sums[row / STRIDE_Y][c]);
        }
    }
}

// The same for a unit on a whole pixel.
__device__ __forceinline__ void add_whole_unit(float (&sums)[ROWS][COLUMNS], const float* at, const ForwardUnit& unit) {
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            sums[r][c] = fmaf(unit.a, at[r * STRIDE_Y * ROW_WORDS + c * STRIDE_X], sums[r][c]);
}

}  // namespace

// A lane owns a tile of ROWS x COLUMNS outputs of one channel in registers, over all input channels; a warp 32 such
// tiles of one output channel, a block WARPS output channels of the same tiles, which share the staged windows. Grid:
// (strips / STRIPS, groups x output channels of a group / WARPS, splits). Shared memory: STAGES * STAGE_WORDS floats.
// Displaced reads are shared by no two outputs, so registers are spent on tiles: an 8 x 8 tile loads 1.27 words per
// product.
extern "C" __global__ void __launch_bounds__(THREADS, DAU_MIN_BLOCKS)
    dau_forward(const Sizes sizes, const float* __restrict__ blurred, const ForwardUnit* __restrict__ units,
                const int* __restrict__ unit_ptr, const float* __restrict__ bias, Stored* __restrict__ output,
                float* __restrict__ partial) {
    extern __shared__ float shared[];
    const Outputs outputs(sizes);
    const Channel out(sizes.group_outputs());
    const int inputs = sizes.group_inputs();
    const Share share(inputs, sizes.splits, blockIdx.z);

    const int lane = threadIdx.x % 32, strip = lane / STRIP_TILES;
    float sums[ROWS][COLUMNS];
    const float start = bias && sizes.splits == 1 ? bias[out.number] : 0.f;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) sums[r][c] = start;

    const Rows rows = find_rows(outputs, sizes.in_channels, sizes.phase_height, sizes.phase_width);
    const long long first_plane =
        (long long)outputs.first_image() * sizes.phases() * sizes.in_channels + out.group * inputs + share.begin;
    Pipeline pipeline(shared, blurred + first_plane * sizes.phase_pixels(), share.end - share.begin,
                      sizes.phase_pixels(), rows);
    const long long first_pair = (long long)out.number * inputs;
    int u = in_every_lane(first_unit(sizes, unit_ptr, first_pair + share.begin));
    ForwardUnit next = units[u];
    const float* first_tap = shared + strip_offset(LAYOUT, strip) + lane % STRIP_TILES * COLUMNS * STRIDE_X;
    for (int channel = share.begin; channel < share.end; channel += STAGE_CHANNELS) {
        unsigned origin = ptx::shared_address(first_tap) + pipeline.next(rows);
        ptx::keep(origin);
        const int after = channel + STAGE_CHANNELS < share.end ? channel + STAGE_CHANNELS : share.end;
        const int end = out.exists ? first_unit(sizes, unit_ptr, first_pair + after) : u;
        const auto take = [&] {
            const ForwardUnit unit = next;
            u++;
            ptx::keep(u);
            next = units[u];
            return unit;
        };
        while (u < end) {  // one run of units of a kind after another
#pragma unroll 1
            while (u < end && !next.is_whole()) {
                const ForwardUnit unit = take();
                add_unit(sums, ptx::at_shared(origin + unit.offset), unit);
            }
#pragma unroll 1
            while (u < end && next.is_whole()) {
                const ForwardUnit unit = take();
                add_whole_unit(sums, ptx::at_shared(origin + unit.offset), unit);
            }
        }
    }

    if (!out.exists) return;
    const long long plane = (long long)sizes.out_height * sizes.out_width;
    if (sizes.splits == 1)
        outputs.store(sums, output + out.number * plane);
    else
        outputs.store(sums, partial + ((long long)blockIdx.z * sizes.batch * sizes.out_channels + out.number) * plane);
}
