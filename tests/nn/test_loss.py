"""Losses: against PyTorch for all arguments, at extremes, and for bad input."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.oracle import REDUCTIONS, assert_as_pytorch, drawn
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, GradientError, RangeError, ShapeError
from tinygrad_bn.nn import functional as F
from tinygrad_bn.ops.class_loss import CrossEntropy

SHAPES: list[tuple[int, ...]] = [(5, 4), (4,), (3, 4, 2), (2, 4, 3, 2)]


def labels_for(shape: tuple[int, ...], ignored: int | None = None) -> np.ndarray[Any, Any]:
    """Labels of scores of this shape, about a third of them ignored if asked."""
    rng = np.random.default_rng(1)
    target = rng.integers(0, 4, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if ignored is not None and target.ndim:
        target = np.where(rng.random(target.shape) < 0.35, ignored, target)
    return target


def probabilities(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    e = np.exp(drawn(*shape, seed=2))
    return e / e.sum(axis=min(1, len(shape) - 1), keepdims=True)


def quiet(function: Any, *args: Any, **options: Any) -> Any:
    """The result, where a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*args, **options)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # of PyTorch's kl_div for "mean"
class TestPyTorchAgrees:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_on_cross_entropy_with_labels(self, shape: tuple[int, ...], reduction: str) -> None:
        weights = (None, np.array([0.5, 2.0, 1.0, 0.1]))
        for weight, smoothing, ignored in itertools.product(weights, (0.0, 0.3), (-100, 2, -1)):
            assert_as_pytorch(
                "cross_entropy",
                drawn(*shape),
                labels_for(shape, ignored),
                weight=weight,
                label_smoothing=smoothing,
                ignore_index=ignored,
                reduction=reduction,
            )

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_on_cross_entropy_with_probabilities(
        self, shape: tuple[int, ...], reduction: str
    ) -> None:
        for weight, smoothing in itertools.product(
            (None, np.array([0.5, 2.0, 1.0, 0.1])), (0.0, 0.3, 1.0)
        ):
            assert_as_pytorch(
                "cross_entropy",
                drawn(*shape),
                probabilities(shape),
                weight=weight,
                label_smoothing=smoothing,
                reduction=reduction,
            )

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_on_nll_loss(self, shape: tuple[int, ...], reduction: str) -> None:
        for weight, ignored in itertools.product((None, np.array([0.5, 2.0, 1.0, 0.1])), (-100, 2)):
            assert_as_pytorch(
                "nll_loss",
                drawn(*shape),
                labels_for(shape, ignored),
                weight=weight,
                ignore_index=ignored,
                reduction=reduction,
            )

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_on_binary_cross_entropy(self, reduction: str) -> None:
        x = np.array([[0.0, 1.0, 0.3, 1e-40], [1.0, 0.0, 0.9, 0.5]])
        t = np.array([[0.0, 1.0, 0.5, 1.0], [0.0, 1.0, 0.0, 1.0]])
        for weight in (None, np.array([0.5, 2.0, 1.0, 0.1])):
            assert_as_pytorch(
                "binary_cross_entropy",
                x,
                t,
                weight=weight,
                reduction=reduction,
                rtol=1e-8,  # PyTorch has its least denominator, 1e-12, in float32
            )

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_on_binary_cross_entropy_with_logits(self, reduction: str) -> None:
        x = np.array([[-800.0, 800.0, 0.3, -2.0], [0.0, -40.0, 40.0, 3.0]])
        t = np.array([[0.0, 1.0, 0.5, 1.0], [0.0, 1.0, 0.0, 1.0]])
        options = (None, np.array([0.5, 2.0, 1.0, 0.1]))
        for weight, positive in itertools.product(options, options):
            assert_as_pytorch(
                "binary_cross_entropy_with_logits",
                x,
                t,
                weight=weight,
                pos_weight=positive,
                reduction=reduction,
            )

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("mse_loss", {}),
            ("l1_loss", {}),
            ("smooth_l1_loss", {"beta": 0.5}),
            ("smooth_l1_loss", {"beta": 0.0}),
            ("huber_loss", {"delta": 0.5}),
            ("kl_div", {"log_target": True}),
        ],
    )
    def test_on_differences_and_their_kinks(
        self, name: str, options: dict[str, Any], reduction: str
    ) -> None:
        x = np.array([-2.0, -0.5, 0.0, 0.25, 0.5, 3.0])
        assert_as_pytorch(name, x, np.zeros(6), reduction=reduction, **options)

    @pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
    def test_on_kl_div_with_probabilities_of_zero(self, reduction: str) -> None:
        t = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
        assert_as_pytorch("kl_div", drawn(2, 3), t, reduction=reduction)

    @pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
    def test_on_kl_div_of_scalars(self, reduction: str) -> None:
        assert_as_pytorch("kl_div", drawn(), np.array(0.3), reduction=reduction)

    @pytest.mark.parametrize(
        ("name", "options", "inputs"),
        [
            ("CrossEntropyLoss", {"label_smoothing": 0.1}, 2),
            ("NLLLoss", {"ignore_index": 1}, 2),
            ("MSELoss", {}, 2),
            ("L1Loss", {}, 2),
            ("SmoothL1Loss", {"beta": 0.5}, 2),
            ("HuberLoss", {"delta": 0.5}, 2),
            ("KLDivLoss", {"log_target": True, "reduction": "batchmean"}, 2),
            ("BCEWithLogitsLoss", {}, 2),
            ("PoissonNLLLoss", {"log_input": True, "full": True}, 2),
            ("HingeEmbeddingLoss", {"margin": 0.5}, 2),
            ("MarginRankingLoss", {"margin": 0.5}, 3),
            ("GaussianNLLLoss", {"full": True}, 3),
            ("CosineSimilarity", {"dim": 0}, 2),
        ],
    )
    def test_on_modules(self, name: str, options: dict[str, Any], inputs: int) -> None:
        torch = pytest.importorskip("torch")
        arrays = [drawn(4, 4), *(np.abs(drawn(4, 4, seed=i)) for i in range(1, inputs))]
        if name in ("CrossEntropyLoss", "NLLLoss"):
            arrays[1] = np.array([1, 0, 2, 3])
        if name in ("HingeEmbeddingLoss", "MarginRankingLoss"):
            arrays[-1] = np.sign(drawn(4, 4, seed=5))
        ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
        y = ours(*map(tg.tensor, arrays))
        expected = theirs(*map(torch.tensor, arrays))
        np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-12)


