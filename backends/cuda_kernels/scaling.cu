// A scaler's work on gradients and on what an optimizer changed, in place. ``found`` says whether
// any gradient is not finite: whoever finds one writes the same.

#include "packs.cuh"

constexpr int THREADS = 256;

__device__ __forceinline__ bool finite(float x) { return fabsf(x) < __uint_as_float(0x7f800000u); }

template <class T>
__global__ void __launch_bounds__(THREADS)
unscale(T* __restrict__ grad, bool* found, const float* __restrict__ scale, i64 n, bool packed) {
    constexpr int V = 16 / sizeof(T);
    const float inverse = wide(stored<T>(static_cast<float>(1 / static_cast<double>(*scale))));
    bool bad = false;
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS * V;
    for (i64 k = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V; k < n; k += stride) {
        Pack<T, V> grads = taken<V>(grad, k, n, packed);  // zeros beyond the end
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float g = wide(grads.at[j]);
            bad |= !finite(g);
            grads.at[j] = stored<T>(g * inverse);
        }
        left(grad, grads, k, n, packed);
    }
    if (bad) *found = true;
}

__global__ void __launch_bounds__(THREADS)
next_scale(float* scale, int* tracker, const bool* found, float growth, float backoff,
           int interval) {
    const bool due = *tracker + 1 == interval;
    const float grown = *scale * growth;
    if (*found)
        *scale *= backoff;
    else if (due && finite(grown))
        *scale = grown;
    *tracker = *found || due ? 0 : *tracker + 1;
}

// Nothing is moved where nothing was found.
template <class T>
__global__ void __launch_bounds__(THREADS)
take_back(T* __restrict__ array, const T* __restrict__ before, const bool* __restrict__ found,
          i64 n) {
    if (!*found) return;
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS;
    for (i64 k = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x; k < n; k += stride)
        array[k] = before[k];
}
