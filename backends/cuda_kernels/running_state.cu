// What a training step moves on besides parameters, where it lies: running statistics, and counts.

#include "numbers.cuh"

constexpr int THREADS = 256;

// (1 - rate) running + rate · scale · value, of means and of variances; the rate is a number where
// it has no address.
template <class T>
__global__ void __launch_bounds__(THREADS)
moving_moments(T* __restrict__ running_mean, T* __restrict__ running_var,
               const double* __restrict__ mean, const double* __restrict__ var,
               const double* __restrict__ rate, double constant, double factor, int channels) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const double share = rate ? *rate : constant;
    running_mean[c] = static_cast<T>(running_mean[c] * (1 - share) + mean[c] * share);
    running_var[c] = static_cast<T>(running_var[c] * (1 - share) + var[c] * (factor * share));
}

template <class T> __global__ void __launch_bounds__(THREADS) one_more(T* count) { *count += 1; }
