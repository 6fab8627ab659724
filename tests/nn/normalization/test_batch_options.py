"""What batch norm has beside PyTorch's options: axes, conventions, freezing, single values; and
that no refusal leaves a trace. Masks have a file of their own.
"""

from __future__ import annotations

import pickle
from copy import deepcopy

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.batches import every_shape_and_axis, formula, shaped, state
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError, StateError
from tinygrad_bn.nn import functional as F
from tinygrad_bn.nn.normalization import BatchNorm
from tinygrad_bn.utils.checkpoint import checkpoint

RNG = np.random.default_rng(0)


class TestAxis:
    @pytest.mark.parametrize(("shape", "axis"), every_shape_and_axis())
    def test_any_is_axis_1_moved(self, shape, axis, device):
        x, _ = shaped(shape, axis)
        layer = BatchNorm(3, axis=axis, dtype=tg.float64, device=device)
        plain = BatchNorm(3, dtype=tg.float64, device=device)
        a = tg.tensor(x, device=device, requires_grad=True)
        b = tg.tensor(np.moveaxis(x, axis, 1), device=device, requires_grad=True)
        for _ in range(2):
            y, z = layer(a), plain(b)
            np.testing.assert_allclose(np.moveaxis(y.tolist(), axis, 1), z.tolist(), atol=1e-14)
            (y**3).sum().backward()
            (z**3).sum().backward()
            layer.eval()
            plain.eval()
        grads = np.moveaxis(np.array(a.grad.tolist()), axis, 1), b.grad.tolist()
        np.testing.assert_allclose(*grads, atol=1e-12)
        for p, q in zip(layer.state_dict().values(), plain.state_dict().values(), strict=True):
            np.testing.assert_allclose(p.tolist(), q.tolist(), rtol=1e-14, atol=1e-14)

    @pytest.mark.parametrize(("shape", "axis"), every_shape_and_axis())
    @pytest.mark.parametrize("training", [True, False])
    def test_takes_the_input_as_it_lies(self, shape, axis, training):
        x = tg.tensor(shaped(shape, axis)[0].copy(), requires_grad=True)
        y = BatchNorm(3, axis=axis).train(training)(x)
        assert np.shares_memory(y.creator.x, x.array)

    @pytest.mark.parametrize(
        ("axis", "shape", "match"),
        [
            (-1, (4, 3, 5), r"expected \(N, \*S, 3\) of rank 2 or more, got \(4, 3, 5\)"),
            (2, (4, 3, 5), r"expected 3 channels along axis 2 of rank 2 or more"),
            (2, (4, 3), "expected a channel axis 2 in the input"),
            (-3, (3, 4), "expected a channel axis -3 in the input"),
            (-1, (3,), r"expected \(N, \*S, 3\) of rank 2 or more, got \(3,\)"),
        ],
    )
    def test_must_be_there_and_have_the_channels(self, axis, shape, match):
        layer = BatchNorm(3, axis=axis)
        before = state(layer)
        with pytest.raises(ShapeError, match=match):
            layer(tg.zeros(shape))
        assert state(layer) == before

    @pytest.mark.parametrize("axis", [1.0, True, "1", None])
    def test_must_be_a_whole_number(self, axis):
        with pytest.raises(DtypeError, match="expected a whole number as the channel axis"):
            F.batch_norm(tg.zeros(4, 3), None, None, training=True, axis=axis)

    def test_ranks_stay_those_of_the_class(self):
        with pytest.raises(ShapeError, match=r"expected \(N, \*S, 3\) of rank 4, got \(4, 5, 3\)"):
            nn.BatchNorm2d(3, axis=-1)(tg.zeros(4, 5, 3))


