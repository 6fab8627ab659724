"""Recurrent layers with norms as one node against the same layers composed of operations."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.recurrent.twins import drawn, flat, numpy, with_gradients
from tinygrad_bn import nn
from tinygrad_bn.autograd import Function
from tinygrad_bn.errors import ShapeError

BATCH = ["BatchNormRNN", "BatchNormLSTM", "BatchNormGRU"]
LAYER = ["LayerNormRNN", "LayerNormLSTM", "LayerNormGRU"]
EVEN, UNEVEN = [5] * 8, [3, 5, 2, 5, 4, 5, 3, 5]

every_kind = pytest.mark.parametrize("name", BATCH + LAYER)
every_batch = pytest.mark.parametrize("name", BATCH)


def made(name, *args, dtype=tg.float64, device="cpu", **options):
    """A layer whose parameters are all drawn, in the neighbourhood of where γ is of use."""
    if name in BATCH:
        options = {"max_length": 5, **options}
    layer = getattr(nn, name)(*args, dtype=dtype, device=device, **options)
    for i, (key, parameter) in enumerate(layer.named_parameters()):
        values = drawn(*parameter.shape, seed=i) * 0.5 + ("norm" in key)
        parameter.detach().overwrite(parameter.backend.asarray(values.astype(dtype)))
    return layer


def step_by_step(layer):
    """Let the layer be composed of operations."""
    layer.norms_of_walk = lambda *args: None
    return layer


def masked(lengths, steps=5):
    return np.arange(steps)[:, None] < np.array(lengths)


def both(name, *args, lengths=EVEN, prepare=lambda layer: layer, second=True, **options):
    """Outputs, gradients and state of the one node and of the composed layer."""
    dtype, device = np.dtype(options.get("dtype", tg.float64)), options.get("device", "cpu")
    results = []
    for change in (lambda layer: layer, step_by_step):
        layer = change(prepare(made(name, *args, **options)))
        x = tg.tensor(drawn(5, 8, 3).astype(dtype), device=device, requires_grad=True)
        mask = None if lengths == EVEN else tg.tensor(masked(lengths), device=device)
        outputs = flat(layer(x, mask=mask))
        leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
        if second:
            found = with_gradients(tg, outputs, leaves, device=device)
        else:
            directions = [tg.tensor(drawn(*y.shape).astype(dtype)) for y in outputs]
            found = [numpy(v) for v in (*outputs, *tg.autograd.grad(outputs, leaves, directions))]
        results.append([*found, *(numpy(v) for v in layer.state_dict().values())])
    return results


def assert_alike(pair, digits):
    """Differences are compared with the greatest number of each array, which sums pass through."""
    for a, b in zip(*pair, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=digits * max(1, np.abs(b).max(initial=0)))


OPTIONS = {
    "plain": {},
    "two_layers_both_ways": {"num_layers": 2, "bidirectional": True},
    "no_bias": {"bias": False},
}
LIMITS = {"float64": 1e-12, "float32": 2e-5}
"""Of float64 what is asked; of float32 some hundred roundings, divided by deviations of a few
values."""


@every_kind
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("lengths", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("dtype", LIMITS)
def test_one_node_gives_what_operations_give(name, options, lengths, dtype):
    given = {**options, "dtype": getattr(tg, dtype)}
    assert_alike(both(name, 3, 4, lengths=lengths, second=False, **given), LIMITS[dtype])


@every_kind
def test_so_do_second_gradients_and_another_device(name, device):
    """Through some twenty norms twice, each of which divides by the deviation of a few values."""
    assert_alike(both(name, 3, 4, lengths=UNEVEN, device=device), 1e-10)


@pytest.mark.parametrize("name", ["BatchNormRNN", "LayerNormRNN"])
def test_with_relu(name):
    assert_alike(both(name, 3, 4, nonlinearity="relu"), 1e-11)


def evaluating(layer):
    for seed in range(2):
        layer(tg.tensor(drawn(4, 4, 3, seed=seed).astype(layer.weight_ih_l0.dtype)))
    return layer.eval()


def freezing(layer):
    evaluating(layer).train()
    for path, module in layer.named_modules():
        if path.startswith("norm_hh") or path.endswith((".1", ".3")):
            module.freeze(affine=False)
    return layer


def untracking(layer):
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return layer.eval()


def averaging(layer):
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None
    layer(tg.tensor(drawn(5, 6, 3, seed=3)))
    return layer


STATES = {
    "evaluation": evaluating,
    "some_frozen": freezing,
    "no_statistics": untracking,
    "plain_averages": averaging,
}


@every_batch
@pytest.mark.parametrize("prepare", STATES.values(), ids=STATES)
@pytest.mark.parametrize("lengths", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_in_every_state_of_its_statistics(name, prepare, lengths):
    """Parameters are at their start in one layer as in the other: forwards before draw nothing."""
    assert_alike(both(name, 3, 4, lengths=lengths, prepare=prepare, second=False), 1e-12)


@every_batch
@pytest.mark.parametrize("options", [{"max_length": 2}, {"momentum": 1.0, "eps": 0.1}], ids=str)
def test_with_other_options(name, options):
    options = {"running_var_correction": "biased", **options}
    assert_alike(both(name, 3, 4, lengths=UNEVEN, second=False, **options), 1e-12)


@every_batch
def test_with_steps_of_one_sequence(name):
    """Those are normalised by running statistics, and teach nothing."""
    pair = both(name, 3, 4, lengths=[5, 3, 2, 3, 3, 2, 3, 3], second=False, on_single="running")
    assert_alike(pair, 1e-12)


@every_kind
@pytest.mark.parametrize("ordered", [True, False])
def test_of_packed_sequences(name, ordered):
    lengths = [5, 5, 4, 4, 4, 3, 2, 1] if ordered else UNEVEN
    results = []
    for change in (lambda layer: layer, step_by_step):
        layer = change(made(name, 3, 4, bidirectional=True))
        x = tg.tensor(drawn(5, 8, 3), requires_grad=True)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=ordered)
        outputs = flat(layer(packed))
        results.append(with_gradients(tg, outputs, [x, *layer.parameters()]))
    assert_alike(results, 1e-10)


def nodes_of(layer, steps=5):
    """The names of the nodes that an output of the layer depends on."""
    x = tg.tensor(drawn(steps, 8, 3).astype(layer.weight_ih_l0.dtype), requires_grad=True)
    found: set[Function] = set()
    waiting = [layer(x)[0].creator]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [x.creator for x in node.inputs or () if isinstance(x, tg.Tensor)]
    return [node.name for node in found]


def sequences_in(nodes):
    return sum(name.endswith("Sequence") for name in nodes)


@every_kind
def test_a_direction_is_one_node(name):
    layer = made(name, 3, 4, 2, bidirectional=True)
    assert sequences_in(nodes_of(layer)) == 4
    assert len(nodes_of(layer, 5)) == len(nodes_of(layer, 3))


class TestWhereNormsAreCalled:
    """What somebody did to a norm is heeded: then the layer is composed."""

    @every_kind
    def test_hooks(self, name):
        layer, seen = made(name, 3, 4), []
        norms = dict(layer.named_modules())
        path = next(p for p in norms if p.endswith(".2")) if name in BATCH else [*norms][1]
        handle = norms[path].register_forward_hook(lambda *args: seen.append(path))
        assert not sequences_in(nodes_of(layer))
        assert len(seen) == (1 if name in BATCH else 5)
        handle.remove()
        assert sequences_in(nodes_of(layer)) == 1

    @every_batch
    def test_norms_of_another_class(self, name):
        class Mine(nn.BatchNorm1d):
            pass

        layer = made(name, 3, 4)
        features = layer.norm_hh_l0.num_features
        layer.norm_hh_l0.register_module("1", Mine(features, affine=False, dtype=tg.float64))
        assert not sequences_in(nodes_of(layer))

    @every_batch
    def test_synchronised_norms(self, name):
        layer = made(name, 3, 4)
        nn.utils.convert_sync_batch_norm(layer)
        assert not sequences_in(nodes_of(layer))

    @every_batch
    def test_norms_that_do_not_fit(self, name):
        layer = made(name, 3, 4)
        getattr(layer.norm_ih_l0, "1").running_mean = tg.nn.Buffer(tg.zeros(3, dtype=tg.float64))
        with pytest.raises(ShapeError, match="running_mean of shape"):
            layer(tg.tensor(drawn(5, 8, 3)))

    @pytest.mark.parametrize("name", LAYER)
    def test_other_norms(self, name):
        layer = made(name, 3, 4)
        key, norm = next(iter(layer.named_children()))
        setattr(layer, key, nn.RMSNorm(norm.normalized_shape, dtype=tg.float64))
        assert not sequences_in(nodes_of(layer))

    @every_kind
    def test_norms_of_other_features(self, name):
        layer, features = made(name, 3, 4), 2
        if name in BATCH:
            for step in range(5):
                other = nn.BatchNorm1d(features, affine=False, dtype=tg.float64)
                layer.norm_hh_l0.register_module(str(step), other)
        else:
            key = next(key for key, _ in layer.named_children())
            setattr(layer, key, nn.LayerNorm(features, bias=False, dtype=tg.float64))
        with pytest.raises(ShapeError, match="expected"):
            layer(tg.tensor(drawn(5, 8, 3)))

    @every_batch
    def test_a_report_on_them(self, name):
        """Which looks at what each norm of each step is called with."""
        layer = made(name, 3, 4)
        layer(tg.tensor(drawn(5, 8, 3)))
        report = nn.utils.bn_report(layer, tg.tensor(drawn(5, 8, 3)))
        assert len(report) == 5 * len(list(layer.children()))
        assert {drift.count for drift in report} == {8}
        assert sequences_in(nodes_of(layer)) == 1

    @every_kind
    def test_mixed_precision(self, name):
        layer = made(name, 3, 4, dtype=tg.float32)
        with tg.amp.autocast("cpu", dtype=tg.float16):
            assert not sequences_in(nodes_of(layer))


class TestLearning:
    @every_batch
    def test_of_a_composed_layer_waits_until_it_has_succeeded(self, name):
        layer = step_by_step(made(name, 3, 4, 2))
        before = {k: numpy(v).copy() for k, v in layer.state_dict().items()}

        def refuse(*args):
            raise RuntimeError("expected nothing here")

        getattr(layer.norm_hh_l1, "4").register_forward_hook(refuse)
        with pytest.raises(RuntimeError):
            layer(tg.tensor(drawn(5, 8, 3)))
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(numpy(value), before[key])

    def test_is_that_of_the_shared_step_of_all(self):
        """Chan's merge of the steps beyond max_length, and one advance."""
        layer = made("BatchNormGRU", 3, 4, max_length=2, momentum=1.0)
        layer(tg.tensor(drawn(5, 8, 3)))
        gx = drawn(5, 8, 3)[1:] @ numpy(layer.weight_ih_l0).T
        shared = layer.norm_ih_l0.at(1)
        np.testing.assert_allclose(numpy(shared.running_mean), gx.mean((0, 1)), rtol=1e-12)
        expected = gx.reshape(32, -1).var(0, ddof=1)
        np.testing.assert_allclose(numpy(shared.running_var), expected, rtol=1e-12)
        assert shared.num_batches_tracked.item() == 1
