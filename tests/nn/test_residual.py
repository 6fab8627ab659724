"""Residual blocks: the norm, the sum and the ReLU in one node are what they are one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.functional import relu
from tinygrad_bn.ops.residual_norms import ResidualBatchNorm, residual_norm

LAYOUTS: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "(N, C)": (nn.BatchNorm1d, (12, 5), 1),
    "(N, C, S)": (nn.BatchNorm1d, (4, 5, 7), 1),
    "images": (nn.BatchNorm2d, (3, 5, 4, 3), 1),
    "channels last": (nn.BatchNorm2d, (3, 4, 3, 5), -1),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def batch(shape: tuple[int, ...], device: str, dtype: str, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return tg.tensor(rng.standard_normal(shape), dtype=getattr(tg, dtype), device=device)


def norm_for(layout: str, device: str, dtype: str = "float64", **options: Any) -> Any:
    """A norm whose γ and β are no ones and zeros."""
    kind, _, axis = LAYOUTS[layout]
    tg.manual_seed(0)
    norm = kind(5, axis=axis, device=device, dtype=getattr(tg, dtype), **options)
    for p in norm.parameters():
        p.detach().normal_()
    return norm


def one_by_one(norm: Any, x: Any, residual: Any) -> Any:
    return relu(norm(x) + residual)


@layouts
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_gradients_and_statistics(layout: str, dtype: str, device: str) -> None:
    """Of float32 a few roundings apart: the sum is rounded once where it was twice."""
    _, shape, _ = LAYOUTS[layout]
    rtol = 1e-12 if dtype == "float64" else 4e-6
    found = []
    for run in (lambda n, x, r: n.with_residual(x, r), one_by_one):
        norm = norm_for(layout, device, dtype)
        x, residual = (batch(shape, device, dtype, seed).requires_grad_() for seed in (1, 2))
        y = run(norm, x, residual)
        (y * batch(shape, device, dtype, 3)).sum().backward()
        arrays = [y, x.grad, residual.grad, norm.weight.grad, norm.bias.grad]
        found.append([a.detach().cpu().numpy() for a in arrays])
        found[-1] += [v.cpu().numpy() for v in norm.state_dict().values()]
    assert (found[0][0] == 0).any()  # the ReLU stops some
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * 10)


@layouts
def test_is_one_node(layout: str, device: str) -> None:
    _, shape, _ = LAYOUTS[layout]
    norm = norm_for(layout, device)
    x, residual = (batch(shape, device, "float64", seed) for seed in (1, 2))
    y = norm.with_residual(x, residual)
    assert isinstance(y.creator, ResidualBatchNorm)


@layouts
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_to_order_two(layout: str, affine: bool, device: str) -> None:
    """Against differences, away from where the ReLU bends."""
    _, shape, _ = LAYOUTS[layout]
    norm = norm_for(layout, device, affine=affine, track_running_stats=False)
    x, residual = (batch(shape, device, "float64", seed).requires_grad_() for seed in (4, 5))
    parameters = list(norm.parameters())

    axis = LAYOUTS[layout][2] % len(shape)
    counts = (x.numel() // 5,)

    def function(x: Any, residual: Any, weight: Any = None, bias: Any = None) -> Any:
        given = x, residual, weight, bias
        return residual_norm(*given, eps=1e-5, axis=axis, counts=counts)[0]

    assert abs((norm(x) + residual).detach().cpu().numpy()).min() > 1e-4
    assert gradcheck(function, (x, residual, *parameters))
    assert gradgradcheck(function, (x, residual, *parameters))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(dtype: str, device: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    unit = 2.0**-10 if dtype == "float16" else 2.0**-7
    norm = norm_for("images", device, "float32")
    shape = LAYOUTS["images"][1]
    x, residual = (batch(shape, device, dtype, seed).requires_grad_() for seed in (1, 2))
    y = norm.with_residual(x, residual)
    assert y.dtype == x.dtype
    y.float().sum().backward()
    wide = norm_for("images", device, "float32")
    a, b = (t.detach().float().requires_grad_() for t in (x, residual))
    want = one_by_one(wide, a, b)
    want.sum().backward()
    np.testing.assert_allclose(y.float().tolist(), want.tolist(), atol=8 * unit)
    assert x.grad.dtype == residual.grad.dtype == x.dtype
    agree = (y > 0).cpu().numpy() == (want > 0).cpu().numpy()  # roundings may cross the bend
    assert agree.mean() > 0.97
    apart = np.abs(residual.grad.float().cpu().numpy() - b.grad.cpu().numpy())
    assert (apart[agree] <= unit).all()


def test_evaluation_goes_by_running_statistics(device: str) -> None:
    norm = norm_for("images", device).eval()
    x, residual = (batch(LAYOUTS["images"][1], device, "float64", seed) for seed in (1, 2))
    got, want = norm.with_residual(x, residual), one_by_one(norm, x, residual)
    np.testing.assert_array_equal(got.tolist(), want.tolist())


def test_what_is_added_may_broadcast_or_be_of_another_dtype(device: str) -> None:
    x = batch((6, 5), device, "float32", 1)
    for residual in (batch((1, 5), device, "float32"), batch((6, 5), device, "float64")):
        got = norm_for("(N, C)", device, "float32").with_residual(x, residual)
        want = one_by_one(norm_for("(N, C)", device, "float32"), x, residual)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got.tolist(), want.tolist())


def test_an_input_that_does_not_fit_changes_nothing(device: str) -> None:
    norm = norm_for("(N, C)", device)
    x = batch((6, 4), device, "float64")
    before = norm.running_mean.tolist()
    with pytest.raises(ShapeError, match=r"expected \(N, 5, \*S\)"):
        norm.with_residual(x, x)
    assert norm.running_mean.tolist() == before
    assert norm.num_batches_tracked.item() == 0


class TestResidual:
    @staticmethod
    def block(device: str, **options: Any) -> nn.Residual:
        tg.manual_seed(0)
        body = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5), nn.BatchNorm1d(5)
        return nn.Residual(*body, **options).to(device)

    def test_is_relu_of_the_sum(self, device: str) -> None:
        x = batch((12, 5), device, "float32")
        got = self.block(device)(x)
        other = self.block(device)
        np.testing.assert_allclose(got.tolist(), relu(other.body(x) + x).tolist(), atol=2e-6)
        assert isinstance(got.creator, ResidualBatchNorm)

    def test_a_shortcut_of_its_own(self, device: str) -> None:
        block = self.block(device, shortcut=nn.Sequential(nn.Linear(5, 5)).to(device))
        x = batch((12, 5), device, "float32")
        y = block(x)
        assert isinstance(y.creator, ResidualBatchNorm)
        assert "shortcut.0.weight" in block.state_dict()
        assert "body.4.running_mean" in block.state_dict()
        other = self.block(device)
        want = relu(other.body(x) + block.shortcut(x))
        np.testing.assert_allclose(y.tolist(), want.tolist(), atol=2e-6)

    def test_whoever_looks_between_sees_it(self, device: str) -> None:
        x = batch((12, 5), device, "float32")
        seen: list[Any] = []
        for module in (lambda b: b.body[4], lambda b: b.body):
            block = self.block(device)
            module(block).register_forward_hook(lambda m, i, y: seen.append(y))
            y = block(x)
            np.testing.assert_array_equal(relu(seen[-1] + x).tolist(), y.tolist())
        assert len(seen) == 2

    @pytest.mark.parametrize(
        "body", [(), (nn.Linear(5, 5),), (nn.BatchNorm1d(5),), (nn.LayerNorm(5),)], ids=len
    )
    def test_any_body(self, body: tuple[Any, ...], device: str) -> None:
        block = nn.Residual(*body).to(device)
        x = batch((12, 5), device, "float32")
        np.testing.assert_allclose(block(x).tolist(), relu(block.body(x) + x).tolist(), atol=2e-6)

    def test_is_folded(self) -> None:
        block = self.block("cpu")
        x = batch((12, 5), "cpu", "float32")
        for _ in range(3):
            block(x)
        want = block.eval()(x)
        folded = nn.utils.fold_batch_norm(block)
        np.testing.assert_allclose(folded(x).tolist(), want.tolist(), atol=2e-6)

    def test_a_step_of_it_is_compiled(self, device: str) -> None:
        block, plain = self.block(device), self.block(device)
        x = batch((12, 5), device, "float32")
        losses: list[list[float]] = [[], []]
        for model, kept, wrap in ((plain, losses[0], lambda f: f), (block, losses[1], tg.compile)):
            optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

            def step(model: Any = model, optimizer: Any = optimizer) -> Any:
                optimizer.zero_grad()
                loss = (model(x) ** 2).mean()
                loss.backward()
                optimizer.step()
                return loss

            run = wrap(step)
            kept += [run().item() for _ in range(4)]
        assert losses[0] == losses[1]
        assert losses[0][-1] < losses[0][0]
