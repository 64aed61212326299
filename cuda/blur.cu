// The blur and its derivatives (docs/math.md, section 2): separable, zero padded, and cropped to the image.
#include "device.cuh"
#include "sizes.cuh"
#include "storage.cuh"

#ifndef DAU_BLUR_TILE
#define DAU_BLUR_TILE 32
#endif
#ifndef DAU_BLUR_RADIUS
#define DAU_BLUR_RADIUS 3
#endif
#ifndef DAU_BLUR_PLANES
#define DAU_BLUR_PLANES 1
#endif

namespace {

// A group of threads owns a tile of TILE x TILE pixels of a plane, a block PLANES of them: small images would leave the
// threads of a block idle. A thread filters OUTPUTS pixels side by side, so that it reads each pixel once for all of
// them.
constexpr int TILE = DAU_BLUR_TILE, RADIUS = DAU_BLUR_RADIUS, PLANES = DAU_BLUR_PLANES;
constexpr int OUTPUTS = 8, SEGMENTS = TILE / OUTPUTS, GROUP = TILE * SEGMENTS, THREADS = GROUP * PLANES;
constexpr int TAPS = 2 * RADIUS + 1;
// Of a multiprocessor: registers for more are found by spilling them.
constexpr int MIN_BLOCKS = 4;
static_assert(TILE % OUTPUTS == 0 && THREADS <= 1024, "tiles are cut into segments");

// The tile with what the taps reach beyond it, and its rows once they are filtered along x. Rows are an odd number of
// words apart, so that threads which own rows read different banks.
constexpr int WIDTH = TILE + 2 * RADIUS, PITCH = WIDTH | 1, ROWS_PITCH = TILE | 1;
constexpr int GROUP_WORDS = WIDTH * (PITCH + ROWS_PITCH);

// Taps of a narrow blur stay in registers, and the loop over them is written out. A wide one has too many.
constexpr int UNROLLED = TAPS <= 17 ? OUTPUTS + TAPS - 1 : 1;

// The tile of a group: one channel of one phase of one image. Groups beyond the last tile have none.
struct Tile {
    int image, phase_y, phase_x, channel, y, x;
    long long plane;  // of the phase images
    bool exists;

    __device__ __forceinline__ Tile(const Sizes& sizes, int channels) {
        const int columns = divide_up(sizes.phase_width, TILE), rows = divide_up(sizes.phase_height, TILE);
        const long long number = (long long)blockIdx.x * PLANES + threadIdx.x / GROUP;
        plane = number / (rows * columns);
        y = (int)(number / columns % rows) * TILE;
        x = (int)(number % columns) * TILE;
        channel = (int)(plane % channels);
        const long long phase = plane / channels;
        phase_x = (int)(phase % sizes.dilation_x);
        phase_y = (int)(phase / sizes.dilation_x % sizes.dilation_y);
        image = (int)(phase / sizes.phases());
        exists = image < sizes.batch;
    }
};

// How many pixels of an image of `size` a phase has.
__device__ __forceinline__ int phase_size(int size, int phase, int dilation) {
    return divide_up(size - phase, dilation);
}

// Rows of taps: the Gaussian, and its derivatives by displacement and by sigma (docs/math.md, section 2).
enum Row { GAUSSIAN, MU, SIGMA, ROWS_OF_TAPS };

// The taps of a block, which makes them itself: nobody else has to, and nothing of the size of a warp is worth a launch.
// A wide blur has more taps than a block has threads.
struct Taps {
    float* first;  // ROWS_OF_TAPS x TAPS

    __device__ __forceinline__ Taps(float sigma, float* shared) : first(shared) {
        const float inverse = RADIUS ? 1.f / sigma : 0.f;
        for (int t = threadIdx.x; t < TAPS; t += THREADS) {
            const float x = (float)(t - RADIUS);
            first[SIGMA * TAPS + t] = RADIUS ? expf(-(x * x) / (2.f * sigma * sigma)) : 1.f;
        }
        __syncthreads();
        float sum = 0.f, second = 0.f;
        for (int i = 0; i < TAPS; i++) {
            const float x = (float)(i - RADIUS), g = first[SIGMA * TAPS + i];
            sum += g;
            second = fmaf(x * x, g, second);
        }
        __syncthreads();  // all have read what is overwritten
        for (int t = threadIdx.x; t < TAPS; t += THREADS) {
            const float x = (float)(t - RADIUS), g = first[SIGMA * TAPS + t] / sum;
            first[GAUSSIAN * TAPS + t] = g;
            first[MU * TAPS + t] = x * inverse * inverse * g;
            first[SIGMA * TAPS + t] = (x * x - second / sum) * inverse * inverse * inverse * g;
        }
        __syncthreads();
    }

    __device__ __forceinline__ const float* row(int number) const { return first + number * TAPS; }
};

// OUTPUTS sums of TAPS pixels each, of pixels that lie `step` words apart.
struct Filtered {
    float sums[OUTPUTS];

    __device__ __forceinline__ Filtered(const float* __restrict__ taps, const float* __restrict__ pixels, int step)
        : sums() {
#pragma unroll(UNROLLED)
        for (int i = 0; i < OUTPUTS + TAPS - 1; i++) {
            const float pixel = pixels[i * step];
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++)
                if (i >= o && i - o < TAPS) sums[o] = fmaf(taps[i - o], pixel, sums[o]);
        }
    }
};

// The filter along x, then along y, of a group's tile in its part of shared memory.
struct Correlation {
    int me;  // in the group
    float *input, *rows;

