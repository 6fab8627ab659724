"""An update that comes down to the same compiled call at every step."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, TypeVar

from tinygrad_bn import config
from tinygrad_bn.backend import Backend, KernelPoint, interruption, only_reference

F = TypeVar("F", bound=Callable[..., None])


class Call:
    """A kernel's update of memory that does not move: looked at once, and then only run."""

    def __init__(self, kernel: Any, operands: tuple[Any, ...], flags: Any, call: Any) -> None:
        self.kernel, self.operands, self.flags = kernel, operands, flags
        self.function, self.args = call

    @classmethod
    def of(
        cls, backend: Backend, point: KernelPoint[Any, Any], operands: tuple[Any, ...], flags: Any
    ) -> Call | None:
        """The call that a kernel point comes down to; None if it is no compiled one."""
        kernel = backend.kernels.get(point.name)
        if kernel is None or kernel.into is None or not kernel.writes:
            return None
        if config.tracer.get() is not None or not kernel.accepts(*operands, **flags):
            return None
        return cls(point, operands, flags, kernel.into((), *operands, **flags))

    def again(self, point: KernelPoint[Any, Any], operands: tuple[Any, ...], flags: Any) -> bool:
        """Run it if that is what is to be computed; whether it was."""
        if (
            self.kernel is not point
            or self.flags != flags
            or len(operands) != len(self.operands)
            or not all(map(is_, operands, self.operands))
            or only_reference()
        ):
            return False
        self.run()
        return True

    def run(self) -> None:
        """Run it."""
        try:
            self.function(*self.args)
        except SystemError as error:
            raise interruption(error) or error from None


def repeatable(update: F) -> F:
    """Mark an ``update`` of an optimizer that is a count and one `Run.update`, which depend on the
    options alone: while nobody changes those, a step makes these calls again without asking.
    """
    update.repeatable = True  # type: ignore[attr-defined]
    return update