class TestExtremes:
    @pytest.mark.parametrize("scale", [1e4, 1e30])
    def test_cross_entropy_in_float32_is_the_distance_of_the_scores(self, scale: float) -> None:
        x = tg.tensor([[-scale, scale], [scale, -scale]], dtype=tg.float32, requires_grad=True)
        y = quiet(F.cross_entropy, x, tg.tensor([0, 0]), reduction="none")
        quiet(y.sum().backward)
        np.testing.assert_array_equal(y.detach().numpy(), np.float32([2 * scale, 0]))
        np.testing.assert_array_equal(x.grad.numpy(), [[-1, 1], [0, 0]])

    def test_cross_entropy_keeps_small_differences_of_large_scores(self) -> None:
        x = tg.tensor([[10000.0, 10000.5]], dtype=tg.float32)
        y = F.cross_entropy(x, tg.tensor([0]))
        assert y.item() == pytest.approx(np.log1p(np.exp(0.5)), rel=2e-7)  # float32's rounding

    def test_cross_entropy_of_ties_is_the_logarithm_of_the_classes(self) -> None:
        y = F.cross_entropy(tg.full((2, 10), 1e30, dtype=tg.float32), tg.tensor([3, 9]))
        assert y.item() == pytest.approx(np.log(10), rel=2e-7)

    def test_cross_entropy_bears_a_score_of_minus_infinity(self) -> None:
        x = tg.tensor([[-np.inf, 0.0, 0.0]], dtype=tg.float64, requires_grad=True)
        for target in (tg.tensor([1]), tg.tensor([[0.0, 1.0, 0.0]], dtype=tg.float64)):
            x.grad = None
            y = F.cross_entropy(x, target)
            y.backward()
            assert y.item() == pytest.approx(np.log(2), rel=1e-15)
            np.testing.assert_allclose(x.grad.numpy(), [[0, -0.5, 0.5]], rtol=1e-15)

    @pytest.mark.parametrize("scale", [1e4, 1e30])
    def test_logits_in_float32_cost_their_size(self, scale: float) -> None:
        x = tg.tensor([-scale, -scale, scale, scale], dtype=tg.float32, requires_grad=True)
        t = tg.tensor([0.0, 1.0, 0.0, 1.0])
        y = quiet(F.binary_cross_entropy_with_logits, x, t, reduction="none")
        quiet(y.sum().backward)
        np.testing.assert_array_equal(y.detach().numpy(), np.float32([0, scale, scale, 0]))
        np.testing.assert_array_equal(x.grad.numpy(), [0, -1, 1, 0])

    def test_the_gradient_of_a_sure_logit_is_small_and_not_zero(self) -> None:
        x = tg.tensor([-30.0, 30.0], dtype=tg.float32, requires_grad=True)
        F.binary_cross_entropy_with_logits(x, tg.tensor([0.0, 1.0]), reduction="sum").backward()
        # two roundings of float32
        np.testing.assert_allclose(x.grad.numpy(), [np.exp(-30), -np.exp(-30)], rtol=3e-7)

    def test_a_wrong_certainty_costs_a_hundred(self) -> None:
        y = quiet(
            F.binary_cross_entropy,
            tg.tensor([0.0, 1.0, 0.0, 1.0]),
            tg.tensor([1.0, 0.0, 0.0, 1.0]),
            reduction="none",
        )
        assert y.tolist() == [100.0, 100.0, 0.0, 0.0]

    def test_huber_does_not_square_what_is_far(self) -> None:
        y = quiet(F.huber_loss, tg.tensor([1e30]), tg.tensor([-1e30]))
        assert y.item() == pytest.approx(2e30, rel=2e-7)

    @pytest.mark.parametrize("name", ["float16", "bfloat16"])
    def test_sums_of_halves_are_taken_in_more(self, name: str) -> None:
        if name == "bfloat16":
            pytest.importorskip("ml_dtypes")
        dtype = getattr(tg, name)
        x, zeros = tg.full((4096,), 0.5, dtype=dtype), tg.zeros(4096, dtype=dtype)
        scores, labels = tg.zeros(4096, 2, dtype=dtype), tg.zeros(4096, dtype=tg.int64)
        half = float(tg.finfo(dtype).eps) / 2  # one rounding
        # sums in halves would stop growing at 2048, or at 256
        assert F.mse_loss(x, zeros, reduction="sum").item() == 1024
        assert F.mse_loss(x, zeros).item() == 0.25
        y = F.cross_entropy(scores, labels, reduction="sum")
        assert y.dtype == dtype
        assert y.item() == pytest.approx(4096 * np.log(2), rel=half)


