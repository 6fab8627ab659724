"""Linear maps with parameters."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_bn.creation import empty
from tinygrad_bn.nn import init
from tinygrad_bn.nn.module import Module
from tinygrad_bn.tensor import Parameter, Tensor


class Identity(Module):
    """y = x, to stand in for another module: it ignores what arguments it is made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """y = x Wᵀ + b.

    Parameters
    ----------
    in_features, out_features : sizes of the last axis of x and y.
    bias : whether there is a b.

    Shapes
    ------
    (*, in_features) -> (*, out_features); ``weight`` is (out_features, in_features).

    Notes
    -----
    Weight and bias start as PyTorch's do: uniform within ±1/√in_features.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.bias = Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(max(self.in_features, 1))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        y = input @ self.weight.transpose(0, 1)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
