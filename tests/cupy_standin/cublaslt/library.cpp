// A small cuBLASLt on the host, for tests of the binding: the same functions, on the memory of the
// stand-in for CuPy.
//
// Each function checks what it is given: that descriptions are alive and of the right kind, that an
// attribute has the size of its type, that shapes, leading dimensions and strides fit. Where the
// real library says which status a mistake has, this one returns it. What there would be undefined,
// or forbidden while a stream captures, is reported on stderr, and comes back as INTERNAL_ERROR.

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
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

enum Kind { CONTEXT, OPERATION, LAYOUT, PREFERENCE };
constexpr uint64_t MAGIC = 0x0a190b1a55;

// What the stand-in tells of the machine.
struct Machine {
    int (*device)();
    uint64_t (*stream)();
    int (*capturing)();
    void (*captured)(long number, void* result, size_t size, void* vector, size_t vector_size);
};
Machine machine;

std::mutex mutex;
std::map<void*, Kind> alive;
std::map<std::string, long> calls;
std::map<std::string, std::pair<int, int>> failures;  // status, how many times
unsigned refused = 0;                                 // epilogues without an algorithm

int undefined(const char* what) {
    std::fprintf(stderr, "cuBLASLt stand-in: %s\n", what);
    return INTERNAL_ERROR;
}

// Counts a call, and says which status a test has ordered for it.
int entered(const char* name) {
    std::lock_guard<std::mutex> held(mutex);
    ++calls[name];
    auto found = failures.find(name);
    if (found == failures.end() || found->second.second == 0) return SUCCESS;
    --found->second.second;
    return found->second.first;
}

#define ENTER(name) if (int ordered = entered(name)) return ordered

template <class T> int made(void** place, Kind kind, T content) {
    if (place == nullptr) return INVALID_VALUE;
    std::lock_guard<std::mutex> held(mutex);
    *place = new T(content);
    alive[*place] = kind;
    return SUCCESS;
}

bool is(void* x, Kind kind) {
    std::lock_guard<std::mutex> held(mutex);
    auto found = alive.find(x);
    return found != alive.end() && found->second == kind;
}

template <class T> int destroyed(void* x, Kind kind) {
    if (!is(x, kind)) return undefined("destroyed twice, or never made");
    std::lock_guard<std::mutex> held(mutex);
    alive.erase(x);
    delete static_cast<T*>(x);
    return SUCCESS;
}

template <class T> int put(T& place, const void* value, size_t size) {
    if (value == nullptr || size != sizeof(T)) return INVALID_VALUE;
    std::memcpy(&place, value, size);
    return SUCCESS;
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
std::vector<Call> captured;

// Lets the stand-in note a product that a stream captures, before it is computed.
void note(const Call& call) {
    long number;
    {
        std::lock_guard<std::mutex> held(mutex);
        number = long(captured.size());
        captured.push_back(call);
    }
    auto result = extent(call.d, call.p.d);
    bool sums = call.p.op.epilogue == BGRADA;
    machine.captured(number, call.d, size_t(result.second - result.first),
                     sums ? reinterpret_cast<void*>(call.p.op.vector) : nullptr,
                     sums ? call.p.rows() * size_of(call.p.d.type) : 0);
}

int problem_of(Problem& p, void* handle, void* op, void* const layouts[4]) {
    if (!is(handle, CONTEXT)) return NOT_INITIALIZED;
    if (static_cast<Context*>(handle)->device != machine.device())
        return undefined("the handle is another device's");
    if (!is(op, OPERATION)) return INVALID_VALUE;
    for (int i = 0; i < 4; ++i) if (!is(layouts[i], LAYOUT)) return INVALID_VALUE;
    p.op = *static_cast<Operation*>(op);
    Layout* places[] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; ++i) *places[i] = *static_cast<Layout*>(layouts[i]);
    return p.check();
}

}  // namespace

extern "C" {

int cublasLtCreate(void** handle) {
    ENTER("Create");
    return made(handle, CONTEXT, Context{machine.device()});
}

const char* cublasLtGetStatusName(int status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "unrecognized status";
    }
}

int cublasLtMatmulDescCreate(void** place, int compute, int scale) {
    ENTER("MatmulDescCreate");
    return made(place, OPERATION, Operation{compute, scale, {0, 0}, DEFAULT, 0});
}

int cublasLtMatmulDescDestroy(void* x) { return destroyed<Operation>(x, OPERATION); }

int cublasLtMatmulDescSetAttribute(void* x, int attribute, const void* value, size_t size) {
    ENTER("MatmulDescSetAttribute");
    if (!is(x, OPERATION)) return INVALID_VALUE;
    auto op = static_cast<Operation*>(x);
    switch (attribute) {
        case 3: return put(op->transposed[0], value, size);
        case 4: return put(op->transposed[1], value, size);
        case 7: return put(op->epilogue, value, size);
        case 8: return put(op->vector, value, size);
        default: return INVALID_VALUE;
    }
}

int cublasLtMatrixLayoutCreate(void** place, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    ENTER("MatrixLayoutCreate");
    return made(place, LAYOUT, Layout{type, rows, columns, ld, 1, 0});
}

int cublasLtMatrixLayoutDestroy(void* x) { return destroyed<Layout>(x, LAYOUT); }

int cublasLtMatrixLayoutSetAttribute(void* x, int attribute, const void* value, size_t size) {
    ENTER("MatrixLayoutSetAttribute");
    if (!is(x, LAYOUT)) return INVALID_VALUE;
    auto layout = static_cast<Layout*>(x);
    switch (attribute) {
        case 5: return put(layout->batch, value, size);
        case 6: return put(layout->step, value, size);
        default: return INVALID_VALUE;
    }
}

