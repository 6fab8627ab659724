"""Which memory a program may be given, where it writes in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.capture.recorder import owner
from tinygrad_bn.capture.values import Instruction, Kind, Value
from tinygrad_bn.errors import ArgumentError, CaptureError


class Guarded:
    """What arguments must not be, where a program writes in place: to them, or to state, in which
    results may be made too.

    Attributes
    ----------
    written : the numbers of the inputs that it writes to.
    states : the arrays of state that it writes to.
    """

    def __init__(
        self,
        backend: Backend,
        instructions: Sequence[Instruction],
        inputs: Sequence[Value],
        made_in: Iterable[Array] = (),
    ) -> None:
        targets = (target.root for i in instructions for target in i.targets)
        roots = dict.fromkeys(root for root in targets if root.kind is not Kind.RESULT)
        self._inputs, self._overlap = inputs, backend.overlap
        self.written = [n for n, value in enumerate(inputs) if value in roots]
        self.states = [*made_in, *(root.array for root in roots if root.array is not None)]
        self._owners = {id(owner(x)) for x in self.states}

    def check(self, arrays: Sequence[Array]) -> None:
        """Refuse memory that cannot be written to, and memory that is written to under another
        name, which eager would copy first.

        Raises
        ------
        ArgumentError, CaptureError
        """
        for number in self.written:
            if not getattr(arrays[number].flags, "writeable", True):
                raise ArgumentError(
                    "expected memory that can be written to, got read-only; use clone()"
                )
        others = [arrays[number] for number in self.written]
        for value, x in zip(self._inputs, arrays, strict=True):
            near = self.states if id(owner(x)) in self._owners else []
            for other in (*near, *others):
                if other is not x and x.size and self._overlap(x, other):
                    raise CaptureError(
                        f"expected arguments in memory that the step does not write to, got "
                        f"{value.described}, which shares it with {other.dtype} {other.shape}"
                    )
