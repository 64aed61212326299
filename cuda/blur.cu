// The blur and its derivatives (docs/math.md, section 2): separable, zero padded, and cropped to the image.
#include "device.cuh"
#include "sizes.cuh"
#include "storage.cuh"

#ifndef DAU_BLUR_TILE
#define DAU_BLUR_TILE 32
#endif

namespace {

constexpr int TILE = DAU_BLUR_TILE, TILE_THREADS_Y = 8;

// The tile of a block: one channel of one phase of one image.
struct Tile {
    int image, phase_y, phase_x, channel, y, x;
    long long plane;  // of the phase images

    __device__ __forceinline__ Tile(const Sizes& sizes, int channels) {
        const int columns = divide_up(sizes.phase_width, TILE), rows = divide_up(sizes.phase_height, TILE);
        plane = blockIdx.x / (rows * columns);
        y = (int)(blockIdx.x / columns % rows) * TILE;
        x = (int)(blockIdx.x % columns) * TILE;
        channel = (int)(plane % channels);
        const int phase = (int)(plane / channels);
        phase_x = phase % sizes.dilation_x;
        phase_y = phase / sizes.dilation_x % sizes.dilation_y;
        image = phase / sizes.phases();
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
    int length;
    float* first;  // ROWS_OF_TAPS x length

    __device__ __forceinline__ Taps(int radius, float sigma, float* shared) : length(2 * radius + 1), first(shared) {
        const int me = (int)(threadIdx.y * blockDim.x + threadIdx.x), threads = (int)(blockDim.x * blockDim.y);
        const float inverse = radius ? 1.f / sigma : 0.f;
        for (int t = me; t < length; t += threads) {
            const float x = (float)(t - radius);
            first[SIGMA * length + t] = radius ? expf(-(x * x) / (2.f * sigma * sigma)) : 1.f;
        }
        __syncthreads();
        float sum = 0.f, second = 0.f;
        for (int i = 0; i < length; i++) {
            const float x = (float)(i - radius), g = first[SIGMA * length + i];
            sum += g;
            second = fmaf(x * x, g, second);
        }
        __syncthreads();  // all have read what is overwritten
        for (int t = me; t < length; t += threads) {
            const float x = (float)(t - radius), g = first[SIGMA * length + t] / sum;
            first[GAUSSIAN * length + t] = g;
            first[MU * length + t] = x * inverse * inverse * g;
            first[SIGMA * length + t] = (x * x - second / sum) * inverse * inverse * inverse * g;
        }
        __syncthreads();
    }

    __device__ __forceinline__ const float* row(int number) const { return first + number * length; }
};

// Correlate along x, then along y. The tile and what the taps reach beyond it lie at `input`, `(TILE + 2 radius)^2`.
struct Correlation {
    int radius, width;  // of the input
    float *input, *rows;

    __device__ __forceinline__ Correlation(int radius, float* shared)
        : radius(radius), width(TILE + 2 * radius), input(shared), rows(shared + width * width) {}

    // What lies behind the two.
    __device__ __forceinline__ float* end() const { return rows + width * TILE; }

    template <class Read>  // float read(int y, int x), inside height x width
    __device__ __forceinline__ void load(const Tile& tile, int height, int columns, const Read& read) const {
        for (int i = threadIdx.y; i < width; i += TILE_THREADS_Y)
            for (int j = threadIdx.x; j < width; j += TILE) {
                const int y = tile.y + i - radius, x = tile.x + j - radius;
                input[i * width + j] = y >= 0 && y < height && x >= 0 && x < columns ? read(y, x) : 0.f;
            }
        __syncthreads();
    }

    __device__ __forceinline__ void along_x(const float* __restrict__ taps) const {
        for (int i = threadIdx.y; i < width; i += TILE_THREADS_Y) {
            float sum = 0.f;
            for (int t = 0; t <= 2 * radius; t++) sum = fmaf(taps[t], input[i * width + threadIdx.x + t], sum);
            rows[i * TILE + threadIdx.x] = sum;
        }
        __syncthreads();
    }

