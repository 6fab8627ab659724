"""The flat layout: whatever parameters and gradients go through, a step trains the model."""

from __future__ import annotations

import copy
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optim.problem import START, Trained, distance
from tinygrad_bn import nn, optim
from tinygrad_bn.errors import ArgumentError, DtypeError, GradientError, ShapeError
from tinygrad_bn.optim.flat import ALIGNMENT, Run

Parameter = tg.Parameter


def params_of(*shapes: tuple[int, ...], dtype: str = "float64", device: str = "cpu") -> list[Any]:
    random = np.random.default_rng(3)
    return [Parameter(random.standard_normal(s), dtype=dtype, device=device) for s in shapes]


def give_gradients(params: list[Any], value: float = 1.0) -> None:
    for p in params:
        p.grad = tg.full_like(p, value)


class TestLayout:
    def test_parameters_lie_side_by_side_on_cache_lines_in_their_shapes(self) -> None:
        params = params_of((3, 5), (), (7,), (0, 4), (2, 1, 2), dtype="float32")
        before = [p.detach().numpy().copy() for p in params]
        optim.SGD(params, lr=0.1)
        for p, value in zip(params, before, strict=True):
            assert p.array.ctypes.data % ALIGNMENT == 0
            np.testing.assert_array_equal(p.array, value)
            assert p.shape == value.shape
        params = [p for p in params if p.numel()]
        ends = [p.array.ctypes.data + p.array.nbytes for p in params]
        for p, end in zip(params[1:], ends, strict=False):
            assert 0 <= p.array.ctypes.data - end < ALIGNMENT

    def test_backward_writes_gradients_into_the_buffer(self) -> None:
        trained = Trained("Adam")
        trained.loss()
        for p in trained.params:
            assert p._grad is not None
            assert p._grad.array is p.slot

    def test_one_kernel_call_updates_a_group(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        update = Run.update

        def counted(run: Run, kernel: Any, *args: Any, **kwargs: Any) -> None:
            assert kernel is optim.adam.adam_update
            calls.append(run.param.size)
            update(run, kernel, *args, **kwargs)

        monkeypatch.setattr(Run, "update", counted)
        trained = Trained("Adam")
        trained.steps(2)  # a third one would be the second's calls, made again
        assert len(calls) == 2
        assert min(calls) >= sum(x.size for x in START)

    def test_a_second_step_uses_other_options_and_other_kernels_if_asked_to(self) -> None:
        p = Parameter(np.ones(3))
        rate = tg.tensor(0.5)
        optimizer = optim.SGD([p], lr=rate)
        for lr, expected in ((0.5, 0.5), (0.25, 0.25), (0.125, 0.125)):
            rate.fill_(lr)  # the same tensor, with another value
            give_gradients([p])
            optimizer.step()
            np.testing.assert_array_equal(p.tolist(), [expected] * 3)
        optimizer.param_groups[0]["lr"] = 1.0
        give_gradients([p])
        with tg.reference_kernels():
            optimizer.step()
        np.testing.assert_array_equal(p.tolist(), [-0.875] * 3)

    def test_betas_that_are_changed_in_place_are_seen(self) -> None:
        betas = [0.9, 0.5]
        p, q = Parameter(np.ones(3)), Parameter(np.ones(3))
        changed = optim.Adam([p], lr=0.1, betas=betas)  # type: ignore[arg-type]
        exchanged = optim.Adam([q], lr=0.1, betas=(0.9, 0.5))
        for step in range(4):
            if step == 2:
                betas[0] = 0.1
                exchanged.param_groups[0]["betas"] = (0.1, 0.5)
            for optimizer, x in ((changed, p), (exchanged, q)):
                give_gradients([x], step + 1.0)
                optimizer.step()
        assert p.tolist() == q.tolist()

    def test_climbing_and_descending_in_turns(self) -> None:
        p = Parameter(np.zeros(3))
        optimizer = optim.SGD([p], lr=1.0)
        for maximize, expected in ((False, -1.0), (False, -2.0), (True, -1.0), (False, -2.0)):
            optimizer.param_groups[0]["maximize"] = maximize
            give_gradients([p])
            optimizer.step()
            assert p.tolist() == [expected] * 3

    def test_dtypes_and_devices_have_buffers_of_their_own(self) -> None:
        wide, narrow = params_of((3,)), params_of((3,), dtype="float32")
        half, far = (
            params_of((3,), dtype="float16"),
            params_of((3,), dtype="float32", device="cuda"),
        )
        params = [*wide, *narrow, *half, *far]
        optimizer = optim.Adam(params, lr=0.5)
        give_gradients(params)
        before = [p.detach().cpu().numpy().astype(float) for p in params]
        optimizer.step()
        for p, value, tolerance in zip(params, before, (1e-7, 1e-6, 2e-3, 1e-6), strict=True):
            # the first step is lr in every element; the tolerances are the dtypes' roundings
            np.testing.assert_allclose(p.detach().cpu().numpy(), value - 0.5, atol=tolerance)
        assert [p.dtype.name for p in params] == ["float64", "float32", "float16", "float32"]

    def test_integers_and_frozen_parameters_stay(self) -> None:
        frozen, counts = Parameter(np.ones(3), requires_grad=False), tg.Tensor([1, 2])
        (trained,) = params_of((2,))
        optimizer = optim.SGD([frozen, counts, trained], lr=0.1)
        give_gradients([trained])
        optimizer.step()
        assert frozen.tolist() == [1, 1, 1]
        assert counts.tolist() == [1, 2]

    def test_two_parameters_in_one_memory_are_refused(self) -> None:
        base = np.zeros(4)
        a, b = Parameter(tg.from_numpy(base[:3])), Parameter(tg.from_numpy(base[1:]))
        with pytest.raises(ArgumentError, match="overlap"):
            optim.SGD([a, b], lr=0.1)
        assert a.array.base is base

    def test_two_parameters_made_of_one_tensor_are_refused(self) -> None:
        a = params_of((3,))[0]
        b = Parameter(a.detach())
        with pytest.raises(ArgumentError, match="overlap"):
            optim.SGD([a, b], lr=0.1)

    def test_arrays_in_another_order_and_read_only_ones(self) -> None:
        fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        constant = np.broadcast_to(np.ones(1), (4,))
        a, b = Parameter(tg.from_numpy(fortran)), Parameter(tg.Tensor.wrap(constant, a_backend()))
        optimizer = optim.SGD([a, b], lr=1.0)
        give_gradients([a, b])
        optimizer.step()
        assert a.tolist() == [[-1, 0, 1], [2, 3, 4]]
        assert b.tolist() == [0, 0, 0, 0]


def a_backend() -> Any:
    return tg.zeros(1).backend


class TestMissingGradients:
    def test_state_and_step_of_a_skipped_parameter_stay(self) -> None:
        params = params_of((2,), (3,), (2,))
        optimizer = optim.Adam(params, lr=0.1)
        kept = params[1].detach().numpy().copy()
        give_gradients([params[0], params[2]])
        optimizer.step()
        np.testing.assert_array_equal(params[1].array, kept)
        assert params[1] not in optimizer.state
        give_gradients(params)
        optimizer.step()
        assert [float(optimizer.state[p]["step"]) for p in params] == [2, 1, 2]

    def test_state_survives_being_split(self) -> None:
        params, twins = params_of((2,), (3,), (2,)), params_of((2,), (3,), (2,))
        optimizer = optim.Adam(params, lr=0.1)
        apart = [optim.Adam([p], lr=0.1) for p in twins]
        for missing in (None, None, 1, None, 0, 0, 2, None):
            for group in (params, twins):
                give_gradients(group, 0.5)
                if missing is not None:
                    group[missing].grad = None
            optimizer.step()
            for one in apart:
                one.step()
        for p, q in zip(params, twins, strict=True):
            np.testing.assert_array_equal(
                p.array, q.array
            )  # the same operations, element by element

    def test_no_gradients_at_all(self) -> None:
        params = params_of((2,))
        optimizer = optim.Adam(params)
        optimizer.step()
        assert not optimizer.state


class TestRebinding:
    @pytest.mark.parametrize("name", ["SGD", "Adam", "LAMB"])
    def test_data_given_anew_is_trained(self, name: str) -> None:
        (p,), (q,) = params_of((3,)), params_of((3,))
        mine, fresh = getattr(optim, name)([p], lr=0.1), getattr(optim, name)([q], lr=0.1)
        for replace in (False, True, False):
            if replace:
                p.data = tg.Tensor(np.full(3, 5.0))
                with tg.no_grad():
                    q.overwrite(np.full(3, 5.0))
            give_gradients([p, q])
            mine.step()
            fresh.step()
        np.testing.assert_array_equal(p.array, q.array)

    def test_a_gradient_assigned_by_hand_is_used(self) -> None:
        (p,) = params_of((3,))
        optimizer = optim.SGD([p], lr=1.0)
        start = p.detach().numpy().copy()
        p.grad = tg.Tensor(np.array([1.0, 2.0, 3.0]))
        optimizer.step()
        np.testing.assert_array_equal(p.array, start - [1, 2, 3])
        p.grad = p.grad * 2
        optimizer.step()
        np.testing.assert_allclose(p.array, start - [3, 6, 9], rtol=1e-15)

    def test_a_gradient_with_a_graph_is_used_and_left_alone(self) -> None:
        (p,) = params_of((3,))
        optimizer = optim.SGD([p], lr=0.5)
        start = p.detach().numpy().copy()
        (p * p * p).sum().backward(create_graph=True)
        grad = p.grad
        optimizer.step()
        np.testing.assert_allclose(p.array, start - 0.5 * 3 * start**2, rtol=1e-15)
        np.testing.assert_allclose(grad.detach().numpy(), 3 * start**2, rtol=1e-15)

    def test_two_optimizers_over_the_same_parameters(self) -> None:
        trained, reference = Trained("SGD", lr=0.05, momentum=0.9), Trained("SGD", lr=0.05)
        reference.optimizer = optim.SGD(reference.params, lr=0.05, momentum=0.9)
        others = [optim.Adam(trained.params, lr=0.01), optim.Adam(reference.params, lr=0.01)]
        # the reference copies its parameters to memory of their own before every step
        for _ in range(6):
            for t, other in zip((trained, reference), others, strict=True):
                for optimizer in (t.optimizer, other):
                    if t is reference:
                        for p in t.params:
                            p.data = p.detach().clone()
                    t.loss()
                    optimizer.step()
        assert distance(trained, reference) == 0

    def test_gradients_of_a_model_that_moved(self, cuda: str) -> None:
        trained, stayed = Trained("Adam", lr=0.05), Trained("Adam", lr=0.05)
        for t in (trained, stayed):
            t.steps(2)
        for p in trained.params:
            p.grad = None
            p.data = p.detach().to(cuda)
        trained.data = [x.to(cuda) for x in trained.data]
        for t in (trained, stayed):
            t.steps(2)
        assert distance(trained, stayed) < 1e-14  # the stand-in computes as NumPy does
        assert all(e["exp_avg"].is_cuda for e in trained.optimizer.state.values())

    def test_a_module_cast_to_another_dtype(self) -> None:
        model = nn.Linear(2, 3)
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        for dtype in ("float32", "float64"):
            model.to(dtype)
            optimizer.zero_grad()
            model(tg.ones(4, 2, dtype=dtype)).sum().backward()
            before = model.weight.detach().numpy().copy()
            optimizer.step()
            # a weight near 0.1 leaves little behind
            np.testing.assert_allclose(model.weight.array, before - 0.1, rtol=1e-5, atol=1e-6)
            assert model.weight.dtype.name == dtype
        assert optimizer.state[model.weight]["exp_avg"].dtype.name == "float64"
        assert float(optimizer.state[model.weight]["step"]) == 2

    def test_a_loaded_module_is_trained(self) -> None:
        model = nn.Linear(2, 3)
        optimizer = optim.SGD(model.parameters(), lr=1.0)
        model.load_state_dict({"weight": np.ones((3, 2)), "bias": np.zeros(3)})
        model(tg.ones(1, 2)).sum().backward()
        optimizer.step()
        assert model.weight.tolist() == [[0, 0]] * 3

    def test_parameters_exchanged_in_a_group(self) -> None:
        (p, q) = params_of((2,), (2,))
        optimizer = optim.SGD([p], lr=1.0)
        optimizer.param_groups[0]["params"] = [q]
        give_gradients([p, q])
        before = [x.detach().numpy().copy() for x in (p, q)]
        optimizer.step()
        np.testing.assert_array_equal(p.array, before[0])
        np.testing.assert_array_equal(q.array, before[1] - 1)

    def test_accumulation_over_several_backward_passes(self) -> None:
        (p,) = params_of((3,))
        optimizer = optim.SGD([p], lr=1.0)
        start = p.detach().numpy().copy()
        for _ in range(2):
            optimizer.zero_grad()
            (p * 2).sum().backward()
            (p * 3).sum().backward()
        optimizer.step()
        np.testing.assert_array_equal(p.array, start - 5)


class TestGraphs:
    def test_a_graph_that_needs_the_old_values_refuses(self) -> None:
        (p,) = params_of((3,))
        optimizer = optim.SGD([p], lr=0.1)
        y = (p * p).sum()
        give_gradients([p])
        optimizer.step()
        with pytest.raises(GradientError, match="in place"):
            y.backward()

    def test_a_graph_that_does_not_need_them_goes_on(self) -> None:
        (p,) = params_of((3,))
        optimizer = optim.SGD([p], lr=0.1)
        y = (p + 1).sum()
        give_gradients([p])
        optimizer.step()
        optimizer.zero_grad()
        y.backward()
        assert p.grad.tolist() == [1, 1, 1]

    def test_data_rebound_and_brought_home_again_refuses_too(self) -> None:
        (p,) = params_of((3,))
        optimizer = optim.SGD([p], lr=0.1)
        y = (p * p).sum()
        p.data = tg.zeros(3, dtype="float64")
        give_gradients([p])
        optimizer.step()
        with pytest.raises(GradientError, match="in place"):
            y.backward()


class TestRefusals:
    def test_a_gradient_of_another_dtype_changes_nothing(self) -> None:
        params = params_of((2,), (2,))
        optimizer = optim.SGD([{"params": params[:1]}, {"params": params[1:]}], lr=1.0)
        give_gradients(params)
        params[1].grad = tg.ones(2, dtype="float32")
        before = params[0].detach().numpy().copy()
        with pytest.raises(DtypeError, match="expected a gradient of float64, got float32"):
            optimizer.step()
        np.testing.assert_array_equal(params[0].array, before)

    def test_a_parameter_of_another_shape_than_its_state(self) -> None:
        (p,) = params_of((2,))
        optimizer = optim.Adam([p])
        give_gradients([p])
        optimizer.step()
        p.grad = None
        p.data = tg.zeros(3, dtype="float64")
        with pytest.raises(tg.errors.StateError, match="exp_avg"):
            optimizer.step()

    def test_a_gradient_of_another_shape(self) -> None:
        (p,) = params_of((2,))
        optimizer = optim.SGD([p])
        p._grad = tg.ones(3, dtype="float64")
        with pytest.raises(ShapeError):
            optimizer.step()


class TestCopies:
    def test_a_deep_copy_trains_its_own_model(self) -> None:
        model = nn.Linear(2, 3)
        optimizer = optim.Adam(model.parameters(), lr=0.1)

        def train(m: Any, o: Any) -> None:
            o.zero_grad()
            m(tg.ones(4, 2)).square().sum().backward()
            o.step()

        train(model, optimizer)
        twin, twin_optimizer = copy.deepcopy((model, optimizer))
        before = model.weight.detach().numpy().copy()
        train(twin, twin_optimizer)
        np.testing.assert_array_equal(model.weight.array, before)
        train(model, optimizer)
        np.testing.assert_array_equal(model.weight.array, twin.weight.array)

    def test_a_pickle_goes_on(self) -> None:
        model = nn.Linear(2, 3)
        optimizer = optim.NAdam(model.parameters(), lr=0.1)
        model(tg.ones(4, 2)).square().sum().backward()
        optimizer.step()
        other, restored = pickle.loads(pickle.dumps((model, optimizer)))
        for m, o in ((model, optimizer), (other, restored)):
            o.zero_grad()
            m(tg.ones(4, 2)).square().sum().backward()
            o.step()
        np.testing.assert_array_equal(model.weight.array, other.weight.array)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
        ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
        ("NAdam", {"lr": 0.01}),
        ("RAdam", {"lr": 0.01, "betas": (0.8, 0.9)}),
        ("RMSprop", {"lr": 0.001, "centered": True, "momentum": 0.5}),
        ("Adagrad", {"lr": 0.05}),
        ("Adadelta", {}),
        ("Adamax", {"lr": 0.01}),
        ("LAMB", {"lr": 0.01, "weight_decay": 0.1}),
        ("LARS", {"lr": 0.5}),
        ("Lion", {"lr": 0.001, "weight_decay": 0.1}),
        ("SGDScheduleFree", {"lr": 0.05, "warmup_steps": 5}),
        ("AdamWScheduleFree", {"lr": 0.01}),
        ("LBFGS", {"lr": 0.1, "max_iter": 3}),
    ],
)
def test_both_backends_take_the_same_steps(name: str, options: dict[str, Any], cuda: str) -> None:
    here, there = Trained(name, **options), Trained(name, device=cuda, **options)
    for trained in (here, there):
        for _ in range(10):
            trained.optimizer.step(trained.loss)
    assert distance(here, there) < 1e-12  # sums in another order, where it is a real GPU


def test_memory_that_parameters_leave_is_free() -> None:
    """Also if it was written in place, as by an initializer."""
    layer = tg.nn.Linear(8, 8)
    with tg.no_grad():
        layer.weight.mul_(2)
    memory = layer.weight.array
    while memory.base is not None:
        memory = memory.base
    gone = weakref.ref(memory)
    del memory
    optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
    layer(tg.ones(2, 8)).sum().backward()
    optimizer.step()
    assert gone() is None
