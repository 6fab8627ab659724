// What kernels, and the machine that executes them, know of each other.
#pragma once

struct Index {
    unsigned x, y, z;
};

struct Kernel {
    const char* name;
    const char* signature;          // "... [with F = void (*)(const float*, int)]"
    void (*run)(void** arguments);  // each points to the value of one argument
    unsigned most_threads;          // of a block, by its launch bounds
};

extern "C" {
extern Index emu_thread, emu_block, emu_threads, emu_blocks;
extern unsigned char* emu_arena;  // dynamic shared memory

void emu_block_barrier(const char* file, int line);
void emu_warp_barrier(unsigned lanes, const char* file, int line);
unsigned emu_lane();
unsigned emu_live_lanes();
unsigned long long* emu_slot(unsigned lane);  // 8 bytes, to exchange values
void emu_fail(const char* message);           // does not return
}
