// Stacks to change between.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>

constexpr size_t STACK = 64 << 10;
const size_t PAGE = static_cast<size_t>(sysconf(_SC_PAGESIZE));

#if defined(__x86_64__)

using Context = void*;  // a stack pointer: everything else lies on the stack

extern "C" void emu_switch(Context* from, Context to);

asm(R"(
    .text
    .globl emu_switch
    .hidden emu_switch
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

inline void change(Context& from, Context& to) { emu_switch(&from, to); }

inline void start(Context& context, unsigned char* end, void (*entry)()) {
    void** top = reinterpret_cast<void**>(end);
    *--top = nullptr;  // the address that a call would have pushed
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
}

#else

#include <ucontext.h>

using Context = ucontext_t;

inline void change(Context& from, Context& to) { swapcontext(&from, &to); }

inline void start(Context& context, unsigned char* end, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = end - STACK / 2;
    context.uc_stack.ss_size = STACK / 2;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}

#endif

// Memory for n stacks, each with a page below it that cannot be touched.
inline unsigned char* stacks_for(unsigned n) {
    void* memory = mmap(nullptr, n * (STACK + PAGE), PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned char* first = static_cast<unsigned char*>(memory);
    for (unsigned i = 0; i < n; ++i)
        mprotect(first + i * (STACK + PAGE) + PAGE, STACK, PROT_READ | PROT_WRITE);
    return first;
}

// The upper end of one of them; no two begin alike, or they would share the lines of a cache.
inline unsigned char* top_of(unsigned char* stacks, unsigned i) {
    return stacks + (i + 1) * (STACK + PAGE) - i % 64 * 192;
}
