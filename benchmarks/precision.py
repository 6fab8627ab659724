"""How exact norms are, beside PyTorch and the formulas of other libraries, on the same inputs.

    python benchmarks/precision.py

Measures errors, no times: against the formula in long double, and for gradients of higher order
against it in float64, written with plain operations. Needs PyTorch and matplotlib. Writes
results/precision.json, docs/precision.md and docs/precision.png.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from machine import unpinned, write

unpinned()

import norm_formulas
import numpy as np
import torch
from precision_page import write_page

import tinygrad_bn as tg

EPS = 1e-5
SHAPE = (1024, 16)
SEEDS = range(21)
DRAWS = 11
LIBRARIES: dict[str, Any] = {"tinygrad_bn": tg, "PyTorch": torch}


def through(library: Any, function: Callable[..., Any], x: Any, dy: Any) -> tuple[Any, Any]:
    """y and dx of a function in a library, as arrays."""
    leaf = library.tensor(x).requires_grad_()
    y = function(library.nn.functional, leaf)
    y.backward(library.tensor(dy))
    return y.detach().numpy(), leaf.grad.numpy()


def batch_norm(eps: float) -> Callable[..., Any]:
    return lambda functional, x: functional.batch_norm(x, None, None, training=True, eps=eps)


METHODS: dict[str, Callable[[Any, Any, float], tuple[Any, Any]]] = {
    "tinygrad_bn": lambda x, dy, eps: through(tg, batch_norm(eps), x, dy),
    "PyTorch": lambda x, dy, eps: through(torch, batch_norm(eps), x, dy),
    "Chainer's formula": norm_formulas.chainer,
    "one pass": norm_formulas.one_pass,
}


def drawn(
    offset: float, scale: float, shape: tuple[int, ...] = SHAPE, seed: int = 0
) -> tuple[Any, Any]:
    """x and dy, float32; of one seed the same numbers for every offset and scale."""
    rng = np.random.default_rng(seed)
    x = (offset + scale * rng.standard_normal(shape)).astype(np.float32)
    return x, rng.standard_normal(shape).astype(np.float32)


def error(got: Any, wanted: Any) -> float:
    """The largest error."""
    return float(np.max(np.abs(got - wanted)))


def relative(got: Any, wanted: Any) -> float:
    """The error's norm over that of what is wanted."""
    size = np.max(np.abs(wanted))
    return float(np.linalg.norm((got - wanted) / size) / np.linalg.norm(wanted / size))


