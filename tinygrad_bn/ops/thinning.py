"""Dropout's product with a random mask, which is drawn and taken in one pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.ops.dense import dropped
from tinygrad_bn.philox import Generator, generator_on

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class Thin(Function):
    """x · mask; a ``product`` of the two arrays is there already, but a replay's is of Tensors."""

    def forward(self, x: Array, mask: Array, *, product: Array) -> Array:
        self.mask = mask
        return x * mask if isinstance(x, Variable) else product

    def backward(self, dy: Array, /) -> tuple[Array, None]:
        return dy * self.mask, None


def thinned(input: Tensor, keep: float, generator: Generator | None = None) -> Tensor:
    """Each element divided by ``keep``, with that probability, else 0 · element."""
    drawn_by = generator_on(input.backend, generator)
    with drawn_by.advancing() as (key, counter):
        product, mask = dropped(input.backend, input.array, key, counter, keep)
        lanes = (math.prod(input.shape) + 3) // 4
        input.backend.store(counter[:1], counter[:1] + lanes)
    held = input.wrap_like(mask)
    return Thin.apply(input, held, product=product)  # type: ignore[no-any-return]
