"""Philox4x32-10 with one lane of the counter in each element of a vector register."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .calling import Call, in_one_call
from .compilation import compiled, inlined

ROUNDS = 10
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER0, MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL0, WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@inlined
def lane(key: Any, low: Any, high: Any) -> tuple[Any, Any, Any, Any]:
    """The four words of one lane; halves of 32 bits are kept in 64, as a product needs them."""
    x0, x1, x2, x3 = low & LOW, low >> HALF, high & LOW, high >> HALF
    k0, k1 = key & LOW, key >> HALF
    for _ in range(ROUNDS):
        a, b = x0 * MULTIPLIER0, x2 * MULTIPLIER1
        x0, x1, x2, x3 = (b >> HALF) ^ x1 ^ k0, b & LOW, (a >> HALF) ^ x3 ^ k1, a & LOW
        k0, k1 = (k0 + WEYL0) & LOW, (k1 + WEYL1) & LOW
    return x0, x1, x2, x3


@inlined
def draw(key: Any, low: Any, high: Any, words: Any) -> None:
    """Four words from each lane, of the last as many as are wanted."""
    lanes = words.size // 4
    for i in range(lanes):
        x0, x1, x2, x3 = lane(key, low + np.uint64(i), high)
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = x0, x1, x2, x3
    if words.size % 4:
        rest = lane(key, low + np.uint64(lanes), high)
        for j in range(words.size % 4):
            words[4 * lanes + j] = rest[j]


@compiled
def philox(key: Any, counter: Any, words: Any) -> None:
    draw(key[0], counter[0], counter[1], words)


def philox_words(outs: tuple[Array, ...], key: Array, counter: Array, n: int) -> Call:
    return philox, (key, counter, *outs)


def of_words(key: Array, counter: Array, n: int) -> tuple[Array, ...]:
    return (np.empty(n, np.uint32),)


def accepts(key: Array, counter: Array, n: int) -> bool:
    return True


KERNELS = {"philox_words": in_one_call(of_words, philox_words, accepts)}
