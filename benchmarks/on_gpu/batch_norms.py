"""The kernels of batch norm against what moving their bytes takes, and beside PyTorch's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from compare import Times, ratio, significant, spread

import tinygrad_bn as tg
from on_gpu import DEVICE, Bench, forget, reason
from on_gpu.timing import compare
from tinygrad_bn.ops.whole_norms import whole_batch_norm, whole_batch_norm_grad

EPS = 1e-5


class Shape(NamedTuple):
    rows: int
    channels: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.rows} × {self.channels} {self.dtype}"


SHAPES = (
    Shape(65536, 1024, "float32"),
    Shape(65536, 1024, "bfloat16"),
    Shape(16384, 1024, "float32"),
    Shape(256, 1024, "float32"),
)
PASSES = {
    "forward": (3, 2),
    "backward": (5, 3),
    "forward with ReLU": (3, 2),
    "backward with ReLU": (5, 3),
    "both with ReLU": (8, 5),
}
"""How often an array like x must be read or written: where it does not fit on the GPU's
multiprocessors, x is read for the sums and again for the result, and so is dy; and where it fits.
"""
Calls = dict[str, Callable[[], Any]]


def measure(bench: Bench, bandwidth: float, shapes: Iterable[Shape] = SHAPES) -> dict[str, Any]:
    """A row for each shape; where one cannot be measured, why."""
    found: dict[str, Any] = {}
    for shape in shapes:
        try:
            found[str(shape)] = measured(bench, shape, bandwidth)
        except Exception as error:
            found[str(shape)] = {"phases": {}, "absent": {"tinygrad_bn": reason(error)}}
            bench.report(f"batch norm, {shape}: {reason(error)}")
        forget(bench)
    return found


def measured(bench: Bench, shape: Shape, bandwidth: float) -> dict[str, Any]:
    calls, size, fits = ours(shape)
    absent = dict(bench.absent)
    if bench.torch is not None:
        try:
            calls |= theirs(bench, shape)
        except Exception as error:
            absent["torch"] = reason(error)
    times = compare(calls, bench.pace, bench.timer)
    phases = {phase: row(times, phase, floor(phase, size, fits, bandwidth)) for phase in PASSES}
    told = [f"{p} {100 * r['of the floor']:.0f} %" for p, r in phases.items()]
    bench.report(f"batch norm, {shape}, of its floor: {', '.join(told)}")
    return {"bytes of x": size, "held in registers": fits, "phases": phases, "absent": absent}


def floor(phase: str, size: int, fits: bool, bandwidth: float) -> float:
    """Seconds that the bytes of a phase take at the bandwidth of a copy."""
    return significant(PASSES[phase][fits] * size / bandwidth, 4)


def row(times: Times, phase: str, least: float) -> dict[str, Any]:
    """A phase: the times of both, how near ours is to the floor, and how far ahead."""
    mine = times[f"tinygrad_bn {phase}"]
    found: dict[str, Any] = {"seconds": {"tinygrad_bn": spread(mine)}, "floor": least}
    found["of the floor"] = significant(least / statistics.median(mine), 3)
    if (name := f"torch {phase}") in times:
        found["seconds"]["torch"] = spread(times[name])
        found["torch over ours"] = ratio(times, name, f"tinygrad_bn {phase}")
    return found


def ours(shape: Shape) -> tuple[Calls, int, bool]:
    """The kernels by themselves, without the tape; the bytes of x; whether a block holds all of
    its channels' values. They are called through their kernel points, which must accept them.
    """
    from tinygrad_bn.backends.cuda_kernels.channel_plans import plan_of

    kind = getattr(tg, shape.dtype)
    x, dy = (tg.randn(*shape[:2], 1, device=DEVICE).to(kind) for _ in range(2))
    weight, bias = (tg.randn(shape.channels, device=DEVICE).array for _ in range(2))
    backend, x, dy = x.backend, x.array, dy.array

    def forward(relu: bool) -> Any:
        return whole_batch_norm(backend, x, weight, bias, None, EPS, relu)

    _, mean, _, rstd = forward(False)

    def backward(relu: bool) -> Any:
        kept = dy, x, mean, rstd, weight, bias, None
        return whole_batch_norm_grad(backend, *kept, shape.rows, relu)

    for point, given in (
        (whole_batch_norm, (x, weight, bias, None, EPS, True)),
        (whole_batch_norm_grad, (dy, x, mean, rstd, weight, bias, None, shape.rows, True)),
    ):
        kernel = backend.kernels.get(point.name)
        if kernel is None or not kernel.accepts(*given):
            raise RuntimeError(f"expected a CUDA kernel of {point.name} for {shape}, got none")
    calls: Calls = {
        "tinygrad_bn forward": lambda: forward(False),
        "tinygrad_bn backward": lambda: backward(False),
        "tinygrad_bn forward with ReLU": lambda: forward(True),
        "tinygrad_bn backward with ReLU": lambda: backward(True),
        "tinygrad_bn both with ReLU": lambda: (forward(True), backward(True)),
    }
    return calls, x.nbytes, plan_of(x, dy).held is not None


def theirs(bench: Bench, shape: Shape) -> Calls:
    """PyTorch's as users call it, which has no kernels without the tape that it would choose."""
    torch, device = bench.torch, bench.torch_device
    functional = torch.nn.functional
    kind = getattr(torch, shape.dtype)
    x = torch.randn(*shape[:2], device=device).to(kind).requires_grad_()
    dy = torch.randn(*shape[:2], device=device).to(kind)
    weight, bias = (torch.randn(shape.channels, device=device).requires_grad_() for _ in range(2))

    def forward(relu: bool) -> Any:
        y = functional.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)
        return functional.relu(y) if relu else y

    def grads(y: Any) -> Any:
        return torch.autograd.grad(y, (x, weight, bias), dy, retain_graph=True)

    plain, rectified = forward(False), forward(True)
    return {
        "torch forward": lambda: forward(False),
        "torch backward": lambda: grads(plain),
        "torch forward with ReLU": lambda: forward(True),
        "torch backward with ReLU": lambda: grads(rectified),
        "torch both with ReLU": lambda: grads(forward(True)),
    }
