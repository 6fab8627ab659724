"""Kernels on memory that was there before: what `Kernel.into` says must have the bits of ``run``,
and must have them again when other values stand where the first ones stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.kernels import images
from tests.kernels.walks import backward_arguments, forward_arguments
from tinygrad_bn import curves
from tinygrad_bn.backend import KERNEL_POINTS, get_backend
from tinygrad_bn.ops import dense, whole_norms

pytest.importorskip("numba")
families = pytest.importorskip("tinygrad_bn.backends.numba_kernels")
assert tg.optim, (dense, whole_norms)  # whose kernel points are declared when they are imported

NUMPY = get_backend("numpy")
Rng = np.random.Generator


def normal(rng: Rng, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return rng.standard_normal(shape).astype(dtype)


def positive(rng: Rng, shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    return (0.5 + rng.random(shape)).astype(dtype)


def affine(rng: Rng, shape: tuple[int, ...], dtype: Any, known: bool) -> tuple[Any, Any]:
    weight, bias = normal(rng, (2, *shape), dtype)
    return (weight, bias) if known else (None, None)


def batch(phase: str, space: int, dtype: Any, known: bool, masked: bool) -> Any:
    """What makes the arguments of a phase of batch norm; the first value is an outlier, so that
    moments are taken twice.
    """

    def made(rng: Rng) -> tuple[Any, ...]:
        shape = (37, 19, space)
        x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
        x[0, :, 0] = 1e4
        mean, rstd = rng.standard_normal(19), positive(rng, (19,))
        weight, bias = affine(rng, (19,), dtype, known)
        mask = rng.random((37, space)) < 0.7 if masked else None
        means, relu = rng.standard_normal((2, 19)), known
        return {
            "moments": (x, mask),
            "normalize": (x, mean, rstd, weight, bias),
            "grad_sums": (dy, x, mean, rstd, mask),
            "normalize_relu": (x, mean, rstd, weight, bias),
            "relu_grad_sums": (dy, x, mean, rstd, weight, bias, mask),
            "grad_input": (dy, x, mean, rstd, weight, *means, mask),
            "relu_grad_input": (dy, x, mean, rstd, weight, bias, *means, mask),
            "norm": (x, weight, bias, mask, 1e-5, relu),
            "norm_grad": (dy, x, mean, rstd, weight, bias, mask, 37 * space, relu),
        }[phase]

    return made


def row(phase: str, space: int, dtype: Any, known: bool, centred: bool) -> Any:
    """What makes the arguments of a phase of layer norm."""

    def made(rng: Rng) -> tuple[Any, ...]:
        shape = (13, 2, 21, space)
        x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
        x[:, :, 0, 0] = 1e4
        mean = rng.standard_normal(shape[:2]) if centred else None
        rstd = positive(rng, shape[:2])
        weight, bias = affine(rng, shape[1:3], dtype, known)
        return {
            "moments": (x,),
            "mean_square": (x,),
            "normalize": (x, mean, rstd, weight, bias),
            "grad_sums": (dy, x, mean, rstd),
            "grad_input": (dy, x, mean, rstd, weight),
            "row_norm": (x, weight, bias, 1e-5),
            "rms_norm": (x, weight, bias, 1e-5),
            "row_norm_grad": (dy, x, mean, rstd, weight),
        }[phase]

    return made


def classes(gradient: bool, dtype: Any, weighted: bool, smoothing: float, repeated: bool) -> Any:
    """What makes the arguments of the cross-entropy, or of its gradient."""

    def made(rng: Rng) -> tuple[Any, ...]:
        x, target = normal(rng, (23, 17), dtype), rng.integers(0, 17, 23)
        target[::5] = -100
        weight = positive(rng, (17,), dtype) if weighted else None
        if not gradient:
            return x, target, weight, -100, smoothing
        dy = normal(rng, (1,) if repeated else (23, 1), dtype)
        if repeated:
            dy = np.broadcast_to(dy, (23, 1))
        found, greatest, total = positive(rng, (3, 23, 1), dtype)
        return dy, x, target, weight, found, greatest + 3, total, -100, smoothing

    return made


NUMBERS: dict[str, tuple[tuple[int, ...], int, int, tuple[str, ...]]] = {
    # which buffers may be missing, how many there are, how many numbers, flags
    "sgd": ((), 0, 2, ()),
    "momentum": ((), 1, 5, ("nesterov",)),
    "lion": ((), 1, 4, ()),
    "schedule_free_sgd": ((), 1, 4, ()),
    "lars": ((), 1, 4, ()),
    "adam": ((2,), 3, 6, ("decoupled",)),
    "adamax": ((), 2, 6, ()),
    "nadam": ((), 2, 9, ("decoupled",)),
    "radam": ((), 2, 6, ("decoupled",)),
    "adagrad": ((), 1, 5, ()),
    "adadelta": ((), 2, 4, ()),
    "rmsprop": ((1, 2), 3, 5, ()),
    "schedule_free_adamw": ((), 2, 6, ()),
    "lamb": ((), 2, 6, ()),
}


def update(name: str, dtype: Any, whole: bool) -> Any:
    """What makes the arguments of an optimizer's update: with all that is optional, or none."""
    optional, slots, numbers, flags = NUMBERS[name]

    def made(rng: Rng) -> tuple[Any, ...]:
        buffers = [normal(rng, (11, 7), dtype) for _ in range(2)]
        buffers += [positive(rng, (11, 7), dtype) for _ in range(slots)]
        for place in optional if not whole else ():
            buffers[2 + place] = None
        options = [np.array(x) for x in rng.random(numbers) * 0.9]
        if not whole and name != "lars":
            options[-1] = None  # the weight decay
        return (*buffers, *options, *(dict.fromkeys(flags, whole),))

    return made


