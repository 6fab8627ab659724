"""A gradient is that of the running statistics which the forward met, whatever batches come between
the two; and when they move, and what a state dict has of them, is PyTorch's to say.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import GradientError, StateError
from tinygrad_bn.nn import functional as F
from tinygrad_bn.utils.checkpoint import checkpoint

RNG = np.random.default_rng(0)
SAMPLE = RNG.normal(size=(1, 3))
KEYS = ("weight", "bias", "running_mean", "running_var")
KINDS = {
    "batch": lambda **options: nn.BatchNorm1d(3, **options),
    "sync": lambda **options: nn.SyncBatchNorm(3, **options),
    "ghost": lambda **options: nn.GhostBatchNorm(3, 4, **options),
    "renorm": lambda **options: nn.BatchRenorm(3, **options),
    "mean only": lambda **options: nn.MeanOnlyBatchNorm(3, **options),
    "power": lambda **options: nn.PowerNorm(3, warmup=0, **options),
    "EvoNorm-B0": lambda **options: nn.EvoNormB0(3, **options),
}


def derivatives(layer, run, batch):
    """Those of order 1 and 2 of what a layer makes of one sample; before them it sees a batch, if
    there is one.
    """
    x = tg.tensor(SAMPLE, dtype=layer.bias.dtype, device=layer.bias.device, requires_grad=True)
    y = run(layer, x)
    if batch is not None:
        layer(batch)
    (dx,) = tg.autograd.grad((y**3).sum(), [x], create_graph=True)
    (ddx,) = tg.autograd.grad((dx**2).sum(), [x])
    return dx.detach().cpu().numpy(), ddx.cpu().numpy()


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
@pytest.mark.parametrize("run", [lambda f, x: f(x), checkpoint], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_after_a_single_value_is_not_in_its_gradient(kind, run, dtype, device):
    found = []
    for moves in (False, True):
        layer = KINDS[kind](on_single="running", dtype=dtype, device=device)
        batch = tg.tensor(np.random.default_rng(1).normal(5, 9, (8, 3)), dtype=dtype, device=device)
        before = layer.state_dict()["num_batches_tracked"].item()
        found.append(derivatives(layer, run, batch if moves else None))
        assert layer.num_batches_tracked.item() == before + moves
    for without, with_batch in zip(*found, strict=True):
        np.testing.assert_array_equal(with_batch, without)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
def test_training_after_an_evaluation_is_not_in_its_gradient(dtype, device):
    for layer in (
        nn.BatchNorm1d(3, dtype=dtype, device=device),
        nn.InstanceNorm1d(3, affine=True, track_running_stats=True, dtype=dtype, device=device),
        nn.ConditionalBatchNorm(3, 2, dtype=dtype, device=device),
    ):
        conditional = isinstance(layer, nn.ConditionalBatchNorm)
        more = (tg.tensor([0, 1], device=device),) if conditional else ()
        x = tg.tensor(RNG.normal(size=(2, 3, 4)), dtype=dtype, device=device, requires_grad=True)
        y = layer.eval()(x, *more)
        layer.train()(x.detach() * 9 + 5, *more)
        y.sum().backward()
        # the statistics were those of a new layer, 0 and 1
        np.testing.assert_allclose(x.grad.tolist(), np.full(x.shape, (1 + 1e-5) ** -0.5), rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("momentum", [0.1, None])
def test_tracking_may_be_switched_off_for_a_while(momentum):
    torch = pytest.importorskip("torch")
    layer = nn.BatchNorm1d(3, momentum=momentum, dtype=tg.float64)
    known = torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    for tracks, trains in [(1, 1), (0, 1), (0, 0), (0, 1), (1, 1), (1, 0)]:
        for module in (layer, known):
            module.track_running_stats = bool(tracks)
            module.train(bool(trains))
        x = RNG.normal(2, 3, (6, 3))
        y, expected = layer(tg.tensor(x)), known(torch.tensor(x))
        # float64's rounding, a few operations of it
        np.testing.assert_allclose(y.tolist(), expected.tolist(), rtol=1e-12, atol=1e-13)
        for key, value in known.state_dict().items():
            np.testing.assert_allclose(layer.state_dict()[key].tolist(), value, rtol=1e-12)


@pytest.mark.torch
def test_tracking_of_instances_may_be_switched_off_too():
    torch = pytest.importorskip("torch")
    layer = nn.InstanceNorm1d(3, track_running_stats=True, dtype=tg.float64)
    known = torch.nn.InstanceNorm1d(3, track_running_stats=True, dtype=torch.float64)
    x = RNG.normal(2, 3, (2, 3, 4))
    for tracks, trains in [(1, 1), (0, 0), (0, 1)]:
        before = layer.running_mean.tolist()
        for module in (layer, known):
            module.track_running_stats = bool(tracks)
            module.train(bool(trains))
        y, expected = layer(tg.tensor(x)), known(torch.tensor(x))
        np.testing.assert_allclose(y.tolist(), expected.tolist(), rtol=1e-12, atol=1e-13)
        # PyTorch's move all the same, in evaluation too
        assert tracks or layer.running_mean.tolist() == before


@pytest.mark.parametrize("kind", KINDS)
def test_resetting_the_parameters_forgets_the_batches_too(kind):
    """As in PyTorch: a network that begins anew must not keep what the old one has seen."""
    layer = KINDS[kind]()
    start = {key: value.tolist() for key, value in layer.state_dict().items()}
    layer(tg.tensor(RNG.normal(5, 9, (8, 3)), dtype=tg.float32))
    layer.reset_parameters()
    assert {key: value.tolist() for key, value in layer.state_dict().items()} == start


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["BatchNorm1d", "InstanceNorm1d"])
def test_a_state_dict_without_a_count_loads_as_in_pytorch(kind):
    """Files from before PyTorch 0.4.1, and of those who made one by hand, have none."""
    torch = pytest.importorskip("torch")
    layer = nn.Sequential(getattr(nn, kind)(3, affine=True, track_running_stats=True))
    known = torch.nn.Sequential(getattr(torch.nn, kind)(3, affine=True, track_running_stats=True))
    old = {f"0.{key}": RNG.uniform(1, 2, 3).astype(np.float32) for key in KEYS}
    layer[0].num_batches_tracked.fill_(7)
    known[0].num_batches_tracked.fill_(7)
    assert layer.load_state_dict(old) == ([], [])
    known.load_state_dict({key: torch.tensor(value) for key, value in old.items()})
    for key, value in known.state_dict().items():
        assert layer.state_dict()[key].tolist() == value.tolist()
    with pytest.raises(StateError, match=r"missing keys: '0\.running_var'"):
        layer.load_state_dict({key: old[key] for key in old if "var" not in key})


@pytest.mark.parametrize("kind", ["renorm", "power"])
def test_what_the_count_drives_must_be_given_it(kind):
    layer = KINDS[kind]()
    state = {key: value for key, value in layer.state_dict().items() if "num" not in key}
    with pytest.raises(StateError, match="missing keys: 'num_batches_tracked'"):
        layer.load_state_dict(state)


@pytest.mark.parametrize("learning", ["running_mean", "running_var"])
@pytest.mark.parametrize("norm", [F.batch_norm, F.instance_norm], ids=["batch", "instance"])
def test_statistics_within_a_graph_are_refused_before_either_moves(norm, learning, device):
    running = {
        "running_mean": tg.zeros(3, device=device),
        "running_var": tg.ones(3, device=device),
    }
    running[learning].requires_grad_()
    x = tg.tensor(RNG.normal(size=(4, 3, 2)), dtype=tg.float32, device=device)
    training = {"training" if norm is F.batch_norm else "use_input_stats": True}
    with pytest.raises(GradientError, match=f"expected {learning} outside of the graph"):
        norm(x, **running, **training)
    assert [value.tolist() for value in running.values()] == [[0.0] * 3, [1.0] * 3]
    with tg.no_grad():
        norm(x, **running, **training)
    assert all(value.tolist() not in ([0.0] * 3, [1.0] * 3) for value in running.values())
