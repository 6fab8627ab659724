"""What a program looks like, and what memory it takes."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.capture.test_training import Training, batches
from tinygrad_bn.backend import VOCABULARY
from tinygrad_bn.capture.plan import LINE, arranged
from tinygrad_bn.capture.values import Kind, Value


def test_a_program_prints_its_instructions_and_memory() -> None:
    compiled = tg.compile(lambda x: x * 2 + 1)
    assert compiled.program is None
    compiled(tg.ones(2, 3))
    assert str(compiled.program).splitlines() == [
        "program of 2 instructions; arena of 128 B, state of 0 B outside of it",
        "  i1 float32[2, 3] comes in",
        "  r2 float32[2, 3] = mul(i1, 2)",
        "  r3 float32[2, 3] = add(r2, 1)",
        "  r3 float32[2, 3] goes out",
    ]


def test_what_nothing_reads_is_left_out() -> None:
    def step(x: tg.Tensor) -> tg.Tensor:
        x.exp().sum()
        return x + 1

    compiled = tg.compile(step)
    compiled(tg.ones(3))
    assert len(compiled.program.instructions) == 1


def test_constants_are_computed_once() -> None:
    compiled = tg.compile(lambda x: x + (tg.arange(3) * 2 + 1).float().exp())
    compiled(tg.ones(3))
    assert [i.name for i in compiled.program.instructions] == ["add"]
    np.testing.assert_array_equal(
        compiled(tg.zeros(3)).numpy(), np.exp(np.array([1, 3, 5], np.float32))
    )


def test_gradients_are_made_where_the_optimizer_keeps_them() -> None:
    training = Training(True, clip=False)
    training.run(*batches(1)[0])
    names = [i.name for i in training.run.program.instructions]
    stores = [i for i in training.run.program.instructions if i.name == "store"]
    assert {"matmul", "Bucket.reread", "dropped"} <= {*names}
    assert len(stores) == 1  # the generator's count: no gradient is copied, nor a statistic


spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 500)), max_size=30
)


@settings(max_examples=50, deadline=None)
@given(spans)
def test_results_that_live_at_once_never_share_memory(parts: list[tuple[int, int, int]]) -> None:
    values: dict[Value, tuple[int, int]] = {}
    for number, (a, b, size) in enumerate(parts):
        value = Value(number, Kind.RESULT, (size,), np.dtype(np.uint8), (1,))
        values[value] = min(a, b), max(a, b)
    arena = arranged(values)
    for x, (x_first, x_last) in values.items():
        begin = arena.offsets[x]
        assert begin % LINE == 0
        assert begin + x.shape[0] <= arena.size
        for y, (y_first, y_last) in values.items():
            if x is not y and x_first <= y_last and y_first <= x_last and y.shape[0]:
                other = arena.offsets[y]
                assert begin + x.shape[0] <= other or other + y.shape[0] <= begin or not x.shape[0]


def test_a_running_program_takes_no_more_memory() -> None:
    """Python's own numbers come and go; what stays after 200 steps is less than one activation."""
    training = Training(True)
    data = batches(4)
    tracemalloc.start()
    try:
        for _ in range(5):
            for x, t in data:
                training.run(x, t)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            for x, t in data:
                training.run(x, t)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 32 * 32 * 4


@pytest.mark.slow
def test_ten_thousand_steps_leave_the_process_as_large_as_it_was() -> None:
    resource = pytest.importorskip("resource", reason="asks a Unix for the size of the process")
    training = Training(True)
    data = batches(4)

    def steps(count: int) -> int:
        for i in range(count):
            training.run(*data[i % 4])
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    before = steps(500)
    assert steps(10_000) <= before * 1.005  # an activation a step would be 40 MB more


@pytest.mark.parametrize("word", sorted(VOCABULARY))
def test_a_trace_speaks_the_whole_vocabulary(word: str) -> None:
    from tinygrad_bn.backend import backend_for
    from tinygrad_bn.capture.interception import traced_by
    from tinygrad_bn.capture.recorder import Recorder

    backend = backend_for("cpu")
    ordinary: Any = getattr(backend.xp, word)
    with traced_by(Recorder(backend)):
        assert getattr(backend.xp, word) is not ordinary
    assert getattr(backend.xp, word) is ordinary


def test_a_program_shows_its_curves() -> None:
    compiled = tg.compile(lambda x: tg.nn.functional.elu(x, 0.5))
    compiled(tg.ones(3))
    assert "= curve_value(i1, Elu(0.5, 1.0, 1.0))" in str(compiled.program)


def test_equal_dtypes_may_be_two_objects() -> None:
    """As those of arrays that NumPy's generators made: the quick path serves them too."""
    compiled: Any = tg.compile(lambda x: x + 1)
    x = tg.ones(3)
    compiled(x)
    compiled(x)
    other = tg.from_numpy(np.zeros(3, np.dtype(np.float32, copy=True)))
    assert other.array.dtype is not x.array.dtype
    assert compiled._recent.fits((other,))
    np.testing.assert_array_equal(compiled(other).numpy(), np.ones(3, np.float32))
