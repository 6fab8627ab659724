"""Weights as lengths and directions: PyTorch's semantics and keys, exact at every scale."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.utils.reparametrized import (
    LAYERS,
    assert_checkpoints,
    assert_close,
    assert_survives,
    assert_trains_like_pytorch,
    copies_of,
    layer_of,
)
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ModuleError, ShapeError, StateError
from tinygrad_bn.nn.utils import (
    remove_weight_norm,
    spectral_norm,
    weight_norm,
    weight_standardization,
)

RNG = np.random.default_rng(0)

AXES = {"Linear": (0, 1, -2), "Bilinear": (0, 1, 2), "Embedding": (0, 1)}
CASES = [(name, dim) for name, axes in AXES.items() for dim in (*axes, None, -1)]


def direct(g, v, dim):
    """g v / ‖v‖ by NumPy in float64."""
    g, v = np.asarray(g, np.float64), np.asarray(v, np.float64)
    others = None if dim in (None, -1) else tuple(set(range(v.ndim)) - {dim % v.ndim})
    return g * v / np.sqrt((v**2).sum(others, keepdims=others is not None))


class TestWeightNorm:
    @pytest.mark.parametrize(("name", "dim"), CASES)
    def test_computes_the_weight_from_its_parts(self, name, dim, device):
        module = layer_of(nn, name).to(device)
        before = module.weight.cpu().detach().numpy()
        assert weight_norm(module, dim=dim) is module
        assert_close(module.weight, tg.tensor(before))
        whole = dim in (None, -1)
        axis = None if whole else dim % before.ndim
        shape = () if whole else tuple(n if i == axis else 1 for i, n in enumerate(before.shape))
        assert (module.weight_g.shape, module.weight_v.shape) == (shape, before.shape)
        g, v = RNG.normal(size=shape), RNG.normal(size=before.shape)
        module.load_state_dict({**module.state_dict(), "weight_g": np.array(g), "weight_v": v})
        found = module.weight.detach().cpu().numpy()
        np.testing.assert_allclose(found, direct(g, v, dim), rtol=1e-14)  # a few roundings

    def test_of_a_vector_takes_each_element_alone(self):
        module = weight_norm(nn.Linear(3, 4), "bias")
        assert module.bias_g.shape == (4,)
        assert module.bias_g.tolist() == module.bias_v.abs().tolist()

    def test_takes_the_place_of_the_weight(self):
        module = nn.Linear(3, 2)
        old = module.weight
        weight_norm(module)
        assert [name for name, _ in module.named_parameters()] == ["bias", "weight_g", "weight_v"]
        assert list(module.state_dict()) == ["bias", "weight_g", "weight_v"]
        assert not old.backend.overlap(old.array, module.weight_v.array)
        remove_weight_norm(module)
        assert list(module.state_dict()) == ["bias", "weight"]
        assert isinstance(module.weight, nn.Parameter)
        assert module.weight.requires_grad

    def test_a_removed_one_keeps_its_weight(self):
        module = weight_norm(nn.Linear(3, 2))
        with tg.no_grad():
            module.weight_g.fill_(3.0)
        before = module.weight.tolist()
        assert remove_weight_norm(module) is module
        assert module.weight.tolist() == before
        weight_norm(module)  # and may come back
        assert module.weight_g.tolist() == pytest.approx(np.full((2, 1), 3.0))

    def test_what_is_not_trained_stays_so(self):
        module = nn.Linear(3, 2).requires_grad_(False)
        weight_norm(module)
        assert not any(p.requires_grad for p in module.parameters())
        assert not module.weight.requires_grad
        assert not remove_weight_norm(module).weight.requires_grad

    def test_two_weights_of_one_module(self):
        module = weight_norm(weight_norm(nn.Linear(3, 2), "bias"))
        assert list(module.state_dict()) == ["bias_g", "bias_v", "weight_g", "weight_v"]
        remove_weight_norm(module, "bias")
        assert list(module.state_dict()) == ["weight_g", "weight_v", "bias"]
        module(tg.ones(3)).sum().backward()

    def test_gradients_to_order_3(self, device):
        module = weight_norm(nn.Linear(3, 2, device=device).double())
        g, v = (tg.tensor(RNG.normal(size=s), device=device) for s in ((2, 1), (2, 3)))
        inputs = [g.requires_grad_(), v.requires_grad_()]

        def weight(g, v):
            twin = nn.Module()
            twin.weight_g, twin.weight_v = g, v
            return module._derived["weight"](twin)

        for order in (2, 3):
            # differences of steps of 1e-6 leave 1e-10 of rounding, which third derivatives enlarge
            assert tg.autograd.gradgradcheck(weight, inputs, order=order, atol=1e-6, rtol=1e-5)

    def test_nothing_remembers_what_was_computed(self):
        module = weight_norm(nn.Linear(3, 2))
        with tg.no_grad():
            module.weight_g.fill_(0.0)
        assert module.weight.tolist() == [[0.0] * 3] * 2
        assert "weight" not in vars(module)


class TestExactness:
    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    def test_at_extreme_scales(self, scale, device):
        v = (RNG.normal(size=(4, 300)) * scale).astype(np.float32)
        module = nn.Linear(300, 4, bias=False, device=device)
        with tg.no_grad():
            module.weight.overwrite(tg.tensor(v, device=device).array)
        weight_norm(module)
        g = module.weight_g.detach().cpu().numpy()
        # each of g and w is rounded to float32 a few times, by 6e-8
        np.testing.assert_allclose(
            g[:, 0], np.sqrt((v.astype(np.float64) ** 2).sum(1)), rtol=1.2e-7
        )
        np.testing.assert_allclose(module.weight.tolist(), v, rtol=2.5e-7)
        dw = RNG.normal(size=v.shape).astype(np.float32)
        module.weight.backward(tg.tensor(dw, device=device))
        u = v.astype(np.float64) / scale
        norm = np.sqrt((u**2).sum(1, keepdims=True))
        dg = (dw * u).sum(1, keepdims=True) / norm
        expected = g / scale / norm * (dw - dg * u / norm)
        for found, exact in ((module.weight_g, dg), (module.weight_v, expected)):
            error = np.asarray(found.grad.tolist()) - exact
            assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(exact)  # sums of 300 roundings

    def test_sixteen_bits_do_not_overflow(self, device):
        module = nn.Linear(64, 2, bias=False, device=device).half()
        with tg.no_grad():
            module.weight.fill_(1000.0)  # the squares are beyond float16
        weight_norm(module)
        assert module.weight_g.tolist() == [[8000.0]] * 2
        assert module.weight.dtype == tg.float16
        assert module.weight.tolist() == [[1000.0] * 64] * 2
        module.weight.sum().backward()
        assert all(p.grad.isfinite().all() for p in module.parameters())

    def test_a_weight_of_zeros_can_be_learned(self, device):
        module = nn.Embedding(3, 4, padding_idx=1, device=device).double()
        with tg.no_grad():
            module.weight[2].fill_(0.0)
        weight_norm(module)
        assert module.weight.tolist()[1:] == [[0.0] * 4] * 2
        assert module.weight_g.tolist()[1:] == [[0.0]] * 2
        (module(tg.tensor([0, 1, 2], device=device)) * 2.0).sum().backward()
        g, v = module.weight_g.grad, module.weight_v.grad
        assert g.isfinite().all()
        assert v.isfinite().all()
        assert g.tolist()[1:] == [[0.0], [4.0]]  # 2 · 4 ones over a norm of 2; no padding

    def test_a_direction_of_zeros_is_no_nan(self, device):
        module = weight_norm(nn.Linear(2, 2, bias=False, device=device))
        with tg.no_grad():
            module.weight_v.fill_(0.0)
            module.weight_g.fill_(3.0)
        assert module.weight.tolist() == [[0.0] * 2] * 2
        x = tg.tensor([[1.0, 2.0]], device=device)
        module(x).sum().backward(create_graph=True)
        assert module.weight_v.grad.tolist() == [[3.0, 6.0]] * 2  # g dy, as of norm 1
        assert module.weight_g.grad.tolist() == [[0.0]] * 2
        grads = tg.autograd.grad(module.weight_v.grad.sum(), list(module.parameters()))
        assert all(x.isfinite().all() for x in grads)

    def test_nan_stays_in_its_row(self):
        module = weight_norm(nn.Linear(3, 3))
        with tg.no_grad():
            module.weight_v[1].fill_(np.nan)
        finite = module.weight.isfinite().all(1).tolist()
        assert finite == [True, False, True]


class TestSurvival:
    @pytest.mark.parametrize("name", LAYERS)
    def test_copies_pickles_states_and_casts(self, name):
        module = weight_norm(layer_of(nn, name))
        (x, *rest) = LAYERS[name][1](np.random.default_rng(0))
        if not rest:
            assert_survives(module, tg.tensor(x))

    def test_copies_after_a_backward_are_leaves(self):
        module = weight_norm(nn.Linear(3, 2))
        module(tg.ones(3)).sum().backward()
        for twin in copies_of(module):
            assert all(p.is_leaf for p in twin.parameters())
            remove_weight_norm(twin)
        assert list(module.state_dict()) == ["bias", "weight_g", "weight_v"]

    def test_within_a_model(self):
        def made():
            layers = weight_norm(nn.Linear(3, 4)), nn.ReLU(), weight_norm(nn.Linear(4, 2))
            return nn.Sequential(*layers)

        model, other, x = made(), made(), tg.randn(5, 3)
        other.load_state_dict(model.state_dict())
        for twin in (other, *copies_of(model)):
            assert twin(x).tolist() == model(x).tolist()

    def test_devices(self, cuda):
        module = weight_norm(nn.Linear(3, 2))
        expected = module.weight.tolist()
        module.cuda()
        assert module.weight.device == cuda
        assert module.weight.tolist() == pytest.approx(np.array(expected), rel=1e-6)

    def test_a_value_cannot_be_put_in_the_place_of_the_weight(self):
        module = weight_norm(nn.Linear(3, 2))
        for value in (nn.Parameter(tg.ones(2, 3)), tg.ones(2, 3), None):
            with pytest.raises(StateError, match="'weight' to be computed from other parts"):
                module.weight = value
        with pytest.raises(ModuleError, match="'weight' to delete"):
            del module.weight
        assert module.weight.shape == (2, 3)

    def test_checkpointing(self):
        assert_checkpoints(weight_norm)


class TestErrors:
    def test_twice_on_one_name(self):
        for second in (weight_norm, spectral_norm, weight_standardization):
            module = weight_norm(nn.Linear(3, 2))
            with pytest.raises(ArgumentError, match="under weight_norm already"):
                second(module)
            assert list(module.state_dict()) == ["bias", "weight_g", "weight_v"]

    @pytest.mark.parametrize("name", ["bias", "0.weight", "forward", "training"])
    def test_no_such_parameter(self, name):
        for module in (nn.Sequential(nn.Linear(3, 2)), nn.Linear(3, 2, bias=False)):
            with pytest.raises(ModuleError, match=f"apply weight_norm to, got '{name}'"):
                weight_norm(module, name)

    @pytest.mark.parametrize("dim", [2, -3, 5])
    def test_no_such_axis(self, dim):
        module = nn.Linear(3, 2)
        with pytest.raises(ShapeError, match=f"an axis {dim} in the weight"):
            weight_norm(module, dim=dim)
        assert list(module.state_dict()) == ["weight", "bias"]

    @pytest.mark.parametrize("dim", [0.0, "0", True])
    def test_axes_that_are_no_numbers(self, dim):
        with pytest.raises(DtypeError, match="whole number as dim"):
            weight_norm(nn.Linear(3, 2), dim=dim)

    def test_taken_names(self):
        class Hidden(nn.Linear):
            weight = None

        module = nn.Linear(3, 2)
        module.weight_v = 1
        for taken, message in ((module, "weight_v to be free"), (Hidden(3, 2), "of the class")):
            with pytest.raises(ArgumentError, match=message):
                weight_norm(taken)
            assert list(taken.state_dict()) == ["weight", "bias"]

    def test_what_is_no_module(self):
        for function in (weight_norm, remove_weight_norm):
            with pytest.raises(DtypeError, match="expected a module"):
                function(tg.ones(2))

    def test_removing_what_is_not_there(self):
        for module in (nn.Linear(3, 2), spectral_norm(nn.Linear(3, 2))):
            with pytest.raises(ArgumentError, match="weight_norm on 'weight', got none"):
                remove_weight_norm(module)


class TestOptimizers:
    def test_made_afterwards_trains_both_parts(self):
        module = weight_norm(nn.Linear(3, 2))
        optimizer = tg.optim.Adam(module.parameters(), lr=0.1)
        before = {key: value.tolist() for key, value in module.state_dict().items()}
        weight = module.weight.tolist()
        for _ in range(2):
            optimizer.zero_grad()
            module(tg.randn(4, 3)).square().sum().backward()
            optimizer.step()
        assert all(value.tolist() != before[key] for key, value in module.state_dict().items())
        assert module.weight.tolist() != weight

    def test_made_before_goes_on_without_the_old_weight(self):
        """As in PyTorch: the parts are new parameters, which it has not been given."""
        module = nn.Linear(3, 2)
        optimizer = tg.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        module(tg.ones(1, 3)).sum().backward()
        optimizer.step()
        weight_norm(module)
        state = {key: value.tolist() for key, value in module.state_dict().items()}
        optimizer.zero_grad()
        module(tg.ones(1, 3)).square().sum().backward()
        optimizer.step()
        assert module.bias.tolist() != state["bias"]
        assert module.weight_v.tolist() == state["weight_v"]
        optimizer.add_param_group({"params": [module.weight_g, module.weight_v]})
        optimizer.step()
        assert module.weight_v.tolist() != state["weight_v"]
        assert module.weight_g.tolist() != state["weight_g"]

    def test_lengths_do_not_decay(self):
        model = nn.Sequential(weight_norm(nn.Linear(3, 2)), weight_norm(nn.Embedding(3, 2), dim=1))
        decaying, spared = tg.optim.param_groups(model, 0.1)
        assert decaying["params"] == [model[0].weight_v, model[1].weight_v]
        assert spared["params"] == [model[0].bias, model[0].weight_g, model[1].weight_g]


@pytest.mark.torch
class TestPyTorch:
    @pytest.mark.filterwarnings("ignore::FutureWarning")
    @pytest.mark.parametrize(("name", "dim"), CASES)
    def test_values_and_gradients(self, name, dim):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.utils.weight_norm(layer_of(torch.nn, name), dim=dim)
        ours = weight_norm(layer_of(nn, name), dim=dim)
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        with tg.no_grad(), torch.no_grad():
            ours.weight_g.mul_(2.0)
            theirs.weight_g.mul_(2.0)
        arrays = LAYERS[name][1](RNG)
        y, z = ours(*map(tg.tensor, arrays)), theirs(*map(torch.tensor, arrays))
        assert_close(y, z)
        y.square().sum().backward()
        z.square().sum().backward()
        for p, (key, q) in zip(ours.parameters(), theirs.named_parameters(), strict=True):
            assert_close(p.grad, q.grad, key)

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    @pytest.mark.parametrize(
        ("name", "dim"), [("Linear", 0), ("Linear", None), ("Bilinear", 2), ("Embedding", 1)]
    )
    def test_fifty_steps(self, name, dim):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.utils.weight_norm(layer_of(torch.nn, name), dim=dim)
        ours = weight_norm(layer_of(nn, name), dim=dim)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert_trains_like_pytorch(name, ours, theirs, {key: key for key in ours.state_dict()})
        theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})

    @pytest.mark.parametrize(("name", "dim"), [("Linear", 0), ("Bilinear", -1)])
    def test_fifty_steps_from_its_parametrizations(self, name, dim):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.utils.parametrizations.weight_norm(layer_of(torch.nn, name), dim=dim)
        ours = weight_norm(layer_of(nn, name), dim=dim)
        keys = {
            "bias": "bias",
            "parametrizations.weight.original0": "weight_g",
            "parametrizations.weight.original1": "weight_v",
        }
        assert_trains_like_pytorch(name, ours, theirs, keys)

    def test_states_of_a_model(self):
        torch = pytest.importorskip("torch")
        wrap = torch.nn.utils.parametrizations.weight_norm
        theirs = torch.nn.Sequential(
            wrap(torch.nn.Linear(3, 4)), torch.nn.Sequential(wrap(torch.nn.Linear(4, 2)))
        )
        ours = nn.Sequential(
            weight_norm(nn.Linear(3, 4)), nn.Sequential(weight_norm(nn.Linear(4, 2)))
        )
        state = {key: value.numpy() for key, value in theirs.state_dict().items()}
        ours.load_state_dict(state)
        x = RNG.normal(size=(5, 3)).astype(np.float32)
        expected = theirs(torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(ours(tg.tensor(x)).tolist(), expected, rtol=1e-5, atol=1e-6)
        both = {**state, "0.weight_g": state["0.parametrizations.weight.original0"]}
        with pytest.raises(StateError, match=r"unexpected keys: '0\.param"):
            ours.load_state_dict(both)

    def test_second_gradients(self):
        """Against the composed formula: PyTorch 2.13's own takes the norm for a constant."""
        torch = pytest.importorskip("torch")
        module = weight_norm(layer_of(nn, "Linear"))
        g, v, bias = (
            torch.tensor(module.state_dict()[key].numpy(), requires_grad=True)
            for key in ("weight_g", "weight_v", "bias")
        )
        x = RNG.normal(size=(6, 5))
        weight = v * (g / v.norm(dim=1, keepdim=True))
        outputs = module(tg.tensor(x)), torch.nn.functional.linear(torch.tensor(x), weight, bias)
        parameters = [module.weight_g, module.weight_v, module.bias], [g, v, bias]
        results = []
        for library, y, leaves in zip((tg, torch), outputs, parameters, strict=True):
            grads = library.autograd.grad(y.tanh().sum(), leaves, create_graph=True)
            results.append(library.autograd.grad(sum((z * z).sum() for z in grads), leaves))
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected)