    __device__ __forceinline__ float along_y(const float* __restrict__ taps, int i) const {
        float sum = 0.f;
        for (int t = 0; t <= 2 * radius; t++) sum = fmaf(taps[t], rows[(i + t) * TILE + threadIdx.x], sum);
        return sum;
    }
};

}  // namespace

// Blur every channel with `maps` pairs of rows of taps into phase images, one set a map. Four bits of `pairs` name each
// pair, the lower two of them the row along y. A block owns a tile of a phase, a thread a column of every eighth row.
// Grid: one block a tile; block (TILE, 8). Shared memory: (TILE + 2 radius) (2 TILE + 2 radius) + 3 (2 radius + 1)
// floats, so that an image is read once for all its maps.
extern "C" __global__ void __launch_bounds__(TILE* TILE_THREADS_Y)
    dau_blur(const Sizes sizes, int channels, const Stored* __restrict__ images, const float* __restrict__ sigma,
             float* __restrict__ blurred, int maps, int pairs) {
    extern __shared__ float shared[];
    const Tile tile(sizes, channels);
    const int height = phase_size(sizes.height, tile.phase_y, sizes.dilation_y);
    const int width = phase_size(sizes.width, tile.phase_x, sizes.dilation_x);
    const Stored* image = images + ((long long)tile.image * channels + tile.channel) * sizes.height * sizes.width;
    const Correlation blur(sizes.radius, shared);
    const Taps taps(sizes.radius, *sigma, blur.end());
    blur.load(tile, height, width, [&](int y, int x) {
        return to_float(image[(long long)(tile.phase_y + y * sizes.dilation_y) * sizes.width + tile.phase_x +
                              x * sizes.dilation_x]);
    });
    const int x = tile.x + threadIdx.x;
    const long long map_size = (long long)sizes.batch * sizes.phases() * channels * sizes.phase_pixels();
    for (int map = 0; map < maps; map++) {
        const int pair = pairs >> 4 * map;
        const float* along_y = taps.row(pair & 3);
        blur.along_x(taps.row(pair >> 2 & 3));
        float* plane = blurred + map * map_size + tile.plane * sizes.phase_pixels();
        for (int i = threadIdx.y; i < TILE; i += TILE_THREADS_Y) {
            const int y = tile.y + i;
            // A phase that is shorter than others ends in zeros: there is no image to read.
            if (y < sizes.phase_height && x < sizes.phase_width)
                plane[(long long)y * sizes.phase_width + x] = y < height && x < width ? blur.along_y(along_y, i) : 0.f;
        }
        __syncthreads();  // the next map takes the rows' place
    }
}

// The adjoint: blur phase images with the Gaussian, which is symmetric, and put the phases together again.
// Grid, block and shared memory as above.
extern "C" __global__ void __launch_bounds__(TILE* TILE_THREADS_Y)
    dau_blur_adjoint(const Sizes sizes, int channels, const float* __restrict__ phases, const float* __restrict__ sigma,
                     Stored* __restrict__ images) {
    extern __shared__ float shared[];
    const Tile tile(sizes, channels);
    const int height = phase_size(sizes.height, tile.phase_y, sizes.dilation_y);
    const int width = phase_size(sizes.width, tile.phase_x, sizes.dilation_x);
    const float* plane = phases + tile.plane * sizes.phase_pixels();
    const Correlation blur(sizes.radius, shared);
    const Taps taps(sizes.radius, *sigma, blur.end());
    blur.load(tile, height, width, [&](int y, int x) { return plane[(long long)y * sizes.phase_width + x]; });
    blur.along_x(taps.row(GAUSSIAN));
    Stored* image = images + ((long long)tile.image * channels + tile.channel) * sizes.height * sizes.width;
    for (int i = threadIdx.y; i < TILE; i += TILE_THREADS_Y) {
        const int y = tile.y + i, x = tile.x + threadIdx.x;
        if (y >= height || x >= width) continue;
        const long long row = tile.phase_y + (long long)y * sizes.dilation_y;
        store(image + row * sizes.width + tile.phase_x + x * sizes.dilation_x, blur.along_y(taps.row(GAUSSIAN), i));
    }
}
