// Arithmetic that is rounded after every operation, in float32 or float64, as NumPy rounds it: a
// compiler may fuse a product and a sum of plain numbers, and these not.
#pragma once

#include "numbers.cuh"

template <class F> struct Rounded {
    F x;
};

typedef Rounded<float> Real;
typedef Rounded<double> Wide;

__device__ __forceinline__ Real operator+(Real a, Real b) { return {__fadd_rn(a.x, b.x)}; }
__device__ __forceinline__ Wide operator+(Wide a, Wide b) { return {__dadd_rn(a.x, b.x)}; }
__device__ __forceinline__ Real operator-(Real a, Real b) { return {__fsub_rn(a.x, b.x)}; }
__device__ __forceinline__ Wide operator-(Wide a, Wide b) { return {__dsub_rn(a.x, b.x)}; }
__device__ __forceinline__ Real operator*(Real a, Real b) { return {__fmul_rn(a.x, b.x)}; }
__device__ __forceinline__ Wide operator*(Wide a, Wide b) { return {__dmul_rn(a.x, b.x)}; }

// Neither is ever fused, and both are correctly rounded unless NVRTC is told otherwise.
template <class F> __device__ __forceinline__ Rounded<F> operator/(Rounded<F> a, Rounded<F> b) {
    return {a.x / b.x};
}
__device__ __forceinline__ Real root(Real a) { return {sqrtf(a.x)}; }
__device__ __forceinline__ Wide root(Wide a) { return {sqrt(a.x)}; }

__device__ __forceinline__ Real size(Real a) { return {fabsf(a.x)}; }

// To within 2 units of the last place.
__device__ __forceinline__ Wide power(Wide a, Wide b) { return {pow(a.x, b.x)}; }

__device__ __forceinline__ Wide operator+(double a, Wide b) { return Wide{a} + b; }
__device__ __forceinline__ Wide operator-(double a, Wide b) { return Wide{a} - b; }
__device__ __forceinline__ Wide operator*(double a, Wide b) { return Wide{a} * b; }
__device__ __forceinline__ Wide operator/(double a, Wide b) { return Wide{a} / b; }
__device__ __forceinline__ Wide operator-(Wide a, double b) { return a - Wide{b}; }

__device__ __forceinline__ Real narrow(Wide a) { return {static_cast<float>(a.x)}; }

// The greater one; NaN if either is.
__device__ __forceinline__ Real greater(Real a, Real b) {
    return b.x > a.x || b.x != b.x ? b : a;
}
