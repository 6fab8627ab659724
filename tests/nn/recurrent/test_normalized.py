"""Recurrent layers with norms: the papers' equations, statistics of each step, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.recurrent.twins import TOLERANCE, assert_alike, drawn, flat, numpy, with_gradients
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError, StateError
from tinygrad_bn.nn.utils import (
    accumulate_statistics,
    freeze_batch_norm,
    unfreeze_batch_norm,
    update_bn,
)
from tinygrad_bn.utils.checkpoint import checkpoint

BATCH = ["BatchNormRNN", "BatchNormLSTM", "BatchNormGRU"]
LAYER = ["LayerNormRNN", "LayerNormLSTM", "LayerNormGRU"]
LENGTHS = [[5, 5, 5, 5], [3, 5, 2, 5]]

every_kind = pytest.mark.parametrize("name", BATCH + LAYER)
every_batch = pytest.mark.parametrize("name", BATCH)


def made(name, *args, device="cpu", **options):
    """A layer whose parameters are all drawn, so that none of them is where it starts."""
    if name in BATCH:
        options = {"max_length": 5, **options}
    layer = getattr(nn, name)(*args, dtype=tg.float64, device=device, **options)
    for i, (key, parameter) in enumerate(layer.named_parameters()):
        values = drawn(*parameter.shape, seed=i) * 0.5 + ("norm" in key)
        parameter.detach().overwrite(parameter.backend.asarray(values))
    return layer


def masked(lengths, steps):
    return np.arange(steps)[:, None] < np.array(lengths)


def running(layer, key):
    """The running mean and variance of a norm at a step."""
    norm, step = key
    module = layer.get_submodule(f"{norm}.{step}")
    return numpy(module.running_mean), numpy(module.running_var)


@pytest.mark.torch
@every_kind
@pytest.mark.parametrize("lengths", LENGTHS, ids=["even", "uneven"])
@pytest.mark.parametrize("deep", [False, True], ids=["one", "two_layers_both_ways"])
def test_is_what_the_paper_says(name, lengths, deep, device):
    torch = pytest.importorskip("torch")
    from tests.nn.recurrent.papers import Paper

    layer = made(name, 3, 4, 1 + deep, bidirectional=deep, device=device)
    named = {k: torch.tensor(numpy(p), requires_grad=True) for k, p in layer.named_parameters()}
    x, paper = drawn(5, 4, 3), Paper(name, named)
    theirs = torch.tensor(x, requires_grad=True)
    expected = paper(theirs, torch.tensor(lengths))
    wanted = with_gradients(torch, expected, [theirs, *named.values()])

    ours = tg.tensor(x, device=device, requires_grad=True)
    mask = None
    if lengths != LENGTHS[0]:
        mask = tg.tensor(masked(lengths, 5), device=device)
    outputs = flat(layer(ours, mask=mask))
    found = with_gradients(tg, outputs, [ours, *layer.parameters()], device=device)
    # second gradients pass through some twenty norms, each of which divides by a deviation
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * max(1, np.abs(b).max()))
    for key, (mean, var, count) in paper.statistics.items():
        now_mean, now_var = running(layer, key)
        np.testing.assert_allclose(now_mean, 0.1 * mean.numpy(), **TOLERANCE)
        np.testing.assert_allclose(now_var, 0.9 + 0.1 * var.numpy(), **TOLERANCE)
        assert count == sum(n > key[1] for n in lengths)
    if name in BATCH:
        assert len(paper.statistics) == 5 * len(list(layer.children()))


@pytest.mark.torch
@every_batch
def test_evaluates_by_the_running_statistics_of_the_step(name, device):
    torch = pytest.importorskip("torch")
    from tests.nn.recurrent.papers import Paper

    layer = made(name, 3, 4, bidirectional=True, max_length=3, device=device)
    for seed in range(3):
        layer(tg.tensor(drawn(5, 4, 3, seed=seed), device=device))
    layer.eval()
    before = {k: numpy(v).copy() for k, v in layer.state_dict().items()}

    def known(norm, step):
        return [torch.tensor(v) for v in running(layer, (norm, min(step, 2)))]

    named = {k: torch.tensor(numpy(p)) for k, p in layer.named_parameters()}
    x = drawn(6, 1, 3, seed=9)  # longer, and alone
    expected = Paper(name, named, known)(torch.tensor(x), torch.tensor([6]))
    found = flat(layer(tg.tensor(x, device=device)))
    assert_alike([numpy(y) for y in found], [y.numpy() for y in expected])
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(numpy(value), before[key])


@every_batch
def test_steps_beyond_max_length_share_statistics_that_advance_once(name):
    layer = made(name, 3, 4, max_length=2, momentum=1.0, running_var_correction="biased")
    x = drawn(5, 6, 3)
    layer(tg.tensor(x))
    gx = x @ numpy(layer.weight_ih_l0).T
    shared = gx[1:].reshape(-1, gx.shape[2])  # all values of the steps from the second on
    for step, values in ((0, gx[0]), (1, shared)):
        module = layer.get_submodule(f"norm_ih_l0.{step}")
        np.testing.assert_allclose(numpy(module.running_mean), values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(numpy(module.running_var), values.var(0), rtol=1e-12)
        assert module.num_batches_tracked.item() == 1


@every_batch
def test_evaluation_beyond_what_training_reached_takes_the_last_step_that_was(name):
    long, short = (made(name, 3, 4, max_length=n) for n in (9, 3))
    for seed in range(4):
        for layer in (long, short):
            layer(tg.tensor(drawn(3, 6, 3, seed=seed)))
    x = tg.tensor(drawn(8, 2, 3, seed=7))
    found, expected = (flat(layer.eval()(x)) for layer in (long, short))
    assert_alike([numpy(y) for y in found], [numpy(y) for y in expected])


def test_a_layer_that_has_learned_nothing_evaluates_as_batch_norm_does():
    layer = made("BatchNormLSTM", 3, 4).eval()
    assert np.isfinite(numpy(layer(tg.tensor(drawn(7, 2, 3)))[0])).all()


@every_batch
def test_gamma_starts_at_a_tenth_and_the_norms_of_products_have_no_beta(name):
    layer = getattr(nn, name)(3, 4, max_length=2)
    norms = dict(layer.named_children())
    for key, norm in norms.items():
        assert norm.weight.tolist() == pytest.approx([0.1] * norm.num_features)
        assert (norm.bias is not None) == key.startswith("norm_c")
    assert getattr(nn, name)(3, 4, max_length=2, gamma=0.5).norm_ih_l0.weight.tolist()[0] == 0.5
    layer.norm_hh_l0.weight.detach().fill_(3.0)
    layer.reset_parameters()
    assert layer.norm_hh_l0.weight.tolist() == pytest.approx([0.1] * len(layer.norm_hh_l0.weight))


@every_kind
def test_the_weights_of_a_plain_layer_can_be_loaded(name):
    plain = getattr(nn, name[9:])(3, 4, 2, bidirectional=True)
    layer = getattr(nn, name)(3, 4, 2, bidirectional=True, **max_length_of(name))
    missing = layer.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("norm_") for key in missing.missing_keys)


def max_length_of(name):
    return {"max_length": 2} if name in BATCH else {}


@every_kind
@pytest.mark.parametrize("ordered", [True, False])
def test_packed_and_masked_sequences_give_the_same(name, ordered):
    lengths = [5, 3, 3, 2] if ordered else [3, 5, 2, 3]
    x = tg.tensor(drawn(4, 5, 3))
    single = {"on_single": "running"} if name in BATCH else {}
    results = []
    for packed in (False, True):
        layer = made(name, 3, 4, 2, batch_first=True, bidirectional=True, **single)
        if packed:
            rnn = nn.utils.rnn
            y, final = layer(rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=ordered))
            y, _ = rnn.pad_packed_sequence(y, batch_first=True)
        else:
            y, final = layer(x, mask=tg.tensor(masked(lengths, 5).T))
        results.append([*flat((y, final)), *layer.state_dict().values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))


@every_kind
def test_padding_is_not_seen(name):
    """NaN there reaches neither results nor statistics nor gradients."""
    lengths, x = [3, 5, 2, 5], drawn(5, 4, 3)
    x[~masked(lengths, 5)] = np.nan
    layer = made(name, 3, 4, bidirectional=True)
    leaf = tg.tensor(x, requires_grad=True)
    y, _ = layer(leaf, mask=tg.tensor(masked(lengths, 5)))
    y.sum().backward()
    assert np.isfinite(numpy(y)).all()
    assert (numpy(y)[~masked(lengths, 5)] == 0).all()
    assert np.isfinite(leaf.grad.numpy()).all()
    assert all(np.isfinite(numpy(v)).all() for v in layer.state_dict().values())
    assert all(np.isfinite(p.grad.numpy()).all() for p in layer.parameters())


@every_kind
def test_gradients_to_order_3(name):
    layer = made(name, 2, 2)

    def run(x):
        return layer(x)[0]

    x = tg.tensor(drawn(2, 4, 2), requires_grad=True)
    assert gradcheck(run, x, atol=1e-7, rtol=1e-5)
    for order in (2, 3):
        assert gradgradcheck(run, x, order=order, atol=1e-5, rtol=1e-4)


class TestStatistics:
    def test_stay_when_a_later_step_fails(self):
        layer = made("BatchNormLSTM", 3, 4)
        before = {k: numpy(v).copy() for k, v in layer.state_dict().items()}
        mask = tg.tensor(masked([5, 3, 3], 5))
        with pytest.raises(ShapeError, match=r"more than one sequence.*steps of 3 to 1.*on_single"):
            layer(tg.tensor(drawn(5, 3, 3)), mask=mask)
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(numpy(value), before[key])
        assert layer.eval()(tg.tensor(drawn(5, 3, 3)), mask=mask)[0].shape == (5, 3, 4)

    def test_of_a_single_sequence_may_be_the_running_ones(self):
        layer = made("BatchNormLSTM", 3, 4, on_single="running")
        mask = tg.tensor(masked([5, 3, 3], 5))
        layer(tg.tensor(drawn(5, 3, 3)), mask=mask)
        counts = [getattr(layer.norm_c_l0, str(t)).num_batches_tracked.item() for t in range(5)]
        assert counts == [1, 1, 1, 0, 0]

    def test_of_nothing_are_not_learned(self):
        layer = made("BatchNormGRU", 3, 4)
        y, h = layer(tg.zeros(5, 0, 3, dtype=tg.float64))
        assert (y.shape, h.shape) == ((5, 0, 4), (1, 0, 4))
        assert getattr(layer.norm_ih_l0, "0").num_batches_tracked.item() == 0

    def test_advance_once_under_checkpointing(self):
        x = tg.tensor(drawn(5, 4, 3), requires_grad=True)
        plain, held = (made("BatchNormLSTM", 3, 4) for _ in range(2))
        plain(x)[0].sum().backward()
        expected, x.grad = x.grad, None
        checkpoint(lambda t: held(t)[0], x).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), expected.numpy(), rtol=1e-12)
        for a, b in zip(plain.state_dict().values(), held.state_dict().values(), strict=True):
            np.testing.assert_array_equal(numpy(a), numpy(b))

    def test_of_micro_batches_are_those_of_all(self):
        whole, parts = (made("BatchNormRNN", 3, 4, momentum=1.0) for _ in range(2))
        x = drawn(2, 8, 3)
        whole(tg.tensor(x))
        with accumulate_statistics(parts):
            parts(tg.tensor(x[:, :5]))
            parts(tg.tensor(x[:, 5:]))
        for key in (("norm_ih_l0", 0), ("norm_ih_l0", 1)):
            for a, b in zip(running(whole, key), running(parts, key), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12)
        assert getattr(parts.norm_ih_l0, "0").num_batches_tracked.item() == 1

    def test_can_be_frozen_and_estimated_anew(self):
        layer = made("BatchNormLSTM", 3, 4, max_length=2)
        batches = [tg.tensor(drawn(2, 6, 3, seed=s)) for s in range(3)]
        for x in batches:
            layer(x)
        expected = flat(layer.eval()(batches[0]))
        freeze_batch_norm(layer.train())
        assert_alike([numpy(y) for y in flat(layer(batches[0]))], [numpy(y) for y in expected])
        other = made("BatchNormLSTM", 3, 4, max_length=2)
        update_bn(batches, other)
        gx = np.concatenate([numpy(x)[1] for x in batches]) @ numpy(other.weight_ih_l0).T
        np.testing.assert_allclose(running(other, ("norm_ih_l0", 1))[0], gx.mean(0), rtol=1e-12)


class TestFreezing:
    """Of a whole model: recurrent layers beside others."""

    def model(self):
        return nn.ModuleList([nn.BatchNormLSTM(3, 4, 2, max_length=3), nn.BatchNorm1d(4)])

    @staticmethod
    def of_norms(model, learning):
        """The names of the norms' parameters that learn, or do not."""
        return {
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad is learning and ("norm" in name or name.startswith("1."))
        }

    @pytest.mark.parametrize("stats", [True, False])
    def test_holds_gamma_and_beta_of_all_steps(self, stats):
        model = self.model()
        names = self.of_norms(model, True)
        assert {"0.norm_ih_l0.weight", "0.norm_c_l1.bias", "1.weight"} < names
        freeze_batch_norm(model, stats=stats)
        assert not self.of_norms(model, True)
        assert self.of_norms(model, False) == names
        assert model[0].weight_hh_l0.requires_grad
        assert model[0].norm_hh_l0.at(2).stats_frozen is stats
        unfreeze_batch_norm(model)
        assert self.of_norms(model, True) == names
        assert not model[0].norm_hh_l0.at(2).stats_frozen

    def test_may_hold_statistics_alone(self):
        model = self.model()
        names = self.of_norms(model, True)
        freeze_batch_norm(model, affine=False)
        assert self.of_norms(model, True) == names
        assert all(model[0].norm_c_l1.at(step).stats_frozen for step in range(3))

    def test_what_is_frozen_has_no_gradient_and_stays(self):
        layer = made("BatchNormLSTM", 3, 4, max_length=2)
        layer(tg.tensor(drawn(3, 6, 3)))
        freeze_batch_norm(layer)
        before = {k: numpy(v).copy() for k, v in layer.state_dict().items()}
        optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
        layer.train()(tg.tensor(drawn(3, 6, 3, seed=1)))[0].sum().backward()
        optimizer.step()
        changed = {
            k for k, v in layer.state_dict().items() if not np.array_equal(numpy(v), before[k])
        }
        assert changed == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}

    def test_of_one_norm(self):
        norm = self.model()[0].norm_c_l0
        assert norm.freeze() is norm
        assert not any(p.requires_grad for p in norm.parameters())
        assert all(norm.at(step).stats_frozen for step in range(3))
        assert norm.unfreeze(stats=False) is norm
        assert all(p.requires_grad for p in norm.parameters())
        assert norm.at(1).stats_frozen

    def test_refuses_steps_without_statistics(self):
        layer = nn.BatchNormRNN(3, 4, max_length=2)
        step = layer.norm_hh_l0.at(1)
        step.running_mean = step.running_var = None
        with pytest.raises(StateError, match=r"every step, got none at \[1\]"):
            layer.norm_hh_l0.freeze()
        with pytest.raises(StateError, match=r"norm_hh_l0\.1"):
            freeze_batch_norm(layer)
        assert layer.norm_hh_l0.weight.requires_grad
        assert not layer.norm_hh_l0.at(0).stats_frozen
        freeze_batch_norm(layer, stats=False)
        assert not layer.norm_hh_l0.weight.requires_grad