class TestRunningVarCorrection:
    @pytest.mark.parametrize(("correction", "ddof"), [("biased", 0), ("unbiased", 1)])
    @pytest.mark.parametrize("momentum", [0.25, None])
    def test_is_of_the_stored_variance_alone(self, correction, ddof, momentum):
        layer = nn.BatchNorm1d(3, running_var_correction=correction, momentum=momentum).double()
        x = RNG.normal(size=(2, 3, 2))
        y = layer(tg.tensor(x))
        rate = 1.0 if momentum is None else momentum
        expected = (1 - rate) + rate * x.var((0, 2), ddof=ddof)
        np.testing.assert_allclose(layer.running_var.numpy(), expected, rtol=1e-13)
        mask = np.ones((2, 2), bool)
        np.testing.assert_allclose(y.detach().numpy(), formula(x, mask, 1)[0], atol=1e-13)

    def test_so_does_the_function(self):
        x = RNG.normal(size=(5, 2))
        mean, var = tg.zeros(2, dtype=tg.float64), tg.ones(2, dtype=tg.float64)
        F.batch_norm(
            tg.tensor(x), mean, var, training=True, momentum=1.0, running_var_correction="biased"
        )
        np.testing.assert_allclose(var.numpy(), x.var(0), rtol=1e-13)

    @pytest.mark.parametrize("correction", ["none", None, 0, True])
    def test_others_are_refused(self, correction):
        match = "expected running_var_correction 'unbiased' or 'biased'"
        with pytest.raises(ArgumentError, match=match):
            nn.BatchNorm1d(3, running_var_correction=correction)
        with pytest.raises(ArgumentError, match=match):
            F.batch_norm(
                tg.zeros(4, 3), None, None, training=True, running_var_correction=correction
            )


