"""Einstein summation.

The gradient of a contraction is a contraction: of the output's gradient with the other operands.
"""

from __future__ import annotations

import string
from collections import Counter
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.index import whole_numbers
from tinygrad_bn.ops.promotion import promote, require_tensor
from tinygrad_bn.ops.reduce import sum
from tinygrad_bn.ops.shape import permute, reshape

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["einsum"]


class EinSum(Function):
    """The contraction of several operands, in which no label is repeated and no axis broadcasts."""

    def forward(self, *operands: Array, terms: tuple[str, ...], output: str) -> Array:
        self.operands, self.terms, self.output = operands, terms, output
        return self.xp.einsum(f"{','.join(terms)}->{output}", *operands)

    def backward(self, dy: Array, /) -> tuple[Array | None, ...]:
        wanted = zip(range(len(self.terms)), self.needs, strict=True)
        return tuple(self.gradient(k, dy) if needed else None for k, needed in wanted)

    def gradient(self, k: int, dy: Array) -> Array:
        """The gradient of operand ``k``; the same along axes over which it alone was summed."""
        terms = (self.output, *self.terms[:k], *self.terms[k + 1 :])
        factors = (dy, *self.operands[:k], *self.operands[k + 1 :])
        term, shape = self.terms[k], self.operands[k].shape
        known = set("".join(terms))
        found = "".join(label for label in term if label in known)
        dx = self.xp.einsum(f"{','.join(terms)}->{found}", *factors)
        if found == term:
            return dx
        ones = tuple(n if i in known else 1 for i, n in zip(term, shape, strict=True))
        return self.xp.broadcast_to(self.xp.reshape(dx, ones), shape)


def parse(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The labels of each operand, and the output's, with letters in place of every ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = (left + right).replace("...", "").replace(",", "")
    if any(c not in string.ascii_letters for c in letters) or "," in right:
        raise ArgumentError(f"expected letters, commas, '...' and '->', got {equation!r}")
    if len(terms) != len(ranks):
        raise ArgumentError(f"expected {len(terms)} operands for {equation!r}, got {len(ranks)}")
    free = [c for c in string.ascii_letters if c not in letters]
    extra = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    for term, rank, n in zip(terms, ranks, extra, strict=True):
        if n < 0 or (n > 0 and "..." not in term) or term.count("...") > 1:
            raise ShapeError(f"expected as many labels as axes, got {term!r} for rank {rank}")
    dots = max(n for n in (0, *extra))
    if dots > len(free):
        raise ArgumentError(f"expected at most {len(free)} axes under '...', got {dots}")
    rest = "".join(free[:dots])
    terms = [t.replace("...", rest[dots - n :]) for t, n in zip(terms, extra, strict=True)]
    if arrow:
        output = right.replace("...", rest)
    else:
        counts = Counter(letters)
        output = rest + "".join(sorted(c for c, n in counts.items() if n == 1))
    if len(set(output)) != len(output) or not set(output) <= set("".join(terms)):
        raise ArgumentError(f"expected output labels of the operands, each once, got {equation!r}")
    return terms, output


def diagonal(x: Tensor, term: str) -> tuple[Tensor, str]:
    """The elements at which all axes of one label have one index, for each repeated label."""
    for label, times in Counter(term).items():
        if times == 1:
            continue
        at = [i for i, c in enumerate(term) if c == label]
        sizes = {x.array.shape[i] for i in at}
        if len(sizes) > 1:
            raise ShapeError(f"expected equal sizes for the repeated label {label!r}, got {sizes}")
        others = [i for i, c in enumerate(term) if c != label]
        index = x.wrap_like(whole_numbers(x.backend, sizes.pop()))
        x = permute(x, (*at, *others))[(index,) * times]
        term = label + term.replace(label, "")
    return x, term


def sizes_of(operands: list[Tensor], terms: list[str]) -> dict[str, int]:
    """The size of each label; axes of size 1 broadcast."""
    sizes: dict[str, int] = {}
    for x, term in zip(operands, terms, strict=True):
        for label, n in zip(term, x.array.shape, strict=True):
            if sizes.setdefault(label, n) == 1:
                sizes[label] = n
            elif n not in (1, sizes[label]):
                raise ShapeError(f"expected one size for {label!r}, got {sizes[label]} and {n}")
    return sizes


@under_autocast
def einsum(equation: str, *operands: Any) -> Tensor:
    """The sum of products that ``equation`` says: ``"ij,jk->ik"`` is a matrix product.

    Parameters
    ----------
    equation : a term of letters for each operand, one for each axis. Axes of the same letter run
        together; a letter twice in one term takes a diagonal; those missing after ``->`` are
        summed over. ``...`` stands for any axes, which broadcast. Without ``->`` the output has
        the letters that occur once, in alphabetical order.
    operands : tensors, or one sequence of them.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
        For an equation that means nothing, means nothing for the operands' shapes, or is none.
    """
    if not isinstance(equation, str):
        raise DtypeError(f"expected an equation such as 'ij,jk->ik', got {type(equation).__name__}")
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    for position, x in enumerate(operands):
        require_tensor(x, f"operand {position}")
    terms, output = parse(equation, [x.array.ndim for x in operands])
    tensors: list[Tensor] = list(promote(*operands))
    for i, term in enumerate(terms):
        tensors[i], terms[i] = diagonal(tensors[i], term)
    sizes = sizes_of(tensors, terms)
    for i, term in enumerate(terms):  # an axis that broadcasts is as good as none
        real = [n == sizes[c] for c, n in zip(term, tensors[i].array.shape, strict=True)]
        if not all(real):
            shape = tensors[i].array.shape
            tensors[i] = reshape(tensors[i], [n for n, r in zip(shape, real, strict=True) if r])
            terms[i] = "".join(c for c, r in zip(term, real, strict=True) if r)
    if len(tensors) > 1:
        return EinSum.apply(*tensors, terms=tuple(terms), output=output)  # type: ignore[no-any-return]
    return contracted(tensors[0], terms[0], output)


def contracted(x: Tensor, term: str, output: str) -> Tensor:
    """One operand, summed over the labels that the output lacks, with the others in its order."""
    summed = tuple(i for i, label in enumerate(term) if label not in output)
    if summed:
        x, term = sum(x, summed), "".join(c for c in term if c in output)
    return permute(x, [term.index(label) for label in output]) if x.array.ndim else x