LAYER = """
    add_bias column_sums relu relu_grad dropped curve_value curve_grad sigmoid_value sigmoid_grad
    tanh_grad softmax_value softmax_grad log_softmax_value log_softmax_grad
"""


def layer(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """What makes the arguments of a step of a dense layer."""

    def made(rng: Rng) -> tuple[Any, ...]:
        x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
        state = rng.integers(0, 2**64, 3, np.uint64)
        return {
            "add_bias": (x, normal(rng, shape[1:], dtype)),
            "column_sums": (x,),
            "relu": (x,),
            "relu_grad": (dy, x),
            "dropped": (x, state[:1], state[1:], 0.7),
            "curve_value": (x, curves.Elu(1.5, 1.0, 0.5)),
            "curve_grad": (dy, x, curves.Gelu()),
            "sigmoid_value": (x,),
            "sigmoid_grad": (dy, x),
            "tanh_grad": (dy, x),
            "softmax_value": (x, 1),
            "softmax_grad": (dy, x, 1),
            "log_softmax_value": (x, 1),
            "log_softmax_grad": (dy, x, 1),
        }[name]

    return made


def of_mean(dtype: Any, *kind: Any) -> Any:
    """What makes the arguments of the gradient of a mean of cross-entropies."""

    def made(rng: Rng) -> tuple[Any, ...]:
        dy, share = np.array(rng.random(), dtype), np.array(0.1, dtype)
        return dy, share, *classes(True, dtype, *kind)(rng)[1:]

    return made


def running(dtype: Any) -> Any:
    """What makes the arguments of a step of running statistics."""

    def made(rng: Rng) -> tuple[Any, ...]:
        return *positive(rng, (2, 19), dtype), *positive(rng, (2, 19)), 0.1, 1.01

    return made


def tracked(dtype: Any) -> Any:
    """The same, and a count of batches."""
    return lambda rng: (np.array(41), *running(dtype)(rng))


def words(n: int) -> Any:
    def made(rng: Rng) -> tuple[Any, ...]:
        state = rng.integers(0, 2**64, 3, np.uint64)
        return state[:1], state[1:], n

    return made


def walk(name: str, cell: str, statistics: str) -> Any:
    """What makes the arguments of a walk through time, in tuples."""

    def made(rng: Rng) -> tuple[Any, ...]:
        seed = int(rng.integers(99))
        args = forward_arguments(cell, (4, 4, 3), statistics=statistics, seed=seed)
        kernel = NUMPY.kernels.get("walk_forward")
        assert kernel is not None
        return args if name == "walk_forward" else backward_arguments(args, kernel.run(*args))

    return made


def cases() -> Iterator[tuple[str, str, Callable[[Rng], tuple[Any, ...]]]]:
    """The name of each kernel with a case's name and what makes its arguments."""
    for dtype in (np.float32, np.float64):
        for flags in range(8):
            known, other, space = bool(flags & 1), bool(flags & 2), 5 if flags & 4 else 1
            title = f"{np.dtype(dtype).name}-{flags}"
            for name, made in (("batch", batch), ("row", row)):
                for phase in ("moments", "normalize", "grad_sums", "grad_input"):
                    yield f"{name}_{phase}", title, made(phase, space, dtype, known, other)
            for phase in ("normalize_relu", "relu_grad_sums", "relu_grad_input"):
                yield f"batch_{phase}", title, batch(phase, space, dtype, known, other)
            for phase in ("norm", "norm_grad"):
                yield f"whole_batch_{phase}", title, batch(phase, space, dtype, known, other)
            for phase in ("row_norm", "rms_norm", "row_norm_grad"):
                yield f"whole_{phase}", title, row(phase, space, dtype, known, other)
            yield "row_mean_square", title, row("mean_square", space, dtype, known, other)
            smoothing = 0.1 if flags & 4 else 0.0
            kind = dtype, known, smoothing, other
            yield "softmax_cross_entropy", title, classes(False, *kind)
            yield "softmax_cross_entropy_grad_input", title, classes(True, *kind)
            yield "mean_cross_entropy", title, classes(False, *kind)
            yield "mean_cross_entropy_grad_input", title, of_mean(*kind)
        yield "moving_moments", np.dtype(dtype).name, running(dtype)
        yield "tracked_moments", np.dtype(dtype).name, tracked(dtype)
        yield "one_more", np.dtype(dtype).name, lambda rng: (np.array(41.0),)
        for name in LAYER.split():
            for shape in ((1, 1), (23, 37)):
                yield name, f"{np.dtype(dtype).name}-{shape[0]}", layer(name, shape, dtype)
        for name in images.NAMES.split():
            for groups in (1, 4):
                title = f"{np.dtype(dtype).name}-{groups}"
                yield name, title, images.image(name, dtype, groups)
        for name in NUMBERS:
            for whole in (True, False):
                title = f"{np.dtype(dtype).name}-{'whole' if whole else 'least'}"
                yield f"{name}_update", title, update(name, dtype, whole)
    for n in (0, 1, 4, 103):
        yield "philox_words", str(n), words(n)
    for cell, statistics in (("lstm", "none"), ("lstm", "mixed"), ("gru", "layer")):
        for name in ("walk_forward", "walk_backward"):
            yield name, f"{cell}-{statistics}", walk(name, cell, statistics)


CASES = [pytest.param(name, made, id=f"{name}-{title}") for name, title, made in cases()]


def split(made: Callable[[Rng], tuple[Any, ...]], seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments."""
    args = list(made(np.random.default_rng(seed)))
    return (args[:-1], args[-1]) if isinstance(args[-1], dict) else (args, {})


def owner(x: Any) -> Any:
    """The array that x is a view of."""
    return x if x.base is None else owner(x.base)


def leaves(args: Any) -> list[Any]:
    """The arrays among arguments, also inside of tuples."""
    found = []
    for x in args:
        if isinstance(x, tuple):
            found += leaves(x)
        elif isinstance(x, np.ndarray):
            found.append(x)
    return found


def flat(args: Any) -> list[Any]:
    """Arguments, and what is inside of tuples."""
    return [part for x in args for part in (flat(x) if isinstance(x, tuple) else [x])]


def poison(x: Any) -> None:
    x.fill(np.nan if x.dtype.kind == "f" else 7)


@pytest.mark.parametrize(("name", "made"), CASES)
def test_has_the_bits_of_run_also_of_values_that_come_later(name: str, made: Any) -> None:
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    assert kernel.into is not None
    args, kwargs = split(made, 0)
    mine, _ = split(made, 0)
    assert kernel.accepts(*args, **kwargs)
    results = kernel.run(*args, **kwargs)
    outs = []
    for result in results if isinstance(results, tuple) else (results,):
        here = [a for a, b in zip(mine, args, strict=True) if b is result and b is not None]
        outs.append(here[0] if here else result if result is None else np.empty_like(result))
        if not here and result is not None:
            poison(outs[-1])
    function, operands = kernel.into(tuple(outs), *mine, **kwargs)
    allowed = (np.ndarray, int, float, bool, type(None))
    parts = flat(operands)
    assert all(isinstance(x, allowed) and not isinstance(x, np.generic) for x in parts)
    for seed in (0, 1):
        if seed:
            args, _ = split(made, seed)
            for x, other in zip(leaves(mine), leaves(args), strict=True):
                np.copyto(owner(x), owner(other))
            for out in outs:
                if not any(out is x for x in mine) and out is not None:
                    poison(out)
            results = kernel.run(*args, **kwargs)
        function(*operands)
        for out, result in zip(
            outs, results if isinstance(results, tuple) else (results,), strict=True
        ):
            if result is not None:
                assert out.tobytes() == result.tobytes()


READERS = "batch_normalize batch_grad_input row_normalize row_grad_input add_bias relu relu_grad"


@pytest.mark.parametrize("name", [*READERS.split(), "dropped"])
def test_what_is_only_read_may_be_read_only(name: str) -> None:
    """Also where a kernel could write its result over an operand."""
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    args, _ = split(next(made for known, _, made in cases() if known == name), 0)
    wanted = kernel.run(*args)
    for x in args:
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    got = kernel.run(*args)
    for a, b in zip(np.atleast_1d(got), np.atleast_1d(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_kernel_that_says_into_is_tested() -> None:
    known = {name: NUMPY.kernels.get(name) for name in families.FAMILIES if name in KERNEL_POINTS}
    said = {name for name, kernel in known.items() if kernel is not None and kernel.into}
    assert said == {name for name, _, _ in cases()}
