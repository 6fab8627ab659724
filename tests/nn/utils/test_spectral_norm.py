"""Weights over their greatest singular value: PyTorch's semantics, exact at every scale."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.utils.reparametrized import (
    LAYERS,
    assert_close,
    assert_survives,
    assert_trains_like_pytorch,
    copies_of,
    layer_of,
)
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ModuleError, ShapeError, StateError
from tinygrad_bn.nn.utils import remove_spectral_norm, spectral_norm, weight_norm
from tinygrad_bn.utils.checkpoint import checkpoint

RNG = np.random.default_rng(0)

AXES = {"Linear": (0, 1, -1), "Bilinear": (0, 1, 2), "Embedding": (0, 1)}
CASES = [(name, dim) for name, axes in AXES.items() for dim in axes]


def matrix(weight, dim):
    return np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)


def spread(weight):
    """The same singular vectors with values from 2 to 0.02, far enough apart for power iteration,
    which converges by the square of the first two's ratio a time.
    """
    u, _, vt = np.linalg.svd(weight, full_matrices=False)
    return u * np.geomspace(2.0, 0.02, len(vt)) @ vt


class TestSpectralNorm:
    @pytest.mark.parametrize(("name", "dim"), CASES)
    def test_divides_by_the_greatest_singular_value(self, name, dim, device):
        module = layer_of(nn, name)
        shape = np.moveaxis(module.weight.detach().numpy(), dim, 0).shape
        weight = spread(matrix(module.weight.detach().numpy(), dim)).reshape(shape)
        weight = np.moveaxis(weight, 0, dim)
        module.load_state_dict({"weight": weight}, strict=False)
        assert spectral_norm(module.to(device), n_power_iterations=15, dim=dim) is module
        module(*(tg.tensor(x, device=device) for x in LAYERS[name][1](RNG)))
        found = module.weight.detach().cpu().numpy()
        # of the singular values 2, …, 0.02 the first is 4.6 times the next, or more; thirty times
        np.testing.assert_allclose(found, weight / 2.0, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize(("name", "dim"), CASES)
    def test_has_vectors_of_both_axes(self, name, dim):
        module = spectral_norm(layer_of(nn, name), dim=dim)
        height, width = matrix(module.weight_orig.detach().numpy(), dim).shape
        assert (module.weight_u.shape, module.weight_v.shape) == ((height,), (width,))
        assert list(module.state_dict())[-3:] == ["weight_orig", "weight_u", "weight_v"]
        assert [name for name, _ in module.named_buffers()] == ["weight_u", "weight_v"]

    def test_by_default_transposed_convolutions_have_their_outputs_along_axis_1(self):
        module = nn.Linear(3, 2)
        module.transposed = True
        assert spectral_norm(module).weight_u.shape == (3,)

    def test_the_first_evaluation_is_near_the_mark(self):
        tg.manual_seed(0)
        module = nn.Linear(40, 30, bias=False)
        with tg.no_grad():
            module.weight.overwrite(spread(module.weight.detach().numpy()))
        spectral_norm(module)
        assert np.linalg.norm(module.weight.detach().numpy(), 2) == pytest.approx(1, rel=1e-3)

    def test_iterates_in_training_only(self):
        module = spectral_norm(nn.Linear(30, 20))
        x = tg.ones(1, 30)

        def moved(run):
            before = module.weight_u.tolist()
            run()
            return module.weight_u.tolist() != before

        assert moved(lambda: module(x))
        assert not moved(lambda: module.weight)
        assert not moved(lambda: module.eval()(x))
        module.train()
        with tg.no_grad():
            assert moved(lambda: module(x))

    def test_more_iterations_are_nearer(self):
        tg.manual_seed(1)
        distances = []
        for times in (1, 3, 30):
            tg.manual_seed(0)
            module = spectral_norm(nn.Linear(60, 50).double(), n_power_iterations=times)
            module(tg.ones(60, dtype=tg.float64))
            distances.append(np.linalg.norm(module.weight.detach().numpy(), 2) - 1)
        assert distances[0] > distances[1] > distances[2] >= -1e-15

    def test_the_parameter_is_the_same_object(self):
        module = nn.Linear(3, 2)
        old = module.weight
        spectral_norm(module)
        assert module.weight_orig is old

    def test_a_removed_one_keeps_its_weight_and_iterates_no_longer(self):
        module = spectral_norm(nn.Linear(3, 2))
        other = module.register_forward_pre_hook(lambda module, args: None)
        module(tg.ones(3))
        before = module.weight.tolist()
        assert remove_spectral_norm(module) is module
        assert list(module.state_dict()) == ["bias", "weight"]
        assert isinstance(module.weight, nn.Parameter)
        assert module.weight.tolist() == before
        other.remove()
        assert module._hooks.before == []
        spectral_norm(module)  # and may come back
        module(tg.ones(3)).sum().backward()

    def test_two_weights_of_one_module(self):
        module = spectral_norm(spectral_norm(nn.Linear(3, 2)), "bias")
        module(tg.ones(3)).sum().backward()
        remove_spectral_norm(module)
        assert list(module.state_dict()) == ["bias_orig", "weight", "bias_u", "bias_v"]
        before = module.bias_u.tolist()
        with tg.no_grad():
            module.bias_orig.overwrite(np.array([3.0, -4.0]))
        module(tg.ones(3))
        assert module.bias_u.tolist() != before
        # the iteration of a vector is done at once; float32
        assert module.bias.tolist() == pytest.approx([0.6, -0.8], rel=1e-6)

    def test_gradients_to_order_3(self, device):
        module = spectral_norm(nn.Linear(3, 2, device=device).double()).eval()
        w = tg.tensor(RNG.normal(size=(2, 3)), device=device, requires_grad=True)

        def weight(w):
            twin = nn.Module()
            twin.weight_orig, twin.weight_u, twin.weight_v = w, module.weight_u, module.weight_v
            return module._derived["weight"](twin)

        assert tg.autograd.gradcheck(weight, [w], atol=1e-7, rtol=1e-6)
        for order in (2, 3):
            # differences of steps of 1e-6 leave 1e-10 of rounding, which third derivatives enlarge
            assert tg.autograd.gradgradcheck(weight, [w], order=order, atol=1e-6, rtol=1e-5)

    def test_two_forwards_before_one_backward(self):
        """As in adversarial training; each gradient is that of the u and v of its forward."""
        module = spectral_norm(nn.Linear(30, 20).double())
        x = tg.tensor(RNG.normal(size=(4, 30)))
        first = module(x).square().sum()
        (alone,) = tg.autograd.grad(first, [module.weight_orig], retain_graph=True)
        second = module(x).square().sum()
        (other,) = tg.autograd.grad(second, [module.weight_orig], retain_graph=True)
        assert np.abs(alone.numpy() - other.numpy()).max() > 1e-8
        (first + second).backward()
        assert_close(module.weight_orig.grad, alone + other)

    def test_checkpointing_iterates_once_and_sees_the_same_vectors(self):
        x = tg.tensor(RNG.normal(size=(4, 30)), requires_grad=True)
        results = []
        for run in (lambda m, x: m(x), checkpoint):
            tg.manual_seed(0)
            module = spectral_norm(nn.Linear(30, 20).double())
            y = run(module, x)
            module(x)  # moves u and v on before the backward pass
            y.square().sum().backward()
            results.append(
                [v.tolist() for v in (module.weight_orig.grad, *module.state_dict().values())]
            )
        assert results[0] == results[1]


class TestExactness:
    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_at_extreme_scales(self, scale, device):
        tg.manual_seed(0)
        weight = spread(RNG.normal(size=(20, 30)))
        module = nn.Linear(30, 20, bias=False, device=device)
        with tg.no_grad():
            module.weight.overwrite(tg.tensor((weight * scale), device=device).float().array)
        spectral_norm(module, n_power_iterations=20)
        module(tg.ones(30, device=device))
        # products of 30 terms in float32
        found = np.linalg.norm(np.asarray(module.weight.tolist()), 2)
        assert found == pytest.approx(1, rel=2e-6)

    def test_a_weight_of_zeros_stays_one_and_recovers(self, device):
        module = nn.Linear(3, 2, bias=False, device=device)
        with tg.no_grad():
            module.weight.fill_(0.0)
        spectral_norm(module)
        x = tg.tensor([[1.0, 2.0, 3.0]], device=device)
        module(x).sum().backward(create_graph=True)
        assert module.weight.tolist() == [[0.0] * 3] * 2
        grad = module.weight_orig.grad
        assert grad.tolist() == [[1.0, 2.0, 3.0]] * 2  # as of the singular value 1
        assert module.weight_u.norm().item() == pytest.approx(1, rel=1e-6)
        with tg.no_grad():
            module.weight_orig.overwrite((module.weight_orig + 4.0).array)
        module(x)
        # all rows alike: one iteration is enough; float32
        np.testing.assert_allclose(module.weight.tolist(), 6**-0.5, rtol=1e-6)

    def test_sixteen_bits(self, device):
        tg.manual_seed(0)
        module = nn.Linear(64, 32, bias=False, device=device).half()
        with tg.no_grad():
            module.weight.overwrite(module.weight.array * 0 + 300.0)  # squares beyond float16
        spectral_norm(module)
        module(tg.ones(2, 64, dtype=tg.float16, device=device)).sum().backward()
        assert module.weight.dtype == module.weight_u.dtype == tg.float16
        # half of float16's last digit, 5e-4, in each of u, v and the weight
        np.testing.assert_allclose(module.weight.tolist(), (64 * 32) ** -0.5, rtol=1.5e-3)
        assert module.weight_orig.grad.isfinite().all()

    def test_eps_is_a_share_of_the_greatest_weight(self):
        """Where the norms are far above it, it makes no difference."""
        weights = []
        for eps in (1e-12, 1e-3, 0.0):
            tg.manual_seed(0)
            module = spectral_norm(nn.Linear(5, 4), eps=eps)
            module(tg.ones(5))
            weights.append(module.weight.tolist())
        assert weights[0] == weights[1] == weights[2]


class TestSurvival:
    @pytest.mark.parametrize("name", ["Linear", "Embedding"])
    def test_copies_pickles_states_and_casts(self, name):
        tg.manual_seed(0)
        module = spectral_norm(layer_of(nn, name))
        assert_survives(module, tg.tensor(LAYERS[name][1](np.random.default_rng(0))[0]))

    def test_copies_iterate_by_themselves(self):
        module = spectral_norm(nn.Linear(30, 20))
        x = tg.ones(30)
        for twin in copies_of(module):
            before = module.weight_u.tolist()
            twin(x)
            assert module.weight_u.tolist() == before
            assert twin.weight_u.tolist() != before
            remove_spectral_norm(twin)
            assert twin._hooks.before == []
            assert len(module._hooks.before) == 1

    def test_devices(self, cuda):
        module = spectral_norm(nn.Linear(3, 2)).cuda()
        assert module.weight.device == module.weight_u.device == cuda
        module(tg.ones(3, device=cuda)).sum().backward()

    def test_a_value_cannot_be_put_in_the_place_of_the_weight(self):
        module = spectral_norm(nn.Linear(3, 2))
        with pytest.raises(StateError, match="'weight' to be computed from other parts"):
            module.weight = nn.Parameter(tg.ones(2, 3))


class TestErrors:
    def test_twice_on_one_name(self):
        module = spectral_norm(nn.Linear(3, 2))
        for second in (spectral_norm, weight_norm):
            with pytest.raises(ArgumentError, match="under spectral_norm already"):
                second(module)
        assert len(module._hooks.before) == 1
        with pytest.raises(ModuleError, match="got 'scale'"):
            spectral_norm(module, "scale")

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"n_power_iterations": 0}, ArgumentError, "n_power_iterations ≥ 1, got 0"),
            ({"n_power_iterations": 1.5}, DtypeError, "whole number of iterations"),
            ({"eps": -1.0}, ArgumentError, "eps ≥ 0, got -1"),
            ({"eps": np.nan}, ArgumentError, "eps ≥ 0, got nan"),
            ({"dim": 2}, ShapeError, "an axis 2 in the weight"),
            ({"name": "nothing"}, ModuleError, "got 'nothing'"),
        ],
    )
    def test_bad_arguments_change_nothing(self, options, error, message):
        module = nn.Linear(3, 2)
        with pytest.raises(error, match=message):
            spectral_norm(module, **options)
        assert list(module.state_dict()) == ["weight", "bias"]
        assert module._hooks is None

    def test_weights_without_elements(self):
        with pytest.raises(ShapeError, match="a weight with elements"):
            spectral_norm(nn.Embedding(0, 3))

    def test_removing_what_is_not_there(self):
        for module in (nn.Linear(3, 2), weight_norm(nn.Linear(3, 2))):
            with pytest.raises(ArgumentError, match="spectral_norm on 'weight', got none"):
                remove_spectral_norm(module)


class TestOptimizers:
    @pytest.mark.parametrize("late", [False, True])
    def test_train_whether_made_before_or_after(self, late):
        module = nn.Linear(3, 2)
        if late:
            spectral_norm(module)
        optimizer = tg.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        if not late:
            spectral_norm(module)
        for _ in range(2):
            before = module.weight_orig.tolist()
            optimizer.zero_grad()
            module(tg.randn(4, 3)).square().sum().backward()
            optimizer.step()
            assert module.weight_orig.tolist() != before

    def test_decay(self):
        module = spectral_norm(nn.Linear(3, 2))
        decaying, spared = tg.optim.param_groups(module)
        assert (decaying["params"], spared["params"]) == ([module.weight_orig], [module.bias])


@pytest.mark.torch
class TestPyTorch:
    @pytest.mark.parametrize(
        ("name", "dim", "times"),
        [("Linear", 0, 1), ("Linear", 1, 3), ("Bilinear", 1, 1), ("Embedding", 0, 2)],
    )
    def test_fifty_steps(self, name, dim, times):
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        theirs = torch.nn.utils.spectral_norm(layer_of(torch.nn, name), "weight", times, dim=dim)
        ours = spectral_norm(layer_of(nn, name), "weight", times, dim=dim)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert_trains_like_pytorch(name, ours, theirs, {key: key for key in ours.state_dict()})
        theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})

    @pytest.mark.parametrize(("name", "dim"), CASES)
    def test_evaluates_states_of_its_parametrizations(self, name, dim):
        torch = pytest.importorskip("torch")
        theirs = layer_of(torch.nn, name)
        torch.nn.utils.parametrizations.spectral_norm(theirs, dim=dim)
        arrays = LAYERS[name][1](np.random.default_rng(1))
        theirs(*map(torch.tensor, arrays))
        ours = spectral_norm(layer_of(nn, name), dim=dim).eval()
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        assert_close(ours(*map(tg.tensor, arrays)), theirs.eval()(*map(torch.tensor, arrays)))

    def test_second_gradients(self):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.utils.spectral_norm(layer_of(torch.nn, "Linear")).eval()
        ours = spectral_norm(layer_of(nn, "Linear")).eval()
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        x = RNG.normal(size=(6, 5))
        results = []
        for library, module in ((tg, ours), (torch, theirs)):
            leaves = [module.weight_orig, module.bias]
            y = module(library.tensor(x)).tanh().sum()
            grads = library.autograd.grad(y, leaves, create_graph=True)
            results.append(library.autograd.grad(sum((z * z).sum() for z in grads), leaves))
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected)