class TestNothingToAverage:
    def test_gives_nan_as_the_mean_and_zero_as_the_sum(self) -> None:
        scores, labels = tg.zeros(0, 3), tg.zeros(0, dtype=tg.int64)
        for loss, x, t in (
            (F.cross_entropy, scores, labels),
            (F.cross_entropy, scores, tg.zeros(0, 3)),
            (F.nll_loss, scores, labels),
            (F.mse_loss, scores, tg.zeros(0, 3)),
            (F.binary_cross_entropy, scores, tg.zeros(0, 3)),
        ):
            assert np.isnan(quiet(loss, x, t).item())
            assert quiet(loss, x, t, reduction="sum").item() == 0

    def test_also_where_all_labels_are_ignored(self) -> None:
        x = tg.tensor([[1.0, 2.0]], requires_grad=True)
        labels = tg.tensor([-100])
        assert np.isnan(quiet(F.cross_entropy, x, labels).item())
        y = F.cross_entropy(x, labels, reduction="sum")
        y.backward()
        assert y.item() == 0
        assert x.grad.tolist() == [[0.0, 0.0]]

    def test_an_ignored_sample_may_hold_anything(self) -> None:
        x = tg.tensor([[np.nan, np.inf], [0.0, 0.0]], dtype=tg.float64, requires_grad=True)
        y = F.cross_entropy(x, tg.tensor([-100, 1]))
        y.backward()
        assert y.item() == pytest.approx(np.log(2), rel=1e-15)
        assert x.grad.tolist() == [[0.0, 0.0], [0.5, -0.5]]


