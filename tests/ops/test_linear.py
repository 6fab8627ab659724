"""Products of matrices and Einstein summation: one node, honest errors, dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.autograd.walk import collect
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.linear import linear


def ones(device: str, *shapes: tuple[int, ...]) -> list[tg.Tensor]:
    return [tg.ones(*shape, device=device) for shape in shapes]


class TestLinear:
    @pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3)])
    def test_is_one_node(self, shape: tuple[int, ...], device: str) -> None:
        x, w, b = (x.requires_grad_() for x in ones(device, shape, (4, 3), (4,)))
        assert len(collect([linear(x, w, b)])) == 1

    @pytest.mark.parametrize(
        "shapes", [((2, 4), (5, 3)), ((), (5, 3)), ((2, 3), (3,)), ((2, 3), (5, 3), (3,))]
    )
    def test_refuses_what_does_not_fit(self, shapes: tuple, device: str) -> None:
        with pytest.raises(ShapeError, match=r"expected (input|weight)"):
            linear(*ones(device, *shapes))

    def test_computes_only_the_gradients_that_are_wanted(self, device: str) -> None:
        x, w, b = ones(device, (2, 3), (4, 3), (4,))
        node = linear(x, w.requires_grad_(), b).creator
        assert node is not None
        dx, dw, db = node.backward(tg.ones(2, 4, device=device).array)
        assert (dx, db) == (None, None)
        assert dw.shape == (4, 3)


class TestMatrixProducts:
    @pytest.mark.parametrize(
        ("name", "shapes"),
        [
            ("matmul", ((2, 3), (2, 3))),
            ("matmul", ((), (3,))),
            ("matmul", ((2, 2, 3), (3, 3, 2))),
            ("mm", ((1, 2, 3), (3, 2))),
            ("mm", ((2, 3), (3,))),
            ("bmm", ((1, 2, 3), (2, 3, 2))),
            ("mv", ((2, 3), (3, 1))),
            ("dot", ((2, 3), (3,))),
            ("outer", ((2, 3), (3,))),
        ],
    )
    def test_refuse_what_does_not_fit(self, name: str, shapes: tuple, device: str) -> None:
        with pytest.raises(ShapeError, match="expected"):
            getattr(tg, name)(*ones(device, *shapes))

    def test_refuse_an_addend_that_would_grow_the_product(self, device: str) -> None:
        with pytest.raises(ShapeError, match=r"broadcasts to \(2, 4\), got \(5, 2, 4\)"):
            tg.addmm(*ones(device, (5, 2, 4), (2, 3), (3, 4)))

    @pytest.mark.parametrize("factor", ["alpha", "beta"])
    def test_refuse_to_scale_whole_numbers_by_fractions(self, factor: str, device: str) -> None:
        x = tg.ones(2, 2, dtype=tg.int64, device=device)
        assert tg.addmm(x, x, x, **{factor: 2}).dtype == tg.int64
        with pytest.raises(DtypeError, match="expected whole beta and alpha"):
            tg.addmm(x, x, x, **{factor: 0.5})

    def test_ignore_the_addend_altogether_at_beta_zero(self, device: str) -> None:
        _, a, b = ones(device, (), (2, 3), (3, 4))
        c = tg.full((4,), math.nan, device=device)
        assert tg.addmm(c, a, b, beta=0).tolist() == [[3] * 4] * 2

    def test_of_float16_add_in_float32(self, device: str) -> None:
        """A sum of 4096 ones stops at 2048 in float16."""
        a, b = (tg.ones(*s, dtype=tg.float16, device=device) for s in ((1, 4096), (4096, 1)))
        assert (a @ b).item() == 4096
        assert tg.einsum("ij,jk->", a, b).item() == 4096

    def test_of_tensors_with_arrays_are_refused(self, device: str) -> None:
        with pytest.raises(DtypeError, match="expected other to be a tensor, got ndarray"):
            tg.matmul(tg.ones(2, 2, device=device), np.ones((2, 2)))


class TestEinsum:
    @pytest.mark.parametrize(
        ("equation", "shapes"),
        [
            ("ij,jk->ik", ((2, 3),)),
            ("i1->i", ((2, 3),)),
            ("ij->k", ((2, 3),)),
            ("ij->ii", ((2, 3),)),
            ("ij->i,j", ((2, 3),)),
            ("i..j->i", ((2, 3),)),
        ],
    )
    def test_refuses_equations_that_mean_nothing(
        self, equation: str, shapes: tuple, device: str
    ) -> None:
        with pytest.raises(ArgumentError, match="expected"):
            tg.einsum(equation, *ones(device, *shapes))

    @pytest.mark.parametrize(
        ("equation", "shapes"),
        [
            ("ij,jk->ik", ((2, 3), (4, 2))),
            ("ijk->i", ((2, 3),)),
            ("i->i", ((2, 3),)),
            ("...ijk->i", ((2, 3),)),
            ("...i...->i", ((2, 3),)),
            ("ii->i", ((2, 3),)),
            ("...i,...i->...", ((2, 3), (4, 3))),
        ],
    )
    def test_refuses_shapes_that_do_not_fit(
        self, equation: str, shapes: tuple, device: str
    ) -> None:
        with pytest.raises(ShapeError, match="expected"):
            tg.einsum(equation, *ones(device, *shapes))

    def test_refuses_what_is_no_equation(self) -> None:
        with pytest.raises(DtypeError, match="got Tensor"):
            tg.einsum(tg.ones(2), tg.ones(2))  # type: ignore[arg-type]

    def test_takes_operands_of_different_dtypes_to_their_common_one(self, device: str) -> None:
        a = tg.tensor([1, 2], device=device)
        b = tg.tensor([0.5, 0.25], dtype=tg.float64, device=device)
        y = tg.einsum("i,i->", a, b)
        assert y.dtype == tg.float64
        assert y.item() == 1

    def test_of_a_diagonal_looks_at_nothing_else(self, device: str) -> None:
        x = tg.tensor([[1.0, math.nan], [math.inf, 2.0]], device=device)
        assert tg.einsum("ii->i", x).tolist() == [1, 2]

    @pytest.mark.torch
    def test_sums_over_an_ellipsis_that_the_output_lacks(self, device: str) -> None:
        torch = pytest.importorskip("torch")
        x = np.random.default_rng(0).standard_normal((2, 3, 4))
        found = tg.einsum("...i->i", tg.tensor(x, device=device)).cpu().numpy()
        expected = torch.einsum("...i->i", torch.tensor(x)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-14)  # sums of 6 in another order
