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
def chosen(condition: Any, x: Any, y: Any) -> None:
    """y = x where the condition is true; one x stands for all."""
    step = 0 if x.size == 1 else 1
    for i in range(y.size):
        if condition[i]:
            y[i] = x[i * step]
