// The output gradient as the backward reads it: at stride 1, undilated, in float32.
#include "device.cuh"
#include "sizes.cuh"
#include "storage.cuh"

// A pixel of a phase image gets the gradient of the output that was read there, or zero if there is none.
// A thread owns a pixel. Grid: all pixels of all phase images of the output's channels, in blocks of any size.
extern "C" __global__ void dau_unstride(const Sizes sizes, const Stored* __restrict__ grad_output,
                                        float* __restrict__ errors) {
    const long long pixel = (long long)blockIdx.x * blockDim.x + threadIdx.x, pixels = sizes.phase_pixels();
    const long long plane = pixel / pixels, phase = plane / sizes.out_channels;
    if (phase >= (long long)sizes.batch * sizes.phases()) return;
    const int in_phase = (int)(pixel % pixels);
    const int y = (int)(phase / sizes.dilation_x % sizes.dilation_y) + in_phase / sizes.phase_width * sizes.dilation_y;
    const int x = (int)(phase % sizes.dilation_x) + in_phase % sizes.phase_width * sizes.dilation_x;
    float error = 0.f;
    if (y < sizes.height && x < sizes.width && y % sizes.stride_y == 0 && x % sizes.stride_x == 0) {
        const long long out = phase / sizes.phases() * sizes.out_channels + plane % sizes.out_channels;
        const long long row = out * sizes.out_height + y / sizes.stride_y;
        error = to_float(grad_output[row * sizes.out_width + x / sizes.stride_x]);
    }
    errors[pixel] = error;
}
