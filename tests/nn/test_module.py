"""Modules: their parts, their state, their dtype and device, and hooks around forward."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import (
    ArgumentError,
    BackendError,
    DtypeError,
    GradientError,
    ModuleError,
    StateError,
    TinygradError,
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


class Doubled(nn.Module):
    def forward(self, x, factor=2.0):
        return x * factor


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


class TestStateDict:
    def test_has_pytorchs_order_and_shares_memory(self):
        m = Scaled()
        state = m.state_dict(prefix="net.")
        assert isinstance(state, OrderedDict)
        names = ["scale", "mean", "count", "inner.weight", "inner.bias"]
        assert list(state) == [f"net.{name}" for name in names]
        assert not any(value.requires_grad for value in state.values())
        state["net.scale"].overwrite(np.array([5.0, 6.0]))
        assert m.scale.tolist() == [5, 6]

    def test_loads_in_place(self):
        source, target = Scaled(), Scaled()
        kept = {name: value.array for name, value in target.state_dict().items()}
        result = target.load_state_dict(source.state_dict())
        assert result == ([], [])
        assert (result.missing_keys, result.unexpected_keys) == ([], [])
        for name, value in target.state_dict().items():
            assert value.array is kept[name]
            assert np.array_equal(value.numpy(), source.state_dict()[name].numpy())
        assert target.scale.requires_grad

    def test_takes_numpy_arrays_and_keeps_its_dtypes(self):
        m = nn.Linear(2, 1)
        m.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3])})
        assert m.weight.dtype == m.bias.dtype == np.float32
        assert m(tg.ones(2)).tolist() == [6.0]

    def test_everything_that_does_not_fit_is_named_and_nothing_is_changed(self):
        m = Scaled()
        before = copy.deepcopy(m.state_dict())
        state = {k: v + 1 for k, v in before.items()}
        del state["mean"]
        state |= {
            "scale": tg.zeros(3),
            "inner.bias": [0.0, 0.0],
            "count": np.array(1.5),
            "extra": tg.zeros(1),
        }
        with pytest.raises(StateError) as caught:
            m.load_state_dict(state)
        for line in (
            "this Scaled",
            "missing keys: 'mean'",
            "unexpected keys: 'extra'",
            "'scale': expected shape (2,), got (3,)",
            "'inner.bias': expected a tensor or a NumPy array, got list",
            "'count': expected int64, got float64",
        ):
            assert line in str(caught.value)
        for name, value in m.state_dict().items():
            assert np.array_equal(value.numpy(), before[name].numpy())

    def test_loads_across_devices(self, cuda):
        source, target = nn.Linear(2, 2), nn.Linear(2, 2, device=cuda)
        target.load_state_dict(source.state_dict())
        assert target.weight.device == cuda
        assert target.weight.tolist() == source.weight.tolist()
        source.load_state_dict(target.state_dict())
        assert source.weight.device == "cpu"

    def test_objects_and_complex_numbers_are_refused(self):
        m = nn.Linear(1, 1, bias=False)
        for bad in (np.array([[None]]), np.array([[1j]])):
            with pytest.raises(StateError, match=f"'weight': expected float32, got {bad.dtype}"):
                m.load_state_dict({"weight": bad})
        with pytest.raises(StateError, match="a mapping"):
            m.load_state_dict([m.weight])

    def test_strict_false_tolerates_other_keys_but_no_other_shapes(self):
        m = nn.Linear(2, 1)
        result = m.load_state_dict({"bias": np.ones(1), "x": np.ones(1)}, strict=False)
        assert result == (["weight"], ["x"])
        assert m.bias.item() == 1
        with pytest.raises(StateError, match="'bias'"):
            m.load_state_dict({"bias": np.ones(2)}, strict=False)

    def test_a_graph_sees_that_it_was_loaded_over(self):
        m = nn.Linear(2, 2)
        y = m(tg.ones(3, 2, requires_grad=True)).sum()
        m.load_state_dict(nn.Linear(2, 2).state_dict())
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()


class TestCopies:
    def test_a_deep_copy_shares_nothing_and_keeps_what_was_shared(self):
        m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        m[1].weight = m[0].weight
        twin = copy.deepcopy(m)
        assert twin[1].weight is twin[0].weight is not m[0].weight
        assert type(twin[0].weight) is nn.Parameter
        twin[0].weight.detach().overwrite(0)
        assert m[0].weight.abs().sum().item() > 0
        assert list(twin.state_dict()) == list(m.state_dict())

    def test_a_copied_buffer_is_as_persistent_as_before(self):
        for buffer in (nn.Buffer(tg.ones(1), persistent=False), nn.Buffer(tg.ones(1))):
            for twin in (copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
                assert type(twin) is nn.Buffer
                assert twin.persistent == buffer.persistent
                assert twin.tolist() == [1]

    def test_pickles(self):
        m = Scaled().eval()
        twin = pickle.loads(pickle.dumps(m))
        x = tg.randn(4, 3)
        assert np.array_equal(twin(x).detach().numpy(), m(x).detach().numpy())
        assert list(twin.state_dict()) == list(m.state_dict())
        assert not twin.training
        assert twin.scale.requires_grad


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


class TestForwardHooks:
    def test_before_forward_may_replace_the_arguments(self):
        m = Doubled()
        seen = []
        m.register_forward_pre_hook(lambda module, args: seen.append((module, args)))
        with m.register_forward_pre_hook(lambda module, args: args[0] + 1):
            assert m(3) == 8
        assert m(3) == 6
        assert seen == [(m, (3,)), (m, (3,))]

    def test_before_forward_may_replace_keywords(self):
        m = Doubled()
        m.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {"factor": kwargs["factor"] + 1}), with_kwargs=True
        )
        assert m(2, factor=3) == 8

    def test_after_forward_may_replace_the_output(self):
        m = Doubled()
        first = m.register_forward_hook(lambda module, args, output: output + 1)
        m.register_forward_hook(
            lambda module, args, kwargs, output: (args, kwargs, output), with_kwargs=True
        )
        assert m(2, factor=1) == ((2,), {"factor": 1}, 3)
        first.remove()
        assert m(2, factor=1) == ((2,), {"factor": 1}, 2)

    def test_the_same_hook_twice_is_removed_once(self):
        m, seen = Doubled(), []

        def hook(module, args):
            seen.append(args)

        handle = m.register_forward_pre_hook(hook)
        m.register_forward_pre_hook(hook)
        handle.remove()
        m(1)
        assert len(seen) == 1


class TestBackwardHooks:
    def test_sees_the_gradients_of_inputs_and_outputs(self):
        m, seen = Doubled(), []
        m.register_full_backward_hook(lambda *args: seen.append(args))
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        (m(x * 1) * tg.tensor([3.0, 4.0])).sum().backward()
        [(module, grad_input, grad_output)] = seen
        assert module is m
        assert [g.tolist() for g in grad_output] == [[3, 4]]
        assert [g.tolist() for g in grad_input] == [[6, 8]]
        assert x.grad.tolist() == [6, 8]

    def test_may_replace_the_gradient_of_the_input(self):
        m = Doubled()
        m.register_full_backward_hook(lambda m, grad_input, grad_output: (grad_input[0] * 10,))
        x = tg.tensor([1.0], requires_grad=True)
        m(x).sum().backward()
        assert x.grad.tolist() == [20]

    def test_parameters_get_the_gradients_they_would_have_had(self):
        plain = nn.Linear(3, 2)
        hooked = copy.deepcopy(plain)
        hooked.register_full_backward_hook(lambda *args: None)
        x = tg.randn(4, 3)
        for m in (plain, hooked):
            m(x).square().sum().backward()
        assert np.array_equal(plain.weight.grad.numpy(), hooked.weight.grad.numpy())

    def test_without_a_gradient_of_the_input_there_is_none(self):
        m, seen = nn.Linear(2, 2), []
        m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].tolist())))
        m(tg.ones(1, 2)).sum().backward()
        assert seen == [((None,), [[1, 1]])]

    def test_several_inputs_and_outputs(self):
        class Swap(nn.Module):
            def forward(self, a, n, b):
                return b * n, n, a * 2

        m, seen = Swap(), []
        m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
        a, b = (tg.ones(1, requires_grad=True) for _ in range(2))
        first, _, second = m(a, 3, b)
        (first + 5 * second).sum().backward()
        [(grad_input, grad_output)] = seen
        assert [g and g.item() for g in grad_input] == [10, None, 3]
        assert [g and g.item() for g in grad_output] == [1, None, 5]

    def test_gradients_of_gradients_pass_through(self):
        m = Doubled()
        m.register_full_backward_hook(lambda *args: None)
        x = tg.tensor([3.0], requires_grad=True)
        y = (m(x) ** 3).sum()
        (first,) = tg.autograd.grad(y, x, create_graph=True)
        (second,) = tg.autograd.grad(first.sum(), x)
        assert first.item() == 3 * 2 * 36  # d(2x)³/dx = 24 x²
        assert second.item() == 48 * 3

    def test_a_result_of_another_length_is_refused(self):
        m = Doubled()
        m.register_full_backward_hook(lambda m, gi, go: (gi[0], gi[0]))
        y = m(tg.ones(1, requires_grad=True)).sum()
        with pytest.raises(ArgumentError, match="return 1 gradients, got 2"):
            y.backward()

    def test_nothing_is_recorded_under_no_grad(self):
        m = Doubled()
        m.register_full_backward_hook(lambda *args: None)
        with tg.no_grad():
            assert not m(tg.ones(1, requires_grad=True)).requires_grad

    def test_a_change_in_place_of_the_input_is_still_seen(self):
        class Squared(nn.Module):
            def forward(self, x):
                return x * x

        m = Squared()
        m.register_full_backward_hook(lambda *args: None)
        x = tg.ones(2, requires_grad=True)
        y = m(x).sum()
        x.detach().overwrite(3)
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()


class TestAnomalyMode:
    def test_names_the_module_in_the_trace(self):
        class Root(nn.Module):
            def forward(self, x):
                return (x - 1).sqrt()

        m = nn.Sequential(nn.Identity(), nn.Sequential(Root()))
        token = tg.config.anomaly_mode.set(True)
        try:
            y = m(tg.ones(1, requires_grad=True) * 1)
            with pytest.raises(TinygradError, match=r"In module '1.0' \(Root\)"):
                (y * 0).sum().backward()
        finally:
            tg.config.anomaly_mode.reset(token)
        assert tg.config.where.get() == ""


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
