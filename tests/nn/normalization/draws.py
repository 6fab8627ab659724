"""Normal numbers to normalise."""

from __future__ import annotations

from typing import Any

import numpy as np


def normal(
    *shape: int, mean: float = 0.0, std: float = 1.0, dtype: Any = np.float32
) -> np.ndarray[Any, Any]:
    """The same for the same shape, whichever tests ran before."""
    return np.random.default_rng([0, *shape]).normal(mean, std, shape).astype(dtype)