class TestFreeze:
    def layer(self, **options):
        layer = nn.BatchNorm1d(3, dtype=tg.float64, **options)
        layer(tg.tensor(RNG.normal(5, 2, (20, 3))))
        return layer

    def test_statistics_hold_and_normalise_through_modes(self):
        layer = self.layer()
        before, x = state(layer), tg.tensor(RNG.normal(size=(6, 3)))
        expected = deepcopy(layer).eval()(x).tolist()
        layer.freeze(affine=False)
        for mode in (True, False, True):
            assert layer.train(mode)(x).tolist() == expected
            assert layer.training is mode
        assert state(layer) == before
        assert layer.weight.requires_grad
        layer.unfreeze()
        assert layer(x).tolist() != expected
        assert layer.num_batches_tracked.item() == 2

    def test_the_gradient_is_that_of_an_affine_map(self):
        layer = self.layer().freeze(affine=False)
        x = tg.tensor(RNG.normal(size=(6, 3)), requires_grad=True)
        layer(x).sum().backward()
        rstd = (layer.running_var.numpy() + layer.eps) ** -0.5
        np.testing.assert_allclose(x.grad.numpy(), np.tile(rstd, (6, 1)), rtol=1e-14)
        x_hat = (x.detach().numpy() - layer.running_mean.numpy()) * rstd
        np.testing.assert_allclose(layer.weight.grad.numpy(), x_hat.sum(0), rtol=1e-12)

    def test_parameters_hold_while_statistics_go_on(self):
        layer = self.layer().freeze(stats=False)
        x = tg.tensor(RNG.normal(size=(6, 3)), requires_grad=True)
        layer(x).pow(2).sum().backward()
        assert layer.weight.grad is None
        assert layer.bias.grad is None
        assert layer.num_batches_tracked.item() == 2

    def test_the_two_switches_are_independent(self):
        layer = self.layer().freeze()
        layer.unfreeze(affine=False)
        assert (layer.stats_frozen, layer.weight.requires_grad) == (False, False)
        layer.freeze(affine=False).unfreeze(stats=False)
        assert (layer.stats_frozen, layer.bias.requires_grad) == (True, True)
        layer.freeze(stats=False, affine=False)
        assert (layer.stats_frozen, layer.bias.requires_grad) == (True, True)

    @pytest.mark.parametrize("through", [deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_are_frozen_too(self, through):
        copy = through(self.layer().freeze())
        before = state(copy)
        copy(tg.tensor(RNG.normal(size=(6, 3))))
        assert state(copy) == before
        assert not copy.weight.requires_grad

    def test_state_dicts_know_nothing_of_it(self):
        frozen, other = self.layer().freeze(), self.layer()
        other.load_state_dict(frozen.state_dict())
        assert not other.stats_frozen
        frozen.load_state_dict(other.state_dict())
        assert frozen.stats_frozen

    def test_a_single_value_will_do(self):
        layer = self.layer().freeze()
        assert layer(tg.zeros(1, 3, dtype=tg.float64)).shape == (1, 3)

    def test_needs_statistics_to_hold(self):
        layer = nn.BatchNorm1d(3, track_running_stats=False)
        with pytest.raises(StateError, match="expected running statistics to freeze"):
            layer.freeze()
        assert layer.weight.requires_grad
        assert not layer.stats_frozen
        layer.freeze(stats=False)
        assert not layer.weight.requires_grad
        assert nn.BatchNorm1d(3, affine=False).freeze().stats_frozen


class TestOnSingle:
    def test_the_error_names_the_remedies(self):
        with pytest.raises(ShapeError) as caught:
            nn.BatchNorm1d(3)(tg.zeros(1, 3))
        for remedy in ("eval()", "larger batch", "drop_last", 'on_single="running"'):
            assert remedy in str(caught.value)

    @pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (0, 3), (2, 3, 0)])
    def test_running_statistics_normalise_and_stay(self, shape):
        layer = nn.BatchNorm1d(3, on_single="running")
        layer(tg.randn(10, 3) + 3)
        before, x = state(layer), tg.randn(*shape)
        y = layer(x)
        assert y.tolist() == deepcopy(layer).eval()(x).tolist()
        assert state(layer) == before
        layer(tg.randn(2, 3))
        assert layer.num_batches_tracked.item() == 2

    def test_a_mask_that_leaves_one_is_such_a_batch(self):
        layer = nn.BatchNorm1d(3, on_single="running")
        before, x = state(layer), tg.randn(4, 3)
        y = layer(x, tg.arange(4) == 2)
        assert y.tolist() == deepcopy(layer).eval()(x).tolist()
        assert state(layer) == before

    def test_eps_may_be_0_then_as_in_evaluation(self):
        layer = nn.BatchNorm1d(3, eps=0.0, on_single="running")
        assert layer(tg.ones(1, 3)).tolist() == [[1.0] * 3]
        with pytest.raises(ArgumentError, match="eps > 0 in training"):
            layer(tg.ones(2, 3))

    def test_needs_running_statistics(self):
        with pytest.raises(ArgumentError, match="expected track_running_stats=True"):
            nn.BatchNorm1d(3, track_running_stats=False, on_single="running")
        with pytest.raises(ArgumentError, match="expected on_single 'error' or 'running', got 0"):
            nn.BatchNorm1d(3, on_single=0)
        layer = nn.BatchNorm1d(3, on_single="running")
        layer.running_mean = None  # taken away later
        with pytest.raises(ShapeError, match="more than one value"):
            layer(tg.zeros(1, 3))


class TestCheckpoint:
    @pytest.mark.parametrize("options", [{}, {"momentum": None}, {"on_single": "running"}], ids=str)
    @pytest.mark.parametrize("masked", [False, True])
    def test_recomputation_advances_nothing(self, options, masked):
        values, mask = shaped((6, 3, 2), 1)
        args = (tg.tensor(mask),) if masked else ()
        seen = []
        for run in (checkpoint, lambda layer, *args: layer(*args)):
            layer = nn.BatchNorm1d(3, dtype=tg.float64, **options)
            for step in range(3):
                x = tg.tensor(values + step, requires_grad=True)
                (run(layer, x, *args) ** 3).sum().backward()
            seen.append((state(layer), x.grad.tolist(), layer.weight.grad.tolist()))
        assert seen[0] == seen[1]
        assert seen[0][0]["num_batches_tracked"] == 3

    def test_a_checkpoint_within_one(self):
        layer = nn.BatchNorm1d(3, dtype=tg.float64)
        x = tg.tensor(RNG.normal(size=(6, 3)), requires_grad=True)
        checkpoint(lambda x: checkpoint(layer, x).tanh(), x).sum().backward()
        assert layer.num_batches_tracked.item() == 1


