// Activations and their chain rules, of float32; what each curve is stands in tinygrad_bn/curves.py.

#include "packs.cuh"
#include "rounded.cuh"

constexpr int THREADS = 256;
constexpr int V = 4;

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float held(float x, float most) {  // NaN stays
    return x > most ? most : (x < -most ? -most : x);
}

struct Elu {
    float alpha, scale, rate;
    __device__ __forceinline__ float value(float x) const {
        return scale * (x > 0 ? x : alpha * expm1f(rate * x));
    }
    __device__ __forceinline__ float slope(float x) const {
        return scale * (x > 0 ? 1.0f : alpha * rate * expf(rate * x));
    }
};

struct Gelu {
    float unused[3];
    __device__ __forceinline__ float normal(float x) const {
        return 0.5f * (1.0f + erff(x * 0.70710678f));
    }
    __device__ __forceinline__ float value(float x) const { return x * normal(x); }
    __device__ __forceinline__ float slope(float x) const {
        x = held(x, 40.0f);
        return normal(x) + x * (0.39894228f * expf(-0.5f * x * x));
    }
};

struct GeluTanh {
    float unused[3];
    __device__ __forceinline__ float curve(float x) const {
        return tanhf(0.79788456f * x * (1.0f + 0.044715f * x * x));
    }
    __device__ __forceinline__ float value(float x) const {
        return 0.5f * x * (1.0f + curve(held(x, 10.0f)));
    }
    __device__ __forceinline__ float slope(float x) const {
        x = held(x, 10.0f);
        const float t = curve(x), inner = 0.79788456f * (1.0f + 0.134145f * x * x);
        return 0.5f * ((1.0f + t) + x * (1.0f - t * t) * inner);
    }
};

struct Silu {
    float unused[3];
    __device__ __forceinline__ float value(float x) const { return x * sigmoid(x); }
    __device__ __forceinline__ float slope(float x) const {
        const float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
};

struct Mish {
    float unused[3];
    __device__ __forceinline__ float value(float x) const {
        const float w = expf(x > 20.0f ? 20.0f : x), n = w * (w + 2.0f);
        return x * (n / (n + 2.0f));
    }
    __device__ __forceinline__ float slope(float x) const {
        x = x > 20.0f ? 20.0f : x;
        const float w = expf(x), n = w * (w + 2.0f), whole = n + 2.0f;
        return n / whole + x * (4.0f * w * (w + 1.0f) / (whole * whole));
    }
};

__device__ __forceinline__ float log1p_exp(float x) {
    return (x < 0 ? 0.0f : x) + log1pf(expf(-fabsf(x)));
}

struct Softplus {
    float beta, threshold, unused;
    __device__ __forceinline__ float value(float x) const {
        return beta * x > threshold ? x : log1p_exp(beta * x) / beta;
    }
    __device__ __forceinline__ float slope(float x) const {
        return beta * x > threshold ? 1.0f : sigmoid(beta * x);
    }
};

struct LogSigmoid {
    float unused[3];
    __device__ __forceinline__ float value(float x) const { return -log1p_exp(-x); }
    __device__ __forceinline__ float slope(float x) const { return sigmoid(-x); }
};

struct LeakyRelu {
    float below, unused[2];
    __device__ __forceinline__ float value(float x) const { return x > 0 ? x : below * x; }
    __device__ __forceinline__ float slope(float x) const { return x > 0 ? 1.0f : below; }
};

template <class Curve>
__global__ void __launch_bounds__(THREADS)
curve_value(const float* __restrict__ x, float* __restrict__ y, i64 n, bool packed, float a,
            float b, float c) {
    const Curve curve = {a, b, c};
    const i64 step = static_cast<i64>(gridDim.x) * THREADS * V;
    for (i64 i = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V; i < n; i += step) {
        Pack<float, V> values = taken<V>(x, i, n, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) values.at[j] = curve.value(values.at[j]);
        left(y, values, i, n, packed);
    }
}

template <class Curve>
__global__ void __launch_bounds__(THREADS)
curve_grad(const float* __restrict__ dy, const float* __restrict__ x, float* __restrict__ dx,
           i64 n, bool packed, float a, float b, float c) {
    const Curve curve = {a, b, c};
    const i64 step = static_cast<i64>(gridDim.x) * THREADS * V;
    for (i64 i = (static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x) * V; i < n; i += step) {
        Pack<float, V> grads = taken<V>(dy, i, n, packed);
        const Pack<float, V> values = taken<V>(x, i, n, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) grads.at[j] *= curve.slope(values.at[j]);
        left(dx, grads, i, n, packed);
    }
}
