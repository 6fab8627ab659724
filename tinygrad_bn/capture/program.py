"""A step as data: instructions on values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.capture.graphs import Graphed
from tinygrad_bn.capture.memory import Memory, is_early
from tinygrad_bn.capture.plan import arranged, homes, lifetimes, needed
from tinygrad_bn.capture.values import Instruction, Kind, Value
from tinygrad_bn.optim.flat import Bucket


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
        if backend.guard is not None:  # graphs take memory by themselves
            spans = {}
        moved = homes(kept, spans)
        self.instructions = self._all = [i for i in kept if i not in moved]
        self._places = {root: store.args[0].array for store, root in moved.items()}
        self._arena = arranged({v: span for v, span in spans.items() if v not in self._places})
        self._memory: Memory | None = None
        self._graphed: Graphed | None = None

    @property
    def arena_size(self) -> int:
        """The bytes that all results share."""
        return self._arena.size if self._graphed is None else self._graphed.pool_size

    def prepare(self, arrays: tuple[Array, ...]) -> None:
        """Capture graphs, where the program is a GPU's; the arrays are what the trace was given.

        Raises
        ------
        CaptureError
            For what no graph can hold.
        """
        if (graphs := self.backend.graphs()) is not None:
            self._graphed = Graphed(self, graphs, self._all, arrays)
            self.instructions = [i for i in self._all if i not in self._graphed.landed]

    def rest(self) -> None:
        """Give the memory of graphs back that nobody launched: they are made again if need be.

        The first call of many a step has a program of its own, for gradients that are not there
        yet, or an optimizer without state.
        """
        if self._graphed is not None and not self._graphed.launched:
            self._graphed = None

    @property
    def rereading(self) -> list[Bucket]:
        """The buckets of an optimizer whose options Python reads again."""
        return [i.function.__self__ for i in self._all if is_early(i)]  # type: ignore[attr-defined]

    def takes(self, arrays: tuple[Array, ...]) -> bool:
        """Whether it may run on these arrays as they are; if not, it may on copies of them."""
        return self._memory is not None and self._memory.takes(arrays)

    def run(
        self, arrays: tuple[Array, ...], taken: bool = False, reread: bool = True
    ) -> list[Array]:
        """Do what the step does; copies of the outputs.

        Parameters
        ----------
        taken : whether `takes` was true of these arrays.
        reread : whether options of optimizers may have changed.
        """
        if self._graphed is None and self.backend.guard is not None:
            self.prepare(arrays)
        if self._graphed is not None:
            return self._graphed.run(arrays)
        if self._memory is None:
            self._memory = Memory(self, self._arena, self._places)
        for array, values in self.initial:
            np.copyto(array, values)
        return self._memory.run(arrays, taken, reread)

    def __str__(self) -> str:
        count, arena = len(self.instructions), self.arena_size
        states = {v.root for i in self.instructions for v in i.operands}
        held = sum(v.array.nbytes for v in states if v.kind is Kind.STATE)
        graphed = self._graphed
        kind = "arena" if graphed is None else "pool"
        lines = [
            f"program of {count} instructions; {kind} of {readable(arena)}, "
            f"state of {readable(held)} outside of it"
        ]
        lines += [f"  {value.described} comes in" for value in self.inputs]
        runner = self._memory or graphed
        by_python = set() if runner is None else runner.by_python
        notes = {} if graphed is None else graphed.notes
        for instruction in self.instructions:
            if instruction in notes:
                lines.append(f"  # {notes[instruction]}")
            lines.append(f"  {instruction}" + "  # by Python" * (instruction in by_python))
        lines += [f"  {value.described} goes out" for value in self.outputs]
        return "\n".join(lines)

    __repr__ = __str__


def readable(size: int) -> str:
    """Bytes in the unit in which they are few."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.4g} GiB"
