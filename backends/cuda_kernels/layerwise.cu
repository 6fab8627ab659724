// Rules whose step is in proportion to each parameter, for parameters side by side in flat buffers.
// They are cut into chunks, a block each. A first launch sums the squares of what a rule measures,
// and the last block of a parameter makes its rate of the sums; a second one steps.

#include "blocks.cuh"
#include "layerwise_rules.cuh"
#include "packs.cuh"

constexpr int THREADS = 256;

// The elements of a block, the parameter that they are of, and its chunks.
struct Chunk {
    i64 start, end, parameter, first, count;

    __device__ __forceinline__ explicit Chunk(const i64* table) {
        const i64* row = table + 5 * static_cast<i64>(blockIdx.x);
        start = row[0], end = row[1], parameter = row[2], first = row[3], count = row[4];
    }
};

template <class Rule, class T>
__global__ void __launch_bounds__(THREADS)
measure(const T* __restrict__ param, const T* __restrict__ grad, float* __restrict__ s0,
        float* __restrict__ s1, const i64* __restrict__ table, const double* a, const double* b,
        const double* c, const double* d, const double* e, const double* f, double* parts,
        u32* tickets, float* __restrict__ rates, bool packed) {
    constexpr int V = 16 / sizeof(T);
    __shared__ Rule prepared;
    if (threadIdx.x == 0) prepared.prepare({a, b, c, d, e, f, nullptr, nullptr, nullptr, false});
    __syncthreads();
    const Rule rule = prepared;
    const Chunk chunk(table);
    const i64 end = chunk.end;
    double length = 0, reach = 0;
    for (i64 k = chunk.start + threadIdx.x * V; k < end; k += THREADS * V) {
        const Pack<T, V> params = taken<V>(param, k, end, packed);
        const Pack<T, V> grads = taken<V>(grad, k, end, packed);
        Pack<float, V> first = {}, second = {};
        if (Rule::moves_before) {
            first = taken<V>(s0, k, end, packed);
            second = taken<V>(s1, k, end, packed);
        }
#pragma unroll
        for (int j = 0; j < V; ++j) {
            Element at = {{wide(params.at[j])}, {wide(grads.at[j])},
                          {first.at[j]}, {second.at[j]}, {0.0f}};
            const Real p = at.p, u = rule.measured(at);
            if (k + j < end) {
                length += static_cast<double>((p * p).x);
                reach += static_cast<double>((u * u).x);
            }
            first.at[j] = at.s0.x;
            second.at[j] = at.s1.x;
        }
        if (Rule::moves_before) {
            left(s0, first, k, end, packed);
            left(s1, second, k, end, packed);
        }
    }
    length = block_sum(length);
    reach = block_sum(reach);
    if (threadIdx.x == 0) {
        parts[2 * static_cast<i64>(blockIdx.x)] = length;
        parts[2 * static_cast<i64>(blockIdx.x) + 1] = reach;
    }
    if (!last_of(tickets + chunk.parameter, static_cast<u32>(chunk.count))) return;
    length = reach = 0;
    for (i64 i = chunk.first + threadIdx.x; i < chunk.first + chunk.count; i += THREADS) {
        length += __ldcg(parts + 2 * i);  // from where all blocks see it
        reach += __ldcg(parts + 2 * i + 1);
    }
    length = block_sum(length);
    reach = block_sum(reach);
    if (threadIdx.x == 0)
        rates[chunk.parameter] = rule.rate(root(Wide{length}), root(Wide{reach})).x;
}

template <class Rule, class T>
__global__ void __launch_bounds__(THREADS)
step(T* __restrict__ param, const T* __restrict__ grad, float* __restrict__ s0,
     const float* __restrict__ s1, const i64* __restrict__ table, const double* a,
     const double* b, const double* c, const double* d, const double* e, const double* f,
     const float* __restrict__ rates, bool packed) {
    constexpr int V = 16 / sizeof(T);
    __shared__ Rule prepared;
    if (threadIdx.x == 0) prepared.prepare({a, b, c, d, e, f, nullptr, nullptr, nullptr, false});
    __syncthreads();
    const Rule rule = prepared;
    const Chunk chunk(table);
    const i64 end = chunk.end;
    const Real rate = {rates[chunk.parameter]};
    for (i64 k = chunk.start + threadIdx.x * V; k < end; k += THREADS * V) {
        Pack<T, V> params = taken<V>(param, k, end, packed);
        Pack<T, V> grads = {};
        if (!Rule::moves_before) grads = taken<V>(grad, k, end, packed);
        Pack<float, V> first = taken<V>(s0, k, end, packed);
        const Pack<float, V> second = taken<V>(s1, k, end, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            Element at = {{wide(params.at[j])}, {wide(grads.at[j])},
                          {first.at[j]}, {second.at[j]}, {0.0f}};
            rule.step(at, rate);
            params.at[j] = stored<T>(at.p.x);
            first.at[j] = at.s0.x;
        }
        left(param, params, k, end, packed);
        if (!Rule::moves_before) left(s0, first, k, end, packed);
    }
}
