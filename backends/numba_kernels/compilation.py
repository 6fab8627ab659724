"""How kernels are compiled: lazily, cached on disk where that is possible, and free of the
interpreter's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import extending, types
from numba.core import event

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # a division by zero is infinite; and, unchecked, it vectorises
    "fastmath": {"contract"},  # a fused multiply-add rounds once less; sums keep their order
}


def kept(compiler: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Any], Any]:
    """A compiler of Numba's with these arguments, and with a cache on disk where there is a folder
    that can be written to.
    """

    def compile(function: Any) -> Any:
        try:
            return compiler(*args, cache=True, **options)(function)
        except RuntimeError:
            return compiler(*args, **options)(function)

    return compile


def compiled(function: F, **options: Any) -> F:
    """The function, compiled for the types of its first call, and for others when they come."""
    return kept(numba.njit, **{**OPTIONS, **options})(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """The same, for parts of kernels: a call would stand in the way of vectors."""
    return compiled(function, forceinline=True)


intrinsic: Any = extending.intrinsic


@intrinsic  # type: ignore[untyped-decorator]
def in_whole_registers(typing: Any) -> Any:
    """Have the calling function use vectors as long as registers are.

    LLVM keeps to half of 512 bits, since processors that first had so many ran slower by them. What
    computes more than it waits for memory takes a fifth less time with all of them.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # of LLVM, unchecked
        return context.get_dummy_value()

    return types.void(), generate


class Announcement(event.Listener):
    """Says, when the first kernel is compiled, why a step takes seconds; once, as a warning of the
    logger ``tinygrad_bn``.
    """

    said = False

    def on_start(self, event: Any) -> None:
        """A function is about to be compiled, which was in no cache."""
        function = getattr(event.data.get("dispatcher"), "py_func", object)
        name = function.__module__ or ""  # which what `exec` made may lack
        if self.said or not name.startswith(__package__):
            return
        self.said = True
        logging.getLogger("tinygrad_bn").warning(
            "tinygrad_bn compiles kernels for this machine: once, then a cache on disk has them"
        )

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


event.register("numba:compile", Announcement())  # type: ignore[no-untyped-call]


def _plus(total: Any, term: Any) -> Any:
    return total + term


plus = compiled(_plus, fastmath={"contract", "reassoc"})
"""total + term, where a loop adds up neighbours: a vector register then holds partial sums. It is
this addition alone that may change its place; in Σ (x - first), the subtraction keeps its own. The
order is fixed when the kernel is compiled.
"""
