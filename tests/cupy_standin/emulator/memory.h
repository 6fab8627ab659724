// Where kernels find arrays: copies, each with its end at the end of a page, and a page behind it
// that cannot be touched. What is left of its first page is poisoned, and looked at again.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

constexpr unsigned char POISON = 0xff;  // NaN in every float, -1 in every integer
constexpr size_t LEAST_MARGIN = 64;

struct Region {
    unsigned char* host;
    size_t bytes;
    size_t written;  // whether a kernel may have changed it
    unsigned char* copy;
    unsigned char* first;  // of its pages
    unsigned char* end;
};

inline size_t whole_pages(size_t bytes, size_t page) { return (bytes + page - 1) / page * page; }

// The end of the copy lies as far from a multiple of 16 as that of the array.
inline void place(Region& region, unsigned char* first, size_t page) {
    size_t room = whole_pages(region.bytes + LEAST_MARGIN, page);
    uintptr_t end = reinterpret_cast<uintptr_t>(region.host) + region.bytes;
    region.first = first;
    region.end = first + room;
    region.copy = region.end - (16 - end % 16) % 16 - region.bytes;
}

// Memory of a size, with a page behind it that cannot be touched; where it ends.
inline unsigned char* end_of_guarded(size_t bytes, size_t page) {
    size_t room = whole_pages(bytes, page);
    void* base = mmap(nullptr, room + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(base, room, PROT_READ | PROT_WRITE);
    return static_cast<unsigned char*>(base) + room;
}

class Memory {
public:
    Memory(Region* regions, int count, size_t page) : regions(regions), count(count) {
        size = page;
        for (int i = 0; i < count; ++i)
            size += whole_pages(regions[i].bytes + LEAST_MARGIN, page) + page;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        base = static_cast<unsigned char*>(mmap(nullptr, size, PROT_NONE, flags, -1, 0));
        unsigned char* at = base + page;
        for (int i = 0; i < count; ++i) {
            place(regions[i], at, page);
            fill(regions[i]);
            at = regions[i].end + page;
        }
    }

    ~Memory() { munmap(base, size); }

    // The number of a region with something written around it, or -1.
    int damaged() const {
        for (int i = 0; i < count; ++i) {
            const Region& r = regions[i];
            if (!poisoned(r.first, r.copy) || !poisoned(r.copy + r.bytes, r.end)) return i;
        }
        return -1;
    }

    void take_back() const {
        for (int i = 0; i < count; ++i)
            if (regions[i].written && regions[i].bytes)
                memcpy(regions[i].host, regions[i].copy, regions[i].bytes);
    }

    // The region nearest to an address, or -1 if it is near to none.
    int near(const unsigned char* address) const {
        const size_t reach = 1 << 12;
        for (int i = 0; i < count; ++i)
            if (address + reach >= regions[i].first && address < regions[i].end + reach) return i;
        return -1;
    }

private:
    static void fill(Region& r) {
        mprotect(r.first, r.end - r.first, PROT_READ | PROT_WRITE);
        memset(r.first, POISON, r.copy - r.first);
        if (r.bytes) memcpy(r.copy, r.host, r.bytes);
        memset(r.copy + r.bytes, POISON, r.end - r.copy - r.bytes);
    }

    static bool poisoned(const unsigned char* from, const unsigned char* to) {
        while (from < to)
            if (*from++ != POISON) return false;
        return true;
    }

    Region* regions;
    int count;
    size_t size;
    unsigned char* base;
};
