"""Linear maps with parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygrad_bn.creation import empty
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.linear import linear
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.tensors import Parameter, Tensor


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
        # in memory a column after the other: a product with few rows is faster so, and a first
        # layer has no other
        weight = empty(in_features, out_features, device=device, dtype=dtype)
        self.weight = Parameter(weight.t())
        self.bias = Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(max(self.in_features, 1))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Bilinear(Module):
    """yₖ = x₁ᵀ Wₖ x₂ + bₖ.

    Parameters
    ----------
    in1_features, in2_features, out_features : sizes of the last axes of x₁, x₂ and y.
    bias : whether there is a b.

    Shapes
    ------
    (*, in1_features), (*, in2_features) -> (*, out_features); ``weight`` is (out, in1, in2).

    Notes
    -----
    Weight and bias start as PyTorch's do: uniform within ±1/√in1_features.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features = out_features
        shape = out_features, in1_features, in2_features
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        self.bias = Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(max(self.in1_features, 1))
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


@under_autocast
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1ᵀ Wₖ input2 + bₖ for every k.

    Shapes
    ------
    (*, in1), (*, in2), weight (out, in1, in2), bias (out,) -> (*, out).
    """
    require_tensor(input1, "input1")
    require_tensor(input2, "input2")
    a, b, (out, in1, in2) = input1.shape, input2.shape, weight.shape
    if not a or not b or a[-1] != in1 or b[-1] != in2 or a[:-1] != b[:-1]:
        raise ShapeError(f"expected (*, {in1}) and (*, {in2}), got {a} and {b}")
    flat = weight.permute(1, 0, 2).reshape(in1, out * in2)
    left = (input1 @ flat).reshape(*a[:-1], out, in2)
    y = (left @ input2.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias


class Flatten(Module):
    """One axis in the place of axes ``start_dim`` to ``end_dim``, both included."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axes of sizes ``unflattened_size`` in the place of axis ``dim``."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
