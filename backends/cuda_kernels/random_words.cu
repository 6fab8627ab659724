// Philox4x32-10, four words a thread, and dropout by it: the bits of the CPU.

#include "packs.cuh"
#include "rounded.cuh"

constexpr int THREADS = 256;
constexpr int ROUNDS = 10;

struct Words {
    u32 at[4];
};

// The words of one lane (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
__device__ __forceinline__ Words lane(u64 key, u64 low, u64 high) {
    u32 k0 = static_cast<u32>(key), k1 = static_cast<u32>(key >> 32);
    u32 x0 = static_cast<u32>(low), x1 = static_cast<u32>(low >> 32);
    u32 x2 = static_cast<u32>(high), x3 = static_cast<u32>(high >> 32);
#pragma unroll
    for (int i = 0; i < ROUNDS; ++i) {
        const u64 a = static_cast<u64>(x0) * 0xD2511F53u, b = static_cast<u64>(x2) * 0xCD9E8D57u;
        x0 = static_cast<u32>(b >> 32) ^ x1 ^ k0;
        x1 = static_cast<u32>(b);
        x2 = static_cast<u32>(a >> 32) ^ x3 ^ k1;
        x3 = static_cast<u32>(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {x0, x1, x2, x3};
}

__global__ void __launch_bounds__(THREADS)
philox(const u64* __restrict__ key, const u64* __restrict__ counter, u32* __restrict__ words,
       i64 n, bool packed) {
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS;
    const u64 low = counter[0], high = counter[1];
    for (i64 i = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x; i < (n + 3) / 4;
         i += stride) {
        const Words drawn = lane(*key, low + static_cast<u64>(i), high);
        left(words, Pack<u32, 4>{drawn.at[0], drawn.at[1], drawn.at[2], drawn.at[3]}, 4 * i, n,
             packed);
    }
}

__device__ __forceinline__ float product(float x, float y) { return __fmul_rn(x, y); }
__device__ __forceinline__ double product(double x, double y) { return __dmul_rn(x, y); }

// x · mask and the mask, which is ``scale`` where a fraction of 24 bits is below ``keep``.
template <class T>
__global__ void __launch_bounds__(THREADS)
dropped(const T* __restrict__ x, const u64* __restrict__ key, const u64* __restrict__ counter,
        float keep, double scale, T* __restrict__ y, T* __restrict__ mask, i64 n, bool packed) {
    const i64 stride = static_cast<i64>(gridDim.x) * THREADS;
    const u64 low = counter[0], high = counter[1];
    const decltype(wide(T())) zero = 0;
    const auto kept = wide(stored<T>(static_cast<decltype(wide(T()))>(scale)));
    for (i64 i = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x; i < (n + 3) / 4;
         i += stride) {
        Pack<T, 4> values = taken<4>(x, 4 * i, n, packed), factors;
        const Words drawn = lane(*key, low + static_cast<u64>(i), high);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float fraction = static_cast<float>(drawn.at[j] >> 8) * 0x1p-24f;  // exact
            const auto factor = fraction < keep ? kept : zero;
            factors.at[j] = stored<T>(factor);
            values.at[j] = stored<T>(product(wide(values.at[j]), factor));
        }
        left(y, values, 4 * i, n, packed);
        left(mask, factors, 4 * i, n, packed);
    }
}
