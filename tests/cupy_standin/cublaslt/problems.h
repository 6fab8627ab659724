// Products as the library is told of them, and how they are computed here.
#pragma once

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "numbers.h"

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, INVALID_VALUE = 7,
              ARCH_MISMATCH = 8, EXECUTION_FAILED = 13, INTERNAL_ERROR = 14, NOT_SUPPORTED = 15 };
enum DataType { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };
enum Compute { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };
enum Epilogue { DEFAULT = 1, RELU = 2, BIAS = 4, RELU_BIAS = 6, BGRADA = 256 };
enum Scheme { INPLACE = 1, OUTPUT_TYPE = 4 };

constexpr int64_t LARGEST_BATCH = 65535;
constexpr size_t SPLIT_WORKSPACE = 4096;

struct Context { int device; };
struct Operation { int compute, scale, transposed[2]; unsigned epilogue; uint64_t vector; };
struct Layout { int type; uint64_t rows, columns; int64_t ld; int batch; int64_t step; };
struct Preference { uint64_t workspace; unsigned schemes, alignment[4]; };
struct Algorithm { uint64_t magic, problem, workspace, alignment, split, unused[3]; };
struct Heuristic { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; };
static_assert(sizeof(Algorithm) == 64 && sizeof(Heuristic) == 96, "as in cublasLt.h");

constexpr uint64_t MAGIC = 0x0a190b1a55;

int undefined(const char* what) {
    std::fprintf(stderr, "cuBLASLt stand-in: %s\n", what);
    return INTERNAL_ERROR;
}

size_t size_of(int type) {
    switch (type) {
        case R_32F: return 4;
        case R_64F: return 8;
        case R_16F: case R_16BF: return 2;
        default: return 0;
    }
}

uint64_t alignment_of(uint64_t address) { return address & -address; }

// One problem: a description of everything but where the matrices are.
struct Problem {
    Operation op;
    Layout a, b, c, d;

    uint64_t rows() const { return d.rows; }
    uint64_t columns() const { return d.columns; }
    uint64_t inner() const { return op.transposed[0] ? a.rows : a.columns; }
    bool has_vector() const { return op.epilogue & BIAS || op.epilogue == BGRADA; }

    int check() const {
        for (const Layout* x : {&a, &b, &c, &d}) {
            if (x->rows == 0 || x->columns == 0 || x->ld < int64_t(x->rows)) return INVALID_VALUE;
            if (x->batch != d.batch || x->batch < 1 || x->step < 0) return INVALID_VALUE;
            if (x->type != d.type) return NOT_SUPPORTED;
        }
        uint64_t m = op.transposed[0] ? a.columns : a.rows, k = op.transposed[1] ? b.columns : b.rows;
        uint64_t n = op.transposed[1] ? b.rows : b.columns;
        if (m != d.rows || n != d.columns || k != inner()) return INVALID_VALUE;
        if (c.rows != d.rows || c.columns != d.columns) return INVALID_VALUE;
        if (d.batch > 1 && d.step < int64_t((d.columns - 1) * d.ld + d.rows))
            return undefined("the matrices of a result overlap");
        if (d.batch > LARGEST_BATCH) return NOT_SUPPORTED;
        if (has_vector() && op.vector == 0) return INVALID_VALUE;
        if (op.epilogue == BGRADA && d.batch > 1) return NOT_SUPPORTED;
        if (d.type == R_64F) return op.compute == COMPUTE_64F && op.scale == R_64F ? SUCCESS : NOT_SUPPORTED;
        if (op.scale != R_32F) return NOT_SUPPORTED;
        if (op.compute == COMPUTE_32F_FAST_TF32) return d.type == R_32F ? SUCCESS : NOT_SUPPORTED;
        return op.compute == COMPUTE_32F ? SUCCESS : NOT_SUPPORTED;
    }

    uint64_t hash() const {
        uint64_t h = 1469598103934665603u;
        auto mix = [&h](uint64_t x) { h = (h ^ x) * 1099511628211u; };
        for (uint64_t x : {uint64_t(op.compute), uint64_t(op.scale), uint64_t(op.transposed[0]),
                           uint64_t(op.transposed[1]), uint64_t(op.epilogue)}) mix(x);
        for (const Layout* x : {&a, &b, &c, &d})
            for (uint64_t y : {uint64_t(x->type), x->rows, x->columns, uint64_t(x->ld),
                               uint64_t(x->batch), uint64_t(x->step)}) mix(y);
        return h;
    }
};