int cublasLtMatmulPreferenceCreate(void** place) {
    ENTER("MatmulPreferenceCreate");
    return made(place, PREFERENCE, Preference{0, 7, {256, 256, 256, 256}});
}

int cublasLtMatmulPreferenceDestroy(void* x) { return destroyed<Preference>(x, PREFERENCE); }

int cublasLtMatmulPreferenceSetAttribute(void* x, int attribute, const void* value, size_t size) {
    ENTER("MatmulPreferenceSetAttribute");
    if (!is(x, PREFERENCE)) return INVALID_VALUE;
    auto wish = static_cast<Preference*>(x);
    switch (attribute) {
        case 1: return put(wish->workspace, value, size);
        case 3: return put(wish->schemes, value, size);
        case 5: case 6: case 7: case 8: return put(wish->alignment[attribute - 5], value, size);
        default: return INVALID_VALUE;
    }
}

int cublasLtMatmulAlgoGetHeuristic(void* handle, void* op, void* a, void* b, void* c, void* d,
                                   void* preference, int wanted, Heuristic* found, int* count) {
    ENTER("MatmulAlgoGetHeuristic");
    if (machine.capturing()) return undefined("heuristics were asked for while a stream captures");
    if (wanted < 1 || found == nullptr || count == nullptr || !is(preference, PREFERENCE))
        return INVALID_VALUE;
    Problem p;
    void* const layouts[] = {a, b, c, d};
    if (int status = problem_of(p, handle, op, layouts)) return status;
    if (refused & p.op.epilogue && p.op.epilogue != DEFAULT) return NOT_SUPPORTED;
    auto wish = static_cast<Preference*>(preference);
    // Wherever it may, it splits a sum and adds what was rounded to the type of the result.
    bool split = wish->schemes & (INPLACE | OUTPUT_TYPE) && wish->workspace >= SPLIT_WORKSPACE;
    uint64_t alignment = *std::min_element(wish->alignment, wish->alignment + 4);
    if (alignment == 0 || alignment > 256 || alignment & (alignment - 1)) return INVALID_VALUE;
    if (p.has_vector()) alignment |= std::min<uint64_t>(alignment_of(p.op.vector), 256) << 32;
    Algorithm chosen{MAGIC, p.hash(), split ? SPLIT_WORKSPACE : 0, alignment, split, {}};
    *found = Heuristic{chosen, size_t(chosen.workspace), SUCCESS, 1.0f, {}};
    *count = 1;
    return SUCCESS;
}

int cublasLtMatmul(void* handle, void* op, const void* alpha, const void* a, void* a_layout,
                   const void* b, void* b_layout, const void* beta, const void* c, void* c_layout,
                   void* d, void* d_layout, const Algorithm* algorithm, void* workspace,
                   size_t workspace_size, void* stream) {
    ENTER("Matmul");
    if (!alpha || !a || !b || !beta || !c || !d || !algorithm) return INVALID_VALUE;
    Problem p;
    void* const layouts[] = {a_layout, b_layout, c_layout, d_layout};
    if (int status = problem_of(p, handle, op, layouts)) return status;
    if (reinterpret_cast<uint64_t>(stream) != machine.stream())
        return undefined("the stream is not the current one");
    if (algorithm->magic != MAGIC || algorithm->problem != p.hash()) return INVALID_VALUE;
    uint64_t needed = algorithm->alignment & 0xFFFFFFFF, bias_needed = algorithm->alignment >> 32;
    for (const void* x : {a, b, c, static_cast<const void*>(d)})
        if (reinterpret_cast<uint64_t>(x) % needed) return undefined("a matrix is less aligned");
    if (bias_needed && p.op.vector % bias_needed) return undefined("the vector is less aligned");
    if (workspace_size < algorithm->workspace) return INVALID_VALUE;
    if (reinterpret_cast<uint64_t>(workspace) % 256) return undefined("the workspace is not aligned");
    auto result = extent(d, p.d);
    if (overlap(result, extent(a, p.a)) || overlap(result, extent(b, p.b)))
        return undefined("the result overlaps an operand");
    if (c != d) return undefined("the stand-in computes in place");
    Call call{p, 0, 0, a, b, c, d, workspace, workspace_size, algorithm->split ? 2 : 1};
    std::memcpy(&call.alpha, alpha, p.d.type == R_64F ? 8 : 4);
    std::memcpy(&call.beta, beta, p.d.type == R_64F ? 8 : 4);
    if (machine.capturing()) note(call);
    call.run();
    return SUCCESS;
}

// What the real library has not: for the stand-in.

void standin_observe(int (*device)(), uint64_t (*stream)(), int (*capturing)(),
                     void (*noted)(long, void*, size_t, void*, size_t)) {
    machine = {device, stream, capturing, noted};
}

// A product that was captured, once more.
void standin_launch(long number) {
    Call call;
    {
        std::lock_guard<std::mutex> held(mutex);
        call = captured[number];
    }
    call.run();
}

long standin_calls(const char* name) {
    std::lock_guard<std::mutex> held(mutex);
    return calls[name];
}

void standin_fail(const char* name, int status, int times) {
    std::lock_guard<std::mutex> held(mutex);
    failures[name] = {status, times};
}

void standin_refuse(unsigned epilogues) { refused = epilogues; }

long standin_alive() {
    std::lock_guard<std::mutex> held(mutex);
    return long(alive.size());
}

}  // extern "C"
