// The phases of batch norm, each with the ReLU after it or without. Statistics and sums are of
// float64: each number is widened, and so an offset costs no digits, squares stay in range, and
// sums that cancel are right. GPUs with float64 at half the rate of float32 still wait for memory;
// others are held up by it in the two kernels that sum.

#include "batch_channels.cuh"

constexpr int FLIGHT = 8;  // packs that a thread has asked for at once, of two arrays together

// Mean and biased variance of each channel, of differences from its first value; and rstd, where
// there is an address for it.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
moments(const T* __restrict__ x, double eps, double* __restrict__ mean, double* __restrict__ var,
        double* __restrict__ rstd, double* parts, u32* tickets, int items, int groups,
        int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    double origin[K];
    load_origin(origin, x, place);
    for (int i = share.first; i < share.end; i += FLIGHT * share.step) {
        Pack<T, V> packs[FLIGHT];
        load_items(packs, x, place, share, i);
        add_moments(sums, packs, origin, share, i);
    }
    if (!total(sums, place, parts, tickets)) return;
    Moments<K> found(sums, origin, place.count(), eps);
#pragma unroll
    for (int j = 0; j < K; ++j) {
        mean[place.channel() + j] = found.mean[j];
        var[place.channel() + j] = found.var[j];
        if (rstd) rstd[place.channel() + j] = found.rstd[j];
    }
}

// y = γ (x - mean) rstd + β.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
normalize(const T* __restrict__ x, const double* __restrict__ mean,
          const double* __restrict__ rstd, const float* __restrict__ weight,
          const float* __restrict__ bias, bool relu, T* __restrict__ y, int items, int groups,
          int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, gridDim.y - 1 - blockIdx.y);  // first what was read last
    if (!place.inside()) return;
    Affine affine[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        affine[j].load(mean[c], rstd[c], weight ? weight[c] : 1.0f, bias ? bias[c] : 0.0f);
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> packs[FLIGHT / 2];
        load_items(packs, x, place, share, i);
        normalize_items(packs, affine, relu, y, place, share, i);
    }
}

// Σ dy and Σ dy·x̂ of each channel, of what the ReLU lets through.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
grad_sums(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
          const double* __restrict__ rstd, const float* __restrict__ weight,
          const float* __restrict__ bias, bool relu, double* __restrict__ sum,
          double* __restrict__ product, double* parts, u32* tickets, int items, int groups,
          int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    double centre[K];
    Affine affine[K];
    if (place.inside()) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            const int c = place.channel() + j;
            centre[j] = mean[c];
            affine[j].load(mean[c], rstd[c], weight ? weight[c] : 1.0f, bias ? bias[c] : 0.0f);
        }
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> grads[FLIGHT / 2], packs[FLIGHT / 2];
        load_items(grads, dy, place, share, i);
        load_items(packs, x, place, share, i);
        add_grads(sums, grads, packs, centre, affine, relu, share, i);
    }
    if (!total(sums, place, parts, tickets)) return;
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        sum[c] = sums.a[j];
        product[c] = sums.b[j] * rstd[c];
    }
}

// dx = γ rstd (dy - mean(dy) - x̂ mean(dy·x̂)); each mean is a sum times ``share_of_one``.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
grad_input(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
           const double* __restrict__ rstd, const float* __restrict__ weight,
           const float* __restrict__ bias, bool relu, const double* __restrict__ sum_dy,
           const double* __restrict__ sum_dy_x_hat, double share_of_one, T* __restrict__ dx,
           int items, int groups, int per_sample, u32 magic, int shift) {
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, gridDim.y - 1 - blockIdx.y);
    if (!place.inside()) return;
    Affine affine[K];
    Gradient gradient[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const int c = place.channel() + j;
        affine[j].load(mean[c], rstd[c], weight ? weight[c] : 1.0f, bias ? bias[c] : 0.0f);
        gradient[j].load(mean[c], rstd[c], sum_dy[c] * share_of_one,
                         sum_dy_x_hat[c] * share_of_one);
    }
    for (int i = share.first; i < share.end; i += FLIGHT / 2 * share.step) {
        Pack<T, V> grads[FLIGHT / 2], packs[FLIGHT / 2];
        load_items(grads, dy, place, share, i);
        load_items(packs, x, place, share, i);
        grad_items(grads, packs, affine, relu, gradient, dx, place, share, i);
    }
}

// (1 - rate) running + rate · scale · value; the rate is a number where it has no address.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
moving_average(const T* __restrict__ running, const double* __restrict__ value,
               const double* __restrict__ rate, double constant, double scale,
               double* __restrict__ moved, int channels) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const double share = rate ? *rate : constant;
    moved[c] = wide(running[c]) * (1 - share) + value[c] * (scale * share);
}
