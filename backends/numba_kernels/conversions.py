"""What moves values without computing with them."""

from __future__ import annotations

from typing import Any

from .compilation import compiled


@compiled
def converted(x: Any, y: Any) -> None:
    """y = x, each along one axis, in the dtype of y."""
    for i in range(x.size):
        y[i] = x[i]


@compiled
def chosen(condition: Any, a: Any, b: Any, y: Any) -> None:
    """y = a where the condition is true, else b; numbers stand for all places."""
    for i in range(y.size):
        y[i] = a if condition[i] else b[i]
