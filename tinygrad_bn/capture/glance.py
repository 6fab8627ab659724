"""One look at all that a program takes for granted, which tells at nearly every call that nothing
has changed; and otherwise, where to look more closely.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_bn.backend import backend_for
from tinygrad_bn.capture import contents as by_python
from tinygrad_bn.capture.contents import Contents, Decisions
from tinygrad_bn.capture.leaves import Leaf
from tinygrad_bn.nn.parts import CHANGES

OTHER, OPTIONS, GRADIENTS = 1, 2, 4
"""What may have changed, as bits: the rest; options of optimizers; gradients."""


class Glance:
    """Everything as it is now, when somebody has looked closely.

    Parameters
    ----------
    contents : what the step can reach.
    leaves : the tensors among that.
    renewed : those that get a new gradient at every replay.
    """

    def __init__(
        self, contents: Sequence[Contents], leaves: Sequence[Leaf], renewed: Sequence[Leaf]
    ) -> None:
        self._changes = CHANGES[0]
        self._modules = [part for part in contents if part.watched]
        self._decisions = [part for part in contents if isinstance(part, Decisions)]
        shown = {part: part.rows() for part in contents if not part.watched}
        self._computed = [part for part, rows in shown.items() if rows is None]
        self._leaves, self._renewed = leaves, renewed
        grads = [leaf for leaf in leaves if leaf not in renewed]
        options = [row for part in self._decisions for row in shown.pop(part) or ()]
        others = [*shown.values(), *(leaf.rows() for leaf in leaves)]
        sections = (
            [row for rows in others for row in rows or ()],
            options,
            [row for leaf in grads for row in leaf.gradient_rows()],
        )
        threaded = backend_for("cpu").threaded_code
        self._held = (threaded or by_python).Held(sections)
        self._due = 0 if all(part.is_read() for part in self._decisions) else OPTIONS
        if renewed or not all(leaf.grad == "slot" for leaf in grads if leaf.slot is not None):
            self._due |= GRADIENTS

    def look(self) -> int:
        """What is left to do for a replay: `OTHER` stands for a close look, `OPTIONS` for options
        to be read again, `GRADIENTS` for gradients to be put in their places.
        """
        found: int = self._held.changed()
        if found & OTHER or (CHANGES[0] != self._changes and not self._same_modules()):
            return OTHER
        if self._computed and not all(part.same() for part in self._computed):
            return OTHER
        if found & OPTIONS and not all(part.same() for part in self._decisions):
            return OTHER
        if found & GRADIENTS and not all(leaf.same_gradient() for leaf in self._leaves):
            return OTHER
        if self._renewed and not all(leaf.same_gradient() for leaf in self._renewed):
            return OTHER
        return found | self._due

    def _same_modules(self) -> bool:
        """Whether modules, some of which have changed, are what they were."""
        now = CHANGES[0]
        if not all(part.same() for part in self._modules):
            return False
        self._changes = now
        return True
