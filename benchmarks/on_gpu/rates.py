"""What this GPU can do: copy, multiply, and begin to work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
from compare import significant, spread

import tinygrad_bn as tg
from on_gpu import DEVICE, Bench, forget, reason
from on_gpu.timing import compare

COPIED = 1 << 30
"""Bytes that are copied, well beyond any L2; less where memory is short."""
SIDE = 8192
"""Of the square matrices whose product is timed."""
DTYPES = ("float32", "bfloat16")
Calls = dict[str, Callable[[], Any]]


def measure(bench: Bench, copied: int = COPIED, side: int = SIDE) -> dict[str, Any]:
    """All three; the copy bandwidth comes first, since floors need it."""
    found: dict[str, Any] = {"copy": copy_bandwidth(bench, copied), "products": {}}
    for dtype in DTYPES:
        found["products"][dtype] = products(bench, dtype, side)
        forget(bench)
    found["launches"] = launches(bench)
    return found


def copy_bandwidth(bench: Bench, copied: int) -> dict[str, Any]:
    """Bytes a second of a copy within the GPU's memory, which are read and written: both count."""
    free, _ = cupy.cuda.Device().mem_info
    size = min(copied, free // 8)
    source, target = cupy.ones(size // 4, np.float32), cupy.zeros(size // 4, np.float32)
    times = compare({"copy": lambda: cupy.copyto(target, source)}, bench.pace, bench.timer)["copy"]
    seconds = spread(times)
    rate = significant(2 * source.nbytes / seconds["median"], 4)
    bench.report(f"copy: {rate / 1e12:.3g} TB/s, read and written")
    return {"bytes": source.nbytes, "seconds": seconds, "bytes a second": rate}


def products(bench: Bench, dtype: str, side: int) -> dict[str, Any]:
    """FLOP/s of a product of square matrices, in float32 without TF32."""
    calls: Calls = {}
    absent = dict(bench.absent)
    makers = {"tinygrad_bn": our_product, "torch": their_product}
    for name, make in makers.items():
        if name in absent:
            continue
        try:
            calls[name] = make(bench, dtype, side)
            calls[name]()
        except Exception as error:  # no memory, no bfloat16
            calls.pop(name, None)
            absent[name] = reason(error)
    times = compare(calls, bench.pace, bench.timer)
    seconds = {name: spread(found) for name, found in times.items()}
    rates = {n: significant(2 * side**3 / s["median"], 4) for n, s in seconds.items()}
    told = [f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items()]
    bench.report(f"product of {side}² in {dtype}: {', '.join(told) or 'nobody'}")
    return {"side": side, "seconds": seconds, "FLOP a second": rates, "absent": absent}


def our_product(bench: Bench, dtype: str, side: int) -> Callable[[], Any]:
    a, b = (tg.randn(side, side, device=DEVICE).to(getattr(tg, dtype)) for _ in range(2))
    return lambda: a @ b


def their_product(bench: Bench, dtype: str, side: int) -> Callable[[], Any]:
    torch = bench.torch
    kind = getattr(torch, dtype)
    a, b = (torch.randn(side, side, device=bench.torch_device).to(kind) for _ in range(2))
    return lambda: a @ b


def launches(bench: Bench) -> dict[str, Any]:
    """Seconds from one call to the next where there is next to nothing to compute."""
    calls = our_launches()
    if bench.torch is not None:
        calls |= their_launches(bench)
    times = compare(calls, bench.pace, bench.timer)
    seconds = {name: spread(found) for name, found in times.items()}
    told = [f"{name} {s['median'] * 1e6:.3g} µs" for name, s in seconds.items()]
    bench.report(f"launches: {', '.join(told)}")
    return {"seconds": seconds, "absent": dict(bench.absent)}


def our_launches() -> Calls:
    """Calls on one number: a kernel of ours by itself, CuPy's, operations with the tape, and a
    graph with its argument and its result.
    """
    from tinygrad_bn.backends.cuda_kernels.batch_norm import moving_average

    running, value = cupy.ones(1, np.float32), cupy.ones(1, np.float64)
    x = cupy.ones(1, np.float32)
    leaf = tg.ones(1, device=DEVICE, requires_grad=True)
    a = tg.ones(16, 16, device=DEVICE, requires_grad=True)
    added, plain = tg.compile(lambda x: x + x), tg.ones(1, device=DEVICE)
    return {
        "a kernel of ours, with its output": lambda: moving_average(running, value, 0.5, 1.0),
        "an addition of CuPy": lambda: x + x,
        "an addition, tinygrad_bn": lambda: leaf + leaf,
        "a compiled addition, tinygrad_bn": lambda: added(plain),
        "a product of 16 × 16, tinygrad_bn": lambda: a @ a,
    }


def their_launches(bench: Bench) -> Calls:
    torch, device = bench.torch, bench.torch_device
    leaf = torch.ones(1, device=device, requires_grad=True)
    a = torch.ones(16, 16, device=device, requires_grad=True)
    return {
        "an addition, torch": lambda: leaf + leaf,
        "a product of 16 × 16, torch": lambda: a @ a,
    }
