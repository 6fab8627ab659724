"""An update that comes down to the same compiled call at every step."""

from __future__ import annotations

from operator import is_
from typing import Any

from tinygrad_bn import config
from tinygrad_bn.backend import Backend, KernelPoint, _reference_only, interruption

only_reference = _reference_only.get


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
        try:
            self.function(*self.args)
        except SystemError as error:
            raise interruption(error) or error from None
        return True
