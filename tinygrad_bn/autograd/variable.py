"""What the chain rule knows of a tensor: its array, whether it wants a gradient, and the operation
that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from sys import getrefcount
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tinygrad_bn import config
from tinygrad_bn.autograd.ownership import ALONE
from tinygrad_bn.backend import Array, Backend, current
from tinygrad_bn.errors import GradientError

if TYPE_CHECKING:
    from tinygrad_bn.autograd.function import Function

clock = count(1).__next__
"""The order in which nodes were made and memory was overwritten."""
writing = Lock()


LAST_WRITE = [0]
"""When any memory was last overwritten: a node born later is intact. An attribute of a class would
be dearer: each write to one makes Python forget what it knows of the class.
"""


class Stamp:
    """When the memory of some tensors that share it was last overwritten in place."""

    __slots__ = ("array", "written")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.written = 0

    def touch(self) -> None:
        """Say that the memory has just been overwritten."""
        self.written = Stamp.tick()

    @staticmethod
    def tick() -> int:
        """The time of a write: the latest so far, also where several threads write."""
        with writing:
            LAST_WRITE[0] = now = clock()
        return now


def stamp(tensors: Sequence[Variable]) -> None:
    """Let every graph that needs the old values of these tensors know that they are gone."""
    now = Stamp.tick() if any(map(shared, tensors)) else clock()
    for x in tensors:
        (x._stamp or x.stamp).written = now


def shared(x: Variable) -> bool:
    """Whether anybody else may hold the memory of a tensor, as a node that kept it or a view.

    What nobody holds may be overwritten without any node having to look.
    """
    array, known = x.array, x._stamp
    kind: Any = x.backend.array_type
    if array.__class__ is not kind or array.base is not None:
        return True
    return getrefcount(array) > ALONE + 1 + (known is not None and known.array is array)


class Handle:
    """What removes a hook again: ``handle.remove()``, or leaving a ``with`` block."""

    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks, self._hook = hooks, hook
        hooks.append(hook)

    def remove(self) -> None:
        """Take the hook away; nothing happens if it is gone already."""
        self._hooks[:] = [hook for hook in self._hooks if hook is not self._hook]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Variable:
    """A value in the graph; `tinygrad_bn.Tensor` adds the operations.

    Attributes
    ----------
    array : the backend's array with the values.
    backend : whose array it is.
    requires_grad : whether `backward` should compute a gradient for it.
    creator : the node that made it; None for a leaf.
    output : which output of its creator it is.
    """

    tensor_class: ClassVar[type[Variable]]
    """What operations return; `tinygrad_bn.tensors` sets it."""

    array: Array
    backend: Backend
    requires_grad: bool = False
    creator: Function | None = None
    output: int = 0
    slot: Array | None = None
    """Memory that an optimizer keeps for this leaf's gradient: the first write overwrites, further
    ones add.
    """
    _grad: Variable | None = None
    _stamp: Stamp | None = None
    _hooks: list[Callable[[Any], Any]] | None = None
    _after: list[Callable[[Any], None]] | None = None

    @classmethod
    def wrap(cls, array: Array, backend: Backend) -> Self:
        """A tensor around an array, outside of any graph."""
        tensor = object.__new__(cls)
        tensor.array = array
        tensor.backend = backend
        return tensor

    @property
    def stamp(self) -> Stamp:
        """The stamp this tensor shares with all tensors in the same memory."""
        if self._stamp is None:
            self._stamp = Stamp(self.array)
            if self.creator is not None:
                self.creator.stamps = (*self.creator.stamps, self._stamp)
        return self._stamp

    def share(self, source: Variable) -> Self:
        """Say that this tensor lives in the memory of ``source``."""
        self._stamp = source.stamp
        return self

    def overwrite(self, value: Array) -> Self:
        """Store ``value`` in place, and let every graph know that needs what was there.

        Raises
        ------
        GradientError
            If the tensor is part of a graph that is being recorded.
        """
        self.require_outside()
        self.backend.store(self.array, value)
        stamp((self,))
        return self

    def require_outside(self) -> None:
        """Refuse to overwrite what is part of a graph that is being recorded."""
        if self.requires_grad and config.grad_mode.get():
            kind = (
                "a leaf that requires a gradient"
                if self.creator is None
                else "the result of an operation"
            )
            raise GradientError(
                f"expected a tensor outside of the graph to write to, got {kind}; "
                "use no_grad() or detach()"
            )

    def accumulate(self, grad: Array | Variable) -> None:
        """Add to the gradient of a leaf; a Variable when the gradient has a graph of its own."""
        if isinstance(grad, Variable):
            known = self._grad
            self._grad = grad if known is None else known + grad  # type: ignore[operator]
        elif self._grad is not None:
            held = self._grad
            with current(held.backend):
                total = held.array + grad
            if held.requires_grad:  # it has a graph: never change it under the graph's feet
                self._grad = self.wrap_like(total)
            else:
                held.backend.store(held.array, total)
        elif self.slot is not None:
            if grad is not self.slot:
                self.backend.store(self.slot, grad)
            self._grad = self.wrap_like(self.slot)
        else:
            self._grad = self.wrap_like(self.backend.copy(grad))

    def wrap_like(self, array: Array) -> Any:
        """A plain tensor, whatever subclass this one is of, on the same backend."""
        return self.tensor_class.wrap(array, self.backend)


Variable.tensor_class = Variable
