// Batch norm, what is added to it, and the ReLU of the sum: max(y + r, 0), and the gradients of x and
// r. Statistics are batch norm's own. Forward and backward compute the same sum, to the bit, and so
// take the same side of the ReLU.

#include "batch_channels.cuh"

constexpr int FLIGHT = 4;  // packs of each array that a thread has asked for at once

// γ, β and statistics of a thread's channels, as ``affine`` takes them.
template <int V, int K>
__device__ __forceinline__ void load_affine(Affine (&affine)[K], const Place<V, K>& place,
                                            const double* mean, const double* rstd,
                                            const float* weight, const float* bias) {
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        affine[j].load(mean[c], rstd[c], weight ? weight[c] : 1.0f, bias ? bias[c] : 0.0f);
    }
}

// dy where the sum, as it is stored, is above 0.
template <int N, class T, int V, int K>
__device__ __forceinline__ void stop(Pack<T, V> (&grads)[N], const Pack<T, V> (&packs)[N],
                                     const Pack<T, V> (&added)[N], const Affine (&affine)[K],
                                     const Share& share, int item) {
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (item + u * share.step < share.end) {
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float y = affine[e % K](wide(packs[u].at[e])) + wide(added[u].at[e]);
                const float factor = wide(stored<T>(y)) > 0 ? 1.0f : 0.0f;
                grads[u].at[e] = stored<T>(wide(grads[u].at[e]) * factor);  // NaN stays
            }
        }
}

template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
normalize_add(const T* __restrict__ x, const T* __restrict__ residual,
              const double* __restrict__ mean, const double* __restrict__ rstd,
              const float* __restrict__ weight, const float* __restrict__ bias,
              T* __restrict__ y, int items, int groups, int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, gridDim.y - 1 - blockIdx.y);  // first what was read last
    if (!place.inside()) return;
    Affine affine[K];
    load_affine(affine, place, mean, rstd, weight, bias);
    for (int i = share.first; i < share.end; i += FLIGHT * share.step) {
        Pack<T, V> packs[FLIGHT], added[FLIGHT];
        load_items(packs, x, place, share, i);
        load_items(added, residual, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT; ++u)
            if (i + u * share.step < share.end) {
#pragma unroll
                for (int e = 0; e < V; ++e) {
                    const float sum =
                        affine[e % K](wide(packs[u].at[e])) + wide(added[u].at[e]);
                    packs[u].at[e] = stored<T>(sum < 0 ? 0 : sum);  // NaN stays
                }
                store(y + place(i + u * share.step), packs[u]);
            }
    }
}

// Σ g and Σ g·x̂ of g, what the ReLU lets through of dy.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
grad_sums_add(const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ residual,
              const double* __restrict__ mean, const double* __restrict__ rstd,
              const float* __restrict__ weight, const float* __restrict__ bias,
              T* __restrict__ through, double* __restrict__ sum, double* __restrict__ product,
              double* parts, u32* tickets, int items, int groups, int per_sample, u32 magic,
              int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    double centre[K];
    Affine affine[K];
    if (place.inside()) {
        load_affine(affine, place, mean, rstd, weight, bias);
#pragma unroll
        for (int j = 0; j < K; ++j) centre[j] = mean[place.channel() + j];
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> grads[FLIGHT / 2], packs[FLIGHT / 2], added[FLIGHT / 2];
        load_items(grads, dy, place, share, i);
        load_items(packs, x, place, share, i);
        load_items(added, residual, place, share, i);
        stop(grads, packs, added, affine, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT / 2; ++u)
            if (i + u * share.step < share.end) store(through + place(i + u * share.step), grads[u]);
        add_grads(sums, grads, packs, centre, affine, false, share, i);
    }
    if (!total(sums, place, parts, tickets)) return;
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        sum[c] = sums.a[j];
        product[c] = sums.b[j] * rstd[c];
    }
}
