"""Calls are timed in turns, what warms up is not counted, and medians are medians."""

from __future__ import annotations

import pytest
from compare import Pace, best, compare, ratio, spread


class Clock:
    """Time that passes only inside of the calls, which tell who ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, *seconds: float):
        """A call that takes the given times in turn, and the last one from then on."""
        left = list(seconds)

        def call() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call

    def turns(self) -> list[str]:
        """Who had a turn after whom."""
        return [name for i, name in enumerate(self.log) if not i or self.log[i - 1] != name]


def test_calls_take_turns_in_alternating_order():
    clock = Clock()
    calls = {name: clock.taking(name, 0.01) for name in "abc"}
    compare(calls, Pace(rounds=3), clock, clock)
    first_calls, *turns = [clock.turns()[:3], *clock.turns()[3:]]
    assert first_calls == ["a", "b", "c"]  # which choose the repeats
    # the last of a round is the first of the next one, so its two turns are seen as one
    assert turns == ["a", "b", "c", "b", "a", "b", "c"]


def test_every_turn_begins_with_calls_that_do_not_count():
    clock = Clock()
    slow_when_cold = iter([])

    def call() -> None:
        nonlocal slow_when_cold
        if clock.log[-1:] != ["a"]:  # after somebody else's turn
            slow_when_cold = iter([1.0, 0.5])
        clock.log.append("a")
        clock.now += next(slow_when_cold, 0.01)

    calls = {"a": call, "b": clock.taking("b", 0.02)}
    found = compare(calls, Pace(rounds=4, warm=1.2, block=0.1), clock, clock)
    assert found.seconds["a"] == pytest.approx([0.01] * 4)
    assert found.seconds["b"] == pytest.approx([0.02] * 4)


def test_short_calls_are_timed_several_at_once():
    clock = Clock()
    found = compare({"a": clock.taking("a", 1e-6)}, Pace(1, warm=0, block=0), clock, clock)
    assert found.seconds["a"] == pytest.approx([1e-6])
    calibrated = 2 + 5000  # the first two, and 5 ms of them
    # one of the warm-up, and three samples of 20 µs
    assert len(clock.log) == pytest.approx(calibrated + 1 + 3 * 20, abs=2)  # sums of 1e-6 round


def test_an_interruption_does_not_move_the_median_of_a_block():
    clock = Clock()
    times = [0.01] * 3 + [0.01, 0.01, 5.0] + [0.01]
    found = compare({"a": clock.taking("a", *times)}, Pace(1, 0, 0.03), clock, clock)
    assert found.seconds["a"] == pytest.approx([0.01])


def test_cores_are_what_the_process_was_busy_with():
    wall, used = Clock(), Clock()

    def half() -> None:
        wall.now += 0.01
        used.now += 0.005

    found = compare({"a": half}, Pace(rounds=2), wall, used)
    assert found.cores["a"] == pytest.approx([0.5, 0.5])


def test_the_clock_may_be_the_processor_s():
    wall, used = Clock(), Clock()

    def interrupted() -> None:
        wall.now += 0.08
        used.now += 0.01

    found = compare({"a": interrupted}, Pace(rounds=2, cpu=True), wall, used)
    assert found.seconds["a"] == pytest.approx([0.01, 0.01])
    assert found.cores["a"] == pytest.approx([1 / 8, 1 / 8])


def test_spread_tells_the_median_and_the_quartiles():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "quartiles": [2.0, 4.0]}
    assert spread([1.23456]) == {"median": 1.23, "quartiles": [1.23, 1.23]}


def test_a_ratio_is_taken_round_by_round():
    times = {"rival": [2.0, 20.0, 6.0], "ours": [1.0, 10.0, 2.0]}
    assert ratio(times, "rival", "ours")["median"] == 2.0  # of the medians it would be 3


def test_the_best_has_the_smallest_median():
    times = {"a": [1.0, 9.0, 9.0], "b": [5.0, 5.0, 5.0], "c": [1.0, 1.0, 1.0]}
    assert best(times, ["a", "b"]) == "b"
    assert best(times, []) is None
