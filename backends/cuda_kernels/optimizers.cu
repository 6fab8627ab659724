// Rules of optimizers, a launch each: (param, grad, *state) of float32, or of 16-bit parameters and
// gradients, and options and counters that lie on the device. One thread of each block computes
// what a rule needs of these, and the others wait for it.

#include "packs.cuh"
#include "update_rules.cuh"

constexpr int THREADS = 256;

template <class Rule, class T>
__global__ void __launch_bounds__(THREADS)
update(T* __restrict__ param, const T* __restrict__ grad, float* __restrict__ s0,
       float* __restrict__ s1, float* __restrict__ s2, const double* a, const double* b,
       const double* c, const double* d, const double* e, const double* f, const double* g,
       const double* h, const double* i, bool flag, i64 n, bool packed) {
    constexpr int V = 16 / sizeof(T);
    __shared__ Rule prepared;
    if (threadIdx.x == 0) prepared.prepare({a, b, c, d, e, f, g, h, i, flag});
    __syncthreads();
    const Rule rule = prepared;
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS * V;
    for (i64 k = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V; k < n; k += stride) {
        Pack<T, V> params = taken<V>(param, k, n, packed), grads = taken<V>(grad, k, n, packed);
        Pack<float, V> first = taken<V>(s0, k, n, packed), second = taken<V>(s1, k, n, packed);
        Pack<float, V> third = taken<V>(s2, k, n, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            Element at = {{wide(params.at[j])}, {wide(grads.at[j])},
                          {first.at[j]}, {second.at[j]}, {third.at[j]}};
            rule.step(at, s1 != nullptr, s2 != nullptr);
            params.at[j] = stored<T>(at.p.x);
            first.at[j] = at.s0.x;
            second.at[j] = at.s1.x;
            third.at[j] = at.s2.x;
        }
        left(param, params, k, n, packed);
        left(s0, first, k, n, packed);
        left(s1, second, k, n, packed);
        left(s2, third, k, n, packed);
    }
}
