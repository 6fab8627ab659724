"""What both adapters need to know of an index."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_basic(index: Any) -> bool:
    """Whether an index is of integers, slices, None and Ellipsis, and reads no element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or isinstance(i, (slice, int, np.integer)) for i in parts)
