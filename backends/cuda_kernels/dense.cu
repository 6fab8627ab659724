// What dense layers compute besides products: the bias and its gradient, ReLU.

#include "channels.cuh"
#include "packs.cuh"
#include "rounded.cuh"

template <class T> __device__ __forceinline__ T positive(T x) {
    return wide(x) <= 0 ? stored<T>(static_cast<decltype(wide(x))>(0)) : x;  // NaN is not
}

template <class T> __device__ __forceinline__ T through(T dy, T x) {
    return stored<T>(wide(dy) * (wide(x) > 0 ? 1 : 0));  // as a product, which NaN comes through
}

// What thread and block are for, in packs of 16 bytes of n elements.
template <int V> __device__ __forceinline__ i64 first_of() {
    return (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V;
}

template <int V> __device__ __forceinline__ i64 stride_of() {
    return static_cast<i64>(gridDim.x) * THREADS * V;
}

template <class T>
__global__ void __launch_bounds__(THREADS)
relu(const T* __restrict__ x, T* __restrict__ y, i64 n, bool packed) {
    constexpr int V = 16 / sizeof(T);
    for (i64 i = first_of<V>(); i < n; i += stride_of<V>()) {
        Pack<T, V> values = taken<V>(x, i, n, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) values.at[j] = positive(values.at[j]);
        left(y, values, i, n, packed);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
relu_grad(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, i64 n,
          bool packed) {
    constexpr int V = 16 / sizeof(T);
    for (i64 i = first_of<V>(); i < n; i += stride_of<V>()) {
        Pack<T, V> grads = taken<V>(dy, i, n, packed);
        const Pack<T, V> values = taken<V>(x, i, n, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) grads.at[j] = through(grads.at[j], values.at[j]);
        left(dx, grads, i, n, packed);
    }
}

// Packs begin at a multiple of V; where ``packed``, rows do as well.
template <class T>
__global__ void __launch_bounds__(THREADS)
add_bias(const T* __restrict__ x, const T* __restrict__ bias, T* __restrict__ y, i64 n,
         u32 channels, bool packed) {
    constexpr int V = 16 / sizeof(T);
    for (i64 i = first_of<V>(); i < n; i += stride_of<V>()) {
        Pack<T, V> values = taken<V>(x, i, n, packed);
        const u32 column = static_cast<u32>(i) % channels;  // n is below 2³²
        Pack<T, V> shifts = {};
        if (packed) {
            shifts = loaded<V>(bias + column);
        } else {
#pragma unroll
            for (int j = 0; j < V; ++j) shifts.at[j] = bias[(column + j) % channels];
        }
#pragma unroll
        for (int j = 0; j < V; ++j)
            values.at[j] = stored<T>(wide(values.at[j]) + wide(shifts.at[j]));
        left(y, values, i, n, packed);
    }
}

// To T at once: by a float32 that remembers, in its last bit, whether it lost anything.
template <class T> __device__ __forceinline__ T rounded_once(double x) {
    const float near = static_cast<float>(x);
    if (sizeof(T) == 4 || near == x || near != near) return stored<T>(near);
    const u32 bits = __float_as_uint(near) - (fabs(static_cast<double>(near)) > fabs(x) ? 1 : 0);
    return stored<T>(__uint_as_float(bits | 1));
}

template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
column_sums(const T* __restrict__ x, T* __restrict__ result, double* parts, u32* tickets,
            int items, int groups, int per_sample, u32 magic, int shift) {
    constexpr int FLIGHT = 8;
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    for (int i = share.first; i < share.end; i += FLIGHT * share.step) {
        Pack<T, V> packs[FLIGHT];
        load_items(packs, x, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT; ++u)
            if (i + u * share.step < share.end)
#pragma unroll
                for (int j = 0; j < V; ++j)
                    sums.a[j % K] += static_cast<double>(wide(packs[u].at[j]));
    }
    if (!total(sums, place, parts, tickets)) return;
#pragma unroll
    for (int j = 0; j < K; ++j) result[place.channel() + j] = rounded_once<T>(sums.a[j]);
}