class TestLabels:
    def test_that_are_no_class_are_named_on_the_cpu(self) -> None:
        for label in (3, -1, -101):
            for loss in (F.cross_entropy, F.nll_loss):
                with pytest.raises(RangeError, match=rf"3 classes.*got {label}$"):
                    loss(tg.zeros(2, 3), tg.tensor([0, label]))

    def test_that_are_no_class_cost_nan_elsewhere(self, cuda: str) -> None:
        x = tg.zeros(3, 2, device=cuda)
        labels = tg.tensor([0, 2, -100], device=cuda)
        y = F.cross_entropy(x, labels, reduction="none").cpu().numpy()
        assert np.isfinite(y[[0, 2]]).all()
        assert np.isnan(y[1])
        assert np.isnan(F.cross_entropy(x, labels).item())
        assert np.isnan(F.nll_loss(x, labels, reduction="sum").item())

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_that_are_no_class_cost_nan_by_definition(self, smoothing: float) -> None:
        y = CrossEntropy.apply(
            tg.zeros(2, 3),
            tg.tensor([1, 7]),
            None,
            ignore_index=-100,
            label_smoothing=smoothing,
            reduction="none",
        )
        assert y.tolist()[0] == pytest.approx(np.log(3), rel=2e-7)
        assert np.isnan(y.tolist()[1])

    @pytest.mark.parametrize("name", ["int8", "uint8", "int16", "int32", "int64"])
    def test_may_have_any_integer_dtype(self, name: str) -> None:
        y = F.cross_entropy(tg.zeros(2, 3), tg.tensor([0, 2], dtype=getattr(tg, name)))
        assert y.dtype == tg.float32
        assert y.item() == pytest.approx(np.log(3), rel=2e-7)

    def test_of_the_wrong_dtype_or_shape_are_refused(self) -> None:
        x = tg.zeros(2, 3)
        with pytest.raises(DtypeError, match="got bool"):
            F.cross_entropy(x, tg.tensor([True, False]))
        with pytest.raises(ShapeError, match=r"probabilities of the input's shape \(2, 3\)"):
            F.cross_entropy(x, tg.zeros(2))
        with pytest.raises(ShapeError, match=r"expected labels \(2,\)"):
            F.cross_entropy(x, tg.zeros(2, 3, dtype=tg.int64))
        with pytest.raises(DtypeError, match="got float32"):
            F.nll_loss(x, tg.zeros(2))
        with pytest.raises(DtypeError, match="got list"):
            F.cross_entropy(x, [0, 1])  # type: ignore[arg-type]

    def test_of_no_classes_at_all_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="some classes"):
            F.cross_entropy(tg.zeros(2, 0), tg.zeros(2, dtype=tg.int64))
        with pytest.raises(ShapeError, match="some classes"):
            F.cross_entropy(tg.tensor(1.0), tg.tensor(0))


class TestTargets:
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_of_nan_are_refused_where_they_would_spoil_the_rest(self, reduction: str) -> None:
        x, t = tg.full((2, 2), 0.5), tg.tensor([[np.nan, 1.0], [0.5, 0.5]])
        weight = tg.ones(2, 2)
        for loss, options in (
            (F.mse_loss, {}),
            (F.l1_loss, {}),
            (F.huber_loss, {}),
            (F.binary_cross_entropy, {}),
            (F.binary_cross_entropy, {"weight": weight}),
            (F.binary_cross_entropy_with_logits, {}),
            (F.binary_cross_entropy_with_logits, {"weight": weight}),
            (F.cross_entropy, {}),
        ):
            with pytest.raises(ArgumentError, match="NaN as 1 of its 4 elements"):
                loss(x, t, reduction=reduction, **options)
        assert F.kl_div(x, t, reduction=reduction).isnan()  # where it may be a logarithm

    def test_are_not_blamed_for_nan_in_the_input(self) -> None:
        x = tg.tensor([[np.nan, 0.5]])
        for loss in (F.mse_loss, F.binary_cross_entropy_with_logits, F.cross_entropy):
            assert np.isnan(loss(x, tg.full((1, 2), 0.5)).item())

    def test_of_nan_cost_nan_on_a_gpu(self, cuda: str) -> None:
        t = tg.tensor([np.nan, 1.0], device=cuda)
        assert np.isnan(F.mse_loss(tg.ones(2, device=cuda), t).item())

    def test_of_nan_go_through_element_by_element(self) -> None:
        t = tg.tensor([[np.nan, 1.0], [0.5, 0.5]])
        y = F.cross_entropy(tg.zeros(2, 2), t, reduction="none").tolist()
        assert np.isnan(y[0])
        assert np.isfinite(y[1])
        for loss in (F.mse_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits):
            y = loss(tg.full((2, 2), 0.5), t, reduction="none").numpy()
            np.testing.assert_array_equal(np.isnan(y), [[True, False], [False, False]])

    @pytest.mark.parametrize(
        "name", "mse_loss l1_loss huber_loss smooth_l1_loss kl_div binary_cross_entropy".split()
    )
    def test_must_be_floats_of_the_inputs_shape(self, name: str) -> None:
        loss = getattr(F, name)
        with pytest.raises(ShapeError, match=r"\(2, 1\) for .*got \(2,\)"):
            loss(tg.zeros(2, 1), tg.zeros(2))
        with pytest.raises(DtypeError, match="expected floats for the target"):
            loss(tg.zeros(2), tg.zeros(2, dtype=tg.int64))

    def test_that_are_no_probabilities_are_refused_on_the_cpu(self) -> None:
        good, bad = tg.tensor([0.5]), tg.tensor([1.5])
        with pytest.raises(RangeError, match="as the target"):
            F.binary_cross_entropy(good, bad)
        with pytest.raises(RangeError, match="as the input"):
            F.binary_cross_entropy(bad, good)

    def test_get_gradients_too(self) -> None:
        t = tg.tensor([1.0, 3.0], requires_grad=True)
        F.mse_loss(tg.zeros(2), t).backward()
        assert t.grad.tolist() == [1.0, 3.0]


