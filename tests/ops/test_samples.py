"""Properties that every operation has, checked on every sample of it."""

from __future__ import annotations

import importlib
import pkgutil
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.ops.samples import Sample, all_samples
from tinygrad_bn import ops
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.autograd.walk import collect
from tinygrad_bn.backend import backend_for
from tinygrad_bn.ops.differentiable import differentiable

SAMPLES = all_samples()
DIFFERENTIABLE = [s for s in SAMPLES if s.differentiable]

LOW_PRECISION = ["float16", "bfloat16", "float32"]

WITHOUT_SAMPLE = {
    "broadcast_shapes": "takes no tensors",
    "positive": "gives back its argument",
}
"""Public operations that no sample calls, and why."""


def every(samples: list[Sample]) -> Any:
    return pytest.mark.parametrize("sample", samples, ids=str)


def floating(x: np.ndarray[Any, Any]) -> bool:
    return x.dtype.kind == "f"


def tensors_of(sample: Sample, device: str, dtype: Any = None) -> list[tg.Tensor]:
    """The sample's inputs; those that gradients are checked for require them."""
    chosen = sample.gradient_inputs
    tensors = []
    for i, x in enumerate(sample.inputs):
        wanted = sample.differentiable and floating(x) and (chosen is None or i in chosen)
        kind = dtype if dtype is not None and floating(x) else x.dtype
        tensors.append(tg.tensor(x, dtype=kind, device=device, requires_grad=wanted))
    return tensors


def outputs_of(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def run(sample: Sample, inputs: list[tg.Tensor]) -> list[tg.Tensor]:
    return outputs_of(sample.function(tg, *inputs))


def weights_for(outputs: list[Any]) -> list[np.ndarray[Any, Any]]:
    """A gradient to start from for each output, the same for every library."""
    return [np.random.default_rng([7, *y.shape]).standard_normal(tuple(y.shape)) for y in outputs]


def gradients(
    inputs: list[tg.Tensor], outputs: list[tg.Tensor], create_graph: bool = False
) -> list[np.ndarray[Any, Any]]:
    """The gradients of the inputs that require them; with a graph, they lead back to the seeds."""
    roots = [y for y in outputs if y.requires_grad]
    seeds = [
        tg.tensor(w, dtype=y.dtype, device=y.device, requires_grad=create_graph)
        for w, y in zip(weights_for(roots), roots, strict=True)
    ]
    grads = tg.autograd.grad(
        roots,
        [x for x in inputs if x.requires_grad],
        seeds,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    if create_graph:  # a gradient is linear in the seeds: outside of their graph it can only be 0
        assert all(g.requires_grad or not values(g).any() for g in grads)
    return [values(g) for g in grads]


def values(x: tg.Tensor) -> np.ndarray[Any, Any]:
    return x.backend.to_numpy(x.array)


def assert_close(found: Any, expected: Any, rtol: float, atol: float | None = None) -> None:
    """Equal up to ``rtol`` of each value or, since values may be differences, of the greatest."""
    expected, found = np.asarray(expected), np.asarray(found)
    assert found.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)]) if expected.dtype.kind == "f" else expected
    if atol is None:
        atol = rtol * float(finite.max()) if finite.size and finite.dtype.kind == "f" else 0
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.torch
class TestPyTorchAgrees:
    @every([s for s in SAMPLES if s.oracle])
    def test_on_values_and_first_gradients(self, sample: Sample, device: str) -> None:
        torch = pytest.importorskip("torch")
        inputs = tensors_of(sample, device)
        outputs = run(sample, inputs)
        theirs = [torch.tensor(x) for x in sample.inputs]
        for ours, other in zip(inputs, theirs, strict=True):
            other.requires_grad_(ours.requires_grad)
        expected = outputs_of(sample.function(torch, *theirs))
        assert len(outputs) == len(expected)
        for y, other in zip(outputs, expected, strict=True):
            assert y.dtype.name == str(other.dtype).removeprefix("torch.")
            assert_close(values(y), other.detach().numpy(), sample.rtol)
        if not sample.differentiable:
            assert not any(y.requires_grad for y in outputs)
            return
        roots = [y for y in expected if y.requires_grad]
        if not roots:
            return  # where PyTorch has no gradient, ours is held by the finite differences
        wanted = [x for x in theirs if x.requires_grad]
        seeds = [torch.tensor(w) for w in weights_for(roots)]
        grads = torch.autograd.grad(roots, wanted, seeds, allow_unused=True, materialize_grads=True)
        for found, other in zip(gradients(inputs, outputs), grads, strict=True):
            assert_close(found, other.numpy(), sample.rtol)


