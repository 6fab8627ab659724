"""Norms inside of recurrent cells, as walks through time meet them: a step at a time.

They are the phases of ``moments.py`` and ``row_moments.py``. Batch norm takes the statistics of a
step over the sequences that have one; layer norm takes those of each row, in as many parts as it
has, over the features. Either is given γ, and of what is added behind it a product of the cell
gives its bias, and the state its β.

References
----------
Cooijmans et al. 2016, arXiv:1603.09025. Ba, Kiros and Hinton 2016, arXiv:1607.06450.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple, TypeAlias

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.ops.moments import batch_grad_sums, batch_normalize, wide
from tinygrad_bn.ops.recurrent_steps import beside
from tinygrad_bn.ops.whole_norms import (
    whole_batch_norm,
    whole_batch_norm_grad,
    whole_row_norm,
    whole_row_norm_grad,
)


class Norm(NamedTuple):
    """What is known of a norm before its arrays.

    Attributes
    ----------
    place : what it normalises: "x", the product with the input; "h", that with h; "sum", of the
        two; or "c", the state of the LSTM on its way to h.
    eps : ε of each step for batch norm, of each part for layer norm.
    widths : the features of each part for layer norm; none for batch norm.
    by_batch : for batch norm, whether each step has statistics of its batch, or given ones.
    """

    place: str
    eps: tuple[float, ...]
    widths: tuple[int, ...] = ()
    by_batch: tuple[bool, ...] = ()


NormArrays: TypeAlias = tuple[Norm, Array, Array | None, Array | None, Array | None]
"""A norm, its γ, its β, and the means and variances (T, C) of steps that do not take their own."""


class BatchNormInWalk:
    """Batch norm of values (n, C): statistics of the sequences that have a step."""

    of_rows: ClassVar[bool] = False
    """Whether rows have statistics, and not steps."""

    def __init__(self, backend: Backend, arrays: NormArrays) -> None:
        self.backend, self.xp = backend, backend.xp
        self.norm, self.weight, self.bias, mean, var = arrays
        self.given: tuple[Array, Array] = mean, var
        self.means: list[Array] = []
        self.variances: list[Array] = []
        self.sums: list[tuple[Array, Array]] = []

    def forward(self, step: int, x: Array, bias: Array | None) -> Array:
        """γ x̂ + b; the statistics are kept."""
        backend, xp, eps = self.backend, self.xp, self.norm.eps[step]
        x = xp.expand_dims(x, 2)
        if self.norm.by_batch[step]:
            y, mean, var, _ = whole_batch_norm(backend, x, self.weight, bias, None, eps, False)
        else:
            mean, var = (wide(backend, values[step]) for values in self.given)
            y = batch_normalize(backend, x, mean, 1 / xp.sqrt(var + eps), self.weight, bias)
        self.means.append(mean)
        self.variances.append(var)
        return xp.squeeze(y, 2)

    def backward(self, step: int, dy: Array, x: Array) -> Array:
        """The gradient of x; the sums that those of γ and b are made of are kept."""
        backend, xp, weight = self.backend, self.xp, self.weight
        x, dy, mean = xp.expand_dims(x, 2), xp.expand_dims(dy, 2), self.means[step]
        rstd = 1 / xp.sqrt(self.variances[step] + self.norm.eps[step])
        if self.norm.by_batch[step]:
            rest = weight, None, None, x.shape[0], False
            dx, *sums = whole_batch_norm_grad(backend, dy, x, mean, rstd, *rest)
        else:  # scaled as x is, with nothing subtracted
            sums = [*batch_grad_sums(backend, dy, x, mean, rstd, None)]
            dx = batch_normalize(backend, dy, xp.zeros_like(mean), rstd, weight, None)
        self.sums.append((sums[0], sums[1]))
        return xp.squeeze(dx, 2)

    def statistics(self) -> tuple[Array, Array]:
        """Mean and biased variance of each step, (T, C) each."""
        return self.xp.stack(self.means), self.xp.stack(self.variances)

    def resume(self, means: list[Array], variances: list[Array]) -> None:
        """Go on with statistics of each step."""
        self.means, self.variances = means, variances

    def grads(self) -> tuple[Array, Array | None]:
        """The gradients of γ, and of β if there is one, from those of all steps."""
        return summed(self.xp, self.sums, self.bias is not None)


class LayerNormInWalk:
    """Layer norm of rows (n, C), of each of their parts by itself."""

    of_rows: ClassVar[bool] = True

    def __init__(self, backend: Backend, arrays: NormArrays) -> None:
        self.backend, self.xp = backend, backend.xp
        self.norm, self.weight, self.bias, *_ = arrays
        ends = accumulate(self.norm.widths)
        self.parts = [slice(b - n, b) for n, b in zip(self.norm.widths, ends, strict=True)]
        self.means: list[Array] = []
        self.variances: list[Array] = []
        self.sums: list[tuple[Array, Array]] = []

    def part(self, values: Array, part: slice) -> Array:
        """A part of rows (n, C) as (n, 1, K, 1), of a vector (C,) as (1, K)."""
        xp = self.xp
        if len(values.shape) == 1:
            return xp.expand_dims(values[part], 0)
        x = xp.contiguous(values[:, part])
        return xp.reshape(x, (x.shape[0], 1, x.shape[1], 1))

    def forward(self, step: int, x: Array, bias: Array | None) -> Array:
        """γ x̂ + b; the statistics are kept."""
        y, means, variances = [], [], []
        for part, eps in zip(self.parts, self.norm.eps, strict=True):
            row, weight = self.part(x, part), self.part(self.weight, part)
            b = None if bias is None else self.part(bias, part)
            normalized, mean, var, _ = whole_row_norm(self.backend, row, weight, b, eps)
            y.append(normalized)
            means.append(mean)
            variances.append(var)
        self.means.append(beside(self.xp, means))
        self.variances.append(beside(self.xp, variances))
        return self.xp.reshape(self.joined(y), x.shape)

    def joined(self, parts: list[Array]) -> Array:
        """Parts of rows (n, 1, K, 1) one beside the other."""
        return parts[0] if len(parts) == 1 else self.xp.concatenate(parts, axis=2)

    def backward(self, step: int, dy: Array, x: Array) -> Array:
        """The gradient of x; the sums that those of γ and b are made of are kept."""
        xp, dx, sums = self.xp, [], []
        for k, part in enumerate(self.parts):
            grad, row, weight = (self.part(v, part) for v in (dy, x, self.weight))
            mean, var = (v[step][:, k : k + 1] for v in (self.means, self.variances))
            rstd = 1 / xp.sqrt(var + self.norm.eps[k])
            of_part, *of_sums = whole_row_norm_grad(self.backend, grad, row, mean, rstd, weight)
            dx.append(of_part)
            sums.append(of_sums)
        total, product = (xp.concatenate([s[i][0] for s in sums], axis=0) for i in (0, 1))
        self.sums.append((total, product))
        return xp.reshape(self.joined(dx), x.shape)

    def statistics(self) -> tuple[Array, Array]:
        """Mean and biased variance of each part of each row, (R, parts) each."""
        xp = self.xp
        return xp.concatenate(self.means, axis=0), xp.concatenate(self.variances, axis=0)

    def resume(self, means: list[Array], variances: list[Array]) -> None:
        """Go on with statistics of the rows of each step."""
        self.means, self.variances = means, variances

    def grads(self) -> tuple[Array, Array | None]:
        """The gradients of γ, and of β if there is one, from those of all steps."""
        return summed(self.xp, self.sums, self.bias is not None)


NormInWalk: TypeAlias = BatchNormInWalk | LayerNormInWalk


def summed(xp: Any, sums: list[tuple[Array, Array]], with_bias: bool) -> tuple[Array, Array | None]:
    """Σ dy·x̂ over steps, and Σ dy if wanted, from both of each step."""
    dweight = xp.sum(xp.stack([product for _, product in sums]), axis=0)
    return dweight, xp.sum(xp.stack([total for total, _ in sums]), axis=0) if with_bias else None


def in_walk(backend: Backend, norms: Sequence[NormArrays]) -> dict[str, NormInWalk]:
    """The norms of a cell by their places."""
    return {
        arrays[0].place: (LayerNormInWalk if arrays[0].widths else BatchNormInWalk)(backend, arrays)
        for arrays in norms
    }
