"""Sequences and dictionaries of modules and of parameters."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.autograd.walk import collect
from tinygrad_bn.errors import DtypeError, RangeError, StateError


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def factors(modules):
    return [module.factor for module in modules]


class TestSequential:
    def test_calls_one_after_another(self):
        assert nn.Sequential(Times(2), Times(5))(3) == 30
        assert nn.Sequential()(3) == 3

    def test_takes_names_from_a_mapping(self):
        m = nn.Sequential(OrderedDict(first=nn.Linear(1, 2), last=nn.Linear(2, 1)))
        assert list(m.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]
        assert m[0] is m.first
        assert list(m[1:].state_dict()) == ["last.weight", "last.bias"]

    def test_a_slice_is_of_the_same_class_and_shares_the_modules(self):
        class Net(nn.Sequential):
            def __init__(self, n):
                super().__init__(*[Times(i) for i in range(n)])

        m = Net(4).eval()
        few = m[1:3]
        assert type(few) is Net
        assert few[0] is m[1]
        assert [name for name, _ in few.named_children()] == ["0", "1"]
        assert not few.training

    def test_hooks_of_its_parts_run(self):
        m = nn.Sequential(Times(2))
        m[0].register_forward_hook(lambda module, args, output: -output)
        assert m(3) == -6


KINDS = {
    "1d": (nn.BatchNorm1d, (6, 3)),
    "1d of sequences": (nn.BatchNorm1d, (6, 3, 4)),
    "2d": (nn.BatchNorm2d, (6, 3, 2, 2)),
    "3d": (nn.BatchNorm3d, (6, 3, 2, 1, 2)),
}


class TestANormAndItsReLU:
    """They are computed as one, and nobody can tell."""

    @pytest.fixture(params=list(KINDS))
    def pair(self, request, device):
        kind, shape = KINDS[request.param]
        norm = kind(shape[1], device=device)
        affine = {"weight": tg.tensor([1.5, -2.0, 0.5]), "bias": tg.full((3,), 0.1)}
        norm.load_state_dict(norm.state_dict() | affine)
        return nn.Sequential(norm, nn.ReLU()), tg.randn(*shape, device=device)

    def results(self, run, norm, x):
        """What comes out, the gradients, and the running statistics."""
        x = x.detach().requires_grad_()
        norm.zero_grad()
        y = run(x)
        (y * tg.arange(y.numel(), device=x.device).float().reshape(y.shape)).sum().backward()
        grads = [x.grad, *(p.grad for p in norm.parameters() if p.requires_grad)]
        return [t.tolist() for t in (y, *grads, *norm.buffers())]

    def compared(self, model, x, nodes):
        """That the model does what its parts do one by one, in so many nodes."""
        twin = copy.deepcopy(model)
        got = self.results(model, model[0], x)
        assert got == self.results(lambda x: twin[1](twin[0](x)), twin[0], x)
        y = model(x.detach().requires_grad_())
        assert len(collect([y])) == nodes

    def test_in_training(self, pair):
        self.compared(*pair, nodes=1)

    def test_in_evaluation(self, pair):
        model, x = pair
        self.compared(model.eval(), x, nodes=2)

    def test_with_frozen_statistics(self, pair):
        model, x = pair
        model[0].freeze(affine=False)
        self.compared(model, x, nodes=2)

    def test_with_frozen_parameters(self, pair):
        model, x = pair
        model[0].freeze(stats=False)
        self.compared(model, x, nodes=1)

    def test_of_an_input_without_a_gradient(self, pair):
        model, x = pair
        twin = copy.deepcopy(model)
        model(x).square().sum().backward()
        twin[1](twin[0](x)).square().sum().backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert p.grad.tolist() == q.grad.tolist()

    def test_gradients_of_gradients(self, pair):
        model, x = pair[0].double(), pair[1].double()
        norm, relu = model

        def penalty(run):
            z = x.detach().requires_grad_()
            (dz,) = tg.autograd.grad(run(z).square().sum(), [z], create_graph=True)
            dz.square().sum().backward()
            return [z.grad, *(p.grad for p in norm.parameters())]

        got = penalty(model)
        norm.zero_grad()
        for a, b in zip(got, penalty(lambda z: relu(norm(z))), strict=True):
            # the same sums in another order
            np.testing.assert_allclose(a.tolist(), b.tolist(), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("place", [0, 1])
    def test_a_hook_sees_what_comes_between(self, pair, place):
        model, x = pair
        seen = []
        model[place].register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
        y = model(x)
        between = seen[0][1 - place]
        assert (between.tolist() == y.tolist()) is False
        assert between.relu().tolist() == y.tolist()

    @pytest.mark.parametrize("place", [0, 1])
    def test_a_forward_of_ones_own_is_called(self, pair, place):
        model, x = pair
        forward, calls = model[place].forward, []
        model[place].forward = lambda x: calls.append(1) or forward(x)
        model(x)
        assert calls == [1]

    def test_a_class_of_ones_own_is_called(self, pair):
        class Halved(type(pair[0][0])):
            def forward(self, input):
                return super().forward(input) / 2

        model, x = pair
        halved = Halved(3, device=x.device)
        halved.load_state_dict(model[0].state_dict())
        half = nn.Sequential(halved, nn.ReLU())(x)
        np.testing.assert_allclose(half.tolist(), (model(x) / 2).tolist(), rtol=1e-6)

    def test_anomalies_are_named_by_the_module(self, pair):
        model, x = pair
        with tg.autograd.detect_anomaly():
            y = model(x.detach().requires_grad_())
        assert "'1' (ReLU)" in y.grad_fn.trace

    def test_other_neighbours_stay(self, device):
        model = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3), nn.GELU(), nn.BatchNorm1d(3))
        model.append(nn.ReLU()).append(nn.ReLU()).to(device)
        assert len(collect([model(tg.randn(6, 3, device=device))])) == 4


@pytest.mark.parametrize("kind", [nn.Sequential, lambda *modules: nn.ModuleList(modules)])
class TestSequences:
    def test_index_length_and_iteration(self, kind):
        m = kind(*map(Times, range(3)))
        assert len(m) == 3
        assert factors(m) == [0, 1, 2]
        assert m[-1].factor == 2
        assert m[1] in m
        assert Times(1) not in m
        for index in (3, -4):
            with pytest.raises(RangeError, match=f"from -3 to 2, got {index}"):
                m[index]

    def test_changes_keep_the_names_in_order(self, kind):
        m = kind(Times(0))
        assert m.append(Times(2)) is m
        m.insert(1, Times(1))
        m.extend([Times(3)])
        m += [Times(4)]
        assert factors(m) == [0, 1, 2, 3, 4]
        assert factors(m + kind(Times(5))) == [0, 1, 2, 3, 4, 5]
        assert len(m) == 5
        assert m.pop(1).factor == 1
        del m[-2:]
        m[1] = Times(9)
        m.insert(-1, Times(8))
        assert factors(m) == [0, 8, 9]
        assert [name for name, _ in m.named_children()] == ["0", "1", "2"]

    def test_only_modules_are_taken(self, kind):
        m = kind(Times(0), Times(1))
        for change in (
            lambda: m.append(len),
            lambda: m.extend([Times(2), len]),
            lambda: m.insert(0, len),
            lambda: m.__setitem__(0, len),
            lambda: kind(len),
        ):
            with pytest.raises(DtypeError, match="expected a Module, got builtin"):
                change()
        assert factors(m) == [0, 1]


class TestModuleDict:
    def test_is_a_dictionary(self):
        m = nn.ModuleDict({"a": Times(1), "b": Times(2)})
        m["c"] = Times(3)
        m["a"] = Times(9)
        m.update([("d", Times(4))])
        assert list(m) == list(m.keys()) == ["a", "b", "c", "d"]
        assert factors(m.values()) == [9, 2, 3, 4]
        assert [key for key, _ in m.items()] == list(m)
        assert "a" in m
        assert "x" not in m
        assert m.pop("b").factor == 2
        del m["c"]
        assert len(m) == 2
        m.clear()
        assert not len(m)

    def test_unknown_keys_and_keys_that_are_methods_are_refused(self):
        m = nn.ModuleDict({"a": Times(1)})
        with pytest.raises(KeyError, match=r"\['a'\], got 'b'"):
            m["b"]
        with pytest.raises(StateError, match="'items'"):
            m["items"] = Times(1)
        with pytest.raises(DtypeError):
            m["a"] = 3
        assert m.a.factor == 1


class TestParameters:
    def test_a_list_of_them(self):
        given = nn.Parameter(tg.ones(2))
        m = nn.ParameterList([given, tg.zeros(3)])
        m.append(tg.zeros(1))
        assert m[0] is given
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in m)
        assert list(m.state_dict()) == ["0", "1", "2"]
        assert "(1): Parameter of float32 (3,) on cpu" in repr(m)
        with pytest.raises(DtypeError, match="got float"):
            m.append(1.0)

    def test_a_dictionary_of_them(self):
        m = nn.ParameterDict({"a": tg.ones(2)})
        m["b"] = nn.Parameter(tg.zeros(1))
        assert list(m.state_dict()) == ["a", "b"]
        assert all(isinstance(p, nn.Parameter) for p in m.values())
        assert "(a): Parameter of float32 (2,) on cpu" in repr(m)
