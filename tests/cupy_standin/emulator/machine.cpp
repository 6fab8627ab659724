// Executes kernels: a fiber for each thread of a block, one block after the other.
//
// A fiber runs until it waits at a barrier, or ends. Which of those that can run is next, and which
// block is next, is decided by a seed: 0 is the natural order, 1 the reversed one, every other a
// shuffle of its own. Nothing that a kernel computes may depend on it.

#include "machine.h"

#include <link.h>

#include <cstdarg>
#include <cstdio>

#include "faults.h"
#include "fibers.h"
#include "memory.h"

namespace {

constexpr unsigned WARP = 32, MOST_THREADS = 1024, MOST_SHARED = 256 << 10;
constexpr int MOST_ARGUMENTS = 512;  // 4096 bytes of them are allowed

enum class State : unsigned char { ready, at_block_barrier, at_warp_barrier, done };

struct Site {
    const char* file;
    int line;
    bool operator==(const Site& other) const {
        return line == other.line && (file == other.file || !strcmp(file, other.file));
    }
};

struct Fiber {
    Context context;
    Index index;
    State state;
    unsigned lanes;  // that it waits for, at a barrier of its warp
    Site site;
    unsigned long long slot;
};

Fiber fibers[MOST_THREADS];
unsigned char *stacks = nullptr, *end_of_arena = nullptr;
Context home;
unsigned running, count, live, arrived;
unsigned live_in_warp[MOST_THREADS / WARP], waiting_in_warp[MOST_THREADS / WARP];  // lanes
const Kernel* kernel;
void** arguments;
const Memory* memory;
char message[1024];
volatile bool failed, in_fiber;
unsigned long long random_state;

unsigned draw(unsigned below) {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<unsigned>(random_state >> 33) % below;
}

template <class T>
void arrange(T* order, unsigned n, unsigned seed) {
    for (unsigned i = 0; i < n; ++i) order[i] = static_cast<T>(seed == 1 ? n - 1 - i : i);
    for (unsigned i = n; seed > 1 && i > 1; --i) {
        unsigned j = draw(i);
        T kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

void leave() { change(fibers[running].context, home); }

__attribute__((format(printf, 1, 2))) void fail(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    failed = true;
}

// Barriers

void release_block(const Site& site) {
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = fibers[i];
        if (fiber.state != State::at_block_barrier) continue;
        if (!(fiber.site == site))
            return fail("threads of a block wait at two barriers: %s:%d and %s:%d", site.file,
                        site.line, fiber.site.file, fiber.site.line);
        fiber.state = State::ready;
    }
    arrived = 0;
}

void release_block_if_all_wait() {
    if (!live || arrived != live) return;
    for (unsigned i = 0; i < count; ++i)
        if (fibers[i].state == State::at_block_barrier) return release_block(fibers[i].site);
}

bool all_wait(const Fiber& fiber, unsigned first, unsigned lanes) {
    if ((waiting_in_warp[first / WARP] & lanes) != lanes) return false;
    for (unsigned i = 0; i < WARP; ++i) {
        const Fiber& other = fibers[first + i];
        if (lanes >> i & 1 && (other.lanes != fiber.lanes || !(other.site == fiber.site)))
            return false;
    }
    return true;
}

void report_deadlock() {
    int n = snprintf(message, sizeof message, "threads wait for each other:");
    const Fiber* last = nullptr;
    for (unsigned i = 0, told = 0; i < count && told < 4; ++i) {
        const Fiber& f = fibers[i];
        if (f.state == State::done || (last && last->state == f.state && last->site == f.site))
            continue;
        n += snprintf(message + n, sizeof message - n, " (%u, %u, %u) %s at %s:%d,", f.index.x,
                      f.index.y, f.index.z,
                      f.state == State::at_warp_barrier ? "for its warp" : "for its block",
                      f.site.file, f.site.line);
        last = &f;
        ++told;
    }
    snprintf(message + n, sizeof message - n, " and %u of %u have ended", count - live, count);
    failed = true;
}

// Blocks

void body() {
    kernel->run(arguments);
    fibers[running].state = State::done;
    live_in_warp[running / WARP] &= ~(1u << running % WARP);
    --live;
    release_block_if_all_wait();
    leave();
}

void prepare() {
    for (unsigned i = 0; i < count; ++i) {
        start(fibers[i].context, top_of(stacks, i), body);
        fibers[i].state = State::ready;
        fibers[i].index = {i % emu_threads.x, i / emu_threads.x % emu_threads.y,
                           i / emu_threads.x / emu_threads.y};
    }
    live = count;
    arrived = 0;
    for (unsigned w = 0; w * WARP < count; ++w) {
        unsigned lanes = count - w * WARP;
        live_in_warp[w] = lanes >= WARP ? ~0u : (1u << lanes) - 1;
        waiting_in_warp[w] = 0;
    }
}

void run_block(unsigned seed) {
    static unsigned short order[MOST_THREADS];
    prepare();
    arrange(order, count, seed);
    while (live && !failed) {
        bool progress = false;
        for (unsigned k = 0; k < count && !failed; ++k) {
            running = order[k];
            if (fibers[running].state != State::ready) continue;
            emu_thread = fibers[running].index;
            in_fiber = progress = true;
            change(home, fibers[running].context);
            in_fiber = false;
        }
        if (!progress && !failed) report_deadlock();
        if (seed > 1) arrange(order, count, seed);
    }
}

// Shared variables are the thread-local ones of a kernel's library.

struct Shared {
    const void* inside;
    unsigned char* memory;
    size_t bytes;
};

int find_shared(dl_phdr_info* info, size_t, void* result) {
    Shared* shared = static_cast<Shared*>(result);
    const ElfW(Phdr)* local = nullptr;
    bool here = false;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr)& segment = info->dlpi_phdr[i];
        uintptr_t at = reinterpret_cast<uintptr_t>(shared->inside) - info->dlpi_addr;
        if (segment.p_type == PT_LOAD) here |= at - segment.p_vaddr < segment.p_memsz;
        if (segment.p_type == PT_TLS) local = &segment;
    }
    if (here && local) {
        shared->memory = static_cast<unsigned char*>(info->dlpi_tls_data);
        shared->bytes = local->p_memsz;
    }
    return here;
}

