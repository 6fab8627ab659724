"""``einsum`` as products of matrices, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

import cupy

from tinygrad_bn.backend import Array

from ..half import in_float32
from .products import data_type
from .words import matmul


def einsum(equation: str, *operands: Array) -> Array:
    """Einstein summation, contracted pairwise; of 16-bit floats in float32, rounded once.

    What is no product of floats with every label once in a term is left to CuPy.
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    plain = arrow and "." not in left and all(len(set(t)) == len(t) for t in terms)
    if not plain or len(terms) < 2 or any(data_type(x.dtype) is None for x in operands):
        return in_float32(cupy.einsum)(equation, *operands, optimize=True)
    if len(terms) == 2:
        (a, b), (s, t) = operands, terms
        if all(label in output for label in set(s) ^ set(t)):
            return contracted(a, b, s, t, output)  # one product, accumulated in float32 by itself
    return in_float32(in_pairs)(*operands, terms=terms, output=output)


def in_pairs(*operands: Array, terms: Sequence[str], output: str) -> Array:
    """The contraction, in which the pair goes first that leaves the least."""
    rest = list(zip(operands, terms, strict=True))
    sizes = {c: n for x, term in rest for c, n in zip(term, x.shape, strict=True)}

    def kept(pair: tuple[int, int]) -> str:
        """The labels that are wanted after a pair is contracted."""
        wanted = set(output).union(*(t for k, (_, t) in enumerate(rest) if k not in pair))
        both = dict.fromkeys(rest[pair[0]][1] + rest[pair[1]][1])
        return "".join(c for c in both if c in wanted)

    while len(rest) > 1:
        pairs = combinations(range(len(rest)), 2)
        best = min(pairs, key=lambda pair: prod(sizes[c] for c in kept(pair)))
        term = output if len(rest) == 2 else kept(best)
        (b, t), (a, s) = rest.pop(best[1]), rest.pop(best[0])
        rest.append((contracted(a, b, s, t, term), term))
    return rest[0][0]


def contracted(a: Array, b: Array, s: str, t: str, output: str) -> Array:
    """Two operands of the labels ``s`` and ``t``, contracted to those of ``output``."""
    a, s = without(a, s, t + output)
    b, t = without(b, t, s + output)
    batch = [c for c in s if c in t and c in output]
    inner = [c for c in s if c in t and c not in output]
    left = [c for c in s if c not in t]
    right = [c for c in t if c not in s]
    sizes = dict(zip(s + t, a.shape + b.shape, strict=True))
    stack, m, k, n = ([sizes[c] for c in group] for group in (batch, left, inner, right))
    a = cupy.reshape(arranged(a, s, batch + left + inner), (*stack, prod(m), prod(k)))
    b = cupy.reshape(arranged(b, t, batch + inner + right), (*stack, prod(k), prod(n)))
    y = cupy.reshape(matmul(a, b) if inner else a * b, (*stack, *m, *n))
    return arranged(y, "".join(batch + left + right), list(output))


def without(x: Array, term: str, wanted: str) -> tuple[Array, str]:
    """An operand summed over the labels that nobody else wants."""
    gone = tuple(i for i, c in enumerate(term) if c not in wanted)
    if not gone:
        return x, term
    return cupy.sum(x, axis=gone), "".join(c for c in term if c in wanted)


def arranged(x: Array, term: str, order: Sequence[str]) -> Array:
    """The axes in another order."""
    return cupy.transpose(x, [term.index(c) for c in order]) if order else x
