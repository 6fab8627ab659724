// The phases of batch norm. Statistics and sums are of float64: each number is widened, and so an
// offset costs no digits, squares stay in range, and sums that cancel are right. GPUs with float64
// at half the rate of float32 still wait for memory; others are held up by it in these two kernels.
//
// Elements are computed in float32, x̂ = (x - hi) rstd - lo rstd, where hi is the mean rounded and lo
// what rounding lost: the first difference is exact where it counts, the second is part of a
// constant.

#include "channels.cuh"

constexpr int FLIGHT = 8;  // packs that a thread has asked for at once, of two arrays together

// Mean and biased variance of each channel, of differences from its first value.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS)
moments(const T* __restrict__ x, double* __restrict__ mean, double* __restrict__ var,
        double* parts, u32* tickets, int items, int groups, int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    double origin[K];
    if (place.inside()) {
        const Pack<T, K> first = loaded<K>(x + place(0));
#pragma unroll
        for (int j = 0; j < K; ++j) origin[j] = wide(first.at[j]);
    }
    for (int i = share.first; i < share.end; i += FLIGHT * share.step) {
        Pack<T, V> packs[FLIGHT];
        load_items(packs, x, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT; ++u)
            if (i + u * share.step < share.end) {
#pragma unroll
                for (int e = 0; e < V; ++e) {
                    const double d = wide(packs[u].at[e]) - origin[e % K];
                    sums.a[e % K] += d;
                    sums.b[e % K] = fma(d, d, sums.b[e % K]);
                }
            }
    }
    if (!total(sums, place, parts, tickets)) return;
    const double count = place.count();
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const double shifted = sums.a[j] / count;
        const double spread = (sums.b[j] - sums.a[j] * shifted) / count;
        mean[place.channel() + j] = origin[j] + shifted;
        var[place.channel() + j] = spread < 0 ? 0 : spread;  // NaN stays
    }
}

// y = γ (x - mean) rstd + β.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS)
normalize(const T* __restrict__ x, const double* __restrict__ mean,
          const double* __restrict__ rstd, const float* __restrict__ weight,
          const float* __restrict__ bias, T* __restrict__ y, int items, int groups,
          int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, gridDim.y - 1 - blockIdx.y);  // first what was read last
    if (!place.inside()) return;
    float hi[K], scale[K], level[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        const double a = weight ? rstd[c] * weight[c] : rstd[c];
        hi[j] = mean[c];
        scale[j] = a;
        level[j] = (bias ? bias[c] : 0.0f) - (mean[c] - hi[j]) * a;
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> packs[FLIGHT / 2];
        load_items(packs, x, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT / 2; ++u)
            if (i + u * share.step < share.end) {
#pragma unroll
                for (int e = 0; e < V; ++e) {
                    const float d = wide(packs[u].at[e]) - hi[e % K];
                    packs[u].at[e] = stored<T>(fmaf(d, scale[e % K], level[e % K]));
                }
                store(y + place(i + u * share.step), packs[u]);
            }
    }
}

// Σ dy and Σ dy·x̂ of each channel.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS)
grad_sums(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
          const double* __restrict__ rstd, double* __restrict__ sum, double* __restrict__ product,
          double* parts, u32* tickets, int items, int groups, int per_sample, u32 magic,
          int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    double centre[K];
    if (place.inside()) {
#pragma unroll
        for (int j = 0; j < K; ++j) centre[j] = mean[place.channel() + j];
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> grads[FLIGHT / 2], packs[FLIGHT / 2];
        load_items(grads, dy, place, share, i);
        load_items(packs, x, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT / 2; ++u)
            if (i + u * share.step < share.end) {
#pragma unroll
                for (int e = 0; e < V; ++e) {
                    const double g = wide(grads[u].at[e]);
                    sums.a[e % K] += g;
                    sums.b[e % K] = fma(g, wide(packs[u].at[e]) - centre[e % K], sums.b[e % K]);
                }
            }
    }
    if (!total(sums, place, parts, tickets)) return;
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        sum[c] = sums.a[j];
        product[c] = sums.b[j] * rstd[c];
    }
}

// What a channel's dx is computed with: scale ((dy - level) + (rest - x̂ slope)).
struct GradChannel {
    float hi, r, level, slope, rest, scale;

    __device__ __forceinline__ void load(double mean, double rstd, double weight, double mean_dy,
                                         double mean_dy_x_hat) {
        hi = mean;
        r = rstd;
        level = mean_dy;
        slope = mean_dy_x_hat;
        rest = (mean - hi) * rstd * mean_dy_x_hat - (mean_dy - level);
        scale = rstd * weight;
    }

    __device__ __forceinline__ float operator()(float dy, float x) const {
        return scale * ((dy - level) + fmaf(-(x - hi) * r, slope, rest));
    }
};

// dx = γ rstd (dy - mean(dy) - x̂ mean(dy·x̂)).
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS)
grad_input(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
           const double* __restrict__ rstd, const float* __restrict__ weight,
           const double* __restrict__ mean_dy, const double* __restrict__ mean_dy_x_hat,
           T* __restrict__ dx, int items, int groups, int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, gridDim.y - 1 - blockIdx.y);
    if (!place.inside()) return;
    GradChannel channels[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        channels[j].load(mean[c], rstd[c], weight ? weight[c] : 1.0f, mean_dy[c],
                         mean_dy_x_hat[c]);
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> grads[FLIGHT / 2], packs[FLIGHT / 2];
        load_items(grads, dy, place, share, i);
        load_items(packs, x, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT / 2; ++u)
            if (i + u * share.step < share.end) {
#pragma unroll
                for (int e = 0; e < V; ++e)
                    packs[u].at[e] = stored<T>(
                        channels[e % K](wide(grads[u].at[e]), wide(packs[u].at[e])));
                store(dx + place(i + u * share.step), packs[u]);
            }
    }
}
