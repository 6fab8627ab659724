"""The operations, a file a family; each is written once, in the vocabulary of
``tinygrad_bn.backend``.
"""

from tinygrad_bn.ops import (
    contraction,
    division,
    elementwise,
    fresh,
    index,
    inplace,
    join,
    linear,
    logic,
    order,
    placement,
    rearrange,
    reduce,
    shape,
    statistics,
    transfer,
    trigonometry,
    unary,
)

__all__ = [
    "contraction",
    "division",
    "elementwise",
    "fresh",
    "index",
    "inplace",
    "join",
    "linear",
    "logic",
    "order",
    "placement",
    "rearrange",
    "reduce",
    "shape",
    "statistics",
    "transfer",
    "trigonometry",
    "unary",
]
