// Flat arrays whose length is no multiple of a pack, or which begin anywhere.
#pragma once

#include "numbers.cuh"

// Packs of V elements are moved at once where ``packed``, as far as they are whole; nothing is read
// of a buffer that is absent.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> taken(const T* from, i64 i, i64 n, bool packed) {
    Pack<T, V> pack = {};
    if (!from) return pack;
    if (packed && i + V <= n) return loaded<V>(from + i);
#pragma unroll
    for (int j = 0; j < V; ++j)
        if (i + j < n) pack.at[j] = from[i + j];
    return pack;
}

template <int V, class T>
__device__ __forceinline__ void left(T* to, const Pack<T, V>& pack, i64 i, i64 n, bool packed) {
    if (!to) return;
    if (packed && i + V <= n) return store(to + i, pack);
#pragma unroll
    for (int j = 0; j < V; ++j)
        if (i + j < n) to[i + j] = pack.at[j];
}
