"""A program in its place: instructions on arrays that do not move, as machine code or as calls in
Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinygrad_bn.backend import Array
from tinygrad_bn.capture.destinations import Call, Calls, prepared
from tinygrad_bn.capture.guarding import Guarded
from tinygrad_bn.capture.plan import Arena, layout
from tinygrad_bn.capture.values import Action, Instruction, Kind, Value, replaced
from tinygrad_bn.errors import CaptureError
from tinygrad_bn.optim.flat import Bucket

if TYPE_CHECKING:
    from tinygrad_bn.capture.program import Program


class Memory:
    """The arrays of a program's values, and the calls on them that its instructions are.

    Where there is machine code for an instruction, it is part of a stretch of threaded code, which
    runs without Python; the others are called by Python, between stretches.

    Attributes
    ----------
    by_python : the instructions that Python calls.
    """

    def __init__(self, program: Program, arena: Arena, places: Mapping[Value, Array]) -> None:
        self.backend, self.inputs, self.outputs = program.backend, program.inputs, program.outputs
        memory = arena.memory()
        self._arrays: dict[Value, Array] = {}
        for value, place in places.items():
            self._arrays[value] = as_strided(place, value.shape, value.strides)
        for value, offset in arena.offsets.items():
            self._arrays[value] = np.ndarray(
                value.shape, value.dtype, memory, offset, layout(value)
            )
        for value in self.inputs:
            self._arrays[value] = like(value)
        self.by_python: set[Instruction] = set()
        self._guarded = Guarded(self.backend, program.instructions, self.inputs, places.values())
        self._moving: list[tuple[Instruction, int]] = []
        """Views of inputs, and Python's calls on inputs with their place: bound to new ones."""
        self._unseen: list[Instruction] = []
        """Views of inputs that Python sees only if something fails."""
        self._bindings: list[tuple[list[Any], int, Value]] = []
        """Operands of Python's calls that are inputs, or views of them: in which, and where."""
        self._rereads: list[Call] = []
        self._calls: list[Call] = []
        self._expected: Any = None
        """What inputs are such that nothing is to be done but to bring them."""
        self._results: list[Array] = []
        self._bound: tuple[Array, ...] = ()
        self._assemble(program.instructions, memory)

    def _assemble(self, instructions: Sequence[Instruction], own: Array) -> None:
        """Views once; then all calls, neighbours in machine code as one."""
        threaded = self.backend.threaded_code
        stretch: list[Any] = []
        sources: list[Instruction] = []
        stand_ins = [self._arrays[value] for value in self.inputs]

        def close() -> None:
            if stretch:
                calls, firsts = zip(*threaded.chained(stretch, stand_ins, own), strict=True)
                code = threaded.Code(calls, stand_ins)
                self._calls.append((partial(self._run, code, [sources[i] for i in firsts]), []))
                stretch.clear()
                sources.clear()

        for instruction in instructions:
            moving = any(value.root.kind is Kind.INPUT for value in instruction.operands)
            if instruction.action is Action.VIEW:
                self._view(instruction)
                if moving:
                    self._moving.append((instruction, 0))
                continue
            calls = self._prepared(instruction)
            native = threaded and self._native(instruction, calls)
            if native:
                stretch += native
                sources += [instruction] * len(native)
                continue
            self.by_python.add(instruction)
            if not self._calls and is_early(instruction):
                self._rereads += calls
                continue
            close()
            if moving:
                self._moving.append((instruction, len(self._calls)))
            self._calls += [(function, [*args]) for function, args in calls]
        close()
        leaving = any(value.root.kind is Kind.INPUT for value in self.outputs)
        if not leaving and all(i.action is Action.VIEW for i, _ in self._moving):
            self._unseen = [i for i, _ in self._moving]
            self._moving = []
        if threaded and not (leaving or self._moving or self._guarded.written):
            self._expected = threaded.Expected(stand_ins, self._guarded.states)
            self._results = [self._resolved(value) for value in self.outputs]

    def _native(self, instruction: Instruction, calls: Calls) -> list[Any] | None:
        """The machine code of an instruction; None if it or a part of it has none."""
        found = [self.backend.threaded_code.machine_code(*call) for call in calls]
        return None if None in found else [native for parts in found for native in parts]

    def _run(self, code: Any, sources: Sequence[Instruction]) -> None:
        """Run a stretch of machine code; where a call fails, raise what Python would."""
        status = code.run(self._bound)
        if status != code.FINISHED:
            self._failed(sources[status])

    def _failed(self, instruction: Instruction) -> None:
        """Let Python make the call that failed, and say what is wrong."""
        self._arrays.update(zip(self.inputs, self._bound, strict=True))
        for view in self._unseen:
            self._view(view)
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))
        instruction.function(*args, **kwargs)
        raise CaptureError(
            f"expected {instruction.name} to fail as its machine code did; report it"
        )

    def _resolved(self, tree: Any) -> Any:
        return replaced(tree, Value, lambda v: self._arrays[v] if v.array is None else v.array)

    def _view(self, instruction: Instruction) -> None:
        """Find the views of arrays that are in their places."""
        if all(value.array is not None for value in instruction.results):
            return
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))
        views = instruction.function(*args, **kwargs)
        views = views if isinstance(views, tuple) else (views,)
        for value, place in zip(instruction.results, instruction.places, strict=True):
            self._arrays[value] = views[place]

    def _prepared(self, instruction: Instruction) -> Calls:
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))
        outs = [self._arrays.get(value) for value in instruction.results]
        return prepared(self.backend, instruction, outs, args, kwargs)

    def _bind(self, arrays: tuple[Array, ...]) -> None:
        """Let all calls work on these inputs."""
        self._guarded.check(arrays)
        arrays = tuple(x if x.flags.aligned else aligned(x) for x in arrays)
        self._arrays.update(zip(self.inputs, arrays, strict=True))
        for instruction, place in [*self._moving]:
            if instruction.action is Action.VIEW:
                self._view(instruction)
                continue
            calls = [(function, [*args]) for function, args in self._prepared(instruction)]
            self._calls[place : place + len(calls)] = calls
            self._settle(instruction, calls)
        for operands, position, value in self._bindings:
            operands[position] = self._arrays[value]
        self._results = [self._resolved(value) for value in self.outputs]
        self._bound = arrays

    def _settle(self, instruction: Instruction, calls: Calls) -> None:
        """From now on exchange the operands of a call, where they stand in plain sight."""
        moving = [v for v in instruction.operands if v.root.kind is Kind.INPUT]
        operands = calls[0][1]
        found = [
            (operands, position, value)
            for value in {*moving}
            for position, x in enumerate(operands)
            if x is self._arrays[value]
        ]
        if len(calls) == 1 and len(found) == len(moving):
            self._moving = [pair for pair in self._moving if pair[0] is not instruction]
            self._bindings += found

    def takes(self, arrays: tuple[Array, ...]) -> bool:
        """Whether it may run on these arrays as they are; if not, it may on copies of them."""
        return self._expected is not None and self._expected.fit(arrays)

    def run(self, arrays: tuple[Array, ...], taken: bool, reread: bool) -> list[Array]:
        """Make all calls; copies of the outputs."""
        if taken:
            self._bound = arrays
        elif len(arrays) != len(self._bound) or not all(map(is_, arrays, self._bound)):
            self._bind(arrays)
        if reread:
            for function, args in self._rereads:
                function(*args)
        for function, args in self._calls:
            function(*args)
        for place in self._guarded.written:
            if arrays[place] is not self._bound[place]:  # a copy, since it was not aligned
                np.copyto(arrays[place], self._bound[place])
        return [*map(np.ndarray.copy, self._results)]


def is_early(instruction: Instruction) -> bool:
    """Whether a call in Python may as well come first, if none comes before it: an optimizer reads
    its options again, which no machine code knows of.
    """
    return getattr(instruction.function, "__func__", None) is Bucket.reread


def like(value: Value) -> Array:
    """Memory for an input, which nobody reads or writes: it stands in where addresses are noted."""
    first = last = 0
    for n, stride in zip(value.shape, value.strides, strict=True):
        first, last = (
            first + min(0, (n - 1) * stride),
            last + max(0, (n - 1) * stride),
        )
    raw = np.empty(max(last - first + value.dtype.itemsize, 1), np.uint8)
    return np.ndarray(value.shape, value.dtype, raw, -first, value.strides)


def aligned(x: Array) -> Array:
    """The same values in the same layout, at an address that suits the dtype."""
    y = like(Value(0, Kind.INPUT, x.shape, x.dtype, x.strides))
    np.copyto(y, x)
    return y
