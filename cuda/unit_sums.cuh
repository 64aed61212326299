// The sums of a unit over all pixels, and the gradients that follow from them (docs/math.md, section 4).
#pragma once

#include "cells.cuh"
#include "sizes.cuh"

#ifndef DAU_EXACT
#define DAU_EXACT 0  // 1: mu_gradient="exact"
#endif
#ifndef DAU_MU
#define DAU_MU 1  // 0: nobody asks for the gradient of mu
#endif

namespace {

constexpr bool MU = DAU_MU, EXACT = MU && DAU_EXACT;

// With the paper's mu gradient: the output gradient with B~, with its y and with its x derivative map, interpolated;
// the first of them alone where the gradient of mu is not needed. With the exact one: the output gradient with B at each
// of the cell's four taps, (0,0), (0,1), (1,0), (1,1).
constexpr int SUMS = !MU ? 1 : EXACT ? 4 : 3;
constexpr int MAPS = MU && !EXACT ? 3 : 1;

struct Sums {
    float of[4];
};

__device__ __forceinline__ float interpolate(const float* taps, float y, float x) {
    return (1.f - y) * ((1.f - x) * taps[0] + x * taps[1]) + y * ((1.f - x) * taps[2] + x * taps[3]);
}

__device__ __forceinline__ void store_gradients(const Sizes& sizes, const Sums& sums, int u,
                                                const float* __restrict__ weight, const float* __restrict__ mu,
                                                float* __restrict__ grad_weight, float* __restrict__ grad_mu) {
    if constexpr (!MU) {
        grad_weight[u] = sums.of[0];
        return;
    }
    float along_y, along_x;
    if constexpr (EXACT) {
        const float y = any_cell(mu[u]).fraction, x = any_cell(mu[sizes.units + u]).fraction;
        grad_weight[u] = interpolate(sums.of, y, x);
        along_y = (1.f - x) * (sums.of[2] - sums.of[0]) + x * (sums.of[3] - sums.of[1]);
        along_x = (1.f - y) * (sums.of[1] - sums.of[0]) + y * (sums.of[3] - sums.of[2]);
    } else {
        grad_weight[u] = sums.of[0];
        along_y = sums.of[1];
        along_x = sums.of[2];
    }
    grad_mu[u] = weight[u] * along_y;
    grad_mu[sizes.units + u] = weight[u] * along_x;
}

}  // namespace
