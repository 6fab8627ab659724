"""Philox4x32-10 with one lane of the counter in each element of a vector register."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import compiled

ROUNDS = 10
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER0, MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL0, WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@compiled
def philox(key: Any, low: Any, high: Any, words: Any) -> None:
    """Four words for each lane; halves of 32 bits are kept in 64, as a product needs them."""
    for i in range(words.size // 4):
        count = low + np.uint64(i)
        x0, x1, x2, x3 = count & LOW, count >> HALF, high & LOW, high >> HALF
        k0, k1 = key & LOW, key >> HALF
        for _ in range(ROUNDS):
            a, b = x0 * MULTIPLIER0, x2 * MULTIPLIER1
            x0, x1, x2, x3 = (b >> HALF) ^ x1 ^ k0, b & LOW, (a >> HALF) ^ x3 ^ k1, a & LOW
            k0, k1 = (k0 + WEYL0) & LOW, (k1 + WEYL1) & LOW
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = x0, x1, x2, x3


def philox_words(key: Array, counter: Array, n: int) -> Array:
    words = np.empty((n + 3) // 4 * 4, np.uint32)
    philox(key[0], counter[0], counter[1], words)
    return words[:n]


def accepts(key: Array, counter: Array, n: int) -> bool:
    return True


KERNELS = {"philox_words": Kernel(philox_words, accepts)}
