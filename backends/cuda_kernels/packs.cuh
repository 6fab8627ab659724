// Flat arrays whose length is no multiple of a pack, or which begin anywhere.
#pragma once

#include "numbers.cuh"

// Elements that are moved at once, 16 bytes at most, of the V that a thread has.
template <class T, int V> constexpr int at_once = sizeof(T) * V > 16 ? 16 / sizeof(T) : V;

// V elements from the i-th of n on, as far as there are; zeros beyond, and of an absent array.
// Whole packs are moved at once where ``packed`` says that the array begins where it may.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> taken(const T* from, i64 i, i64 n, bool packed) {
    constexpr int W = at_once<T, V>;
    Pack<T, V> values = {};
    if (!from) return values;
    if (packed && i + V <= n) {
#pragma unroll
        for (int k = 0; k < V; k += W) {
            const Pack<T, W> part = loaded<W>(from + i + k);
#pragma unroll
            for (int j = 0; j < W; ++j) values.at[k + j] = part.at[j];
        }
        return values;
    }
#pragma unroll
    for (int j = 0; j < V; ++j)
        if (i + j < n) values.at[j] = from[i + j];
    return values;
}

template <int V, class T>
__device__ __forceinline__ void left(T* to, const Pack<T, V>& values, i64 i, i64 n, bool packed) {
    constexpr int W = at_once<T, V>;
    if (!to) return;
    if (packed && i + V <= n) {
#pragma unroll
        for (int k = 0; k < V; k += W) {
            Pack<T, W> part;
#pragma unroll
            for (int j = 0; j < W; ++j) part.at[j] = values.at[k + j];
            store(to + i + k, part);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < V; ++j)
        if (i + j < n) to[i + j] = values.at[j];
}