class TestRefusalsLeaveNoTrace:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        ("wrong", "error", "match"),
        [
            (tg.zeros(4), ShapeError, r"of shape \(3,\), got \(4,\)"),
            (tg.zeros(1), ShapeError, r"of shape \(3,\), got \(1,\)"),
            (tg.zeros(()), ShapeError, r"of shape \(3,\), got \(\)"),
            (tg.zeros(3, dtype=tg.int64), DtypeError, "expected floats as .*, got int64"),
        ],
        ids=["4", "1", "scalar", "int"],
    )
    @pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
    def test_a_vector_that_does_not_fit(self, name, wrong, error, match, training):
        layer = nn.BatchNorm1d(3).train(training)
        kind = nn.Buffer if name.startswith("running") else nn.Parameter
        setattr(
            layer, name, kind(wrong, **({"requires_grad": False} if kind is nn.Parameter else {}))
        )
        before = state(layer)
        with pytest.raises(error, match=match) as caught:
            layer(tg.randn(8, 3))
        assert name in str(caught.value)
        assert state(layer) == before

    @pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
    def test_a_vector_on_another_device(self, name, cuda):
        layer = nn.BatchNorm1d(3)
        part = getattr(layer, name)
        part.requires_grad_(False)
        part.data = part.detach().to(device=cuda)
        before = state(layer)
        with pytest.raises(BackendError, match=f"expected {name} on cpu, got one on cuda:0"):
            layer(tg.randn(8, 3))
        assert state(layer) == before

    def test_an_input_on_another_device(self, cuda):
        layer = nn.BatchNorm1d(3)
        before = state(layer)
        with pytest.raises(BackendError, match="expected running_mean on cuda:0, got one on cpu"):
            layer(tg.zeros(4, 3, device=cuda))
        assert state(layer) == before

    @pytest.mark.parametrize("x", [[[1.0, 2.0, 3.0]], np.zeros((4, 3), np.float32), None])
    def test_an_input_that_is_no_tensor(self, x):
        layer = nn.BatchNorm1d(3)
        before = state(layer)
        with pytest.raises(DtypeError, match="expected input to be a tensor"):
            layer(x)
        assert state(layer) == before

    def test_statistics_of_another_float_will_do(self):
        layer = nn.BatchNorm1d(3)
        layer.running_mean = nn.Buffer(layer.running_mean.double())
        layer(tg.randn(8, 3))
        assert layer.running_mean.dtype == np.float64
        assert layer.num_batches_tracked.item() == 1

    def test_a_count_that_was_taken_away(self):
        layer = nn.BatchNorm1d(3)
        layer.num_batches_tracked = None
        layer(tg.randn(8, 3))
        assert any(layer.running_mean.tolist())
        layer.momentum = None
        before = state(layer)
        with pytest.raises(StateError, match="expected num_batches_tracked for momentum=None"):
            layer(tg.randn(8, 3))
        assert state(layer) == before


class TestRepr:
    @pytest.mark.parametrize(
        ("options", "shown"),
        [
            ({}, ""),
            ({"axis": -1}, ", axis=-1"),
            ({"on_single": "running"}, ", on_single='running'"),
            ({"bias": False}, ", bias=False"),
        ],
        ids=str,
    )
    def test_shows_what_is_beside_pytorchs_options(self, options, shown):
        known = "3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True"
        text = repr(nn.BatchNorm1d(3, **options))
        assert text.startswith(f"BatchNorm1d({known}, ")
        assert "running_var_correction='unbiased'" in text
        assert shown in text
        for other in ("axis", "on_single", "bias", "frozen"):
            assert (other in text.replace("unbiased", "")) is (other in shown)

    def test_shows_the_convention_and_what_is_frozen(self):
        layer = nn.BatchNorm1d(3, running_var_correction="biased").freeze()
        assert "running_var_correction='biased', stats_frozen=True" in repr(layer)
        assert "frozen" not in repr(layer.unfreeze())
