"""The rules that PyTorch lacks, or states otherwise: against their papers, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optim.problem import Trained, distance
from tinygrad_bn import optim
from tinygrad_bn.backend import backend_for
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.optim.muon import orthogonalised

random = np.random.default_rng(11)
G = [random.standard_normal((3, 4)) for _ in range(6)]
W = random.standard_normal((3, 4))
EXACT = {"rtol": 1e-12, "atol": 1e-13}  # float64 in another order of operations


def walk(name: str, gradients: Any = G, start: Any = W, **options: Any) -> tuple[Any, Any]:
    """The parameter after steps with the given gradients, and the optimizer."""
    p = tg.Parameter(start)
    optimizer = getattr(optim, name)([p], **options)
    for g in gradients:
        p.grad = tg.Tensor(g)
        optimizer.step()
    return p, optimizer


class TestLion:
    def test_algorithm_2(self) -> None:
        p, _ = walk("Lion", lr=0.1, betas=(0.8, 0.95), weight_decay=0.2)
        x, m = W, np.zeros_like(W)
        for g in G:
            x = x - 0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.2 * x)
            m = 0.95 * m + 0.05 * g
        np.testing.assert_allclose(p.array, x, **EXACT)


class TestLAMB:
    def test_algorithm_2(self) -> None:
        p, _ = walk("LAMB", lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)
        x, m, v = W, np.zeros_like(W), np.zeros_like(W)
        for t, g in enumerate(G, 1):
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            r = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3) + 0.2 * x
            x = x - 0.1 * np.linalg.norm(x) / np.linalg.norm(r) * r
        np.testing.assert_allclose(p.array, x, **EXACT)

    def test_every_parameter_has_its_own_ratio(self) -> None:
        p, q = tg.Parameter(W), tg.Parameter(100 * W)
        optimizer = optim.LAMB([p, q], lr=0.1)
        for x in (p, q):
            x.grad = tg.Tensor(G[0])
        optimizer.step()
        np.testing.assert_allclose(q.array, 100 * p.array, **EXACT)

    def test_a_parameter_at_zero_can_leave_it(self) -> None:
        p, _ = walk("LAMB", G[:1], np.zeros((3, 4)), lr=0.1, eps=0.0)
        np.testing.assert_allclose(p.array, -0.1 * np.sign(G[0]), **EXACT)


class TestLARS:
    def test_algorithm_1(self) -> None:
        p, _ = walk("LARS", lr=2.0, momentum=0.8, weight_decay=0.2, trust_coefficient=0.01)
        w, v = W, np.zeros_like(W)
        for g in G:
            local = 0.01 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.2 * np.linalg.norm(w))
            v = 0.8 * v + 2.0 * local * (g + 0.2 * w)
            w = w - v
        np.testing.assert_allclose(p.array, w, **EXACT)

    def test_no_gradient_and_no_decay_is_no_step(self) -> None:
        p, _ = walk("LARS", [np.zeros((3, 4))], lr=1.0)
        np.testing.assert_array_equal(p.array, W)


class TestMuon:
    @pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 5), (8, 8)])
    def test_singular_values_come_near_one_and_vectors_stay(self, shape: tuple[int, int]) -> None:
        backend = backend_for("cpu")
        x = random.standard_normal(shape)
        y = orthogonalised(backend, x, (3.4445, -4.775, 2.0315), np.asarray(1e-7), 5)
        u, _, vt = np.linalg.svd(x, full_matrices=False)
        inner = u.T @ y @ vt.T
        # The coefficients were chosen for speed: what converges is an interval around 1.
        assert np.all((np.diag(inner) > 0.3) & (np.diag(inner) < 1.3))
        np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-10)

    def test_the_cubic_iteration_converges_to_the_polar_factor(self) -> None:
        x = random.standard_normal((3, 4))
        y = orthogonalised(backend_for("cpu"), x, (1.5, -0.5, 0.0), np.asarray(0.0), 40)
        u, _, vt = np.linalg.svd(x, full_matrices=False)
        np.testing.assert_allclose(y, u @ vt, atol=1e-12)

    def test_only_matrices(self) -> None:
        with pytest.raises(ShapeError, match=r"\(3,\)"):
            optim.Muon([tg.Parameter(np.ones(3))])

    @pytest.mark.parametrize(
        "options", [{"adjust_lr_fn": "no"}, {"ns_coefficients": (1.0, 2.0)}, {"ns_steps": -1}]
    )
    def test_options(self, options: dict[str, Any]) -> None:
        with pytest.raises(ArgumentError):
            optim.Muon([tg.Parameter(W)], **options)


def gradient_at(y: Any, t: int) -> Any:
    """The gradient of a quadratic, with noise that is the same every time."""
    return np.linspace(0.1, 2.0, y.size).reshape(y.shape) * y + 0.1 * G[t % len(G)]


class TestScheduleFree:
    @pytest.mark.parametrize("warmup", [0, 7])
    def test_sgd_by_the_papers_three_sequences(self, warmup: int) -> None:
        p = tg.Parameter(W)
        optimizer = optim.SGDScheduleFree(
            [p], lr=0.3, momentum=0.8, weight_decay=0.1, warmup_steps=warmup
        )
        x, z, weights = W, W, 0.0
        for t in range(20):
            y = 0.2 * z + 0.8 * x
            np.testing.assert_allclose(p.array, y, **EXACT)
            lr = 0.3 * min(1.0, (t + 1) / warmup) if warmup else 0.3
            z = z - lr * (gradient_at(y, t) + 0.1 * y)
            weights += lr**2
            x = (1 - lr**2 / weights) * x + lr**2 / weights * z
            p.grad = tg.Tensor(gradient_at(p.array, t))
            optimizer.step()
        optimizer.eval()
        np.testing.assert_allclose(p.array, x, **EXACT)

    def test_adamw_by_algorithm_1(self) -> None:
        p = tg.Parameter(W)
        optimizer = optim.AdamWScheduleFree(
            [p], lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1, warmup_steps=7
        )
        x, z, v, weights = W, W, np.zeros_like(W), 0.0
        for t in range(1, 21):
            y = 0.2 * z + 0.8 * x
            g = gradient_at(y, t)
            v = 0.95 * v + 0.05 * g * g
            lr = 0.1 * math.sqrt(1 - 0.95**t) * min(1.0, t / 7)
            z = z - lr * g / (np.sqrt(v) + 1e-3) - lr * 0.1 * y
            weights += lr**2
            x = (1 - lr**2 / weights) * x + lr**2 / weights * z
            p.grad = tg.Tensor(gradient_at(p.array, t))
            optimizer.step()
        optimizer.eval()
        np.testing.assert_allclose(p.array, x, **EXACT)

    def test_changing_the_mode_back_and_forth_changes_nothing(self) -> None:
        trained, switched = Trained("SGDScheduleFree", lr=0.1), Trained("SGDScheduleFree", lr=0.1)
        for _ in range(5):
            trained.steps(2)
            switched.steps(2)
            switched.optimizer.eval()
            switched.optimizer.eval()
            switched.optimizer.train()
        assert distance(trained, switched) < 1e-13  # two roundings each time

    def test_a_step_in_evaluation_mode_is_refused(self) -> None:
        p, optimizer = walk("SGDScheduleFree", G[:2], lr=0.1)
        optimizer.eval()
        before = p.array.copy()
        p.grad = tg.Tensor(G[0])
        with pytest.raises(ArgumentError, match="train"):
            optimizer.step()
        np.testing.assert_array_equal(p.array, before)
        assert float(optimizer.state[p]["step"]) == 2

    def test_the_mode_is_saved(self) -> None:
        p, optimizer = walk("SGDScheduleFree", G[:2], lr=0.1)
        y = p.array.copy()
        optimizer.eval()
        q = tg.Parameter(p.array)
        other = optim.SGDScheduleFree([q], lr=0.1)
        other.load_state_dict(optimizer.state_dict())
        other.train()
        np.testing.assert_allclose(q.array, y, **EXACT)

    def test_evaluation_before_any_step(self) -> None:
        p = tg.Parameter(W)
        optim.SGDScheduleFree([p]).eval()
        np.testing.assert_array_equal(p.array, W)


def rosenbrock(p: Any) -> Any:
    """(1 - a)² + 100 (b - a²)², least at (1, 1)."""
    a, b = p[0], p[1]
    return (1 - a) ** 2 + 100 * (b - a * a) ** 2


class TestConvergence:
    @pytest.mark.parametrize(
        ("name", "options", "steps", "bound"),
        [
            ("LAMB", {"lr": 0.01}, 400, 1e-2),
            ("LARS", {"lr": 1.0, "trust_coefficient": 0.01}, 400, 1e-2),
            ("Lion", {"lr": 0.005, "betas": (0.9, 0.9)}, 1000, 1e-2),
            ("Muon", {"lr": 0.02, "weight_decay": 0.0}, 400, 3e-2),
            ("SGDScheduleFree", {"lr": 0.5}, 400, 1e-2),
            ("AdamWScheduleFree", {"lr": 0.1}, 400, 1e-2),
        ],
    )
    def test_on_a_quadratic(
        self, name: str, options: dict[str, Any], steps: int, bound: float
    ) -> None:
        """The bounds are of the order of one step's length, which does not shrink."""
        target = tg.Tensor(np.array([[1.0, -2.0], [0.5, 3.0]]))
        p = tg.Parameter(np.array([[2.0, 1.0], [-1.0, 0.5]]))
        optimizer = getattr(optim, name)([p], **options)
        for _ in range(steps):
            optimizer.zero_grad()
            ((p - target) ** 2).sum().backward()
            optimizer.step()
        if name.endswith("Free"):
            optimizer.eval()
        assert ((p - target) ** 2).mean().item() < bound

    def test_lbfgs_on_rosenbrock(self) -> None:
        p = tg.Parameter(np.array([-1.2, 1.0]))
        optimizer = optim.LBFGS(
            [p], line_search_fn="strong_wolfe", max_iter=60, tolerance_change=1e-15
        )

        def closure() -> Any:
            optimizer.zero_grad()
            loss = rosenbrock(p)
            loss.backward()
            return loss

        first = optimizer.step(closure)
        assert first.item() == pytest.approx(24.2)
        np.testing.assert_allclose(p.array, [1, 1], atol=1e-6)
        assert optimizer.state[p]["func_evals"] < 60  # a quasi-Newton method needs about 50


class TestLBFGS:
    def test_needs_a_closure(self) -> None:
        with pytest.raises(ArgumentError, match="closure"):
            optim.LBFGS([tg.Parameter(W)]).step()

    def test_one_group_of_one_dtype(self) -> None:
        p, q = tg.Parameter(W), tg.Parameter(W, dtype="float32")
        with pytest.raises(ArgumentError, match="one group"):
            optim.LBFGS([{"params": [p]}, {"params": [q]}])
        with pytest.raises(ArgumentError, match="dtype"):
            optim.LBFGS([p, q])

    def test_parameters_without_a_gradient_stay(self) -> None:
        p, q = tg.Parameter(W), tg.Parameter(W)
        optimizer = optim.LBFGS([p, q], lr=0.1)

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        np.testing.assert_array_equal(q.array, W)
        assert abs(p.array).max() < abs(W).max()

    def test_a_minimum_is_left_alone(self) -> None:
        p = tg.Parameter(np.zeros(3))
        optimizer = optim.LBFGS([p])
        calls = []

        def closure() -> Any:
            calls.append(1)
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert len(calls) == 1
