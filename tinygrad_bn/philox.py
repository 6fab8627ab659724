"""Random bits by counting: Philox4x32-10, the same stream on every backend.

Lane i of a draw is a keyed bijection of the counter plus i, and holds four words of 32 bits. Where
an element takes one word, element i has word i % 4 of lane i // 4, so that a fused kernel can
compute it from the key, the counter and i alone.

References
----------
Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator as Generator_
from contextlib import contextmanager, nullcontext
from threading import Lock, RLock
from typing import Any

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, Device, backend_for, kernel_point
from tinygrad_bn.config import as_state, outside_of_trace, tracer
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError

UINT32, UINT64 = np.dtype(np.uint32), np.dtype(np.uint64)
LOW = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # what the two halves of the key grow by each round
ROUNDS = 10
MANTISSA = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


@kernel_point
def philox_words(backend: Backend, key: Array, counter: Array, n: int) -> Array:
    """The first n words (uint32) of the lanes that start at the counter.

    Shapes
    ------
    key (1,), counter (2,): its lower half, which wraps around, and its upper; both uint64 -> (n,)
    """
    xp = backend.xp
    low = counter[:1] + xp.arange((n + 3) // 4, dtype=UINT64)
    x0, x1, x2, x3 = low & LOW, low >> 32, counter[1:] & LOW, counter[1:] >> 32
    rounds = xp.arange(ROUNDS, dtype=UINT64)
    k0 = ((key & LOW) + rounds * WEYL[0]) & LOW
    k1 = ((key >> 32) + rounds * WEYL[1]) & LOW
    for i in range(ROUNDS):
        a, b = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1, x2, x3 = (b >> 32) ^ x1 ^ k0[i], b & LOW, (a >> 32) ^ x3 ^ k1[i], a & LOW
    lanes = xp.stack([xp.astype(x, UINT32) for x in (x0, x1, x2, x3)], axis=1)
    return xp.reshape(lanes, (-1,))[:n]


def pairs(xp: Any, words: Array) -> Array:
    """Every two words as one of 64 bits, the earlier the higher."""
    wide = xp.astype(words, UINT64)
    return (wide[0::2] << 32) | wide[1::2]


def scaled(x: Array, span: int) -> Array:
    """⌊x · span / 2⁶⁴⌋ for 64-bit words: uniform ones become uniform whole numbers below span."""
    high, low = x >> 32, x & LOW
    span_high, span_low = span >> 32, span & LOW
    middle = high * span_low + (low * span_low >> 32)
    cross = (middle & LOW) + low * span_high
    return high * span_high + (middle >> 32) + (cross >> 32)


class Generator:
    """A stream of random numbers on one device.

    The key and the counter are one small array, so that a replayed step sees the stream go on. A
    draw takes whole lanes; no two draws share any. Several threads may draw from one generator:
    each gets lanes of its own, in an order that is up to them.

    Notes
    -----
    The same seed gives the same stream on every device, but not PyTorch's.
    """

    def __init__(self, device: object = "cpu") -> None:
        self.backend = backend_for(device)
        self.drawing = RLock()
        """Held while the counter is read and moved."""
        self._state = self.backend.asarray(np.zeros(3, UINT64))
        self.seed()

    @property
    def device(self) -> Device:
        """Where it draws: ``"cpu"`` or ``"cuda:0"``."""
        return Device(self.backend.device)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed``, a whole number within [-2⁶³, 2⁶⁴)."""
        self._write(self.backend.asarray([as_seed(seed), 0, 0], UINT64))
        return self

    def seed(self) -> int:
        """Start a stream that nobody can foretell; its seed, so that it can be had again."""
        seed = int.from_bytes(os.urandom(8), "little") >> 1
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return int(self.backend.to_numpy(self._state)[0])

    def get_state(self) -> Any:
        """The key and the counter: a tensor (3,) of uint64 in this machine's memory."""
        cpu = backend_for("cpu")
        return Variable.tensor_class.wrap(cpu.copy(self.backend.to_numpy(self._state)), cpu)

    def set_state(self, new_state: Any) -> None:
        """Go on from where `get_state`, of this generator or another, was called."""
        if not isinstance(new_state, Variable):
            raise DtypeError(f"expected the tensor of get_state(), got {type(new_state).__name__}")
        state = new_state.array
        if state.shape != (3,) or state.dtype != UINT64:
            raise ShapeError(f"expected a state (3,) of uint64, got {state.shape} of {state.dtype}")
        if new_state.backend is not self.backend:
            state = self.backend.asarray(new_state.backend.to_numpy(state))
        self._write(state)

    def _write(self, state: Array) -> None:
        with self.drawing:
            self.backend.store(self._state, state)

    def place(self) -> Array:
        """The key and the counter as they are, copied where they are: no host waits for them."""
        with self.drawing:
            copied: Array = self.backend.copy(as_state(self._state))
        return copied

    def go_to(self, place: Array) -> None:
        """Go on from where `place` was called."""
        self._write(place)

    def __reduce__(self) -> Any:
        return restored, (str(self.device), self.get_state())

    # Draws: arrays of this generator's backend

    def words(self, n: int) -> Array:
        """n words of 32 random bits."""
        with self.advancing() as (key, counter):
            drawn = philox_words(self.backend, key, counter, n)
            self.backend.store(counter[:1], counter[:1] + (n + 3) // 4)
        return drawn

    @contextmanager
    def advancing(self) -> Generator_[tuple[Array, Array]]:
        """Key (1,) and counter (2,) of a draw, for whoever moves the counter on as far as it draws:
        nobody else draws meanwhile. A compiled step does so at every replay.
        """
        if (held := tracer.get()) is not None:
            held.draws_from(self)
        with self.drawing, self.backend.guard or nullcontext():
            state = as_state(self._state)
            yield state[:1], state[1:]

    def long_words(self, n: int) -> Array:
        """n words of 64 random bits."""
        words = self.words(2 * n)
        with self.backend.guard or nullcontext():
            return pairs(self.backend.xp, words)

    def uniform(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Multiples of 2⁻ᵇ within [0, 1), all as likely; b bits are the dtype's precision."""
        bits, n, xp = MANTISSA[dtype.name], math.prod(shape), self.backend.xp
        words, width = (self.words(n), 32) if bits <= 32 else (self.long_words(n), 64)
        with self.backend.guard or nullcontext():
            wide = xp.astype(words >> (width - bits), np.float64 if width == 64 else np.float32)
            return xp.reshape(xp.astype(wide * 2.0**-bits, dtype), shape)

    def normal(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Standard normal numbers, two from every two uniform ones, in float64 and rounded once.

        References
        ----------
        Box and Muller 1958, "A note on the generation of random normal deviates".
        """
        n, xp = math.prod(shape), self.backend.xp
        even = n + n % 2
        long = dtype.itemsize > 4
        words, bits = (self.long_words(even), 53) if long else (self.words(even), 32)
        with self.backend.guard or nullcontext():
            words = words >> 11 if long else words
            radius = xp.sqrt(-2 * xp.log((xp.astype(words[0::2], np.float64) + 0.5) * 2.0**-bits))
            angle = xp.astype(words[1::2], np.float64) * (2 * math.pi * 2.0**-bits)
            both = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)
            return xp.reshape(xp.astype(xp.reshape(both, (-1,))[:n], dtype), shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Whole numbers within [low, high), from 64 bits each: no probability is 2⁻⁶⁴ off."""
        words = self.long_words(math.prod(shape))
        with self.backend.guard or nullcontext():
            xp = self.backend.xp
            found = xp.astype(scaled(words, high - low), np.int64) + low
            return xp.reshape(xp.astype(found, dtype), shape)

    def permutation(self, n: int) -> Array:
        """The numbers below n in random order (int64), carried by random words that are sorted.

        The bits above a number order it: 44 for a million, of which in 97 of 100 draws no two
        agree.
        """
        words = self.long_words(n)
        with self.backend.guard or nullcontext():
            xp, mask = self.backend.xp, (1 << n.bit_length()) - 1
            keys = (words >> n.bit_length() << n.bit_length()) | xp.arange(n, dtype=UINT64)
            return xp.astype(xp.sort(keys) & mask, np.int64)


def restored(device: str, state: Any) -> Generator:
    """A copy of a generator, at the place in the stream where it was."""
    generator = Generator(device)
    generator.set_state(state)
    return generator


def as_seed(seed: int) -> int:
    """The seed within [0, 2⁶⁴); negative ones count back from there, as in PyTorch."""
    if not hasattr(seed, "__index__"):
        raise DtypeError(f"expected a whole number as the seed, got {seed!r}")
    number = seed.__index__()
    if not -(2**63) <= number < 2**64:
        raise ArgumentError(f"expected a seed within [-2**63, 2**64), got {number}")
    return number % 2**64


default_generators: dict[str, Generator] = {}
"""By device; each made when it is first drawn from."""
_seed: list[int] = []  # of `manual_seed`, for generators that are yet to be made
_lock = Lock()


def generator_on(backend: Backend, generator: Generator | None = None) -> Generator:
    """``generator``, or the default one of the backend.

    Raises
    ------
    BackendError, DtypeError
        If ``generator`` is on another device, or is none of ours.
    """
    if generator is None:
        with _lock:
            if backend.device not in default_generators:
                default_generators[backend.device] = made_default(backend.device)
        return default_generators[backend.device]
    if not isinstance(generator, Generator):
        raise DtypeError(f"expected a tinygrad_bn.Generator, got {type(generator).__name__}")
    if generator.backend is not backend:
        raise BackendError(
            f"expected a generator on {backend.device}, got one on {generator.device}"
        )
    return generator


@outside_of_trace
def made_default(device: str) -> Generator:
    """A default generator, also where a step that is traced is the first to draw."""
    made = Generator(device)
    for seed in _seed:
        made.manual_seed(seed)
    return made


def manual_seed(seed: int) -> Generator:
    """Start the stream of ``seed`` in every device's default generator; the CPU's is returned."""
    with _lock:
        _seed[:] = [as_seed(seed)]
        for generator in default_generators.values():
            generator.manual_seed(seed)
    return generator_on(backend_for("cpu"))
