// Batch norm of channels of few values, and its gradient, in one launch each: a block holds all
// values of its channels in registers, so that x and dy are read once.

#include "batch_channels.cuh"

// Packs of x, and of dy, that a thread holds.
__device__ constexpr int held(int width) { return width > 4 ? 4 : 8; }

template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 1)
whole(const T* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
      double eps, bool relu, T* __restrict__ y, double* __restrict__ mean,
      double* __restrict__ var, double* __restrict__ rstd, int items, int groups, int per_sample,
      u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, 0);
    Pack<T, V> packs[held(V)];
    Sums<K> sums;
    double origin[K];
    load_origin(origin, x, place);
    load_items(packs, x, place, share, share.first);
    add_moments(sums, packs, origin, share, share.first);
    fold(sums);
    Moments<K> found(sums, origin, place.count(), eps);
    if (threadIdx.y == 0 && place.inside()) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            const int c = place.channel() + j;
            mean[c] = found.mean[j];
            var[c] = found.var[j];
            rstd[c] = found.rstd[j];
        }
    }
    Sums<K> known = found.mean_and_rstd();
    broadcast(known);
    if (!place.inside()) return;
    Affine affine[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        affine[j].load(known.a[j], known.b[j], weight ? weight[c] : 1.0f,
                       bias ? bias[c] : 0.0f);
    }
    normalize_items(packs, affine, relu, y, place, share, share.first);
}

template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 1)
whole_grad(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
           const double* __restrict__ rstd, const float* __restrict__ weight,
           const float* __restrict__ bias, bool relu, double share_of_one, T* __restrict__ dx,
           double* __restrict__ dbias, double* __restrict__ dweight, int items, int groups,
           int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, 0);
    Pack<T, V> grads[held(V)], packs[held(V)];
    Affine affine[K];
    Sums<K> sums;
    double centre[K], scale[K];
    if (place.inside()) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            const int c = place.channel() + j;
            centre[j] = mean[c];
            scale[j] = rstd[c];
            affine[j].load(mean[c], rstd[c], weight ? weight[c] : 1.0f, bias ? bias[c] : 0.0f);
        }
    }
    load_items(grads, dy, place, share, share.first);
    load_items(packs, x, place, share, share.first);
    add_grads(sums, grads, packs, centre, affine, relu, share, share.first);
    fold(sums);
    broadcast(sums);
    if (!place.inside()) return;
    Gradient gradient[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const double product = sums.b[j] * scale[j];
        gradient[j].load(centre[j], scale[j], sums.a[j] * share_of_one, product * share_of_one);
        if (threadIdx.y == 0) {
            dbias[place.channel() + j] = sums.a[j];
            dweight[place.channel() + j] = product;
        }
    }
    grad_items(grads, packs, affine, relu, gradient, dx, place, share, share.first);
}
