"""One look at all that a program takes for granted, which tells at nearly every call that nothing
has changed; and otherwise, where to look more closely.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_bn.backend import backend_for
from tinygrad_bn.capture import contents as by_python
from tinygrad_bn.capture.contents import Contents, Decisions, Hooks
from tinygrad_bn.capture.leaves import Leaf
from tinygrad_bn.nn.parts import CHANGES

OTHER, OPTIONS, TENSORS = 1, 2, 4
"""What may have changed, as bits: options of optimizers; tensors; and the rest."""


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
        hooks = {id(part.tensor): part for part in contents if isinstance(part, Hooks)}
        steady = [(leaf, hooks[id(leaf.tensor)]) for leaf in leaves if leaf not in renewed]
        self._tensors = [part for pair in steady for part in pair]
        self._renewed = renewed
        apart = {*self._modules, *self._tensors, *self._decisions}
        others = [part for part in contents if part not in apart]
        shown = [part.rows() for part in others]
        options = [part.rows() for part in self._decisions]
        pairs = zip([*others, *self._decisions], [*shown, *options], strict=True)
        self._computed = [part for part, rows in pairs if rows is None]
        sections = (
            [*shown, *(leaf.named_rows() for leaf in renewed)],
            options,
            [(*leaf.rows(), *part.lists()) for leaf, part in steady],
        )
        threaded = backend_for("cpu").threaded_code
        self._held = (threaded or by_python).Held(
            [[row for rows in section for row in rows or ()] for section in sections]
        )
        self._due = 0 if all(part.is_read() for part in self._decisions) else OPTIONS
        if renewed or not all(leaf.grad == "slot" for leaf in leaves if leaf.slot is not None):
            self._due |= TENSORS

    def look(self) -> int:
        """What is left to do for a replay: `OTHER` stands for a close look, `OPTIONS` for options
        to be read again, `TENSORS` for gradients to be put in their places.
        """
        found: int = self._held.changed()
        if found & OTHER or (CHANGES[0] != self._changes and not self._same_modules()):
            return OTHER
        if self._computed and not all(part.same() for part in self._computed):
            return OTHER
        if found & OPTIONS and not all(part.same() for part in self._decisions):
            return OTHER
        if found & TENSORS and not all(part.same() for part in self._tensors):
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
