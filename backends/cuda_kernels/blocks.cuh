// What the threads of a block do together, and blocks among each other; in a fixed order always,
// so that bits depend on the input alone.
#pragma once

#include "numbers.cuh"

constexpr u32 EVERY_LANE = 0xffffffffu;

// The sum over the lanes of a warp, in each of them.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int lanes = 16; lanes; lanes >>= 1) x += __shfl_xor_sync(EVERY_LANE, x, lanes);
    return x;
}

template <class T> __device__ __forceinline__ T warp_max(T x) {
#pragma unroll
    for (int lanes = 16; lanes; lanes >>= 1) {
        T other = __shfl_xor_sync(EVERY_LANE, x, lanes);
        x = other > x || other != other ? other : x;  // NaN is the maximum of all
    }
    return x;
}

// The sum over a block of whole warps, one-dimensional, in each of its threads.
template <class T> __device__ T block_sum(T x) {
    __shared__ T sums[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();  // whoever still reads the sums of a call before
    if (lane == 0) sums[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? sums[lane] : T(0));
}

// Whether this block is the last of ``blocks`` that come here with this ticket, which is at zero
// before and after. What the others wrote before they came, the last one sees.
__device__ inline bool last_of(u32* ticket, u32 blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x + threadIdx.y == 0) last = atomicInc(ticket, blocks - 1) == blocks - 1;
    __syncthreads();
    if (last) __threadfence();
    return last;
}

// Dynamic shared memory: as many bytes as the launch asks for.
template <class T> __device__ __forceinline__ T* dynamic_shared() {
#ifdef CUDA_ON_CPU
    return reinterpret_cast<T*>(emu_arena);
#else
    extern __shared__ __align__(16) u8 arena[];
    return reinterpret_cast<T*>(arena);
#endif
}