class TestArguments:
    def test_out_of_range_are_named(self) -> None:
        x, t = tg.zeros(2, 3), tg.zeros(2, 3)
        labels = tg.zeros(2, dtype=tg.int64)
        for call, message in [
            (lambda: F.mse_loss(x, t, reduction="average"), "'none', 'mean', 'sum', got 'average'"),
            (lambda: nn.MSELoss(reduction="batchmean"), "got 'batchmean'"),
            (lambda: F.huber_loss(x, t, delta=0.0), "delta > 0"),
            (lambda: F.smooth_l1_loss(x, t, beta=-1.0), "beta ≥ 0"),
            (lambda: F.cross_entropy(x, labels, label_smoothing=1.5), r"within \[0, 1\]"),
            (lambda: F.cross_entropy(x, t, ignore_index=2), "labels to ignore 2"),
            (lambda: F.gaussian_nll_loss(x, t, t, eps=0.0), "eps > 0"),
        ]:
            with pytest.raises(ArgumentError, match=message):
                call()

    def test_weights_must_fit(self) -> None:
        x, labels, t = tg.zeros(2, 3), tg.zeros(2, dtype=tg.int64), tg.zeros(2, 3)
        with pytest.raises(ShapeError, match=r"\(3,\), got \(2,\)"):
            F.cross_entropy(x, labels, tg.ones(2))
        with pytest.raises(DtypeError, match="the weight"):
            F.nll_loss(x, labels, tg.ones(3, dtype=tg.int64))
        with pytest.raises(GradientError, match="detach"):
            F.cross_entropy(x, labels, tg.ones(3, requires_grad=True))
        for weight in (tg.ones(2), tg.ones(4, 2, 3)):
            with pytest.raises(ShapeError, match="broadcast"):
                F.binary_cross_entropy(t, t, weight)
            with pytest.raises(ShapeError, match="broadcast"):
                F.binary_cross_entropy_with_logits(x, t, pos_weight=weight)


class TestModules:
    def test_keep_their_weights_in_the_state(self) -> None:
        weight = tg.tensor([1.0, 2.0])
        assert list(nn.CrossEntropyLoss(weight).state_dict()) == ["weight"]
        assert list(nn.NLLLoss().state_dict()) == []
        assert list(nn.BCEWithLogitsLoss(pos_weight=weight).state_dict()) == ["pos_weight"]
        assert nn.BCELoss(weight).double().weight.dtype == tg.float64

    def test_print_their_options(self) -> None:
        assert repr(nn.MSELoss()) == "MSELoss(reduction='mean')"
        assert repr(nn.HuberLoss("sum", 0.5)) == "HuberLoss(delta=0.5, reduction='sum')"

    def test_pass_their_arguments_on(self) -> None:
        a, b = tg.tensor(drawn(3, 4)), tg.tensor(drawn(3, 4, seed=1))
        signs = tg.tensor([1, -1, 1])
        y = nn.CosineEmbeddingLoss(0.2, reduction="none")(a, b, signs)
        expected = F.cosine_embedding_loss(a, b, signs, 0.2, reduction="none")
        np.testing.assert_array_equal(y.numpy(), expected.numpy())
        p = tg.tensor([0.2, 0.4])
        y = nn.BCELoss(tg.tensor([1.0, 3.0]), reduction="sum")(p, tg.tensor([0.0, 1.0]))
        assert y.item() == pytest.approx(-np.log(0.8) - 3 * np.log(0.4), rel=3e-7)  # float32
