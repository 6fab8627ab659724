"""Parameters side by side: a buffer of values, one of gradients, one for each kind of state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from operator import is_
from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.backend import Array, Backend, KernelPoint, only_reference
from tinygrad_bn.errors import DtypeError, ShapeError
from tinygrad_bn.ops.counting import one_more
from tinygrad_bn.optim.call import Call
from tinygrad_bn.optim.optimizer import Group, stamp
from tinygrad_bn.tensors import Tensor

tracing = config.tracer.get

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


def aligned_zeros(backend: Backend, size: int, dtype: np.dtype[Any]) -> Array:
    """Zeros that begin on a multiple of `ALIGNMENT`; a GPU's memory always does."""
    spare = ALIGNMENT // dtype.itemsize
    raw = backend.xp.zeros(size + spare, dtype=dtype)
    interface = getattr(raw, "__array_interface__", None)
    skip = 0 if interface is None else -interface["data"][0] % ALIGNMENT // dtype.itemsize
    return raw[skip : skip + size]


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What updates are computed and state is kept in: never narrower than float32."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


class Bucket:
    """The parameters of one group that share a dtype and a device.

    Their arrays become views of ``values``, and their gradients are written to views of ``grads``;
    each begins on its own cache line, and a matrix that was laid out by columns still is. Tensors
    that shared a parameter's memory before keep the old memory.

    Attributes
    ----------
    group : the options.
    params, views, slots : the parameters, and for each the memory of its values and of its
        gradient.
    shapes, bounds : the shape of each, and where it begins and ends in the buffers.
    runs : the parts that are updated at once.
    """

    def __init__(self, group: Group, params: Sequence[Tensor], separately: bool) -> None:
        first = params[0]
        self.group = group
        self.params = list(params)
        self.backend: Backend = first.backend
        self.dtype: np.dtype[Any] = first.array.dtype
        self.separately = separately
        self.shapes = [p.array.shape for p in params]
        self.by_columns = [is_by_columns(p.array) for p in params]
        self.bounds: list[tuple[int, int]] = []
        end, line = 0, ALIGNMENT // self.dtype.itemsize
        for p in params:
            start = -(-end // line) * line
            end = start + p.array.size
            self.bounds.append((start, end))
        self.size = end
        self.values = aligned_zeros(self.backend, end, self.dtype)
        self.grads = aligned_zeros(self.backend, end, self.dtype)
        self.views = self.split(self.values)
        self.slots = self.split(self.grads)
        self.buffers: dict[str, Array] = {}
        self.numbers: dict[str, tuple[float, Array]] = {}
        self._read: list[Any] = []
        self._calls: list[Any] = []
        self._fixed = False
        """Whether the options are those that were read, and objects that cannot change."""
        self.runs: list[Run] = []
        for p, view, slot in zip(self.params, self.views, self.slots, strict=True):
            self.backend.store(view, p.array)
            p.array, p.slot, p._stamp = view, slot, None  # a stamp holds the memory it is of

    def split(self, buffer: Array) -> list[Array]:
        """A view of each parameter's part, in its shape."""
        return [self.part(buffer[start:end], i) for i, (start, end) in enumerate(self.bounds)]

    def part(self, flat: Array, i: int) -> Array:
        """The part of a buffer that is parameter i's, in its shape."""
        xp, shape = self.backend.xp, self.shapes[i]
        if self.by_columns[i]:
            return xp.transpose(xp.reshape(flat, shape[::-1]), (1, 0))
        return xp.reshape(flat, shape)

    def arrange(self, entries: Sequence[Mapping[str, Any]], counters: Collection[str]) -> None:
        """Form the runs from saved state; ``counters`` names what is a single number."""
        edges = [
            i
            for i in range(1, len(entries))
            if self.separately or not alike(entries[i - 1], entries[i], counters)
        ]
        self.runs = []
        for start, stop in pairwise([0, *edges, len(entries)]):
            run = Run(self, start, stop)
            for name, value in entries[start].items():
                if name in counters:
                    run.counter(name, float(value))
                else:
                    run.slot(name)
                    parts = self.split(self.buffers[name])
                    for i in range(start, stop):
                        self.backend.store(parts[i], entries[i][name])
            self.runs.append(run)

    def buffer(self, name: str) -> Array:
        """The memory of one kind of state, made when it is first asked for."""
        if name not in self.buffers:
            self.buffers[name] = aligned_zeros(self.backend, self.size, working_dtype(self.dtype))
        return self.buffers[name]

    @config.outside_of_trace
    def number(self, name: str) -> Array:
        """An option as a 0-d array, always the same, so that a replayed step sees it change."""
        known = self.numbers.get(name)
        if known is not None and self._fixed:  # as `reread` has found
            return known[1]
        value = option(self.group, name)
        if known is not None and known[0] == value:
            return known[1]
        number = float(value)
        fresh = self.backend.asarray(number, np.dtype(np.float64))
        if known is None:
            known = number, self.backend.copy(fresh)
        else:
            self.backend.store(known[1], fresh)
        self.numbers[name] = number, known[1]
        return known[1]

    def as_read(self) -> bool:
        """Whether all options are those that were read last, and none can change by itself."""
        values = [*self.group.values()]
        return self._fixed and len(values) == len(self._read) and all(map(is_, values, self._read))

    def reread(self) -> None:
        """Bring the options' arrays up to date: a step updates from them, compiled or not."""
        if self.as_read():
            return
        self._read, self._fixed, self._calls = [*self.group.values()], False, []
        for name in self.numbers:
            self.number(name)
        options = (value for name, value in self.group.items() if name != "params")
        self._fixed = all(map(is_fixed, options))

    def at_home(self) -> bool:
        """Whether all values and gradients are where they belong, as at nearly every step."""
        for p, view, slot in zip(self.params, self.views, self.slots, strict=True):
            if p._grad is None or p._grad.array is not slot or p.array is not view:
                return False
        return True

    def remember(self) -> None:
        """Keep the calls that the update of all runs has come down to, if it has."""
        calls = [call for run in self.runs for call in run.calls()] if self._fixed else []
        self._calls = [] if None in calls else calls

    def repeat(self) -> bool:
        """Make the calls of the last update again, if nothing can have changed them; whether it
        did.
        """
        if not self._calls or tracing() is not None or only_reference() or not self.as_read():
            return False
        for call in self._calls:
            call.run()
        stamp(self.params)
        return True

    def fits(self) -> bool:
        """Whether every parameter still has the dtype, shape and device that it had."""
        for p, view in zip(self.params, self.views, strict=True):
            if p.array is not view and (
                p.backend is not self.backend
                or p.array.dtype != self.dtype
                or p.array.shape != view.shape
            ):
                return False
        return True

    def check_gradients(self) -> None:
        """Refuse gradients that are not of their parameter's kind.

        Raises
        ------
        ShapeError, DtypeError
        """
        for p, slot in zip(self.params, self.slots, strict=True):
            if p._grad is None or (grad := p._grad.array) is slot:
                continue
            if grad.shape != slot.shape or p._grad.backend is not self.backend:
                raise ShapeError(
                    f"expected a gradient {slot.shape} on {self.backend.device}, "
                    f"got {grad.shape} on {p._grad.backend.device}"
                )
            if grad.dtype != self.dtype:
                raise DtypeError(f"expected a gradient of {self.dtype}, got {grad.dtype}")

    def gather(self) -> list[bool]:
        """Bring home what was bound to other memory; say which parameters have a gradient."""
        present = []
        for i, p in enumerate(self.params):
            view, slot, grad = self.views[i], self.slots[i], p._grad
            if p.array is not view:
                self.backend.store(view, p.array)
                p.array, p._stamp = view, None
                stamp((p,))
            p.slot = slot
            if grad is not None and grad.array is not slot:
                self.backend.store(slot, grad.array)
            present.append(grad is not None)
        return present

    @config.outside_of_trace
    def due(self, present: list[bool]) -> list[Run]:
        """The runs with gradients, after splitting those where only some parameters have one."""
        if all(present):
            return self.runs
        self.runs = [part for run in self.runs for part in run.split(present)]
        self._calls = []
        return [run for run in self.runs if present[run.start]]


class Run:
    """Neighbours in a bucket that have always been updated together, and so share their counters.

    ``param``, ``grad`` and the state are one flat array each; in a bucket whose parameters are
    updated ``separately`` a run is one parameter, in its own shape. ``bounds`` says where each
    parameter begins and ends in them.
    """

    def __init__(self, bucket: Bucket, start: int, stop: int) -> None:
        self.bucket, self.start, self.stop = bucket, start, stop
        self.backend, self.group = bucket.backend, bucket.group
        self.params = bucket.params[start:stop]
        self.counters: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self._last: Call | None = None
        self._counted: list[str] = []
        self._again: list[str] | None = None
        """What was counted for the last update, if that was the same call as before."""
        own = bucket.bounds[start:stop]
        self.bounds = tuple((a - own[0][0], b - own[0][0]) for a, b in own)
        self.param = self.part(bucket.values)
        self.grad = self.part(bucket.grads)

    def part(self, buffer: Array) -> Array:
        """This run's part of a buffer of the bucket."""
        bounds = self.bucket.bounds
        flat = buffer[bounds[self.start][0] : bounds[self.stop - 1][1]]
        if self.bucket.separately:
            return self.bucket.part(flat, self.start)
        return flat

    def split(self, present: list[bool]) -> list[Run]:
        """The longest parts where all have a gradient, or none; each counts for itself from now."""
        edges = [i for i in range(self.start + 1, self.stop) if present[i] is not present[i - 1]]
        if not edges:
            return [self]
        parts = []
        for start, stop in pairwise([self.start, *edges, self.stop]):
            part = Run(self.bucket, start, stop)
            part.counters = {name: self.backend.copy(c) for name, c in self.counters.items()}
            part.state = {name: part.part(self.bucket.buffers[name]) for name in self.state}
            parts.append(part)
        return parts

    def number(self, name: str) -> Array:
        """An option of the group as a 0-d array of float64; ``betas`` are ``beta1``, ``beta2``."""
        return config.as_state(self.bucket.number(name))

    def optional(self, name: str) -> Array | None:
        """An option as `number` gives it, or None where it is 0 and the formula does without."""
        return self.number(name) if self.group[name] else None

    def counter(self, name: str, start: float = 0.0) -> Array:
        """A number that these parameters share, as a 0-d array of float64."""
        if name not in self.counters:
            self.begin_counter(name, start)
        return config.as_state(self.counters[name])

    @config.outside_of_trace
    def begin_counter(self, name: str, start: float) -> None:
        """A counter's array."""
        value = self.backend.asarray(start, np.dtype(np.float64))
        self.counters[name] = self.backend.copy(value)

    def count(self, name: str = "step") -> Array:
        """One more: the counter after counting this update."""
        counter = self.counter(name)
        self.backend.store(counter, *one_more(self.backend, counter))
        self._counted.append(name)
        return counter

    def slot(self, name: str, fill: float = 0.0) -> Array:
        """One kind of state; it begins as ``fill`` everywhere."""
        if name not in self.state:
            self.begin_slot(name, fill)
        return config.as_state(self.state[name])

    @config.outside_of_trace
    def begin_slot(self, name: str, fill: float) -> None:
        """The memory of one kind of state."""
        self.state[name] = self.part(self.bucket.buffer(name))
        if fill:
            self.backend.store(self.state[name], self.backend.asarray(fill))

    def update(
        self,
        kernel: KernelPoint[Any, Any],
        slots: Sequence[str | None],
        *numbers: Any,
        **flags: Any,
    ) -> None:
        """Replace the parameters and the named state by what ``kernel`` makes of them.

        The kernel gets the parameters, the gradient, the state (None where the options need none
        of a kind) and ``numbers``; it returns the new parameters and the new state.
        """
        state = [None if name is None else self.slot(name) for name in slots]
        param, grad = config.as_state(self.param), config.as_state(self.grad)
        grad = -grad if self.group.get("maximize") else grad
        operands = (param, grad, *state, *numbers)
        again = self._last is not None and self._last.again(kernel, operands, flags)
        self._again, self._counted = self._counted if again else None, []
        if not again:
            results = kernel(self.backend, *operands, **flags)
            for target, value in zip((param, *state), results, strict=True):
                if target is not None:
                    self.backend.store(target, value)
            if self._last is None and grad is self.grad:
                self._last = Call.of(self.backend, kernel, operands, flags)
        stamp(self.params)

    def calls(self) -> list[Call | None]:
        """The calls that the last update was, counts before it; None where one is not compiled."""
        if self._again is None:
            return [None]
        counters = [self.counters[name] for name in self._again]
        return [*(Call.of(self.backend, one_more, (c,), {}) for c in counters), self._last]

    def entries(self) -> dict[Tensor, dict[str, Array]]:
        """The counters and the state of each parameter, by name; empty before the first update."""
        entries: dict[Tensor, dict[str, Array]] = {p: {**self.counters} for p in self.params}
        for name in self.state:
            parts = self.bucket.split(self.bucket.buffers[name])
            for p, part in zip(self.params, parts[self.start : self.stop], strict=True):
                entries[p][name] = part
        return entries


def is_by_columns(x: Array) -> bool:
    """Whether a matrix lies in memory as its transpose would."""
    return bool(x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous)


def is_fixed(value: Any) -> bool:
    """Whether an option is one that nobody can change without exchanging it."""
    if isinstance(value, tuple):
        return all(map(is_fixed, value))
    return value is None or isinstance(value, (bool, int, float, str))


def option(group: Group, name: str) -> Any:
    """An option that is a number."""
    if name in ("beta1", "beta2"):
        return group["betas"][name == "beta2"]
    return group[name]


def alike(a: Mapping[str, Any], b: Mapping[str, Any], counters: Collection[str]) -> bool:
    """Whether two parameters have the same kinds of state, and the same counters."""
    return a.keys() == b.keys() and all(
        float(a[name]) == float(b[name]) for name in a if name in counters
    )
