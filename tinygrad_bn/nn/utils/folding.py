"""Batch norms folded into the linear maps beside them, for inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tinygrad_bn.config import no_grad
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.containers import Sequential
from tinygrad_bn.nn.linear import Identity
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import BatchNorm
from tinygrad_bn.nn.parts import MODULE, PARAMETER
from tinygrad_bn.nn.utils.foldable import (
    TRANSPARENT,
    as_foldable,
    common_ranks,
    is_hooked,
    is_plain,
    scale_and_shift,
    take_in,
)
from tinygrad_bn.tensors import Tensor

__all__ = ["Fold", "FoldedBatchNorm", "fold_batch_norm", "folds_of"]

M = TypeVar("M", bound=Module)
APART = "nothing that takes it in stands beside it in a Sequential, or in a pair"


class FoldedBatchNorm(Identity):
    """y = x, where a batch norm was folded into a neighbour.

    Parameters
    ----------
    into : the path of the neighbour.
    ranks : those of inputs for which that is right; others raise a ShapeError. `BatchNorm1d` after
        Linear normalises the last axis of (N, C), which is Linear's, but of (N, C, L) axis 1.
    """

    def __init__(self, into: str, ranks: Sequence[int]) -> None:
        super().__init__()
        self.into, self.ranks = into, tuple(ranks)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """The input; a mask, which running statistics do not heed, is ignored."""
        if input.ndim not in self.ranks:
            raise ShapeError(
                f"expected rank {' or '.join(map(str, self.ranks))}, for which this batch norm "
                f"was folded into {self.into!r}, got {input.shape}"
            )
        return input

    def extra_repr(self) -> str:
        return f"into={self.into!r}, ranks={self.ranks}"


@dataclass(frozen=True, slots=True)
class Fold:
    """What becomes of one batch norm.

    Attributes
    ----------
    norm : its path.
    into : the path of what takes it in; None if it stays.
    reason : why it stays; empty if it does not.
    """

    norm: str
    into: str | None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.norm} " + (
            f"stays: {self.reason}" if self.into is None else f"→ {self.into}"
        )


def fold_batch_norm(model: M, pairs: Iterable[tuple[str, str]] = ()) -> M:
    """A copy of the model, for inference, in which batch norms are part of the linear maps beside
    them.

        γ (W x + b - mean) rstd + β  =  (γ rstd W) x + γ rstd (b - mean) + β

    A batch norm with running statistics goes into the Linear or convolution before it or, where
    there is none, into the one after it; but not into one that puts zeros around its input, to
    which nothing would be added, nor into a transposed one, which would give positions unequal
    shares, unless nothing is added. Between the two may lie Identity, dropout and the bounds of
    nested Sequentials, never an activation. A `FoldedBatchNorm`, which gives back its input, takes
    its place, so that paths stay. `folds_of` says what is folded, and why the rest is not.

    Parameters
    ----------
    model : is not changed. The copy is `copy.deepcopy`'s, hooks included, in evaluation mode;
        what was folded into has no ``grad``.
    pairs : for modules with a forward of their own: the paths of a batch norm and a map, in the
        order in which they are called. That the second takes what the first returns, and nothing
        else does, is the caller's word; all else is checked. Sequentials are folded as well.

    Raises
    ------
    ArgumentError, ModuleError
        If a pair cannot be folded, and why; or if a path leads nowhere.

    Notes
    -----
    Weights and biases are computed in float64 and rounded once. That rounding tells where a
    channel's |mean| rstd is large, since folded weights and bias then cancel; unfolded, Linear's
    own output is as large, and rounded as coarsely.

    A Sequential is taken to be called as a whole: what reaches into one and does more between its
    parts must not have it folded. What occurs twice, shares parameters, has hooks, or has a forward
    or parts that its class has not, is left alone; so are batch norms without running statistics,
    or along an axis that the map does not act on. Keep the original to train on.

    References
    ----------
    Jacob et al. 2018, arXiv:1712.05877, section 3.2, equation 14.
    """
    return folding_of(model, pairs).model


def folds_of(model: Module, pairs: Iterable[tuple[str, str]] = ()) -> list[Fold]:
    """What `fold_batch_norm` makes of each batch norm of the model, which is not changed."""
    folding = folding_of(model, pairs)
    return [
        folding.done.get(path) or Fold(path, None, folding.reasons.get(path, APART))
        for path, module in model.named_modules()
        if isinstance(module, BatchNorm)
    ]


def folding_of(model: M, pairs: Iterable[tuple[str, str]]) -> Folding[M]:
    folding = Folding(deepcopy(model).eval())
    with no_grad():
        for pair in pairs:
            folding.fold_pair(pair)
        folding.fold_sequences()
    return folding


class Folding(Generic[M]):
    """A model that nobody else has, while batch norms in it are folded.

    Attributes
    ----------
    done : the folds, by the path of their norm.
    reasons : why norms that were tried stay, by theirs.
    """

    def __init__(self, model: M) -> None:
        self.model = model
        self.modules = [module for _, module in model.named_modules(remove_duplicate=False)]
        self.places = Counter(map(id, self.modules))
        parameters = model.named_parameters(remove_duplicate=False)
        self.owners = Counter(id(parameter) for _, parameter in parameters)
        self.done: dict[str, Fold] = {}
        self.reasons: dict[str, str] = {}

    def fold_pair(self, pair: tuple[str, str]) -> None:
        """Fold the norm among two modules into the other, or raise."""
        if len(pair) != 2 or not all(isinstance(path, str) for path in pair):
            raise ArgumentError(f"expected two paths as a pair, got {pair!r}")
        modules = [self.model.get_submodule(path) for path in pair]
        norms = [isinstance(module, BatchNorm) for module in modules]
        if norms.count(True) != 1:
            kinds = " and ".join(type(module).__name__ for module in modules)
            raise ArgumentError(
                f"expected a batch norm and a Linear or convolution as the pair {pair}, got {kinds}"
            )
        norm, layer = norms.index(True), norms.index(False)
        if not self.fold(pair[norm], pair[layer], after=norm == 1):
            other = f"{pair[layer]} is a {type(modules[layer]).__name__}"
            why = self.reasons.get(pair[norm], other)
            raise ArgumentError(f"expected a pair to fold, got {pair}: {why}")

    def fold_sequences(self) -> None:
        """Fold what stands side by side in Sequentials."""
        inside: set[int] = set()
        for path, module in list(self.model.named_modules()):
            if is_plain(module, Sequential) and id(module) not in inside:
                self.fold_chain(list(self.chain(path, module, inside)))

    def chain(self, path: str, sequence: Module, inside: set[int]) -> Iterator[str]:
        """The paths of what is called one after the other, nested Sequentials flattened."""
        for name, module in sequence._parts(MODULE):
            below = f"{path}.{name}" if path else name
            if is_plain(module, Sequential) and not is_hooked(module):
                inside.add(id(module))
                yield from self.chain(below, module, inside)
            elif is_hooked(module) or not any(is_plain(module, kind) for kind in TRANSPARENT):
                yield below

    def fold_chain(self, chain: Sequence[str]) -> None:
        """Fold norms into what comes before them, those left into what comes after."""
        kept: list[str] = []
        for path in chain:
            if not (kept and self.fold(path, kept[-1], after=True)):
                kept.append(path)
        following = ""
        for path in reversed(kept):
            if not (following and self.fold(path, following, after=False)):
                following = path

    def fold(self, path: str, into: str, after: bool) -> bool:
        """Fold a norm into the layer that it comes ``after``, or before, if that is right."""
        norm, layer = self.model.get_submodule(path), self.model.get_submodule(into)
        known = as_foldable(layer)
        if not isinstance(norm, BatchNorm) or known is None:
            return False
        kind, how = known
        ranks = common_ranks(norm, *how.place(layer))
        reason = (
            self.peculiar(path, norm, BatchNorm)
            or self.peculiar(into, layer, kind)
            or self.mismatch(norm, layer, into, how.channels(layer)[after])
            or ("" if ranks else f"its axis {norm.axis} is not the one that {into} acts on")
        )
        if not reason:
            scaled = (how.outputs if after else how.inputs)(layer, *scale_and_shift(norm))
            if scaled is None:
                reason = f"{into} {how.uneven}"
            elif not take_in(layer, scaled):
                reason = f"{into} cannot take it in with finite weights"
        if reason:
            self.reasons.setdefault(path, reason)
            return False
        parent, _, name = path.rpartition(".")
        setattr(self.model.get_submodule(parent), name, FoldedBatchNorm(into, ranks).eval())
        self.done[path] = Fold(path, into)
        return True

    def peculiar(self, path: str, module: Any, kind: type[Module]) -> str:
        """What keeps a module from being taken for one of its kind, for itself alone."""
        parameters = dict(module._parts(PARAMETER))
        own = kind is BatchNorm or "weight" in parameters
        if not is_plain(module, kind):
            return f"{path} has a forward of its own"
        if is_hooked(module):
            return f"{path} has hooks"
        if self.places[id(module)] > 1:
            return f"{path} occurs more than once"
        if any(self.owners[id(parameter)] > 1 for parameter in parameters.values()):
            return f"{path} shares parameters"
        if not own or parameters.keys() - {"weight", "bias"} or module._parts(MODULE):
            return f"{path} has other parameters or parts than a {kind.__name__}"
        return ""

    def mismatch(self, norm: Any, layer: Any, into: str, channels: int) -> str:
        """What keeps the norm from being part of the layer."""
        if not norm.tracked:
            return "it has no running statistics"
        if type(norm).normalized_by_running is not BatchNorm.normalized_by_running:
            return "it evaluates in a way of its own"
        if norm.running_mean.backend is not layer.weight.backend:
            return f"{into} is on {layer.weight.device}, its running statistics are not"
        if channels != norm.num_features:
            return f"{into} has {channels} channels, not {norm.num_features}"
        return ""
