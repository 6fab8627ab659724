// What CUDA C++ says without any header, for g++: read before a kernel's source.
//
// Arithmetic is that of the host, which fuses products and sums as NVRTC does; shared variables are
// thread-local ones, which all fibers of a block see, and which lie in one piece that the machine
// poisons.
#pragma once

#include "machine.h"

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ thread_local __attribute__((used))  // or one never written to would be 0
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define threadIdx emu_thread
#define blockIdx emu_block
#define blockDim emu_threads
#define gridDim emu_blocks
#define warpSize 32
#define __syncthreads() emu_block_barrier(__FILE__, __LINE__)

typedef __SIZE_TYPE__ size_t;

extern "C" {
float sqrtf(float), expf(float), exp2f(float), logf(float), log2f(float), log1pf(float);
float expm1f(float), tanhf(float), erff(float), sinf(float), cosf(float), powf(float, float);
float fmaf(float, float, float), floorf(float), ceilf(float), rintf(float), truncf(float);
float fmaxf(float, float), fminf(float, float), fabsf(float), copysignf(float, float);
float ldexpf(float, int);
double sqrt(double), exp(double), log(double), log1p(double), expm1(double), pow(double, double);
double fma(double, double, double), floor(double), ceil(double), rint(double), tanh(double);
double fmax(double, double), fmin(double, double), fabs(double), sin(double), cos(double);
double erf(double);
}

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
template <class T> inline bool isnan(T x) { return __builtin_isnan(x); }
template <class T> inline bool isinf(T x) { return __builtin_isinf(x); }
template <class T> inline bool isfinite(T x) { return __builtin_isfinite(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }

// Results that are never fused with what follows: the compiler may not look through them.
template <class T> inline T emu_rounded(T x) {
#if defined(__x86_64__)
    asm("" : "+x"(x));
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#endif
    return x;
}
inline float __fadd_rn(float x, float y) { return emu_rounded(x) + emu_rounded(y); }
inline float __fsub_rn(float x, float y) { return emu_rounded(x) - emu_rounded(y); }
inline float __fmul_rn(float x, float y) { return emu_rounded(x * y); }
inline double __dadd_rn(double x, double y) { return emu_rounded(x) + emu_rounded(y); }
inline double __dsub_rn(double x, double y) { return emu_rounded(x) - emu_rounded(y); }
inline double __dmul_rn(double x, double y) { return emu_rounded(x * y); }

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

template <class To, class From> inline To emu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of one size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T x) { *p = x; }

inline void __threadfence() {}
inline void __threadfence_block() {}

// Of integers only: sums of floats would depend on who comes first.
template <class T> inline T emu_swap(T* p, T x) {
    static_assert(static_cast<T>(0.5) == 0, "atomics are for integers: floats are not deterministic");
    T before = *p;
    *p = x;
    return before;
}
inline int atomicAdd(int* p, int x) { return emu_swap(p, *p + x); }
inline unsigned atomicAdd(unsigned* p, unsigned x) { return emu_swap(p, *p + x); }
inline unsigned long long atomicAdd(unsigned long long* p, unsigned long long x) {
    return emu_swap(p, *p + x);
}
inline unsigned atomicInc(unsigned* p, unsigned last) {
    return emu_swap(p, *p >= last ? 0u : *p + 1);
}
template <class T> inline T atomicMax(T* p, T x) { return emu_swap(p, max(*p, x)); }
template <class T> inline T atomicMin(T* p, T x) { return emu_swap(p, min(*p, x)); }
template <class T> inline T atomicOr(T* p, T x) { return emu_swap(p, static_cast<T>(*p | x)); }
template <class T> inline T atomicAnd(T* p, T x) { return emu_swap(p, static_cast<T>(*p & x)); }
template <class T> inline T atomicExch(T* p, T x) { return emu_swap(p, x); }
template <class T> inline T atomicCAS(T* p, T expected, T x) {
    return emu_swap(p, *p == expected ? x : *p);
}

// Warps. The line is that of the call: lanes must meet at one and the same.
#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
inline void __syncwarp(unsigned mask = ~0u, EMU_HERE) { emu_warp_barrier(mask, file, line); }
inline unsigned __activemask() { return emu_live_lanes(); }

