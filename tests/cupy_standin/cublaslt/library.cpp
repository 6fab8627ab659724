// A small cuBLASLt on the host, for tests of the binding: the same functions, on the memory of the
// stand-in for CuPy.
//
// Each function checks what it is given: that descriptions are alive and of the right kind, that an
// attribute has the size of its type, that shapes, leading dimensions and strides fit. Where the
// real library says which status a mistake has, this one returns it. What there would be undefined,
// or forbidden while a stream captures, is reported on stderr, and comes back as INTERNAL_ERROR.

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "problems.h"

namespace {

enum Kind { CONTEXT, OPERATION, LAYOUT, PREFERENCE };

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
