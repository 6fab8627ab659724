"""What a case asks of a machine, by the formulas that README.md states."""

from __future__ import annotations

import floor
import pytest
from cases import CASES, Case

SMALL = Case("small", (5, 3, 2), 4)


def test_parameters_are_those_of_the_network():
    tg_model = pytest.importorskip("rivals.modules").perceptron
    import tinygrad_bn as tg

    for case in (SMALL, CASES["tiny"], CASES["b2"]):
        found = sum(p.numel() for p in tg_model(tg, case, "float32").parameters())
        assert found == case.parameters


def test_flops_leave_out_the_gradient_of_the_input():
    forward = 2 * 4 * (5 * 3 + 3 * 2)
    backward = 2 * 4 * (5 * 3) + 2 * 4 * (3 * 2) * 2
    assert SMALL.flops == forward + backward


def test_the_floor_is_the_sum_of_its_parts():
    rates = {floor.PRODUCT: 1e9, floor.UPDATE: 2e9, floor.NORM: 4e9}
    found = floor.floor(SMALL, "adam", rates)
    assert found["products"] == pytest.approx(SMALL.flops / 1e9, rel=1e-3)  # four digits are kept
    assert found["update"] == pytest.approx(28 * SMALL.parameters / 2e9, rel=1e-3)
    assert found["norms"] == pytest.approx(32 * 4 * 3 / 4e9, rel=1e-3)
    parts = found["products"] + found["update"] + found["norms"]
    assert found["total"] == pytest.approx(parts, rel=1e-3)
    assert floor.floor(SMALL, "sgd", rates)["update"] == pytest.approx(
        20 * SMALL.parameters / 2e9, rel=1e-3
    )


def test_rates_count_what_the_references_do():
    calls = floor.references(SMALL, "adam")
    assert set(calls) == {floor.PRODUCT, floor.UPDATE, floor.NORM}
    times = {name: [2.0, 1.0, 3.0] for name in calls}
    rates = floor.rates(times, SMALL, "adam")
    assert rates[floor.PRODUCT] == pytest.approx(2 * 1024**3 / 2, rel=1e-3)
    assert rates[floor.NORM] == pytest.approx(2 * 4 * floor.LEAST / 2, rel=1e-3)


def test_as_much_memory_is_scaled_as_what_it_stands_for_touches():
    case = CASES["b4096"]
    # parameters, gradients and two moments; input and output of a norm
    assert floor.scaled(case, "adam") == {
        floor.UPDATE: 4 * case.parameters,
        floor.NORM: 2 * 4096 * 256,
    }
    assert floor.scaled(case, "sgd")[floor.UPDATE] == 3 * case.parameters


def test_references_leave_no_numbers_that_are_slow():
    for name, call in floor.references(SMALL, "sgd").items():
        first, second = call(), call()
        assert abs(second).min() > 1e-30, name
        assert (first == second).all()


def test_batches_differ_and_are_the_same_every_time():
    first, second = list(SMALL.batches()), list(SMALL.batches())
    assert len(first) == 8
    assert len(list(CASES["big"].batches())) == 8
    assert 2 <= len(list(CASES["b4096"].batches())) < 8
    assert not (first[0][0] == first[1][0]).any()
    assert all(
        (a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(first, second, strict=True)
    )
