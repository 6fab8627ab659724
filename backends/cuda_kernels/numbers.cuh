// Numbers as they are stored, and as they are computed with. No header of CUDA is needed.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct f16 {
    u16 bits;
};

struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float wide(float x) { return x; }

__device__ __forceinline__ double wide(double x) { return x; }

__device__ __forceinline__ float wide(bf16 x) {
    return __uint_as_float(static_cast<u32>(x.bits) << 16);
}

#ifdef CUDA_ON_CPU
__device__ inline float wide(f16 x) {
    u32 sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31, digits = x.bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | digits << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | digits << 13);
    return copysignf(ldexpf(static_cast<float>(digits), -24), __uint_as_float(sign));
}
#else
__device__ __forceinline__ float wide(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
#endif

// To the nearest that can be stored; ties go to even digits.
template <class T> struct Store;

template <> struct Store<float> {
    __device__ __forceinline__ static float from(float x) { return x; }
};

template <> struct Store<double> {
    __device__ __forceinline__ static double from(double x) { return x; }
};

template <> struct Store<bf16> {
    __device__ __forceinline__ static bf16 from(float x) {
        u32 bits = __float_as_uint(x);
        u32 rounded = bits + 0x7fffu + (bits >> 16 & 1);
        return {static_cast<u16>((x == x ? rounded : bits | 0x400000u) >> 16)};
    }
};

template <> struct Store<f16> {
    __device__ __forceinline__ static f16 from(float x) {
#ifdef CUDA_ON_CPU
        u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
        if (size > 0x7f800000u) return {static_cast<u16>(sign | 0x7e00u)};
        if (size >= 0x477ff000u) return {static_cast<u16>(sign | 0x7c00u)};  // 65520
        if (size < 0x38800000u) {  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
            u32 digits = __float_as_uint(__uint_as_float(size) + 0.5f);
            return {static_cast<u16>(sign | (digits & 0x7ffu))};
        }
        u32 rounded = size + 0xfffu + (size >> 13 & 1);
        return {static_cast<u16>(sign | (rounded - (112u << 23)) >> 13)};
#else
        f16 y;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
        return y;
#endif
    }
};

template <class T, class F> __device__ __forceinline__ T stored(F x) { return Store<T>::from(x); }

// V elements that are moved at once, from an address that is a multiple of their size.
template <class T, int V> struct alignas(sizeof(T) * V) Pack {
    T at[V];
};

template <int V, class T> __device__ __forceinline__ Pack<T, V> loaded(const T* from) {
    return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <int V, class T> __device__ __forceinline__ void store(T* to, const Pack<T, V>& values) {
    *reinterpret_cast<Pack<T, V>*>(to) = values;
}