def errors(
    offset: float, scale: float, eps: float = EPS, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Of each method, the largest error of y and the relative one of dx."""
    x, dy = drawn(offset, scale, seed=seed)
    y, dx = norm_formulas.exact(x, dy, eps)
    found = {}
    for name, method in METHODS.items():
        with np.errstate(all="ignore"):
            got = method(x, dy, eps)
        found[name] = {"y": error(got[0], y), "dx": relative(got[1], dx)}
    return found


def curves() -> dict[str, Any]:
    """The errors at mean/std from 1 to 10⁷, in half decades: medians over draws whose mean is up to
    a tenth away, as it depends on a mean's last digits what float32 makes of it.
    """
    ratios = [10 ** (k / 2) for k in range(15)]
    near = np.linspace(0.9, 1.1, DRAWS)
    found = [
        [errors(ratio * factor, 1.0, seed=seed) for seed, factor in enumerate(near)]
        for ratio in ratios
    ]

    def medians(name: str, key: str) -> list[float]:
        return [statistics.median(draw[name][key] for draw in draws) for draws in found]

    methods = {name: {key: medians(name, key) for key in ("y", "dx")} for name in METHODS}
    return {"mean/std": ratios, "errors": methods}


NAMED = {
    "mean 0, std 1": (0.0, 1.0, EPS),
    "mean 10⁴, std 1": (1e4, 1.0, EPS),
    "mean 10⁵, std 1": (1e5, 1.0, EPS),
    "mean 10⁴, std 10⁻²": (1e4, 1e-2, EPS),
    "std 10³⁰": (0.0, 1e30, EPS),
    "std 10⁻³⁰, ε = 10⁻⁶⁵": (0.0, 1e-30, 1e-65),
}


def constant_channels() -> dict[str, float]:
    """The largest |y - β| of channels of one value each."""
    values = np.array([0.1, 1 / 3, 1e-4, 123.456, 1e4 / 3, 1e6 + 0.3, -1e8 / 7], np.float32)
    x, dy = np.broadcast_to(values, (1000, len(values))).copy(), np.ones((1000, len(values)), "f4")
    return {name: error(method(x, dy, EPS)[0], 0) for name, method in METHODS.items()}


def sixteen_bits() -> dict[str, Any]:
    """The largest error of y where mean/std is 100, in units of the last place of y, or of 1 where
    y is smaller.
    """
    found: dict[str, Any] = {}
    for name, digits in (("float16", 10), ("bfloat16", 7)):
        values = torch.from_numpy(drawn(100.0, 1.0)[0]).to(getattr(torch, name))
        wide = values.double().numpy()
        y = norm_formulas.exact(wide, np.zeros_like(wide), EPS)[0]
        unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(y), 1.0))) - digits)
        found[name] = {}
        for library, module in LIBRARIES.items():
            x = module.tensor(values.float().numpy()).to(getattr(module, name))
            got = batch_norm(EPS)(module.nn.functional, x).float().numpy()
            found[name][library] = float(np.max(np.abs(got - y) / unit))
    return found


ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., Any]]] = {
    "batch norm, (32, 16, 12, 12)": ((32, 16, 12, 12), (0, 2, 3), batch_norm(EPS)),
    "layer norm, (256, 64)": ((256, 64), (1,), lambda f, x: f.layer_norm(x, (64,))),
    "group norm, (32, 16, 12, 12), 1 group": (
        (32, 16, 12, 12),
        (1, 2, 3),
        lambda f, x: f.group_norm(x, 1),
    ),
    "instance norm, (32, 16, 12, 12)": (
        (32, 16, 12, 12),
        (2, 3),
        lambda f, x: f.instance_norm(x),
    ),
}
"""Shape, the axes that statistics are over, and the function."""


def family() -> dict[str, Any]:
    """The errors of y and dx of other norms where mean/std is 10⁴."""
    found: dict[str, Any] = {}
    for name, (shape, axes, function) in ROWS.items():
        x, dy = drawn(1e4, 1.0, shape)
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        order = (*axes, *kept)

        def columns(values: Any, order: Any = order, axes: Any = axes) -> Any:
            rows = int(np.prod([values.shape[axis] for axis in axes]))
            return values.transpose(order).reshape(rows, -1)

        y, dx = norm_formulas.exact(columns(x), columns(dy), EPS)
        found[name] = {}
        for library, module in LIBRARIES.items():
            got = through(module, function, x, dy)
            found[name][library] = {
                "y": error(columns(got[0]), y),
                "dx": relative(columns(got[1]), dx),
            }
    return found


NORMS: dict[str, tuple[int, Callable[..., Any]]] = {
    "batch norm": (0, lambda f, x, w, b: f.batch_norm(x, None, None, w, b, training=True)),
    "layer norm": (1, lambda f, x, w, b: f.layer_norm(x, w.shape, w, b)),
    "group norm": (1, lambda f, x, w, b: f.group_norm(x, 1, w, b)),
}
"""The axis that statistics of (N, C) are over, and the function."""


def composed(axis: int) -> Callable[..., Any]:
    """The formula, in plain operations."""

    def run(f: Any, x: Any, w: Any, b: Any) -> Any:
        deviation = x - x.mean(axis, True)
        var = (deviation * deviation).mean(axis, True)
        return deviation / (var + EPS) ** 0.5 * w + b

    return run


def derivatives(library: Any, function: Callable[..., Any], arrays: Any) -> dict[str, Any]:
    """Derivatives of a norm and a curved loss on it, in float64: gradients of x to order 3, each
    along a direction, a Hessian's product, and nested products of the Jacobian.
    """
    arguments, dy, directions = (
        tuple(library.tensor(v) for v in arrays[0]),
        library.tensor(arrays[1]),
        [tuple(library.tensor(v) for v in vs) for vs in arrays[2]],
    )
    functional = library.autograd.functional

    def norm(*xs: Any) -> Any:
        return function(library.nn.functional, *xs)

    def loss(*xs: Any) -> Any:
        return (norm(*xs).tanh() * dy).sum()

    found: dict[str, Any] = {}
    leaves = tuple(v.requires_grad_() for v in arguments)
    value = loss(*leaves)
    for order, direction in enumerate(directions, 1):
        gradients = library.autograd.grad(value, leaves, create_graph=True)
        found[f"gradient of order {order}"] = gradients[0]
        value = sum((g * v).sum() for g, v in zip(gradients, direction, strict=True))
    found["Hessian times vector"] = functional.vhp(loss, leaves, directions[0])[1][0]

    def along(f: Any, v: Any) -> Any:
        if library is torch:  # whose forward mode is meant for this
            return lambda *xs: torch.func.jvp(f, xs, tuple(v))[1]
        return lambda *xs: functional.jvp(f, xs, v, create_graph=True)[1]

    nested = norm
    for depth, direction in zip(("", ", nested twice", ", three times"), directions, strict=True):
        nested = along(nested, direction)
        found[f"Jacobian times vector{depth}"] = nested(*leaves)
    return {name: v.detach().numpy() for name, v in found.items()}


def higher_orders() -> dict[str, Any]:
    """The relative errors of derivatives of (8, 4): median and worst over the seeds."""
    found: dict[str, Any] = {}
    for name, (axis, function) in NORMS.items():
        size = 4
        errs: dict[str, dict[str, list[float]]] = {}
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            shapes = ((8, size), (size,), (size,))
            point, *directions = ([rng.standard_normal(s) for s in shapes] for _ in range(4))
            arrays = point, rng.standard_normal((8, size)), directions
            wanted = derivatives(torch, composed(axis), arrays)
            for library, module in LIBRARIES.items():
                got = derivatives(module, function, arrays)
                for key, value in wanted.items():
                    of_key = errs.setdefault(key, {}).setdefault(library, [])
                    of_key.append(relative(got[key], value))
        found[name] = {
            key: {
                library: {"median": statistics.median(v), "worst": max(v)}
                for library, v in of_key.items()
            }
            for key, of_key in errs.items()
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    results = {
        "curves": curves(),
        "named": {name: errors(*where) for name, where in NAMED.items()},
        "constant": constant_channels(),
        "sixteen bits": sixteen_bits(),
        "family": family(),
        "orders": higher_orders(),
    }
    print("written:", write("precision", strict(results)))
    for path in write_page(results, torch.__version__, DRAWS, len(SEEDS)):
        print("written:", path)


def strict(value: Any) -> Any:
    """What JSON can hold: of numbers that are none, their names."""
    if isinstance(value, dict):
        return {key: strict(v) for key, v in value.items()}
    if isinstance(value, list):
        return [strict(v) for v in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


if __name__ == "__main__":
    main()
