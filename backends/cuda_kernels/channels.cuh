// x (N, C, S) seen from its channels: where a thread finds what is of its own, and sums of a
// channel over a block and over all blocks.
//
// A thread has packs of V elements, of K channels: K = V where S = 1 and channels lie side by side,
// else K = 1. A block has blockDim.x groups of K channels, and blockDim.y threads for each; the
// items of a group, its packs, are shared out among them, and among gridDim.y blocks.
#pragma once

#include "blocks.cuh"

constexpr int THREADS = 256;

// The offset of a pack. An item of K = 1 is one of N·per_sample; n = item / per_sample is found by
// a multiplication, since what divides is known beforehand: the product and a shift are exact.
template <int V, int K> struct Place {
    int items, groups, per_sample;
    u32 magic;
    int shift, group;

    __device__ Place(int items, int groups, int per_sample, u32 magic, int shift)
        : items(items), groups(groups), per_sample(per_sample), magic(magic), shift(shift),
          group(blockIdx.x * blockDim.x + threadIdx.x) {}

    __device__ __forceinline__ bool inside() const { return group < groups; }

    __device__ __forceinline__ int channel() const { return group * K; }

    __device__ __forceinline__ int channels() const { return groups * K; }

    // How many values a channel has.
    __device__ __forceinline__ i64 count() const { return static_cast<i64>(items) * (V / K); }

    __device__ __forceinline__ i64 operator()(int item) const {
        if (K > 1) return (static_cast<i64>(item) * groups + group) * V;
        const i64 n = static_cast<i64>(static_cast<u64>(item) * magic >> shift);
        return (item + (n * (groups - 1) + group) * per_sample) * V;
    }
};

// The items of a thread: from ``first`` on every blockDim.y-th before ``end``, in one of gridDim.y
// parts; none outside of the channels.
struct Share {
    int first, end, step;

    template <class Place> __device__ Share(const Place& place, int part) {
        const int size = (place.items + gridDim.y - 1) / gridDim.y;
        step = blockDim.y;
        first = part * size + threadIdx.y;
        end = place.inside() ? min(part * size + size, place.items) : 0;
    }
};

// Several items at once, so that a thread waits for memory less often.
template <int N, class T, int V, class Place>
__device__ __forceinline__ void load_items(Pack<T, V> (&packs)[N], const T* x, const Place& place,
                                           const Share& share, int item) {
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (item + u * share.step < share.end)
            packs[u] = loaded<V>(x + place(item + u * share.step));
}

// Two sums for each channel of a thread.
template <int K> struct Sums {
    double a[K], b[K];

    __device__ __forceinline__ Sums() {
#pragma unroll
        for (int j = 0; j < K; ++j) a[j] = b[j] = 0;
    }
};

// Shared memory for two numbers of each channel of each thread.
template <int K> struct Kept {
    double a[K][THREADS], b[K][THREADS];

    __device__ static Kept& of_block() {
        __shared__ Kept kept;
        return kept;
    }

    __device__ __forceinline__ void put(int thread, const Sums<K>& sums) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            a[j][thread] = sums.a[j];
            b[j][thread] = sums.b[j];
        }
    }
};

// The sums of all threads of a group, in the first of them.
template <int K> __device__ void fold(Sums<K>& sums) {
    Kept<K>& kept = Kept<K>::of_block();
    const int t = threadIdx.y * blockDim.x + threadIdx.x;
    for (int rows = blockDim.y / 2; rows; rows /= 2) {
        __syncthreads();  // whoever still reads
        if (threadIdx.y >= rows && threadIdx.y < 2 * rows) kept.put(t, sums);
        __syncthreads();
        if (threadIdx.y < rows) {
            const int other = t + rows * blockDim.x;
#pragma unroll
            for (int j = 0; j < K; ++j) {
                sums.a[j] += kept.a[j][other];
                sums.b[j] += kept.b[j][other];
            }
        }
    }
}

// What the first thread of a group has, in all of them.
template <int K> __device__ void broadcast(Sums<K>& sums) {
    Kept<K>& kept = Kept<K>::of_block();
    __syncthreads();
    if (threadIdx.y == 0) kept.put(threadIdx.x, sums);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < K; ++j) {
        sums.a[j] = kept.a[j][threadIdx.x];
        sums.b[j] = kept.b[j][threadIdx.x];
    }
}

// The sums over all blocks of a group: true in the one thread of the grid that has them. ``parts``
// has room for two of each channel for each of gridDim.y, ``tickets`` for one of each gridDim.x.
template <int K, class Place>
__device__ bool total(Sums<K>& sums, const Place& place, double* parts, u32* tickets) {
    fold(sums);
    const bool first = threadIdx.y == 0 && place.inside();
    if (gridDim.y == 1) return first;
    const i64 channels = place.channels();
    double* own = parts + place.channel();
    if (first) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            own[2 * blockIdx.y * channels + j] = sums.a[j];
            own[(2 * blockIdx.y + 1) * channels + j] = sums.b[j];
        }
    }
    if (!last_of(tickets + blockIdx.x, gridDim.y)) return false;
    sums = Sums<K>();
    if (place.inside()) {
        for (int part = threadIdx.y; part < gridDim.y; part += blockDim.y) {
#pragma unroll
            for (int j = 0; j < K; ++j) {  // from where all blocks see it, the second-level cache
                sums.a[j] += __ldcg(own + 2 * part * channels + j);
                sums.b[j] += __ldcg(own + (2 * part + 1) * channels + j);
            }
        }
    }
    fold(sums);
    return first;
}
