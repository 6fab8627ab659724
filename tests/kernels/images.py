"""What makes the arguments of kernels of convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_bn.ops.mixing import Table
from tinygrad_bn.ops.windows import Windows
from tinygrad_bn.ops.wiring import Wiring

NAMES = "convolved spread correlated unfolded folded mixed maxima placed"
WINDOWS = Windows((3, 2), (2, 1), (1, 2), ((1, 0), (0, 1)))
SIZE = (9, 7)
SPANS = (range(2), range(1, 4)), (range(3), range(2, 7), range(6, 7))
TABLE = Table([((0, 0.5), (2, 0.25)), (), ((6, 1.0),)], SIZE[1])


def image(name: str, dtype: Any, groups: int) -> Callable[[Any], tuple[Any, ...]]:
    """For a kernel of this name; convolutions over so many groups."""
    wiring = Wiring(WINDOWS, SIZE, groups, False)
    inputs, outputs = (4, 8) if groups > 1 else (3, 5)

    def made(rng: np.random.Generator) -> tuple[Any, ...]:
        def normal(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(dtype)

        x, y = normal(2, inputs, *SIZE), normal(2, outputs, *wiring.count)
        weight = normal(outputs, inputs // groups, *WINDOWS.kernel)
        places = 2 * int(np.prod(wiring.count))
        return {
            "convolved": (x, weight, normal(outputs), wiring),
            "spread": (y, weight, normal(inputs) if groups > 1 else None, wiring),
            "correlated": (x, y, wiring),
            "unfolded": (x, WINDOWS),
            "folded": (normal(inputs * WINDOWS.points, places), WINDOWS, x.shape),
            "mixed": (x, TABLE, 3),
            "maxima": (x[0], SPANS),
            "placed": (normal(4, 6), rng.integers(0, 9, (4, 6)), 9),
        }[name]

    return made
