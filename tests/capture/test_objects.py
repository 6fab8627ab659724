"""What threaded code reads of arrays without asking them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_bn.backends.threaded_code import Expected

X, T = np.zeros((4, 6), np.float32), np.zeros(4, np.int64)


class Subclass(np.ndarray):
    """What is no plain array."""


def misaligned() -> np.ndarray:
    return np.zeros(X.nbytes + 1, np.uint8)[1:].view(X.dtype).reshape(X.shape)


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.copy(),
        np.zeros((8, 6), "f4")[2:6],
        np.broadcast_to(X, X.shape),
        X.view(X.dtype.newbyteorder("=")),
        pickle.loads(pickle.dumps(X)),
    ],
    ids=["same", "copy", "part", "read-only", "another dtype object", "unpickled"],
)
def test_arrays_of_the_layout_that_is_expected_fit(x):
    assert Expected([X, T], []).fit((x, T))


@pytest.mark.parametrize(
    "x",
    [
        X.astype("f8"),
        X.astype("i4"),
        X.astype(">f4"),
        X.T,
        X.T.copy().T,
        X[:3],
        X[:, ::2],
        np.zeros((4, 12), "f4")[:, ::2],
        X[::-1],
        X[None],
        X[0],
        np.zeros((), "f4"),
        X.view(Subclass),
        misaligned(),
        None,
        1.0,
        np.float32(1),
    ],
    ids=repr,
)
def test_other_objects_do_not(x):
    assert not Expected([X, T], []).fit((x, T))


def test_there_must_be_as_many():
    expected = Expected([X, T], [])
    assert not any(expected.fit(found) for found in [(), (X,), (X, T, T), (T, X)])
    assert Expected([], []).fit(())


def test_they_lie_apart_from_what_is_written():
    """To the byte, also where strides are negative."""
    memory = np.zeros(100, np.float32)
    for stand_in in (np.zeros(10, "f4"), np.zeros(10, "f4")[::-1], np.zeros(19, "f4")[::2]):
        expected = Expected([stand_in], [np.zeros(3), memory[30:40]])
        step, size = stand_in.strides[0] // 4, stand_in.size
        for start in range(20, 60):
            x = np.lib.stride_tricks.as_strided(memory[start:], (size,), stand_in.strides)
            places = {start + i * step for i in range(size)}
            apart = max(places) < 30 or min(places) >= 40
            assert expected.fit((x,)) == apart


def test_single_numbers_fit_wherever_they_are():
    expected = Expected([np.zeros((), "f4")], [])
    assert expected.fit((X[0, 0, ...],))
    assert not expected.fit((X[0, :1],))
