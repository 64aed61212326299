// From a displacement to the cell of four pixels that is read (docs/math.md, section 3).
#pragma once

// Along one axis: the first of the two taps, and the weight of the second.
struct Cell {
    int tap;
    float fraction;
};

// Where `mu` is the halo itself and that tap is the last of the staged window, its neighbour would be outside: the cell
// before it, with the whole weight on its second tap, says the same.
__device__ __forceinline__ Cell near_cell(float mu, int halo) {
    float floor = floorf(mu);
    if (mu == (float)halo) floor -= 1.f;
    return {(int)floor, mu - floor};
}

// The cell of a displacement of any size. What lies beyond 2^24 pixels is outside every image. A displacement that is
// NaN or infinite has no cell: it makes NaN of what it touches, and does not pass for a unit outside.
__device__ __forceinline__ Cell any_cell(float mu) {
    const float at = fminf(fmaxf(mu, -0x1p24f), 0x1p24f), floor = floorf(at);
    return {(int)floor, at - floor + 0.f * mu};
}

// On a whole pixel: one tap has all the weight.
__device__ __forceinline__ bool is_whole(float mu_y, float mu_x) {
    return floorf(mu_y) == mu_y && floorf(mu_x) == mu_x;
}

// Where the adjoint reads, at minus the displacement: the mirrored cell. An integer displacement is mirrored to the
// second tap, so that the slope between the two taps is the right-hand one, as the forward's cell has it.
__device__ __forceinline__ Cell mirrored(Cell cell) { return {-cell.tap - 1, 1.f - cell.fraction}; }

// Far: the cell does not fit into the window. The exact mu gradient needs the cell to the right of the halo itself.
__device__ __forceinline__ bool is_far(float mu_y, float mu_x, int halo, bool exact) {
    const float most = (float)halo;
    const bool inside = fabsf(mu_y) <= most && fabsf(mu_x) <= most;
    return !inside || (exact && (mu_y == most || mu_x == most));
}

// The smallest 1 - fraction: the kernels divide by it, and half an ulp of weight on a tap changes no sum noticeably.
constexpr float least_weight = 0x1p-24f;
