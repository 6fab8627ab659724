// What a thread does with the elements of its channels, in batch norm's kernels.
//
// Elements are computed in float32, x̂ = (x - hi) rstd - lo rstd, where hi is the mean rounded and
// lo what rounding lost: the first difference is exact where it counts, the second is part of a
// constant.
#pragma once

#include "channels.cuh"

// y = (x - hi) scale + level; forward and backward get the same bits.
struct Affine {
    float hi, scale, level;

    __device__ __forceinline__ void load(double mean, double rstd, float weight, float bias) {
        const double a = rstd * weight;
        hi = static_cast<float>(mean);
        scale = static_cast<float>(a);
        level = static_cast<float>(fma(hi - mean, a, static_cast<double>(bias)));
    }

    __device__ __forceinline__ float operator()(float x) const {
        return fmaf(x - hi, scale, level);
    }
};

// dx = scale ((dy - level) + (rest - x̂ slope)), with the hi and scale of y.
struct Gradient {
    float r, level, slope, rest;

    __device__ __forceinline__ void load(double mean, double rstd, double mean_dy,
                                         double mean_dy_x_hat) {
        const float hi = static_cast<float>(mean);
        r = static_cast<float>(rstd);
        level = static_cast<float>(mean_dy);
        slope = static_cast<float>(mean_dy_x_hat);
        // what the rounded means lack
        rest = static_cast<float>((mean - hi) * rstd * mean_dy_x_hat - (mean_dy - level));
    }

    __device__ __forceinline__ float operator()(float dy, float x, const Affine& affine) const {
        return affine.scale * ((dy - level) + fmaf(-(x - affine.hi) * r, slope, rest));
    }
};

template <int K> struct Moments {
    double mean[K], var[K], rstd[K];

    // From sums of differences from the origin.
    __device__ __forceinline__ Moments(const Sums<K>& sums, const double (&origin)[K], double count,
                                       double eps) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            const double shifted = sums.a[j] / count;
            const double spread = (sums.b[j] - sums.a[j] * shifted) / count;
            mean[j] = origin[j] + shifted;
            var[j] = spread < 0 ? 0 : spread;  // NaN stays
            rstd[j] = 1 / sqrt(var[j] + eps);
        }
    }

    __device__ __forceinline__ Sums<K> mean_and_rstd() const {
        Sums<K> pair;
#pragma unroll
        for (int j = 0; j < K; ++j) {
            pair.a[j] = mean[j];
            pair.b[j] = rstd[j];
        }
        return pair;
    }
};

// The first value of each channel.
template <class T, int V, int K>
__device__ __forceinline__ void load_origin(double (&origin)[K], const T* x,
                                            const Place<V, K>& place) {
    if (!place.inside()) return;
    const Pack<T, K> first = loaded<K>(x + place(0));
#pragma unroll
    for (int j = 0; j < K; ++j) origin[j] = wide(first.at[j]);
}

// Σ d and Σ d² of differences from the origin.
template <int N, class T, int V, int K>
__device__ __forceinline__ void add_moments(Sums<K>& sums, const Pack<T, V> (&packs)[N],
                                            const double (&origin)[K], const Share& share,
                                            int item) {
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (item + u * share.step < share.end) {
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const double d = wide(packs[u].at[e]) - origin[e % K];
                sums.a[e % K] += d;
                sums.b[e % K] = fma(d, d, sums.b[e % K]);
            }
        }
}

// y, or max(y, 0), of some items.
template <int N, class T, int V, int K>
__device__ __forceinline__ void normalize_items(Pack<T, V> (&packs)[N], const Affine (&affine)[K],
                                                bool relu, T* y, const Place<V, K>& place,
                                                const Share& share, int item) {
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (item + u * share.step < share.end) {
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float value = affine[e % K](wide(packs[u].at[e]));
                packs[u].at[e] = stored<T>(relu && value < 0 ? 0 : value);  // NaN stays
            }
            store(y + place(item + u * share.step), packs[u]);
        }
}

// dy, or 0 where the ReLU after y gave 0: y is computed once more, as it was stored.
template <class T>
__device__ __forceinline__ float passed(float dy, float x, const Affine& affine, bool relu) {
    const bool stopped = relu && !(wide(stored<T>(affine(x))) > 0);
    return dy * (stopped ? 0.0f : 1.0f);  // a factor, which leaves NaN where it is
}

// Σ dy and Σ dy (x - mean).
template <int N, class T, int V, int K>
__device__ __forceinline__ void add_grads(Sums<K>& sums, const Pack<T, V> (&grads)[N],
                                          const Pack<T, V> (&packs)[N], const double (&mean)[K],
                                          const Affine (&affine)[K], bool relu,
                                          const Share& share, int item) {
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (item + u * share.step < share.end) {
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float x = wide(packs[u].at[e]);
                const double dy = passed<T>(wide(grads[u].at[e]), x, affine[e % K], relu);
                sums.a[e % K] += dy;
                sums.b[e % K] = fma(dy, x - mean[e % K], sums.b[e % K]);
            }
        }
}

// dx of some items.
template <int N, class T, int V, int K>
__device__ __forceinline__ void grad_items(Pack<T, V> (&grads)[N], const Pack<T, V> (&packs)[N],
                                           const Affine (&affine)[K], bool relu,
                                           const Gradient (&gradient)[K], T* dx,
                                           const Place<V, K>& place, const Share& share,
                                           int item) {
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (item + u * share.step < share.end) {
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float x = wide(packs[u].at[e]);
                const float dy = passed<T>(wide(grads[u].at[e]), x, affine[e % K], relu);
                grads[u].at[e] = stored<T>(gradient[e % K](dy, x, affine[e % K]));
            }
            store(dx + place(item + u * share.step), grads[u]);
        }
}
