"""A step as data: instructions on memory that was planned once, run without the tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.capture.destinations import Call, prepared
from tinygrad_bn.capture.plan import Arena, arranged, homes, layout, lifetimes, needed
from tinygrad_bn.capture.values import Action, Instruction, Kind, Value, replaced


class Program:
    """What a traced step does, as instructions on values; see `__str__` for how it reads.

    Attributes
    ----------
    instructions : in the order in which they run.
    inputs : the values that `run` takes the arrays of.
    outputs : the values that `run` returns copies of.
    arena_size : the bytes that all results share; none of them is allocated again.
    """

    def __init__(
        self,
        backend: Backend,
        instructions: Sequence[Instruction],
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        initial: Sequence[tuple[Array, Array]] = (),
    ) -> None:
        self.backend = backend
        self.inputs, self.outputs, self.initial = list(inputs), list(outputs), list(initial)
        kept = needed(instructions, outputs)
        spans = lifetimes(kept, outputs)
        moved = homes(kept, spans)
        self.instructions = [i for i in kept if i not in moved]
        self._places = {root: store.args[0].array for store, root in moved.items()}
        self._arena = arranged({v: span for v, span in spans.items() if v not in self._places})
        self._prepare(self._arena)

    @property
    def arena_size(self) -> int:
        """The bytes that all results share."""
        return self._arena.size

    def _prepare(self, arena: Arena) -> None:
        """Give every value its array, and every instruction its call."""
        memory = arena.memory()
        self._arrays: dict[Value, Array] = {}
        for value, place in self._places.items():
            self._arrays[value] = place.reshape(value.shape)
        for value, offset in arena.offsets.items():
            self._arrays[value] = np.ndarray(
                value.shape, value.dtype, memory, offset, layout(value)
            )
        self._calls: list[Call] = []
        self._moving: list[tuple[Instruction, int | None]] = []
        """Instructions on inputs, with the place of their call, which a run binds anew."""
        self._bindings: list[tuple[list[Any], int, Value]] = []
        """Operands that are inputs, or views of them: in which call, and where."""
        for instruction in self.instructions:
            moving = any(value.root.kind is Kind.INPUT for value in instruction.operands)
            if instruction.action is Action.VIEW:
                if moving:
                    self._moving.append((instruction, None))
                else:
                    self._view(instruction)
                continue
            if moving:
                self._moving.append((instruction, len(self._calls)))
                self._calls.append((np.positive, []))
            else:
                self._calls.append(self._call(instruction))
        self._bound: tuple[Array, ...] = ()

    def _resolved(self, tree: Any) -> Any:
        return replaced(tree, Value, lambda v: self._arrays[v] if v.array is None else v.array)

    def _view(self, instruction: Instruction) -> None:
        """Find the views of arrays that are in their places."""
        if all(value.array is not None for value in instruction.results):
            return
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))
        views = instruction.function(*args, **kwargs)
        for value, place in zip(instruction.results, instruction.places, strict=True):
            self._arrays[value] = as_tuple(views)[place]

    def _call(self, instruction: Instruction) -> Call:
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))
        if instruction.action is Action.WRITE:
            return instruction.function, list(args)
        outs = [self._arrays.get(value) for value in instruction.results]
        function, operands = prepared(instruction, outs, args, kwargs)
        return function, list(operands)

    def _bind(self, arrays: tuple[Array, ...]) -> None:
        """Let the instructions on inputs read these arrays."""
        self._arrays.update(zip(self.inputs, arrays, strict=True))
        for instruction, place in self._moving:
            if place is None:
                self._view(instruction)
            else:
                self._calls[place] = self._call(instruction)
                self._settle(instruction, place)
        for operands, position, value in self._bindings:
            operands[position] = self._arrays[value]
        self._bound = arrays

    def _settle(self, instruction: Instruction, place: int) -> None:
        """From now on exchange the operands of a call, where they stand in plain sight."""
        moving = [v for v in instruction.operands if v.root.kind is Kind.INPUT]
        operands = self._calls[place][1]
        found = [
            (operands, position, value)
            for value in {*moving}
            for position, x in enumerate(operands)
            if x is self._arrays[value]
        ]
        if len(found) == len(moving):
            self._moving = [pair for pair in self._moving if pair[1] != place]
            self._bindings += found

    def run(self, arrays: tuple[Array, ...]) -> list[Array]:
        """Do what the step does; copies of the outputs."""
        if len(arrays) != len(self._bound) or any(
            a is not b for a, b in zip(arrays, self._bound, strict=True)
        ):
            self._bind(arrays)
        for array, values in self.initial:
            np.copyto(array, values)
        for function, args in self._calls:
            function(*args)
        return [self.backend.copy(self._resolved(value)) for value in self.outputs]

    def __str__(self) -> str:
        count, arena = len(self.instructions), self.arena_size
        states = {v.root for i in self.instructions for v in i.operands}
        held = sum(v.array.nbytes for v in states if v.kind is Kind.STATE)
        lines = [
            f"program of {count} instructions; arena of {readable(arena)}, "
            f"state of {readable(held)} outside of it"
        ]
        lines += [f"  {value.described} comes in" for value in self.inputs]
        lines += [f"  {instruction}" for instruction in self.instructions]
        lines += [f"  {value.described} goes out" for value in self.outputs]
        return "\n".join(lines)

    __repr__ = __str__


def as_tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def readable(size: int) -> str:
    """Bytes in the unit in which they are few."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.4g} GiB"
