"""What every optimizer has: groups, options, checks and a state that can be saved."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optim.problem import Trained, distance
from tinygrad_bn import nn, optim
from tinygrad_bn.errors import ArgumentError, DtypeError, StateError

NAMES = [
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "LAMB",
    "LARS", "Lion", "SGDScheduleFree", "AdamWScheduleFree", "LBFGS",
]  # fmt: skip


def parameter(*values: float) -> Any:
    return tg.Parameter(np.array(values))


class TestGroups:
    def test_parameters_pairs_and_dicts(self) -> None:
        p, q = parameter(1.0), parameter(2.0)
        assert optim.SGD([p, q]).param_groups[0]["params"] == [p, q]
        named = optim.SGD([("p", p), ("q", q)]).param_groups[0]
        assert named["param_names"] == ["p", "q"]
        groups = optim.SGD(({"params": x, "lr": lr} for x, lr in ((p, 0.5), ([q], 0.1))), lr=1.0)
        assert [g["lr"] for g in groups.param_groups] == [0.5, 0.1]

    def test_the_callers_dicts_are_not_changed(self) -> None:
        group = {"params": [parameter(1.0)]}
        optim.SGD([group], lr=0.1)
        assert list(group) == ["params"]

    def test_a_group_can_be_added_in_mid_training(self) -> None:
        p, q = parameter(1.0), parameter(1.0)
        optimizer = optim.SGD([p], lr=0.5)
        optimizer.add_param_group({"params": [q], "lr": 0.25})
        for x in (p, q):
            x.grad = tg.ones(1, dtype="float64")
        optimizer.step()
        assert (p.item(), q.item()) == (0.5, 0.75)

    @pytest.mark.parametrize(
        ("params", "error", "message"),
        [
            ([], ArgumentError, "empty"),
            (tg.zeros(2), DtypeError, "single tensor"),
            ([1.0], DtypeError, "float"),
            ([np.zeros(2)], DtypeError, "ndarray"),
            (None, DtypeError, "NoneType"),
        ],
    )
    def test_what_is_no_list_of_tensors(self, params: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            optim.SGD(params)

    def test_a_set_as_a_group(self) -> None:
        with pytest.raises(DtypeError, match="set"):
            optim.SGD([{"params": {parameter(1.0)}}])

    def test_duplicates(self) -> None:
        p = parameter(1.0)
        with pytest.raises(ArgumentError, match="once"):
            optim.SGD([p, p])
        optimizer = optim.SGD([p])
        with pytest.raises(ArgumentError, match="once"):
            optimizer.add_param_group({"params": [parameter(2.0), p]})
        assert len(optimizer.param_groups) == 1

    def test_results_of_operations(self) -> None:
        with pytest.raises(ArgumentError, match="leaves"):
            optim.SGD([parameter(1.0) * 2])

    def test_names_for_some_only(self) -> None:
        with pytest.raises(ArgumentError, match="names"):
            optim.SGD([("p", parameter(1.0)), parameter(2.0)])
        optimizer = optim.SGD([("p", parameter(1.0))])
        with pytest.raises(ArgumentError, match="names"):
            optimizer.add_param_group({"params": [parameter(1.0)]})

    def test_a_refused_optimizer_leaves_parameters_where_they_were(self) -> None:
        p = parameter(1.0)
        array = p.array
        with pytest.raises(ArgumentError):
            optim.Adam([p], lr=-1.0)
        assert p.array is array
        assert p.slot is None


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        (name, "lr", value) for name in NAMES for value in (-0.1, float("nan"))
    ]
    + [
        ("SGD", "momentum", -0.1),
        ("SGD", "weight_decay", -0.1),
        ("SGD", "nesterov", True),
        ("Adam", "betas", (0.9, 1.0)),
        ("Adam", "betas", (-0.1, 0.9)),
        ("Adam", "eps", -1e-8),
        ("RMSprop", "alpha", -0.1),
        ("Adagrad", "lr_decay", -0.1),
        ("Adagrad", "initial_accumulator_value", -0.1),
        ("Adadelta", "rho", 1.1),
        ("NAdam", "momentum_decay", -0.1),
        ("LARS", "trust_coefficient", -0.1),
        ("Lion", "betas", (0.9, 1.0)),
        ("SGDScheduleFree", "momentum", 0.0),
        ("AdamWScheduleFree", "betas", (0.0, 0.9)),
        ("LBFGS", "line_search_fn", "armijo"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=option):
        getattr(optim, name)([parameter(1.0)], **{option: value})
    optimizer = getattr(optim, name)([parameter(1.0)])
    with pytest.raises(ArgumentError):  # also in a group of its own
        optimizer.add_param_group({"params": [parameter(1.0)], option: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("value", ["0.1", None, (0.1, "0.2")])
def test_options_that_are_no_numbers_are_refused(value: Any) -> None:
    with pytest.raises(DtypeError, match="number as lr, got"):
        optim.SGD([parameter(1.0)], lr=value)


@pytest.mark.parametrize(
    "name", ["Adam", "AdamW", "Adamax", "NAdam", "RAdam", "LAMB", "Lion", "AdamWScheduleFree"]
)
@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.99, 0.999)])
def test_betas_are_two(name: str, betas: Any) -> None:
    with pytest.raises(ArgumentError, match="two betas"):
        getattr(optim, name)([parameter(1.0)], betas=betas)


@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
def test_a_closure_is_a_function(name: str) -> None:
    p = parameter(1.0)
    with pytest.raises(DtypeError, match="closure, got int"):
        getattr(optim, name)([p]).step(3)
    assert p.item() == 1


def test_a_state_dict_is_a_mapping() -> None:
    with pytest.raises(StateError, match="got NoneType"):
        optim.SGD([parameter(1.0)]).load_state_dict(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("flag", ["fused", "foreach", "capturable", "differentiable"])
def test_there_are_no_options_to_choose_an_implementation(name: str, flag: str) -> None:
    with pytest.raises(TypeError, match=flag):
        getattr(optim, name)([parameter(1.0)], **{flag: True})


class TestZeroGrad:
    def test_gradients_are_forgotten(self) -> None:
        p = parameter(1.0)
        optimizer = optim.SGD([p])
        (p * 2).backward()
        optimizer.zero_grad()
        assert p.grad is None

    def test_gradients_are_made_zero(self) -> None:
        p = parameter(1.0, 2.0)
        optimizer = optim.Adam([p])
        for expected in (2.0, 2.0):
            (p * 2).sum().backward()
            assert p.grad.tolist() == [expected] * 2
            optimizer.zero_grad(set_to_none=False)
            assert p.grad.tolist() == [0.0, 0.0]

    def test_a_gradient_with_a_graph_keeps_its_values(self) -> None:
        p = parameter(3.0)
        optimizer = optim.SGD([p])
        (p * p * p).backward(create_graph=True)
        grad = p.grad
        optimizer.zero_grad(set_to_none=False)
        assert grad.item() == 27
        assert p.grad.item() == 0
        assert not p.grad.requires_grad


class TestStep:
    def test_closure_runs_with_gradients_and_its_loss_is_returned(self) -> None:
        p = parameter(3.0)
        optimizer = optim.SGD([p], lr=0.25)

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        with tg.no_grad():
            assert optimizer.step(closure).item() == 9
        assert p.item() == 1.5

    def test_a_changed_option_counts_from_the_next_step(self) -> None:
        p = parameter(1.0)
        optimizer = optim.SGD([p], lr=0.5)
        for lr, expected in ((0.5, 0.5), (0.25, 0.25), (0.0, 0.25)):
            optimizer.param_groups[0]["lr"] = lr
            p.grad = tg.ones(1, dtype="float64")
            optimizer.step()
            assert p.item() == expected

    def test_options_reach_the_kernel_in_arrays_that_stay(self) -> None:
        """A step that is replayed reads them there."""
        p = parameter(1.0)
        optimizer = optim.Adam([p])
        (bucket,) = optimizer._buckets[0]
        seen = []
        for lr in (0.1, 0.2):
            optimizer.param_groups[0]["lr"] = lr
            p.grad = tg.ones(1, dtype="float64")
            optimizer.step()
            seen.append((bucket.numbers["lr"][1], bucket.runs[0].counters["step"]))
            assert float(seen[-1][0]) == lr
        assert all(a is b for a, b in zip(*seen, strict=True))

    def test_momentum_switched_on_later_begins_with_the_gradient(self) -> None:
        p = parameter(0.0)
        optimizer = optim.SGD([p], lr=1.0, dampening=0.5)
        for momentum, expected in ((0.0, -1.0), (0.5, -2.0), (0.5, -3.0)):
            optimizer.param_groups[0]["momentum"] = momentum
            p.grad = tg.ones(1, dtype="float64")
            optimizer.step()
            assert p.item() == expected  # v = 1, and then 0.5 + 0.5

    def test_a_rule_of_ones_own_in_pytorchs_manner(self) -> None:
        class Signed(optim.Optimizer):
            def step(self, closure: Any = None) -> None:
                for group in self.param_groups:
                    for p in group["params"]:
                        state = self.state[p]
                        state["count"] = state.get("count", 0) + 1
                        with tg.no_grad():
                            p.overwrite((p - group["lr"] * p.grad.sign()).array)

        p = parameter(1.0, -1.0)
        optimizer = Signed([p], {"lr": 0.5})
        (p * p).sum().backward()
        optimizer.step()
        assert p.tolist() == [0.5, -0.5]
        assert optimizer.state_dict()["state"] == {0: {"count": 1}}


class TestStateDict:
    @pytest.mark.parametrize("name", NAMES)
    def test_training_goes_on_from_it(self, name: str) -> None:
        unbroken, before, after = Trained(name), Trained(name), Trained(name, lr=5.0)
        for _ in range(4):
            for trained in (unbroken, before):
                trained.optimizer.step(trained.loss)
        saved = copy.deepcopy(before.optimizer.state_dict())
        for p, q in zip(after.params, before.params, strict=True):
            with tg.no_grad():
                p.overwrite(q.array)
        after.optimizer.load_state_dict(saved)
        for _ in range(4):
            for trained in (unbroken, after):
                trained.optimizer.step(trained.loss)
        assert distance(unbroken, after) == 0

    def test_loading_copies(self) -> None:
        trained, other = Trained("Adam"), Trained("Adam")
        trained.steps(1)
        other.optimizer.load_state_dict(trained.optimizer.state_dict())
        before = other.optimizer.state[other.params[0]]["exp_avg"].numpy().copy()
        trained.steps(1)
        np.testing.assert_array_equal(
            other.optimizer.state[other.params[0]]["exp_avg"].array, before
        )

    def test_parameters_are_numbered_over_the_groups(self) -> None:
        p, q, r = parameter(1.0), parameter(2.0), parameter(3.0)
        optimizer = optim.Adam([{"params": [p, q]}, {"params": [r]}])
        assert [g["params"] for g in optimizer.state_dict()["param_groups"]] == [[0, 1], [2]]

    @pytest.mark.parametrize("change", ["groups", "sizes", "strangers", "keys", "shape", "kind"])
    def test_a_state_that_does_not_fit_changes_nothing(self, change: str) -> None:
        trained = Trained("Adam", lr=0.01)
        trained.steps(2)
        state = copy.deepcopy(trained.optimizer.state_dict())
        state["param_groups"][0]["lr"] = 1.0
        if change == "groups":
            state["param_groups"].append({"params": []})
        elif change == "sizes":
            state["param_groups"][0]["params"] = [0, 1]
        elif change == "strangers":
            state["state"][9] = {}
        elif change == "keys":
            del state["param_groups"]
        elif change == "shape":
            state["state"][2]["exp_avg"] = tg.zeros(3)
        else:
            state["state"][2] = {"sum": tg.zeros(2, 4), "step": 1}
        before = copy.deepcopy(trained.optimizer.state_dict())
        with pytest.raises(StateError):
            trained.optimizer.load_state_dict(state)
        after = trained.optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for number, entry in before["state"].items():
            for key, value in entry.items():
                np.testing.assert_array_equal(after["state"][number][key].array, value.array)

    def test_state_can_be_written_to_but_not_exchanged(self) -> None:
        trained = Trained("Adam")
        trained.steps(1)
        state = trained.optimizer.state
        p = trained.params[0]
        with tg.no_grad():
            state[p]["exp_avg"].overwrite(0)
        assert not trained.optimizer.state[p]["exp_avg"].array.any()
        with pytest.raises(TypeError):
            state[p]["exp_avg"] = tg.zeros(4, 3)
        with pytest.raises(TypeError):
            state[p] = {}

    def test_adamw_stays_adamw(self) -> None:
        adam, adamw = Trained("Adam"), Trained("AdamW")
        adamw.optimizer.load_state_dict(adam.optimizer.state_dict())
        assert adamw.optimizer.param_groups[0]["decoupled_weight_decay"] is True

    def test_representation_names_the_options(self) -> None:
        text = repr(optim.SGD([parameter(1.0)], lr=0.5))
        assert text.startswith("SGD (")
        assert "lr: 0.5" in text


class TestDecayGroups:
    def test_norms_biases_and_vectors_are_spared(self) -> None:
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm((2, 3)))
        decaying, spared = optim.param_groups(model, weight_decay=0.3)
        assert [id(p) for p in decaying["params"]] == [id(model[0].weight)]
        assert (decaying["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
        assert len(spared["params"]) == 5
        optim.AdamW([decaying, spared])

    def test_empty_groups_are_left_out(self) -> None:
        (group,) = optim.param_groups(nn.BatchNorm1d(3))
        assert group["weight_decay"] == 0.0

    def test_a_shared_parameter_comes_once(self) -> None:
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)
        b.weight = a.weight
        groups = optim.param_groups(nn.Sequential(a, b))
        assert [len(g["params"]) for g in groups] == [1, 2]
