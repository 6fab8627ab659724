"""The other kernels against their floors: what moving their arrays takes, each of them once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from compare import significant, spread

import tinygrad_bn as tg
from on_gpu import DEVICE, Bench, forget, reason
from on_gpu.timing import compare
from tinygrad_bn.backend import KernelPoint
from tinygrad_bn.curves import Gelu, curve_grad, curve_value
from tinygrad_bn.ops import dense, label_costs, whole_norms

EPS = 1e-5
SIZES = 1 << 16, 1 << 10
"""Rows and columns of x."""
IMAGES = 64, 256, 56
"""Images, channels, and pixels along an edge, of what group and instance norm see."""
CLASSES = 1000
DTYPES = ("float32", "bfloat16")


class Work(NamedTuple):
    """A call, and the bytes that it must read and write."""

    name: str
    size: int
    call: Callable[[], Any]


class Sizes(NamedTuple):
    """How large everything is."""

    rows: int = SIZES[0]
    columns: int = SIZES[1]
    images: tuple[int, int, int] = IMAGES
    classes: int = CLASSES


def of_kernel(name: str, size: int, point: KernelPoint[Any, Any], *args: Any) -> Work:
    """The call of a kernel, which must be there; the first argument is the backend."""
    backend, *rest = args
    kernel = backend.kernels.get(point.name)
    if kernel is None or not kernel.accepts(*rest):
        raise RuntimeError(f"expected a CUDA kernel of {point.name} for {name}, got none")
    return Work(name, size, lambda: point(*args))


def norms(sizes: Sizes, dtype: str) -> Iterator[Work]:
    """Layer, RMS, group and instance norm."""
    n, c = sizes.rows, sizes.columns
    images, channels, edge = sizes.images
    shapes = {
        "layer norm": (n, 1, c, 1),
        "RMS norm": (n, 1, c, 1),
        "group norm": (images, 32, channels // 32, edge * edge),
        "instance norm": (images, channels, 1, edge * edge),
    }
    for name, shape in shapes.items():
        x, dy = drawn(shape, dtype), drawn(shape, dtype)
        weight, bias = (drawn(shape[1:3], "float32").array for _ in range(2))
        backend, x, dy = x.backend, x.array, dy.array
        rms = name == "RMS norm"
        point: Any = whole_norms.whole_rms_norm if rms else whole_norms.whole_row_norm
        given = backend, x, weight, None if rms else bias, EPS
        yield of_kernel(f"{name}, forward", 2 * x.nbytes, point, *given)
        mean, _, rstd = (None, *point(*given)[1:]) if rms else point(*given)[1:]
        kept = backend, dy, x, mean, rstd, weight
        yield of_kernel(f"{name}, backward", 3 * x.nbytes, whole_norms.whole_row_norm_grad, *kept)


def layers(sizes: Sizes, dtype: str) -> Iterator[Work]:
    """What stands between products."""
    x, dy = (drawn(sizes[:2], dtype) for _ in range(2))
    backend, x, dy, size = x.backend, x.array, dy.array, x.array.nbytes
    bias = drawn((sizes.columns,), dtype).array
    state = tg.Generator(DEVICE).manual_seed(0).get_state().to(DEVICE).array
    key, counter = state[:1], state[1:]
    yield of_kernel("bias", 2 * size, dense.add_bias, backend, x, bias)
    yield of_kernel("bias, backward", size, dense.column_sums, backend, dy)
    yield of_kernel("ReLU", 2 * size, dense.relu, backend, x)
    yield of_kernel("ReLU, backward", 3 * size, dense.relu_grad, backend, dy, x)
    yield of_kernel("dropout", 3 * size, dense.dropped, backend, x, key, counter, 0.9)
    if dtype == "float32":  # sixteen bits come as float32
        yield of_kernel("GELU", 2 * size, curve_value, backend, x, Gelu())
        yield of_kernel("GELU, backward", 3 * size, curve_grad, backend, dy, x, Gelu())


def losses(sizes: Sizes, dtype: str) -> Iterator[Work]:
    """Cross-entropy of labels."""
    x = drawn((sizes.rows, sizes.classes), dtype)
    labels = tg.randint(sizes.classes, (sizes.rows,), device=DEVICE).array
    backend, x = x.backend, x.array
    given = backend, x, labels, None, -100, 0.0
    point: Any = label_costs.mean_cross_entropy
    yield of_kernel("cross-entropy, forward", x.nbytes, point, *given)
    _, share, *kept = point(*given)
    one = tg.ones((), device=DEVICE).array
    rest = backend, one, share, x, labels, None, *kept, -100, 0.0
    back: Any = label_costs.mean_cross_entropy_grad_input
    yield of_kernel("cross-entropy, backward", 2 * x.nbytes, back, *rest)


def updates(sizes: Sizes, dtype: str) -> Iterator[Work]:
    """Steps of optimizers, and clipping, as they are called."""
    if dtype != "float32":
        return
    options: dict[str, tuple[int, dict[str, Any]]] = {
        "SGD": (5, {"lr": 1e-6, "momentum": 0.9}),
        "Adam": (7, {"lr": 1e-6}),
        "RMSprop": (5, {"lr": 1e-6}),
        "LAMB": (10, {"lr": 1e-6}),  # moments are read again for the step, whose norm comes first
    }
    for name, (arrays, given) in options.items():
        p = tg.nn.Parameter(drawn(sizes[:2], dtype))
        optimizer = getattr(tg.optim, name)([p], **given)
        p.grad = drawn(sizes[:2], dtype)
        yield Work(f"a step of {name}", arrays * p.array.nbytes, optimizer.step)
    p = tg.nn.Parameter(drawn(sizes[:2], dtype))
    p.grad = drawn(sizes[:2], dtype)
    clip = tg.nn.utils.clip_grad_norm_
    yield Work("clipping", 3 * p.array.nbytes, lambda: clip([p], 1.0))


def drawn(shape: tuple[int, ...], dtype: str) -> tg.Tensor:
    return tg.randn(*shape, device=DEVICE).to(getattr(tg, dtype))


FAMILIES = {"norms": norms, "layers": layers, "losses": losses, "updates": updates}


def measure(bench: Bench, bandwidth: float, sizes: Sizes | None = None) -> dict[str, Any]:
    """A row for each kernel; of a family that cannot be measured, why."""
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        for family, works in FAMILIES.items():
            try:
                for work in works(sizes or Sizes(), dtype):
                    found[f"{work.name}, {dtype}"] = measured(bench, work, bandwidth)
            except Exception as error:
                place = f"{family}, {dtype}"
                found[place] = {"absent": {"tinygrad_bn": reason(error)}}
                bench.report(f"{place}: {reason(error)}")
            forget(bench)
    return found


def measured(bench: Bench, work: Work, bandwidth: float) -> dict[str, Any]:
    (times,) = compare({work.name: work.call}, bench.pace, bench.timer).values()
    least = significant(work.size / bandwidth, 4)
    part = significant(least / statistics.median(times), 3)
    bench.report(f"{work.name}: {100 * part:.0f} % of its floor")
    seconds = {"tinygrad_bn": spread(times)}
    return {"bytes": work.size, "seconds": seconds, "floor": least, "of the floor": part}
