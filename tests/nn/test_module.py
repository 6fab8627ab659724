"""Modules: their parts, their dtype and device, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import (
    BackendError,
    DtypeError,
    ModuleError,
    StateError,
)


class Scaled(nn.Module):
    """A module with every kind of part."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.inner = nn.Linear(n, 2)
        self.scale = nn.Parameter(tg.ones(2))
        self.mean = nn.Buffer(tg.zeros(2))
        self.cache = nn.Buffer(tg.zeros(1), persistent=False)
        self.count = nn.Buffer(tg.tensor(7))
        self.absent = None

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.inner(x) * self.scale - self.mean


class TestParts:
    def test_are_found_by_their_type(self):
        m = Scaled()
        assert [n for n, _ in m.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
        assert [n for n, _ in m.named_buffers()] == ["mean", "cache", "count"]
        assert [n for n, _ in m.named_modules()] == ["", "inner"]
        assert list(m.children()) == [m.inner]

    def test_prefix_and_recursion(self):
        m = Scaled()
        assert [n for n, _ in m.named_parameters("net", recurse=False)] == ["net.scale"]
        assert [n for n, _ in m.named_modules(prefix="net")] == ["net", "net.inner"]

    def test_shared_ones_count_once_but_are_saved_under_every_name(self):
        first = nn.Linear(2, 2)
        m = nn.Sequential(first, nn.Linear(2, 2), first)
        m[1].weight = first.weight
        assert [n for n, _ in m.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
        assert len(list(m.named_parameters(remove_duplicate=False))) == 6
        assert [n for n, _ in m.named_modules()] == ["", "0", "1"]
        assert len(list(m.named_modules(remove_duplicate=False))) == 4
        assert list(m.state_dict()) == [f"{i}.{k}" for i in "012" for k in ("weight", "bias")]

    def test_a_replaced_part_leaves_its_kind(self):
        m = Scaled()
        m.scale = None
        assert [n for n, _ in m.named_parameters(recurse=False)] == []
        m.scale = nn.Parameter(tg.zeros(2))
        assert [n for n, _ in m.named_parameters(recurse=False)] == ["scale"]
        m.scale = nn.Buffer(tg.zeros(2))
        assert not list(m.parameters(recurse=False))
        assert "scale" in dict(m.named_buffers())

    def test_a_buffer_stays_one_when_a_tensor_is_assigned(self):
        m = Scaled()
        m.mean = m.mean + 1
        m.cache = tg.ones(1)
        assert [n for n, _ in m.named_buffers()] == ["mean", "cache", "count"]
        assert m.state_dict()["mean"].tolist() == [1, 1]
        assert "cache" not in m.state_dict()

    @pytest.mark.parametrize(
        ("name", "value"),
        [("scale", tg.zeros(2)), ("scale", 1.0), ("mean", [0.0]), ("inner", len)],
    )
    def test_a_part_refuses_what_is_not_of_its_kind(self, name, value):
        m = Scaled()
        before = getattr(m, name)
        with pytest.raises(DtypeError, match=f"{name}.*got {type(value).__name__}"):
            setattr(m, name, value)
        assert getattr(m, name) is before

    def test_can_be_registered_and_deleted(self):
        m = nn.Module()
        m.register_parameter("a", nn.Parameter(tg.zeros(1)))
        m.register_parameter("none", None)
        m.register_buffer("b", tg.zeros(1))
        m.register_buffer("c", tg.zeros(1), persistent=False)
        m.add_module("d", nn.Linear(1, 1, bias=False))
        assert list(m.state_dict()) == ["a", "b", "d.weight"]
        assert m.none is None
        m.none = nn.Parameter(tg.zeros(1))
        del m.a, m.d
        assert list(m.state_dict()) == ["none", "b"]
        with pytest.raises(AttributeError, match="'a'"):
            del m.a

    @pytest.mark.parametrize("name", ["", "a.b", "forward", "training", 3])
    def test_names_that_cannot_be_keys_are_refused(self, name):
        with pytest.raises(StateError):
            nn.Module().register_buffer(name, tg.zeros(1))

    def test_registering_refuses_other_kinds(self):
        m = nn.Module()
        for register, value in [
            (m.register_parameter, tg.zeros(1)),
            (m.register_buffer, np.zeros(1)),
            (m.register_module, len),
        ]:
            with pytest.raises(DtypeError, match=type(value).__name__):
                register("x", value)
        assert not hasattr(m, "x")

    def test_registering_leaves_parts_of_another_kind_alone(self):
        m = nn.Linear(2, 2)
        weight = m.weight
        for register, value in [
            (m.register_buffer, tg.zeros(2)),
            (m.register_module, nn.Identity()),
        ]:
            with pytest.raises(StateError, match="'weight' is a parameter already"):
                register("weight", value)
        assert m.weight is weight
        m.register_parameter("weight", nn.Parameter(tg.zeros(2, 2)))
        m.register_buffer("b", tg.zeros(1))
        m.register_buffer("b", tg.ones(1), persistent=False)
        assert list(m.state_dict()) == ["bias", "weight"]

    def test_are_had_by_their_paths(self):
        m = nn.Sequential(Scaled())
        assert m.get_submodule("0.inner") is m[0].inner
        assert m.get_submodule("") is m
        assert m.get_parameter("0.inner.weight") is m[0].inner.weight
        assert m.get_buffer("0.mean") is m[0].mean
        for call, path in [
            (m.get_submodule, "0.scale"),
            (m.get_parameter, "0.mean"),
            (m.get_buffer, "1.mean"),
        ]:
            with pytest.raises(AttributeError):
                call(path)


class TestMistakes:
    def test_a_missing_attribute_is_named(self):
        with pytest.raises(ModuleError, match="'Scaled' has no attribute 'wieght'"):
            Scaled().wieght  # noqa: B018
        assert not hasattr(Scaled(), "wieght")

    @pytest.mark.parametrize(
        "part", [nn.Parameter(tg.zeros(1)), nn.Buffer(tg.zeros(1)), nn.Identity()]
    )
    def test_forgetting_super_init_is_named(self, part):
        class Forgetful(nn.Module):
            def __init__(self):
                self.part = part

        with pytest.raises(ModuleError, match=r"Forgetful.*super\(\).__init__\(\).*'part'"):
            Forgetful()

    def test_a_module_without_init_says_so_when_asked_for_its_parts(self):
        class Forgetful(nn.Module):
            def __init__(self):
                self.n = 3

            def forward(self, x):
                return x * self.n

        assert Forgetful()(2) == 6
        with pytest.raises(ModuleError, match=r"super\(\).__init__\(\)"):
            list(Forgetful().parameters())

    def test_forward_must_be_defined(self):
        with pytest.raises(NotImplementedError, match="ModuleList to define forward"):
            nn.ModuleList()(tg.zeros(1))

    def test_the_mode_is_a_bool(self):
        with pytest.raises(DtypeError, match="got 'yes'"):
            Scaled().train("yes")


class TestModes:
    def test_train_and_eval_reach_all(self):
        m = nn.Sequential(nn.Sequential(nn.Identity()))
        assert m.eval() is m
        assert not any(module.training for module in m.modules())
        m.train()
        assert all(module.training for module in m.modules())

    def test_requires_grad_and_zero_grad(self):
        m = Scaled().requires_grad_(False)
        assert not any(p.requires_grad for p in m.parameters())
        m.requires_grad_()
        m(tg.ones(1, 3)).sum().backward()
        held = m.scale.grad.array
        m.zero_grad(set_to_none=False)
        assert m.scale.grad.array is held
        assert m.scale.grad.tolist() == [0, 0]
        m.zero_grad()
        assert all(p.grad is None for p in m.parameters())

    def test_apply_reaches_the_deepest_first(self):
        seen = []
        m = nn.Sequential(nn.Sequential(nn.Identity()), nn.Flatten())
        assert m.apply(lambda module: seen.append(type(module).__name__)) is m
        assert seen == ["Identity", "Sequential", "Flatten", "Sequential"]

    def test_to_casts_floats_only_and_keeps_the_parameters_themselves(self):
        m = Scaled()
        m(tg.ones(1, 3)).sum().backward()
        params = list(m.parameters())
        assert m.double() is m
        assert all(a is b for a, b in zip(m.parameters(), params, strict=True))
        assert {p.dtype for p in params} == {p.grad.dtype for p in params} == {tg.float64}
        assert m.mean.dtype == tg.float64
        assert m.count.dtype == tg.int64
        assert all(p.requires_grad and p.is_leaf for p in params)
        assert m(tg.ones(1, 3, dtype=tg.float64)).dtype == tg.float64
        assert m.to(tg.zeros(1, dtype=tg.float16)).scale.dtype == tg.float16
        assert m.float().half().scale.dtype == tg.float16
        assert m.to("cpu", tg.float32).cpu().scale.dtype == tg.float32

    def test_to_moves_all_parts_with_their_gradients(self, cuda):
        m = Scaled()
        m(tg.ones(1, 3)).sum().backward()
        params, grad = list(m.parameters()), m.scale.grad.tolist()
        assert m.to(cuda) is m
        assert all(a is b for a, b in zip(m.parameters(), params, strict=True))
        moved = [*params, *m.buffers(), *(p.grad for p in params)]
        assert {x.device for x in moved} == {cuda}
        assert m.scale.grad.tolist() == grad
        assert m(tg.ones(1, 3, device=cuda)).device == cuda
        assert {x.device for x in (*m.cpu().cuda(0).parameters(),)} == {cuda}

    def test_gradients_accumulate_after_a_conversion(self):
        m = nn.Linear(2, 1, bias=False)
        for dtype in (tg.float32, tg.float64):
            m.to(dtype)(tg.ones(1, 2, dtype=dtype)).sum().backward()
        assert m.weight.grad.dtype == tg.float64
        assert m.weight.grad.tolist() == [[2, 2]]

    def test_to_the_same_dtype_keeps_the_memory(self):
        m = nn.Linear(2, 2)
        held = m.weight.array
        assert m.float().cpu().weight.array is held

    @pytest.mark.parametrize("target", [tg.int32, "float99", "tpu", "cuda:99"])
    def test_to_refuses_before_it_changes_anything(self, target):
        m = nn.Linear(2, 2)
        held = m.weight.array
        with pytest.raises((DtypeError, BackendError)):
            m.to(target)
        assert m.weight.array is held


class TestRepresentation:
    def test_is_pytorchs(self):
        m = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Sequential(nn.Identity()))
        assert repr(m) == (
            "Sequential(\n"
            "  (0): Linear(in_features=2, out_features=3, bias=False)\n"
            "  (1): Sequential(\n"
            "    (0): Identity()\n"
            "  )\n"
            ")"
        )
        assert repr(nn.Module()) == "Module()"


@pytest.mark.torch
class TestAgainstPyTorch:
    def test_a_nested_model_loads_and_agrees(self):
        torch = pytest.importorskip("torch")

        def model(nn, tanh):
            class Block(nn.Module):
                def __init__(self, n):
                    super().__init__()
                    self.layers = nn.ModuleList([nn.Linear(n, n), nn.Linear(n, n, bias=False)])
                    self.heads = nn.ModuleDict({"a": nn.Linear(n, 2)})
                    self.gain = nn.Parameter(tanh.ones(n))
                    self.register_buffer("shift", tanh.ones(n))

                def forward(self, x):
                    for layer in self.layers:
                        x = tanh.tanh(layer(x)) * self.gain + self.shift
                    return self.heads["a"](x)

            return nn.Sequential(nn.Linear(3, 5), Block(5), nn.Sequential(nn.Linear(2, 4)))

        theirs, ours = model(torch.nn, torch).double(), model(nn, tg).double()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
        assert repr(ours) == repr(theirs)
        ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        x = np.random.default_rng(0).standard_normal((6, 3))
        a, b = ours(tg.tensor(x)), theirs(torch.tensor(x))
        (a * a).sum().backward()
        (b * b).sum().backward()
        # both sum a handful of products in float64; the order may differ
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-13)
