"""A program on a GPU: CUDA graphs, between which Python is called.

A graph knows memory by its addresses. So arguments are copied to where it reads them, results that
leave are copies, and all that is between lies in a pool of memory that no one else takes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from tinygrad_bn.backend import Array, Backend, Graphs
from tinygrad_bn.capture.guarding import Guarded
from tinygrad_bn.capture.memory import is_early
from tinygrad_bn.capture.plan import homes, lifetimes
from tinygrad_bn.capture.recorder import owner
from tinygrad_bn.capture.values import Action, Instruction, Value, replaced
from tinygrad_bn.errors import BackendError, CaptureError, OutOfMemoryError
from tinygrad_bn.optim.scheduler import LRScheduler

if TYPE_CHECKING:
    from tinygrad_bn.capture.program import Program

Stretch: TypeAlias = list[Instruction]
Execute: TypeAlias = Callable[[Instruction], None]
Wanted: TypeAlias = dict[int, tuple[Instruction, Array]]
"""By its number among what an instruction returns, the store of a result, and where it goes."""


class Graphed:
    """The graphs of a program's instructions, captured when this is made.

    What is captured must have run before, so that kernels are compiled, products planned and memory
    taken: the program runs once on what the trace was given, and state is then put back.

    Attributes
    ----------
    by_python : the instructions that Python calls.
    stretches : the instructions of each graph.
    landed : stores that need not be, since what they would store is made there.
    launched : whether it has run.

    Raises
    ------
    CaptureError
        For what no graph can hold, by the operation and the user's line.
    """

    def __init__(
        self,
        program: Program,
        graphs: Graphs,
        instructions: Sequence[Instruction],
        arrays: Sequence[Array],
    ) -> None:
        self.backend, self.inputs, self.outputs = program.backend, program.inputs, program.outputs
        self._initial, self._graphs = program.initial, graphs
        self.by_python = {i for i in instructions if i.action is Action.CALL}
        self.stretches: list[Stretch] = []
        self.landed: set[Instruction] = set()
        self.launched = False
        self._arrays: dict[Value, Array] = {}
        self._parts: list[Callable[[], None]] = []
        self._ending = endings(instructions, self.outputs)
        self._wanted = wanted_places(self.backend, instructions, self.outputs)
        self._landing: dict[Instruction, dict[Any, Array]] = {}
        self._guarded = Guarded(self.backend, instructions, self.inputs)
        self._guarded.check(arrays)
        self._make(instructions, arrays, self._guarded.states)
        self._places = [self._arrays[v] for v in self.inputs]
        self._results = [self._resolved(v) for v in self.outputs]

    def _make(
        self, instructions: Sequence[Instruction], arrays: Sequence[Array], states: Sequence[Array]
    ) -> None:
        """Run everything once, put state back, and capture it."""
        order = in_turn(instructions)
        memory = {id(x): x for x in map(owner, states)}.values()
        before = [(x, self.backend.copy(x)) for x in memory]
        try:
            with self._graphs.working():
                self._settle(instructions, arrays)
                self._warm_up(order)
        finally:
            for array, values in before:
                self.backend.store(array, values)
        with self._graphs.working():
            self._capture(order)

    @property
    def notes(self) -> dict[Instruction, str]:
        """Where in the program a graph begins."""
        found = {}
        for stretch in self.stretches:
            rest = [i for i in stretch if i not in self.landed]
            found[rest[0]] = f"a graph of {len(rest)} instructions"
        return found

    @property
    def pool_size(self) -> int:
        """The bytes that the graphs have for themselves."""
        return self._graphs.pool_size

    def _settle(self, instructions: Sequence[Instruction], arrays: Sequence[Array]) -> None:
        """Take the memory that graphs and Python share: of arguments, and of what calls return."""
        for value, array in zip(self.inputs, arrays, strict=True):
            place = self._arrays[value] = self._like(value)
            self._graphs.load(place, array)
        for instruction in instructions:
            if instruction.action is Action.CALL:
                for value in instruction.results:
                    self._arrays[value] = self._like(value)
                    self._arrays[value].fill(0)

    def _like(self, value: Value) -> Array:
        return self._graphs.like(value.shape, value.dtype, value.strides)

    def _warm_up(self, order: Sequence[Stretch]) -> None:
        """Run what the graphs will hold, without what Python has done in the trace."""
        kept = dict(self._arrays)
        self._begin()
        for stretch in order:
            if stretch[0].action is not Action.CALL:
                self._run(stretch)
        self._arrays = kept

    def _begin(self) -> None:
        """Let constants that the step overwrites be as it found them."""
        for array, values in self._initial:
            self.backend.store(array, values)

    def _capture(self, order: Sequence[Stretch]) -> None:
        """A graph for each stretch, and Python's calls as they come."""
        first = True
        for stretch in order:
            if stretch[0].action is Action.CALL:
                self._parts.append(self._call(stretch[0]))
            elif all(i.action is Action.VIEW for i in stretch):
                self._run(stretch)  # no work for a GPU
            else:
                graph = self._graph(stretch, first)
                self._parts.append(partial(self._graphs.launch, graph))
                self.stretches.append(stretch)
                first = False

    def _graph(self, stretch: Stretch, first: bool) -> Any:
        """The graph of a stretch."""

        def work() -> None:
            if first:
                self._begin()
            self._run(stretch, self._captured)

        try:
            return self._graphs.captured(work)
        except OutOfMemoryError:
            raise
        except BackendError as error:
            raise CaptureError(
                f"expected a step that CUDA graphs can hold, got one that they cannot, from "
                f"{stretch[0].name} to {stretch[-1].name}: {error}; {stretch[0].line}"
            ) from error

    def _captured(self, instruction: Instruction) -> None:
        """Execute an instruction on a stream that captures, which may refuse it."""
        try:
            self._execute(instruction)
        except MemoryError:
            raise
        except Exception as error:
            raise CaptureError(
                f"expected a step that CUDA graphs can hold, got {instruction.name}, which they "
                f"cannot: {error}; {instruction.line}"
            ) from error

    def _run(self, stretch: Stretch, execute: Execute | None = None) -> None:
        """Execute instructions, and drop each result after its last use."""
        execute = execute or self._execute
        for instruction in stretch:
            if instruction not in self.landed:
                execute(instruction)
            for value in self._ending.get(instruction, ()):
                self._arrays.pop(value, None)

    def _execute(self, instruction: Instruction) -> None:
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))

        def compute() -> tuple[Any, ...]:
            found = instruction.function(*args, **kwargs)
            return found if isinstance(found, tuple) else (found,)

        wanted = self._wanted.get(instruction)
        results = compute() if wanted is None else self._land(instruction, wanted, compute)
        if instruction.action is not Action.WRITE:
            for value, place in zip(instruction.results, instruction.places, strict=True):
                if value.array is None:
                    self._arrays[value] = results[place]

    def _land(
        self, instruction: Instruction, wanted: Wanted, compute: Callable[[], tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        """Make results where they are stored to, if they can be made there."""
        stores = {store for store, _ in wanted.values()}
        if instruction in self._landing:
            results = self._landed(instruction, wanted, compute)
        else:  # in the warm-up: the first time a kernel may take what it keeps for itself
            places = {i: place for i, (_, place) in wanted.items()}
            for _ in range(2):
                self._landing[instruction] = self._graphs.learned(compute, places)
                results = self._landed(instruction, wanted, compute)
                if stores <= self.landed:
                    break
        return results

    def _landed(
        self, instruction: Instruction, wanted: Wanted, compute: Callable[[], tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        """The results, and which stores need not be."""
        results = self._graphs.made_in(self._landing[instruction], compute)
        for i, (store, place) in wanted.items():
            there = self._graphs.same_place(results[i], place)
            (self.landed.add if there else self.landed.discard)(store)
        return results

    def _call(self, instruction: Instruction) -> Callable[[], None]:
        """Python's call, on arrays that stay where they are."""
        args, kwargs = self._resolved((instruction.args, instruction.kwargs))
        call = partial(instruction.function, *args, **kwargs)
        if not instruction.results:
            return call
        places = [
            (i, self._arrays[value])
            for i, value in zip(instruction.places, instruction.results, strict=True)
        ]

        def renew() -> None:
            found = call()
            results = found if isinstance(found, tuple) else (found,)
            for i, place in places:
                self.backend.store(place, results[i])

        return renew

    def _resolved(self, tree: Any) -> Any:
        return replaced(tree, Value, lambda v: self._arrays[v] if v.array is None else v.array)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Bring the arguments, launch all graphs, and copy the outputs; the host waits for none."""
        self.launched = True
        self._guarded.check(arrays)
        with self._graphs.replaying():
            for place, array in zip(self._places, arrays, strict=True):
                self._graphs.load(place, array)
            for part in self._parts:
                part()
            for number in self._guarded.written:  # what the step made of its arguments
                self.backend.store(arrays[number], self._places[number])
            return [self.backend.copy(x) for x in self._results]


def in_turn(instructions: Sequence[Instruction]) -> list[Stretch]:
    """Stretches without a call into Python, and each call by itself; those that may come first do,
    so that they part nothing.
    """
    early: list[Stretch] = []
    found: list[Stretch] = []
    for instruction in instructions:
        if instruction.action is not Action.CALL:
            if not found or found[-1][0].action is Action.CALL:
                found.append([])
            found[-1].append(instruction)
        elif is_early(instruction) and not any(keeps_state(s[0]) for s in found):
            early.append([instruction])
        else:
            found.append([instruction])
    return early + found


def keeps_state(instruction: Instruction) -> bool:
    """Whether it calls an object, or a schedule; a check of values is a plain function."""
    keeper = getattr(instruction.function, "__self__", None)
    schedules = any(isinstance(x, LRScheduler) for x in instruction.args)
    return instruction.action is Action.CALL and (keeper is not None or schedules)


def wanted_places(
    backend: Backend, instructions: Sequence[Instruction], outputs: Sequence[Value]
) -> dict[Instruction, Wanted]:
    """Which results of instructions had better be made where they are stored to."""
    makers = {
        value: (instruction, i)
        for instruction in instructions
        if instruction.action is Action.MAKE
        for i, value in zip(instruction.places, instruction.results, strict=True)
    }
    found: dict[Instruction, Wanted] = {}
    spans = lifetimes(instructions, outputs)
    for store, root in homes(instructions, spans, backend.overlap).items():
        maker, i = makers[root]
        found.setdefault(maker, {})[i] = store, store.args[0].array
    return found


def endings(
    instructions: Sequence[Instruction], outputs: Sequence[Value]
) -> dict[Instruction, list[Value]]:
    """What no instruction needs any more after each: results with all their views. What Python is
    called with, or returns, the call keeps.
    """
    values = [v for i in instructions for v in (*i.results, *i.operands)]
    family: dict[Value, list[Value]] = {}
    for value in dict.fromkeys(values):
        family.setdefault(value.root, []).append(value)
    found: dict[Instruction, list[Value]] = {}
    for root, (_, last) in lifetimes(instructions, outputs).items():
        if last < len(instructions):
            found.setdefault(instructions[last], []).extend(family[root])
    return found
