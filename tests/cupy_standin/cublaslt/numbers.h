// The element types of a product on the host: read into an accumulator, rounded back once.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

using float16 = _Float16;

struct bfloat16 {
    uint16_t bits;

    operator float() const {
        uint32_t wide = uint32_t(bits) << 16;
        float x;
        std::memcpy(&x, &wide, sizeof x);
        return x;
    }

    bfloat16() = default;

    explicit bfloat16(float x) {
        uint32_t wide;
        std::memcpy(&wide, &x, sizeof wide);
        if (std::isnan(x)) bits = uint16_t(wide >> 16) | 0x40;  // rounding could make it infinite
        else bits = uint16_t((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16);  // to nearest, ties to even
    }
};

// What a tensor core keeps of a float32: 10 bits after the point.
inline float as_tf32(float x) {
    if (std::isnan(x) || std::isinf(x)) return x;
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFFu;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