template <class T> T emu_exchange(unsigned mask, T x, unsigned lane, const char* file, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
    __builtin_memcpy(emu_slot(emu_lane()), &x, sizeof x);
    emu_warp_barrier(mask, file, line);
    if (mask >> lane & 1) __builtin_memcpy(&x, emu_slot(lane), sizeof x);
    else __builtin_memset(&x, 0xff, sizeof x);  // what a lane that does not take part has
    emu_warp_barrier(mask, file, line);
    return x;
}
template <class T> T __shfl_sync(unsigned mask, T x, int lane, int width = 32, EMU_HERE) {
    unsigned w = width, from = (emu_lane() & ~(w - 1)) | (lane & (w - 1));
    return emu_exchange(mask, x, from, file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32, EMU_HERE) {
    unsigned w = width, own = emu_lane(), from = own ^ bits;
    return emu_exchange(mask, x, from / w <= own / w ? from : own, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T x, unsigned n, int width = 32, EMU_HERE) {
    unsigned w = width, own = emu_lane();
    return emu_exchange(mask, x, own % w + n < w ? own + n : own, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T x, unsigned n, int width = 32, EMU_HERE) {
    unsigned w = width, own = emu_lane();
    return emu_exchange(mask, x, own % w >= n ? own - n : own, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_HERE) {
    unsigned long long* own = emu_slot(emu_lane());
    *own = predicate != 0;
    emu_warp_barrier(mask, file, line);
    unsigned lanes = 0;
    for (unsigned i = 0; i < 32; ++i)
        if (mask & emu_live_lanes() & 1u << i && *emu_slot(i)) lanes |= 1u << i;
    emu_warp_barrier(mask, file, line);
    return lanes;
}
inline int __any_sync(unsigned mask, int predicate, EMU_HERE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMU_HERE) {
    return __ballot_sync(mask, !predicate, file, line) == 0;
}

// What the machine asks of a kernel's library
namespace emu {

thread_local char anchor[1];  // where shared variables are
extern "C" __attribute__((visibility("default"), noinline)) void* emu_anchor() {
    *reinterpret_cast<volatile char*>(anchor) = 0;  // which gives this thread its own
    return reinterpret_cast<void*>(&emu_anchor);
}

template <class F> const char* signature(F) { return __PRETTY_FUNCTION__; }

template <class... A> struct Call {
    Call(void (*kernel)(A...), A... arguments) { kernel(arguments...); }
};

// Braces are evaluated from left to right.
template <class... A> void call(void (*kernel)(A...), void** arguments) {
    int i = 0;
    Call<A...>{kernel, *static_cast<A*>(arguments[i++])...};
}

// What the sanitizer calls where the behaviour is undefined; its data begins with the place.
struct Place {
    const char* file;
    unsigned line, column;
};
inline void undefined(const Place* place, const char* what) {
    char text[256];
    __builtin_snprintf(text, sizeof text, "%s at %s:%u", what, place->file, place->line);
    emu_fail(text);
}

}  // namespace emu

#define EMU_UNDEFINED(name, what, ...)                                                     \
    extern "C" void __ubsan_handle_##name(const emu::Place* place, ##__VA_ARGS__) {        \
        emu::undefined(place, what);                                                       \
    }
EMU_UNDEFINED(type_mismatch_v1, "an address that is not aligned for what is read or written", void*)
EMU_UNDEFINED(out_of_bounds, "an index outside of the array", void*)
EMU_UNDEFINED(shift_out_of_bounds, "a shift by too much", void*, void*)
EMU_UNDEFINED(divrem_overflow, "an integer divided by zero", void*, void*)
EMU_UNDEFINED(add_overflow, "an overflow of signed integers", void*, void*)
EMU_UNDEFINED(sub_overflow, "an overflow of signed integers", void*, void*)
EMU_UNDEFINED(mul_overflow, "an overflow of signed integers", void*, void*)
EMU_UNDEFINED(negate_overflow, "an overflow of signed integers", void*)