// Faults

void caught(int number, siginfo_t* info, void*) {
    const unsigned char* address = static_cast<const unsigned char*>(info->si_addr);
    int i = number == SIGSEGV && memory ? memory->near(address) : -1;
    if (number == SIGALRM) fail("computes for longer than it may: it hangs, or is too slow");
    else if (number == SIGFPE) fail("divides an integer by zero");
    else if (i >= 0) fail("reads or writes outside of array %d", i);
    else fail("reads or writes where no array is, at %p", static_cast<const void*>(address));
    if (in_fiber) leave();
    if (number != SIGALRM) {  // ours is the bug: let it be seen
        signal(number, SIG_DFL);
        raise(number);
    }
}

void run_blocks(unsigned seed, size_t arena_bytes, const Shared& shared) {
    unsigned n = emu_blocks.x * emu_blocks.y * emu_blocks.z;
    unsigned* order = new unsigned[n];
    arrange(order, n, seed);
    for (unsigned i = 0; i < n && !failed; ++i) {
        unsigned b = order[i];
        emu_block = {b % emu_blocks.x, b / emu_blocks.x % emu_blocks.y,
                     b / emu_blocks.x / emu_blocks.y};
        memset(emu_arena, POISON, arena_bytes);
        memset(shared.memory, POISON, shared.bytes);
        run_block(seed);
    }
    delete[] order;
}

void begin(size_t arena_bytes, unsigned seed) {
    if (!stacks) stacks = stacks_for(MOST_THREADS);
    if (!end_of_arena) end_of_arena = end_of_guarded(MOST_SHARED, PAGE);
    emu_arena = end_of_arena - arena_bytes;
    count = emu_threads.x * emu_threads.y * emu_threads.z;
    random_state = seed;
    failed = in_fiber = false;
}

}  // namespace

extern "C" {
Index emu_thread, emu_block, emu_threads, emu_blocks;
unsigned char* emu_arena;

void emu_fail(const char* text) {
    const Index &t = emu_thread, &b = emu_block;
    fail("%s (thread (%u, %u, %u) of block (%u, %u, %u))", text, t.x, t.y, t.z, b.x, b.y, b.z);
    leave();
}

void emu_block_barrier(const char* file, int line) {
    Fiber& fiber = fibers[running];
    fiber.site = {file, line};
    fiber.state = State::at_block_barrier;
    ++arrived;
    release_block_if_all_wait();
    if (fiber.state != State::ready || failed) leave();
}

void emu_warp_barrier(unsigned lanes, const char* file, int line) {
    Fiber& fiber = fibers[running];
    unsigned first = running / WARP * WARP, lane = running % WARP;
    unsigned there = count - first >= WARP ? ~0u : (1u << (count - first)) - 1;
    if (!(lanes >> lane & 1)) emu_fail("a lane is not in the mask that it names");
    if (lanes & there & ~live_in_warp[first / WARP]) emu_fail("a mask names a lane that has ended");
    fiber.site = {file, line};
    fiber.lanes = lanes;
    fiber.state = State::at_warp_barrier;
    waiting_in_warp[first / WARP] |= 1u << lane;
    if (!all_wait(fiber, first, lanes & there)) return leave();
    waiting_in_warp[first / WARP] &= ~lanes;
    for (unsigned i = 0; i < WARP; ++i)
        if (lanes & there & 1u << i) fibers[first + i].state = State::ready;
}

unsigned emu_lane() { return running % WARP; }

unsigned emu_live_lanes() { return live_in_warp[running / WARP]; }

unsigned long long* emu_slot(unsigned lane) {
    return &fibers[running / WARP * WARP + lane].slot;
}

// Where an argument is an array, ``places`` has the number of its region, and ``values`` the offset
// of its first byte there.
const char* emu_launch(const Kernel* which, const unsigned* grid, const unsigned* block,
                       size_t arena_bytes, int argument_count, unsigned long long* values,
                       const int* places, Region* regions, int region_count, void* anchor,
                       unsigned seed, double seconds) {
    Memory copies(regions, region_count, PAGE);
    void* pointers[MOST_ARGUMENTS];
    for (int i = 0; i < argument_count; ++i) {
        if (places[i] >= 0) values[i] += reinterpret_cast<uintptr_t>(regions[places[i]].copy);
        pointers[i] = &values[i];
    }
    kernel = which;
    arguments = pointers;
    memory = &copies;
    emu_blocks = {grid[0], grid[1], grid[2]};
    emu_threads = {block[0], block[1], block[2]};
    arena_bytes = (arena_bytes + 15) / 16 * 16;
    begin(arena_bytes, seed);
    Shared shared{anchor, nullptr, 0};
    dl_iterate_phdr(find_shared, &shared);
    {
        Watch watch(caught, seconds);
        run_blocks(seed, arena_bytes, shared);
    }
    int damaged = failed ? -1 : copies.damaged();
    if (damaged >= 0) fail("writes outside of array %d", damaged);
    if (!failed) copies.take_back();
    memory = nullptr;
    return failed ? message : nullptr;
}
}
