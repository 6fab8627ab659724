"""Samples of products of matrices and vectors."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, whole


def linear(t, x, weight, bias=None):
    return t.nn.functional.linear(x, weight, bias)


def product(*shapes):
    """Normal operands of the shapes, each from its own seed."""
    return tuple(normal(*shape, seed=i) for i, shape in enumerate(shapes))


def contraction(equation):
    return lambda t, *operands: t.einsum(equation, *operands)


EINSUM = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("bij,bjk->bik", (2, 3, 2), (2, 2, 3)),
    ("i,j->ij", (2,), (3,)),
    ("i,i->", (3,), (3,)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->i", (2, 3)),
    ("ba", (2, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iji->j", (3, 2, 3)),
    ("iii->i", (2, 2, 2)),
    ("...ij,...jk->...ik", (2, 3, 2), (2, 4)),
    ("...ij,jk", (2, 3, 2), (2, 4)),
    ("i...,i...->...", (2, 3), (2, 1)),
    ("...i->...", (2, 3, 4)),
    ("b...,b...->b", (2, 3, 2), (2, 3, 2)),
    ("ij,jk,kl->il", (2, 3), (3, 2), (2, 3)),
    ("ij,k->i", (2, 3), (2,)),
    ("ij,ij->i", (2, 1), (2, 3)),
    (",ij->ij", (), (2, 3)),
    ("ij,jj->i", (2, 3), (3, 3)),
    ("bn,anm,bm->ba", (2, 3), (2, 3, 2), (2, 2)),
    ("aB,Bc", (2, 3), (3, 2)),
]

SAMPLES = [
    Sample("matmul", lambda t, a, b: a @ b, product((2, 3), (3, 4))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((3,), (3,))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((3,), (3, 4))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((2, 3), (3,))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((2, 1, 2, 3), (2, 3, 2))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((2, 2, 3), (3, 2))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((3,), (2, 3, 2))),
    Sample("matmul", lambda t, a, b: t.matmul(a, b), product((2, 0), (0, 3)), notes="empty"),
    Sample("matmul", lambda t, a: t.matmul(a, a), (normal(3, 3),), notes="square"),
    Sample("matmul", lambda t, a, b: a @ b, (whole(2, 3), whole(3, 2)), differentiable=False),
    Sample("mm", lambda t, a, b: t.mm(a, b), product((2, 3), (3, 4))),
    Sample("bmm", lambda t, a, b: t.bmm(a, b), product((2, 2, 3), (2, 3, 2))),
    Sample("mv", lambda t, a, b: t.mv(a, b), product((2, 3), (3,))),
    Sample("dot", lambda t, a, b: t.dot(a, b), product((3,), (3,))),
    Sample("outer", lambda t, a, b: t.outer(a, b), product((2,), (3,))),
    Sample("addmm", lambda t, c, a, b: t.addmm(c, a, b), product((4,), (2, 3), (3, 4))),
    Sample(
        "addmm",
        lambda t, c, a, b: t.addmm(c, a, b, beta=0.5, alpha=2),
        product((2, 4), (2, 3), (3, 4)),
        notes="scaled",
    ),
    Sample(
        "addmm",
        lambda t, a, b: t.addmm(t.full((4,), float("nan"), dtype=a.dtype), a, b, beta=0),
        product((2, 3), (3, 4)),
        notes="ignored",
    ),
    Sample(
        "baddbmm",
        lambda t, c, a, b: t.baddbmm(c, a, b, alpha=2),
        product((2, 1, 2), (2, 2, 3), (2, 3, 2)),
    ),
    Sample("linear", linear, product((2, 3), (4, 3), (4,))),
    Sample("linear", linear, product((2, 3), (4, 3)), notes="plain"),
    Sample("linear", linear, product((3,), (4, 3), (4,)), notes="vector"),
    Sample("linear", linear, product((2, 2, 3), (4, 3), (4,)), notes="axes"),
    Sample("linear", linear, product((0, 3), (4, 3), (4,)), notes="empty"),
    *(
        Sample("einsum", contraction(equation), product(*shapes), notes=equation)
        for equation, *shapes in EINSUM
    ),
    Sample(
        "einsum",
        lambda t, a, b: t.einsum("ij,jk->ik", [a, b]),
        product((2, 3), (3, 2)),
        notes="list",
    ),
    Sample(
        "einsum", contraction("ij,j->i"), (whole(2, 3), whole(3)), differentiable=False, notes="int"
    ),
]