class TestGradients:
    @every([s for s in DIFFERENTIABLE if s.order])
    def test_agree_with_finite_differences_to_the_order_promised(
        self, sample: Sample, device: str
    ) -> None:
        inputs = tensors_of(sample, device)
        if not any(x.requires_grad for x in inputs):
            pytest.fail("expected a floating input; else say differentiable=False")

        def function(*tensors: tg.Tensor) -> Any:
            return tuple(outputs_of(sample.function(tg, *tensors)))

        # a step of 1e-6 in float64 leaves 1e-10 of rounding and 1e-12 of curvature
        assert gradcheck(function, inputs, atol=1e-7, rtol=1e-6)
        for order in range(2, sample.order + 1):
            assert gradgradcheck(function, inputs, order=order, atol=1e-6, rtol=1e-5)

    @every(DIFFERENTIABLE)
    def test_are_the_same_whether_or_not_they_have_a_graph(
        self, sample: Sample, device: str
    ) -> None:
        inputs = tensors_of(sample, device)
        plain = gradients(inputs, run(sample, inputs))
        with_graph = gradients(inputs, run(sample, inputs), create_graph=True)
        for found, expected in zip(with_graph, plain, strict=True):
            assert_close(found, expected, rtol=1e-12)  # the same formula; sums in another order

    @every(DIFFERENTIABLE)
    def test_share_no_memory(self, sample: Sample, device: str) -> None:
        inputs = tensors_of(sample, device)
        outputs = run(sample, inputs)
        roots = [y for y in outputs if y.requires_grad]
        seeds = [tg.ones(*y.shape, dtype=y.dtype, device=device) for y in roots]
        tg.autograd.backward(roots, seeds)
        backend = backend_for(device)
        grads = [x.grad.array for x in inputs if x.grad is not None]
        others = [x.array for x in (*inputs, *outputs, *seeds)]
        pairs = [*combinations(grads, 2), *((g, x) for g in grads for x in others)]
        assert grads
        assert not any(backend.overlap(a, b) for a, b in pairs if a.size and b.size)

    @every(DIFFERENTIABLE)
    def test_each_node_means_the_same_to_both_interpreters(
        self, sample: Sample, device: str
    ) -> None:
        """The forward of every node, on arrays and on Tensors, which have no kernels."""
        for node in collect(
            [y for y in run(sample, tensors_of(sample, device)) if y.requires_grad]
        ):
            on_arrays, on_tensors = type(node)(), type(node)()
            on_arrays.backend, on_tensors.backend = node.backend, differentiable(node.backend)
            for twin in (on_arrays, on_tensors):
                twin.xp, twin.needs = twin.backend.xp, node.needs
            arrays = [x.array if isinstance(x, tg.Tensor) else x for x in node.inputs or ()]
            expected = outputs_of(on_arrays.forward(*arrays, **node.attributes))
            found = outputs_of(on_tensors.forward(*(node.inputs or ()), **node.attributes))
            for y, array in zip(found, expected, strict=True):
                assert y.dtype == array.dtype
                assert_close(values(y), node.backend.to_numpy(array), rtol=1e-12)


class TestInputs:
    @every(SAMPLES)
    def test_are_left_as_they_were(self, sample: Sample, device: str) -> None:
        inputs = tensors_of(sample, device)
        outputs = run(sample, inputs)
        if sample.differentiable:
            gradients(inputs, outputs)
        for x, original in zip(inputs, sample.inputs, strict=True):
            np.testing.assert_array_equal(values(x), original)

    @every([s for s in SAMPLES if s.any_layout])
    def test_may_lie_in_memory_in_any_order(self, sample: Sample, device: str) -> None:
        inputs = tensors_of(sample, device)
        expected = run(sample, inputs)
        expected_grads = gradients(inputs, expected) if sample.differentiable else []
        for layout in (transposed, strided, backwards, read_only):
            laid = tensors_of(sample, device)
            for x in laid:
                x.array = layout(x.array, x.backend.xp)
            found = run(sample, laid)
            # matrix products and sums may take another order through memory
            for y, other in zip(found, expected, strict=True):
                assert_close(values(y), values(other), rtol=1e-12)
            grads = gradients(laid, found) if sample.differentiable else []
            for dx, other_dx in zip(grads, expected_grads, strict=True):
                assert_close(dx, other_dx, rtol=1e-12)


def transposed(x: Any, xp: Any) -> Any:
    axes = tuple(reversed(range(x.ndim)))
    return xp.transpose(xp.contiguous(xp.transpose(x, axes)), axes)


def strided(x: Any, xp: Any) -> Any:
    return xp.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x


def backwards(x: Any, xp: Any) -> Any:
    return xp.contiguous(x[::-1])[::-1] if x.ndim else x


def read_only(x: Any, xp: Any) -> Any:
    """Broadcast from itself with an axis more, which NumPy gives no leave to write to."""
    return xp.broadcast_to(x, (2, *x.shape))[1]


class TestDtypes:
    @pytest.mark.parametrize("name", LOW_PRECISION)
    @every([s for s in SAMPLES if any(map(floating, s.inputs))])
    def test_are_kept_and_rounded_to_a_few_times(
        self, sample: Sample, name: str, device: str
    ) -> None:
        if name == "bfloat16":
            pytest.importorskip("ml_dtypes")
        dtype = getattr(tg, name)
        inputs = tensors_of(sample, device, dtype)
        outputs = run(sample, inputs)
        wide = [x.detach().double() if x.is_floating_point() else x for x in inputs]
        exact = run(sample, wide)
        # an operation may be made of a few, each of which rounds
        eps = 4 * float(tg.finfo(dtype).eps)
        for y, other in zip(outputs, exact, strict=True):
            assert y.dtype == (dtype if other.dtype == tg.float64 else other.dtype)
            if y.is_floating_point():
                assert_close(values(y).astype(np.float64), values(other), rtol=eps, atol=eps)
        for dx in gradients(inputs, outputs) if sample.differentiable else ():
            assert dx.dtype == dtype


class TestSamples:
    def test_cover_every_public_operation(self) -> None:
        sampled = {s.name for s in SAMPLES}
        missing = []
        for info in pkgutil.iter_modules(ops.__path__):
            family = importlib.import_module(f"tinygrad_bn.ops.{info.name}")
            names = getattr(family, "__all__", ())
            covered = {getattr(family, name) for name in names if name in sampled}
            missing += [
                f"{info.name}.{name}"
                for name in names
                if getattr(family, name) not in covered and name not in WITHOUT_SAMPLE
            ]
        assert not missing