template <class T, class A> A read(const T& x) { return A(x); }

// One product of a batch, column by column; sums in A, in ``parts`` whose sums are rounded to T.
template <class T, class A>
void multiply(const Problem& p, A alpha, const T* a, const T* b, A beta, const T* c, T* d, T* vector,
              int parts) {
    const size_t m = p.rows(), n = p.columns(), k = p.inner();
    const bool tf32 = p.op.compute == COMPUTE_32F_FAST_TF32;
    auto element = [&](const T* x, size_t at) {
        A value = A(x[at]);
        return tf32 ? A(as_tf32(float(value))) : value;
    };
    std::vector<A> left(m * k), column(k), sum(m), total(m);
    for (size_t l = 0; l < k; ++l)
        for (size_t i = 0; i < m; ++i)
            left[l * m + i] = element(a, p.op.transposed[0] ? i * p.a.ld + l : l * p.a.ld + i);
    for (size_t j = 0; j < n; ++j) {
        for (size_t l = 0; l < k; ++l)
            column[l] = element(b, p.op.transposed[1] ? l * p.b.ld + j : j * p.b.ld + l);
        std::fill(total.begin(), total.end(), A(0));
        for (int part = 0; part < parts; ++part) {
            std::fill(sum.begin(), sum.end(), A(0));
            for (size_t l = k * part / parts; l < k * (part + 1) / parts; ++l)
                for (size_t i = 0; i < m; ++i) sum[i] += left[l * m + i] * column[l];
            for (size_t i = 0; i < m; ++i) total[i] += parts > 1 ? A(T(sum[i])) : sum[i];
        }
        for (size_t i = 0; i < m; ++i) {
            A x = alpha * total[i];
            if (beta != 0) x += beta * A(c[j * p.c.ld + i]);
            if (p.op.epilogue & BIAS) x += A(vector[i]);
            if (p.op.epilogue & RELU) x = x > 0 ? x : A(0);  // also of NaN, as fmax would
            d[j * p.d.ld + i] = T(x);
        }
    }
    if (p.op.epilogue == BGRADA) {
        std::fill(sum.begin(), sum.end(), A(0));
        for (size_t l = 0; l < k; ++l)
            for (size_t i = 0; i < m; ++i) sum[i] += left[l * m + i];
        for (size_t i = 0; i < m; ++i) vector[i] = T(sum[i]);
    }
}

template <class T, class A>
void multiply_all(const Problem& p, const void* alpha, const void* a, const void* b,
                  const void* beta, const void* c, void* d, int parts) {
    for (int64_t i = 0; i < p.d.batch; ++i)
        multiply<T, A>(p, *static_cast<const A*>(alpha), static_cast<const T*>(a) + i * p.a.step,
                       static_cast<const T*>(b) + i * p.b.step, *static_cast<const A*>(beta),
                       static_cast<const T*>(c) + i * p.c.step, static_cast<T*>(d) + i * p.d.step,
                       reinterpret_cast<T*>(p.op.vector), parts);
}

// From the first byte of a matrix to behind its last.
std::pair<const char*, const char*> extent(const void* start, const Layout& x) {
    auto first = static_cast<const char*>(start);
    int64_t last = (x.batch - 1) * x.step + int64_t(x.columns - 1) * x.ld + int64_t(x.rows);
    return {first, first + last * size_of(x.type)};
}

bool overlap(std::pair<const char*, const char*> x, std::pair<const char*, const char*> y) {
    return x.first < y.second && y.first < x.second;
}

// A product with everything that it needs: what a graph holds.
struct Call {
    Problem p;
    double alpha, beta;  // whatever their type: their bytes
    const void *a, *b, *c;
    void *d, *workspace;
    size_t workspace_size;
    int parts;

    void run() const {
        std::memset(workspace, 0xFF, std::min(workspace_size, SPLIT_WORKSPACE));
        switch (p.d.type) {
            case R_32F: multiply_all<float, float>(p, &alpha, a, b, &beta, c, d, parts); break;
            case R_64F: multiply_all<double, double>(p, &alpha, a, b, &beta, c, d, parts); break;
            case R_16F: multiply_all<float16, float>(p, &alpha, a, b, &beta, c, d, parts); break;
            case R_16BF: multiply_all<bfloat16, float>(p, &alpha, a, b, &beta, c, d, parts); break;
        }
    }
};

}  // namespace
