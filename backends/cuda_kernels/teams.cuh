// A row for a team of W threads: those of a warp, or all of a block; or for a thread alone.
#pragma once

#include "blocks.cuh"

constexpr int BLOCK = 256;  // threads

template <int W> struct Team {
    static_assert(W == 1 || W == 32 || W == BLOCK, "a thread, a warp, or a block");
    static constexpr int size = W;
    i64 row;
    int member;

    __device__ __forceinline__ Team()
        : row(static_cast<i64>(blockIdx.x) * (BLOCK / W) + threadIdx.x / W),
          member(threadIdx.x % W) {}

    // Over the team, in each of its threads: all of a warp, or of a block, come here.
    template <class T> __device__ __forceinline__ T sum(T x) const {
        if constexpr (W == 1) return x;
        if constexpr (W == 32) return warp_sum(x);
        else return block_sum(x);
    }

    __device__ __forceinline__ float max(float x) const {
        if constexpr (W == 1) return x;
        x = warp_max(x);
        if constexpr (W == 32) return x;
        __shared__ float maxima[BLOCK / 32];
        __syncthreads();  // whoever still reads those of a call before
        if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = x;
        __syncthreads();
        return warp_max(maxima[threadIdx.x % (BLOCK / 32)]);
    }
};