def test_a_state_dict_goes_round():
    a, b = (nn.BatchNormLSTM(3, 4, 2, max_length=3) for _ in range(2))
    a(tg.randn(4, 5, 3))
    b.load_state_dict(a.state_dict())
    x = tg.randn(4, 5, 3)
    assert a.eval()(x)[0].tolist() == b.eval()(x)[0].tolist()


def test_sixteen_bits_keep_statistics_in_32():
    layer = nn.BatchNormLSTM(3, 4, max_length=2).half()
    y, (h, c) = layer(tg.randn(4, 5, 3).half())
    assert {y.dtype, h.dtype, c.dtype} == {np.dtype(np.float16)}
    assert getattr(layer.norm_hh_l0, "1").running_var.dtype == np.float32


def test_looks():
    layer = nn.BatchNormGRU(3, 4, max_length=7)
    assert repr(layer).splitlines() == [
        "BatchNormGRU(",
        "  3, 4, max_length=7",
        "  (norm_ih_l0): StepBatchNorm(12, max_length=7, eps=1e-05, momentum=0.1, gamma=0.1)",
        "  (norm_hh_l0): StepBatchNorm(12, max_length=7, eps=1e-05, momentum=0.1, gamma=0.1)",
        ")",
    ]


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="max_length ≥ 1, got 0"):
        nn.BatchNormRNN(3, 4, max_length=0)
    with pytest.raises(DtypeError, match="whole number as max_length"):
        nn.BatchNormRNN(3, 4, max_length=2.5)
    for name in ("BatchNormLSTM", "LayerNormLSTM"):
        with pytest.raises(ArgumentError, match=f"proj_size=0 for {name}, got 2"):
            getattr(nn, name)(3, 4, proj_size=2, **max_length_of(name))
    with pytest.raises(ArgumentError, match="on_single"):
        nn.BatchNormRNN(3, 4, max_length=2, on_single="mean")
