"""What batch norm's relatives promise in common, as tests that each of them inherits.

A subclass says how its layer is made and what it computes, and sets to None the promises that are
not its own. Layers are new ones, in training.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError, TinygradError
from tinygrad_bn.nn.normalization import ChannelNormalization
from tinygrad_bn.utils.checkpoint import checkpoint

SHAPES = [(12, 3), (7, 3, 4), (4, 3, 2, 3)]
KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def values(x: tg.Tensor) -> np.ndarray[Any, Any]:
    return x.detach().cpu().numpy().copy()


def drawn(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).normal(1, 2, shape)


def kept_of(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """A mask that keeps some three of four, and the first two samples whole."""
    mask = np.random.default_rng([seed, *shape]).uniform(size=shape) < 0.75
    mask[:2] = True
    return mask


def state_of(layer: nn.Module) -> dict[str, Any]:
    return {key: value.cpu().tolist() for key, value in layer.state_dict().items()}


class Relative:
    """The promises. Inputs are (N, 3, *S) in float64 unless a test says otherwise."""

    keys: list[str] = KEYS
    divides = True
    """Whether it divides by something that it takes from the input."""

    def make(self, **options: Any) -> ChannelNormalization:
        """A new layer of three channels."""
        raise NotImplementedError

    def expected(self, x: Any, mask: Any, eps: float) -> Any:
        """What a new layer makes of x (N, C, S), with a mask (N, S), or None."""
        raise NotImplementedError

    def call(self, layer: Any, x: tg.Tensor, mask: tg.Tensor | None = None) -> tg.Tensor:
        return layer(x, mask)

    def wide(self, x: Any, mask: Any = None, eps: float = 1e-5) -> Any:
        """`expected` for an input of any rank."""
        x = np.asarray(x, np.float64)
        flat = x.reshape(*x.shape[:2], -1)
        mask = None if mask is None else mask.reshape(len(x), -1)
        return self.expected(flat, mask, eps).reshape(x.shape)

    # What it computes

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_gives_what_the_formula_gives(self, shape, device):
        x = drawn(*shape)
        y = self.call(self.make(dtype=tg.float64, device=device), tg.tensor(x, device=device))
        # float64's rounding of numbers up to 4, some operations of it
        np.testing.assert_allclose(values(y), self.wide(x), rtol=1e-13, atol=1e-14)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_takes_channels_along_any_axis(self, shape, device):
        x = drawn(*shape)
        for axis in (-1, 0):
            layer = self.make(dtype=tg.float64, device=device, axis=axis)
            y = self.call(layer, tg.tensor(np.moveaxis(x, 1, axis), device=device))
            found = np.moveaxis(values(y), axis, 1)
            np.testing.assert_allclose(found, self.wide(x), rtol=1e-13, atol=1e-14)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_normalises_what_a_mask_leaves_out_by_the_statistics_of_the_rest(self, shape, device):
        x, mask = drawn(*shape), kept_of(shape[0], *shape[2:])
        layer = self.make(dtype=tg.float64, device=device)
        y = self.call(layer, tg.tensor(x, device=device), tg.tensor(mask, device=device))
        np.testing.assert_allclose(values(y), self.wide(x, mask), rtol=1e-13, atol=1e-14)

    def test_padding_reaches_nothing_else(self, device):
        x, mask, dy = drawn(8, 3, 5), kept_of(8, 5), drawn(8, 3, 5, seed=1)
        padding = np.broadcast_to(~mask[:, None], x.shape)
        results = []
        for junk in (0.0, 1e6, np.nan, np.inf):
            layer = self.make(dtype=tg.float64, device=device)
            a = tg.tensor(np.where(padding, junk, x), device=device, requires_grad=True)
            y = self.call(layer, a, tg.tensor(mask, device=device))
            y.backward(tg.tensor(np.where(padding, 0, dy), device=device))
            results.append((values(y)[~padding], values(a.grad)[~padding], state_of(layer)))
        for found in results[1:]:
            for a, b in zip(found[:2], results[0][:2], strict=True):
                np.testing.assert_array_equal(a, b)
            assert found[2] == results[0][2]

    def test_evaluates_as_it_trained_where_it_has_seen_nothing_else(self, device):
        layer = self.make(dtype=tg.float64, device=device, momentum=1.0, **self.biased())
        x = tg.tensor(drawn(16, 3, 4), device=device)
        trained = values(self.call(layer, x))
        found = values(self.call(layer.eval(), x))
        np.testing.assert_allclose(found, trained, rtol=1e-12, atol=1e-13)

    def biased(self) -> dict[str, Any]:
        """What makes the running statistics those that normalise."""
        return {"running_var_correction": "biased"}

    def test_averages_all_batches_alike_without_momentum(self, device):
        batches = [drawn(6, 3, seed=seed) for seed in range(4)]
        together = self.make(dtype=tg.float64, device=device, momentum=None)
        states = []
        for x in batches:
            alone = self.make(dtype=tg.float64, device=device, momentum=1.0)
            for layer in (alone, together):
                with tg.no_grad():
                    self.call(layer, tg.tensor(x, device=device))
            states.append([values(getattr(alone, name)) for name in layer.statistics])
        for name, expected in zip(together.statistics, np.mean(states, axis=0), strict=True):
            np.testing.assert_allclose(values(getattr(together, name)), expected, rtol=1e-13)

    # Its precision

    @pytest.mark.parametrize(("offset", "scale"), [(1e4, 1e-2), (-1e6, 1.0), (0.0, 1e-30)])
    def test_is_exact_far_from_zero(self, offset, scale, route):
        x = np.random.default_rng(3).normal(offset, scale, (256, 3)).astype(np.float32)
        y = values(self.call(self.make(device=route), tg.tensor(x, device=route)))
        size = 1.0 if self.divides else scale
        # the rounding of float32 at 4, 2e-7, some times
        np.testing.assert_allclose(y, self.wide(x), atol=2e-6 * size, rtol=2e-6)

    def test_is_finite_at_a_scale_whose_square_overflows(self, route):
        x = (np.random.default_rng(3).normal(size=(64, 3)) * 1e30).astype(np.float32)
        y = values(self.call(self.make(device=route), tg.tensor(x, device=route)))
        np.testing.assert_allclose(y, self.wide(x), atol=2e-6, rtol=2e-6)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_constant_channel_gives_exactly_its_bias(self, dtype, route):
        layer = self.make(dtype=dtype, device=route)
        with tg.no_grad():
            layer.bias.fill_(0.7)
        y = self.call(layer, tg.full((50, 3), 0.1, dtype=dtype, device=route))
        assert (y == layer.bias).all()

    def test_sixteen_bits_have_statistics_in_32(self, route):
        layer = self.make(dtype=tg.float16, device=route)
        halved = self.make(device=route).half()
        for made in (layer, halved):
            assert {p.dtype.name for p in made.parameters()} == {"float16"}
            assert {getattr(made, name).dtype.name for name in made.statistics} == {"float32"}
        x = tg.tensor(100 + drawn(64, 3), dtype=tg.float16, device=route)
        y = self.call(layer, x)
        assert y.dtype == np.float16
        # half of float16's last digit, at 4 for one that divides by σ, else at 8
        np.testing.assert_allclose(values(y), self.wide(values(x)), atol=4e-3, rtol=1e-3)

    def test_nan_stays_in_its_channel(self, route):
        x = drawn(8, 3, 4).astype(np.float32)
        x[2, 1, 3] = np.nan
        layer = self.make(device=route)
        a = tg.tensor(x, device=route, requires_grad=True)
        y = self.call(layer, a)
        y.backward(tg.ones_like(y))
        others = [0, 2]
        assert np.isnan(values(y)[2, 1, 3])
        for found in (values(y), values(a.grad)):
            assert np.isfinite(found[:, others]).all()
        for name in layer.statistics:
            assert np.isfinite(values(getattr(layer, name))[others]).all()

    # Its gradients

    @pytest.mark.parametrize("masked", [False, True])
    def test_has_gradients_of_three_orders(self, masked, device):
        layer = self.make(dtype=tg.float64, device=device)
        mask = tg.tensor(kept_of(5, 2), device=device) if masked else None
        x = tg.tensor(drawn(5, 3, 2), device=device, requires_grad=True)
        self.disturb(layer)
        inputs = [x, *(p.detach().requires_grad_() for p in layer.parameters(recurse=False))]
        names = [name for name, _ in layer.named_parameters(recurse=False)]

        def function(x, *parameters):
            fresh = copy.deepcopy(layer)  # for what it learns would change the next call
            for name, p in zip(names, parameters, strict=True):
                fresh.__dict__[name] = p
            return self.call(fresh, x, mask)

        # differences of a step of 1e-6 leave 1e-10 of rounding; so tests of every operation do
        assert gradcheck(function, inputs, atol=1e-7, rtol=1e-6)
        for order in (2, 3):
            assert gradgradcheck(function, inputs, order=order, atol=1e-6, rtol=1e-5)

    def disturb(self, layer: nn.Module) -> None:
        """Move parameters away from where they start, at which gradients may vanish."""
        rng = np.random.default_rng(5)
        with tg.no_grad():
            for p in layer.parameters():
                p.add_(tg.tensor(rng.normal(0, 0.3, p.shape), dtype=p.dtype, device=p.device))

    def test_computed_again_it_is_the_same(self, device):
        """Of two calls in a segment, and one outside of it before the gradient is wanted."""
        results = []
        for run in (lambda f, x: f(x), checkpoint):
            layer = self.make(dtype=tg.float64, device=device)
            self.disturb(layer)
            for seed in range(3):  # so that the running statistics are worth reading
                self.call(layer, tg.tensor(drawn(8, 3, seed=seed), device=device))
            x = tg.tensor(drawn(8, 3, seed=4), device=device, requires_grad=True)
            y = run(lambda t, f=layer: self.call(f, self.call(f, t).sin() * 3), x)
            with tg.no_grad():
                self.call(layer, tg.tensor(drawn(8, 3, seed=5), device=device))
            (y * y * y).sum().backward()
            grads = [p.grad.tolist() for p in (x, *layer.parameters())]
            results.append((y.tolist(), grads, state_of(layer)))
        assert results[0] == results[1]

    # Its state

    def test_a_state_dict_takes_everything_along(self, device):
        layer = self.make(device=device)
        assert list(layer.state_dict()) == self.keys
        self.disturb(layer)
        for seed in range(3):
            x = tg.tensor(drawn(8, 3, seed=seed), dtype=tg.float32, device=device)
            self.call(layer, x).sum().backward()
        fresh = self.make(device=device)
        state = {key: value.cpu().numpy() for key, value in layer.state_dict().items()}
        fresh.load_state_dict(state)
        for mode in (False, True):
            found, expected = (self.call(f.train(mode), x).tolist() for f in (fresh, layer))
            assert found == expected
        assert state_of(fresh) == state_of(layer)
        layer.reset_running_stats()
        layer.reset_parameters()
        assert state_of(layer) == state_of(self.make(device=device))

    def test_frozen_it_normalises_by_what_it_has(self, device):
        layer = self.make(device=device)
        x = tg.tensor(drawn(8, 3), dtype=tg.float32, device=device)
        self.call(layer, x)
        before = state_of(layer)
        evaluated = self.call(layer.eval(), x).tolist()
        layer.train().freeze()
        assert self.call(layer, x).tolist() == evaluated
        assert not any(p.requires_grad for p in layer.parameters())
        assert "stats_frozen=True" in repr(layer)
        assert state_of(layer) == before
        layer.unfreeze()
        self.call(layer, x)
        assert state_of(layer)["num_batches_tracked"] == 2
        assert all(p.requires_grad for p in layer.parameters())

    # What it refuses

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((4, 2), r"expected \(N, 3, \*S\)"),
            ((3,), r"expected \(N, 3, \*S\)"),
            ((4, 2, 3), r"expected \(N, 3, \*S\)"),
            ((1, 3), "more than one value"),
            ((1, 3, 1), "more than one value"),
        ],
    )
    def test_shapes_before_anything_changes(self, shape, message, device):
        layer = self.make(device=device)
        before = state_of(layer)
        with pytest.raises(ShapeError, match=message):
            self.call(layer, tg.zeros(shape, device=device))
        assert state_of(layer) == before

    @pytest.mark.parametrize("shape", [(0, 3), (4, 3, 0)], ids=str)
    def test_a_batch_of_nothing_passes_and_does_not_count(self, shape, device):
        layer = self.make(device=device)
        before = state_of(layer)
        x = tg.zeros(shape, device=device, requires_grad=True)
        y = self.call(layer, x)
        y.sum().backward()
        assert (y.shape, x.grad.shape) == (shape, shape)
        assert state_of(layer) == before

    def test_masks_and_dtypes_before_anything_changes(self, device):
        layer = self.make(device=device)
        before = state_of(layer)
        x = tg.zeros(4, 3, 2, device=device)
        for mask, error, message in [
            (tg.ones(4, 2, device=device), DtypeError, "mask of booleans"),
            (tg.ones(4, 3, 2, dtype="bool", device=device), ShapeError, "input's shape without C"),
            (tg.zeros(4, 2, dtype="bool", device=device), ShapeError, "more than one value"),
        ]:
            with pytest.raises(error, match=message):
                self.call(layer, x, mask)
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            self.call(layer, x.long())
        assert state_of(layer) == before

    def test_an_input_on_another_device(self, cuda):
        layer = self.make(device=cuda)
        with pytest.raises(BackendError, match=r"expected .* on"):
            self.call(layer, tg.zeros(4, 3))
        assert state_of(layer)["num_batches_tracked"] == 0

    def test_an_eps_of_zero_in_training(self):
        layer = self.make(eps=0.0)
        with pytest.raises(ArgumentError, match="eps > 0 in training"):
            self.call(layer, tg.zeros(4, 3))
        assert state_of(layer)["num_batches_tracked"] == 0

    def test_options_that_do_not_exist(self):
        with pytest.raises(ArgumentError, match="on_single 'error' or 'running'"):
            self.make(on_single="skip")
        with pytest.raises(TinygradError, match="num_features"):
            type(self.make())(-1, **self.required())

    def required(self) -> dict[str, Any]:
        """The arguments without which no layer is made."""
        return {}

    def test_a_single_value_may_be_normalised_by_the_running_statistics(self, device):
        layer = self.make(device=device, on_single="running")
        self.call(layer, tg.tensor(drawn(8, 3), dtype=tg.float32, device=device))
        before = state_of(layer)
        x = tg.ones(1, 3, device=device)
        y = self.call(layer, x).tolist()
        assert state_of(layer) == before
        assert y == self.call(layer.eval(), x).tolist()
