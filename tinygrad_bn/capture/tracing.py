"""One traced call of a step: what it is given, what it leaves behind, and for whom it holds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_bn import config, threads
from tinygrad_bn.autograd.variable import Stamp, Variable
from tinygrad_bn.backend import Array, Backend, _reference_only, backend_for, precision
from tinygrad_bn.capture.glance import OPTIONS, OTHER, TENSORS, Glance
from tinygrad_bn.capture.interception import traced_by
from tinygrad_bn.capture.leaves import Leaf
from tinygrad_bn.capture.program import Program
from tinygrad_bn.capture.recorder import Recorder, owner
from tinygrad_bn.capture.refusals import (
    refuse_arrays,
    refuse_elsewhere,
    refuse_gradients,
    refuse_graph,
)
from tinygrad_bn.capture.surroundings import Surroundings
from tinygrad_bn.capture.traced import Traced
from tinygrad_bn.capture.values import Action, Kind, Value, replaced
from tinygrad_bn.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Output:
    """In a result, the place of a tensor that every run computes anew."""

    position: int


@dataclass(frozen=True, slots=True)
class Given:
    """In a result, the place of a tensor among the arguments."""

    position: int


OFTEN = 256
"""After 1, 2, 4, 8 … and every so many looks that found a change, all is noted anew: more and more
rarely, since what changes at every call would be missed again.
"""


class Capture:
    """A program with what it holds for, and with what is around it in Python.

    Attributes
    ----------
    program : the instructions.
    verified : how many of its runs have been checked.
    result : what the step returns, with `Output` and `Given` in the places of tensors.
    """

    def __init__(self, step: Callable[..., Any], args: Any, lock: Any) -> None:
        self.verified = 0
        self.calls: list[Any] = []
        self.turn = lock
        self.surroundings = Surroundings(step, args)
        for optimizer in self.surroundings.optimizers:
            optimizer.settle()
        self.leaves = [Leaf.of(x) for x in self.surroundings.tensors.values()]
        self.held: list[Variable] = []
        self.homes: list[tuple[Variable, Array]] = []
        """Tensors that leave with a gradient where their optimizer keeps it."""
        self.exits: list[tuple[Variable, int | None]] = []
        """Tensors that leave with one of the outputs as their gradient, or with none."""
        self.stamps: list[Stamp] = []
        self.written: list[int] = []
        """The numbers of the arguments that the step writes to."""
        self._glance: Glance | None = None
        self._missed = 0
        """How often something had changed at a glance."""
        self._always = 0
        """What is due at every replay."""

    def trace(
        self, step: Callable[..., Any], tensors: Sequence[Variable], args: Any, kwargs: Any
    ) -> Any:
        """Run the step once, for real, and record it; what it returns."""
        recorder = Recorder(self.backend_of(tensors))
        found = {leaf.tensor: leaf.tensor._grad for leaf in self.leaves if leaf.requires_grad}
        grads = {x: grad for x, grad in found.items() if x.backend is recorder.backend}
        brought = [recorder.bring(x.array) for x in tensors]
        for x, grad in grads.items():
            if grad is not None and grad.array is not x.slot:
                self.held.append(x)
                brought.append(recorder.bring_gradient(grad.array))
        given = [x.wrap_like(x.array).share(x) for x in tensors]
        wrappers = {id(x): w for x, w in zip(tensors, given, strict=True)}
        inside = replaced((args, kwargs), Variable, lambda x: wrappers.get(id(x), x))
        try:
            with traced_by(recorder):
                for wrapper, array in zip(given, brought, strict=False):
                    wrapper.array = array
                result = step(*inside[0], **inside[1])
                self.finish(recorder, result, given, grads, [x.value for x in brought])
            refuse_elsewhere(recorder.backend, found)
            self.program.prepare(tuple(x.array for x in brought))
            if (path := self.surroundings.changed()) is not None:
                raise CaptureError(
                    f"expected a step that changes tensors only, got one that changes {path}, "
                    "which a replay would not"
                )
        except BaseException:
            for take_back in reversed(recorder.undo):
                take_back()
            for x, grad in found.items():
                x._grad = grad
            raise
        self.surroundings.traced()
        if not self.surroundings.keeps(self.program.rereading):
            self._always = OPTIONS
        originals = {id(w): x for x, w in zip(tensors, given, strict=True)}
        return replaced(result, Variable, lambda x: originals.get(id(x), detached(x)))

    def backend_of(self, tensors: Sequence[Variable]) -> Backend:
        """Where the step computes: where its arguments are, or else its parameters.

        Raises
        ------
        CaptureError
            If the arguments are on several devices.
        """
        found = {x.backend.device: x.backend for x in tensors}
        if len(found) > 1:
            raise CaptureError(
                f"expected the tensors of a step on one device, got arguments on "
                f"{' and '.join(sorted(found))}; move them before the call"
            )
        leaves = (leaf.tensor for leaf in self.leaves if leaf.requires_grad)
        for x in (*tensors, *leaves, *self.surroundings.tensors.values()):
            return x.backend
        return backend_for()

    def finish(
        self,
        recorder: Recorder,
        result: Any,
        given: Sequence[Variable],
        grads: Mapping[Variable, Any],
        inputs: Sequence[Value],
    ) -> None:
        """Make the program, once the step has returned."""
        outputs: list[Value] = []
        returned = [*given]
        places = {id(w): i for i, w in enumerate(given)}

        def output(x: Variable) -> Any:
            if id(x) in places:
                return Given(places[id(x)])
            held = vars(x)["array"]
            if not isinstance(held, Traced):
                if id(x) in self.surroundings.tensors:
                    return x
                held = recorder.lift(held)
            refuse_graph(x)
            returned.append(x)
            outputs.append(held.value)
            return Output(len(outputs) - 1)

        refuse_gradients(given)
        self.result = replaced(result, Variable, output)
        refuse_arrays(self.result)
        self.gradients(recorder, grads, outputs)
        self.refuse_escapes(recorder, returned, grads)
        self.effects(recorder, grads)
        targets = {target.root for i in recorder.instructions for target in i.targets}
        self.written = [n for n, value in enumerate(inputs[: len(given)]) if value in targets]
        self.program = Program(
            recorder.backend, recorder.instructions, inputs, outputs, recorder.initial
        )

    def effects(self, recorder: Recorder, grads: Mapping[Variable, Any]) -> None:
        """What the step does beside returning: calls into Python, and tensors that it writes to."""
        written = set()
        self.calls += recorder.generators
        if recorder.generators:
            drawing = [found.drawing for found in sorted(recorder.generators, key=id)]
            self.turn = Locks([self.turn, *drawing])
        for instruction in recorder.instructions:
            if instruction.action is Action.CALL:
                keeper = getattr(instruction.function, "__self__", None)
                self.calls.append([*instruction.args] if keeper is None else keeper)
            elif instruction.action is Action.WRITE:
                roots = [target.root for target in instruction.targets]
                written |= {id(owner(root.array)) for root in roots if root.kind is Kind.STATE}
        for x, array in recorder.read.values():
            if id(x) not in self.surroundings.tensors and not recorder.is_made(array):
                self.refuse_unreachable(x, grads)
            if id(owner(array)) in written and x._stamp is not None:
                self.stamps.append(x._stamp)

    def gradients(
        self, recorder: Recorder, grads: Mapping[Variable, Any], outputs: list[Value]
    ) -> None:
        """What the gradients of leaves are when the step is done, where it changed them."""
        for x, before in grads.items():
            after = x._grad
            if after is None:
                if before is not None:
                    self.exits.append((x, None))
                continue
            held = vars(after)["array"]
            if after is before and not isinstance(held, Traced):
                continue
            if after.requires_grad:
                raise CaptureError(
                    "expected gradients without a graph, got one of backward(create_graph=True)"
                )
            held = held if isinstance(held, Traced) else recorder.lift(held)
            if held.array is vars(x).get("slot"):
                self.homes.append((x, held.array))
            else:
                self.exits.append((x, len(outputs)))
                outputs.append(held.value)

    def refuse_escapes(
        self, recorder: Recorder, known: Sequence[Variable], grads: Mapping[Variable, Any]
    ) -> None:
        """Refuse tensors that the step made and that live on, but are not returned."""
        kept = {id(x) for x in known} | {id(x._grad) for x in grads}
        if any(escapes(x) for x in recorder.wrapped if id(x) not in kept):
            gc.collect()
        for x in recorder.wrapped:
            if escapes(x) and id(x) not in kept:
                raise CaptureError(
                    f"expected a step that returns the tensors it makes, got one of shape "
                    f"{x.array.shape} that is kept elsewhere, where no replay would renew it"
                )

    def refuse_unreachable(self, x: Variable, grads: Mapping[Variable, Any]) -> None:
        """Refuse a tensor that is none of the surroundings, nor a gradient or a view of them."""
        known = {id(leaf._grad) for leaf in grads} | {id(grad) for grad in grads.values()}
        memory = owner(x_array(x))
        views = any(owner(x_array(t)) is memory for t in self.surroundings.tensors.values())
        if id(x) not in known and not views:
            raise CaptureError(
                f"expected tensors from arguments, the closure, globals or their attributes, got "
                f"one of shape {x.array.shape} from where no replay could look for it again"
            )

    def due(self) -> int:
        """What is due at a replay beside running the program; `OTHER` where the step would not do
        now what the program does.
        """
        glance = self._glance
        found = OTHER if glance is None else glance.look()
        if found:
            self._missed += 1
            if self._missed & min(self._missed - 1, OFTEN - 1) == 0:
                glance, found = self._new_glance(), OTHER
        if found & OTHER:
            if not all(leaf.same() for leaf in self.leaves) or not self.surroundings.same():
                return OTHER
            self._glance, found = glance, OPTIONS | TENSORS
        return found | self._always

    def _new_glance(self) -> Glance:
        """Everything as it is before a close look, so that what changes meanwhile is found."""
        renewed = {id(x) for x in (*self.held, *(x for x, _ in self.exits))}
        moving = [leaf for leaf in self.leaves if id(leaf.tensor) in renewed]
        return Glance(self.surroundings.contents, self.leaves, moving)

    def replay(
        self,
        tensors: Sequence[Variable],
        arrays: tuple[Array, ...] | None = None,
        due: int = OPTIONS | TENSORS,
    ) -> Any:
        """Run the program on other arguments; what the step returns.

        Parameters
        ----------
        arrays : those of the program, where it has been found to take them.
        due : what `due` found.
        """
        taken = arrays is not None
        if arrays is None:
            arrays = self.with_gradients(tuple(x.array for x in tensors))
        backend = self.program.backend
        self.turn.acquire()
        try:
            computed = self.program.run(arrays, taken, due & OPTIONS != 0)
        finally:
            self.turn.release()
        if due & TENSORS:
            self.bring_home()
        for x, place in self.exits:
            x._grad = None if place is None else x.wrap_like(computed[place])
        if self.stamps or self.written:
            now = Stamp.tick()
            for stamp in self.stamps:
                stamp.written = now
            for number in self.written:
                tensors[number].stamp.written = now
        wrap = Variable.tensor_class.wrap
        if self.result.__class__ is Output:
            return wrap(computed[self.result.position], backend)
        return replaced(
            self.result,
            (Output, Given),
            lambda place: (
                wrap(computed[place.position], backend)
                if isinstance(place, Output)
                else tensors[place.position]
            ),
        )

    def with_gradients(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """What the program takes: the arrays of the arguments, and of gradients that are not where
        an optimizer keeps them.
        """
        if not self.held:
            return arrays
        return arrays + tuple(x._grad.array for x in self.held if x._grad is not None)

    def bring_home(self) -> None:
        """Let gradients be what the program made where their optimizer keeps them."""
        for x, slot in self.homes:
            if (grad := x._grad) is None or grad.array is not slot:
                x._grad = x.wrap_like(slot)


class Locks:
    """Several locks as one."""

    def __init__(self, locks: Sequence[Any]) -> None:
        self._locks = locks

    def acquire(self) -> None:
        for lock in self._locks:
            lock.acquire()

    def release(self) -> None:
        for lock in self._locks:
            lock.release()


def x_array(x: Variable) -> Array:
    """The array of a tensor, as it is apart from the trace."""
    held = vars(x)["array"]
    return held.array if isinstance(held, Traced) else held


def detached(x: Variable) -> Variable:
    """What a replay would return: the values without a history."""
    if x.creator is None:
        return x
    plain: Variable = x.wrap_like(x.array)
    return plain


def escapes(x: Variable) -> bool:
    """Whether a tensor holds what the program computes."""
    held = vars(x).get("array")
    return isinstance(held, Traced) and held.value.root.kind in (Kind.RESULT, Kind.INPUT)


def mode() -> tuple[Any, ...]:
    """The library's own switches, which a program holds for."""
    region = config.autocasting.get()
    return (
        None if region is None else region.key,
        config.grad_mode.get(),
        config.anomaly_mode.get(),
        config.recomputing.get(),
        config.get_default_dtype(),
        config.get_default_device(),
        _reference_only.get(),
        precision.allow_tf32,
        threads.ASKED[0],
    )