    __device__ __forceinline__ explicit Correlation(float* shared)
        : me((int)threadIdx.x % GROUP),
          input(shared + (int)threadIdx.x / GROUP * GROUP_WORDS),
          rows(input + WIDTH * PITCH) {}

    template <class Read>  // float read(int y, int x), inside height x width
    __device__ __forceinline__ void load(const Tile& tile, int height, int width, const Read& read) const {
        for (int i = me; i < WIDTH * WIDTH; i += GROUP) {
            const int y = tile.y + i / WIDTH - RADIUS, x = tile.x + i % WIDTH - RADIUS;
            const bool is_pixel = tile.exists && y >= 0 && y < height && x >= 0 && x < width;
            input[i / WIDTH * PITCH + i % WIDTH] = is_pixel ? read(y, x) : 0.f;
        }
        __syncthreads();
    }

    // Threads side by side own rows that lie side by side.
    __device__ __forceinline__ void along_x(const float* __restrict__ taps) const {
        for (int i = me; i < WIDTH * SEGMENTS; i += GROUP) {
            const int row = i % WIDTH, x = i / WIDTH * OUTPUTS;
            const Filtered filtered(taps, input + row * PITCH + x, 1);
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) rows[row * ROWS_PITCH + x + o] = filtered.sums[o];
        }
        __syncthreads();
    }

    // Column, and first row, of what the thread filters along y.
    __device__ __forceinline__ int column() const { return me % TILE; }
    __device__ __forceinline__ int row() const { return me / TILE * OUTPUTS; }
    __device__ __forceinline__ Filtered along_y(const float* __restrict__ taps) const {
        return Filtered(taps, rows + row() * ROWS_PITCH + column(), ROWS_PITCH);
    }
};

}  // namespace

// Blur every channel with `maps` pairs of rows of taps into phase images, one set a map. Four bits of `pairs` name each
// pair, the lower two of them the row along y. An image is read once for all its maps, and filtered along x once for
// neighbours with the same row. Grid: tiles of all planes / PLANES. Shared memory: PLANES GROUP_WORDS + 3 TAPS floats.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    dau_blur(const Sizes sizes, int channels, const Stored* __restrict__ images, const float* __restrict__ sigma,
             float* __restrict__ blurred, int maps, int pairs) {
    extern __shared__ float shared[];
    const Tile tile(sizes, channels);
    const int height = phase_size(sizes.height, tile.phase_y, sizes.dilation_y);
    const int width = phase_size(sizes.width, tile.phase_x, sizes.dilation_x);
    const Stored* image = images + ((long long)tile.image * channels + tile.channel) * sizes.height * sizes.width;
    const Correlation blur(shared);
    const Taps taps(*sigma, shared + PLANES * GROUP_WORDS);
    blur.load(tile, height, width, [&](int y, int x) {
        return to_float(image[(long long)(tile.phase_y + y * sizes.dilation_y) * sizes.width + tile.phase_x +
                              x * sizes.dilation_x]);
    });
    const int x = tile.x + blur.column();
    const long long map_size = (long long)sizes.batch * sizes.phases() * channels * sizes.phase_pixels();
    int along_x = -1;
    for (int map = 0; map < maps; map++) {
        const int pair = pairs >> 4 * map;
        if (along_x != (pair >> 2 & 3)) {
            along_x = pair >> 2 & 3;
            __syncthreads();  // all have left the rows of the map before
            blur.along_x(taps.row(along_x));
        }
        const Filtered filtered = blur.along_y(taps.row(pair & 3));
        if (!tile.exists || x >= sizes.phase_width) continue;
        float* plane = blurred + map * map_size + tile.plane * sizes.phase_pixels();
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) {
            const int y = tile.y + blur.row() + o;
            // A phase that is shorter than others ends in zeros: there is no image to read.
            if (y < sizes.phase_height)
                plane[(long long)y * sizes.phase_width + x] = y < height && x < width ? filtered.sums[o] : 0.f;
        }
    }
}

// The adjoint: blur phase images with the Gaussian, which is symmetric, and put the phases together again.
// Grid, block and shared memory as above.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    dau_blur_adjoint(const Sizes sizes, int channels, const float* __restrict__ phases, const float* __restrict__ sigma,
                     Stored* __restrict__ images) {
    extern __shared__ float shared[];
    const Tile tile(sizes, channels);
    const int height = phase_size(sizes.height, tile.phase_y, sizes.dilation_y);
    const int width = phase_size(sizes.width, tile.phase_x, sizes.dilation_x);
    const float* plane = phases + tile.plane * sizes.phase_pixels();
    const Correlation blur(shared);
    const Taps taps(*sigma, shared + PLANES * GROUP_WORDS);
    blur.load(tile, height, width, [&](int y, int x) { return plane[(long long)y * sizes.phase_width + x]; });
    blur.along_x(taps.row(GAUSSIAN));
    const Filtered filtered = blur.along_y(taps.row(GAUSSIAN));
    const int x = tile.x + blur.column();
    if (!tile.exists || x >= width) return;
    Stored* image = images + ((long long)tile.image * channels + tile.channel) * sizes.height * sizes.width;
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) {
        const int y = tile.y + blur.row() + o;
        if (y >= height) return;
        const long long row = tile.phase_y + (long long)y * sizes.dilation_y;
        store(image + row * sizes.width + tile.phase_x + x * sizes.dilation_x, filtered.sums[o]);
    }
}
