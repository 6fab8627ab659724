// Gradients clipped by their norm together: the sum of squares of each is added to a total that lies
// on the device, and each is scaled by what follows from it.

#include "blocks.cuh"
#include "packs.cuh"

constexpr int THREADS = 256;

template <class T>
__global__ void __launch_bounds__(THREADS)
add_squares(double* total, const T* __restrict__ x, double* parts, u32* ticket, i64 n,
            bool packed) {
    constexpr int V = 16 / sizeof(T);
    double sum = 0;
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS * V;
    for (i64 k = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V; k < n; k += stride) {
        const Pack<T, V> values = taken<V>(x, k, n, packed);  // zeros beyond the end
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const double value = wide(values.at[j]);
            sum = fma(value, value, sum);
        }
    }
    sum = block_sum(sum);
    if (gridDim.x > 1) {
        if (threadIdx.x == 0) parts[blockIdx.x] = sum;
        if (!last_of(ticket, gridDim.x)) return;
        sum = 0;
        for (int i = threadIdx.x; i < gridDim.x; i += THREADS) sum += __ldcg(parts + i);
        sum = block_sum(sum);
    }
    if (threadIdx.x == 0) *total += sum;
}

template <class T>
__global__ void __launch_bounds__(THREADS)
clip(T* __restrict__ x, const double* __restrict__ total, double max_norm, i64 n, bool packed) {
    constexpr int V = 16 / sizeof(T);
    const double ratio = max_norm / (sqrt(*total) + 1e-6);
    if (ratio >= 1) return;  // nothing is moved; NaN goes on
    const float scale = wide(stored<T>(static_cast<float>(ratio)));
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS * V;
    for (i64 k = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V; k < n; k += stride) {
        Pack<T, V> values = taken<V>(x, k, n, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) values.at[j] = stored<T>(wide(values.at[j]) * scale);
        left(x, values, k, n, packed);
    }
}
