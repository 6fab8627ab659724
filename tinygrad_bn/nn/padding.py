"""Layers that put more around images."""

from __future__ import annotations

from typing import Any, ClassVar

from tinygrad_bn.errors import DtypeError, ShapeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.rearrange import pad
from tinygrad_bn.tensors import Tensor


class Padding(Module):
    """What paddings of every rank have in common."""

    axes: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        widths = (
            tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 2 * self.axes
        )
        if not all(isinstance(n, int) for n in widths):
            raise DtypeError(f"expected whole numbers as padding, got {padding!r}")
        if len(widths) != 2 * self.axes:
            raise ShapeError(f"expected 1 or {2 * self.axes} numbers as padding, got {padding!r}")
        self.padding = widths

    def forward(self, input: Tensor) -> Tensor:
        self.require_rank(input)
        return pad(input, self.padding, self.mode)

    def require_rank(self, input: Tensor) -> None:
        if input.ndim not in (self.axes + 1, self.axes + 2):
            raise ShapeError(
                f"expected an input of rank {self.axes + 2}, or {self.axes + 1} without samples, "
                f"got {input.shape}"
            )

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPadding(Padding):
    """What paddings with one value have in common; they take inputs of any rank."""

    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ZeroPadding(ConstantPadding):
    """What paddings with zeros have in common."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(ZeroPadding):
    """(N, C, L) with zeros around; see `ZeroPad2d`."""

    axes = 1


class ZeroPad2d(ZeroPadding):
    """Images with zeros around them.

    Parameters
    ----------
    padding : how many pixels left, right, top and bottom, or one number for all; negative ones
        take away.

    Shapes
    ------
    any rank; the last two axes grow.
    """

    axes = 2


class ZeroPad3d(ZeroPadding):
    """(N, C, D, H, W) with zeros around; see `ZeroPad2d`."""

    axes = 3


class ConstantPad1d(ConstantPadding):
    """(N, C, L) with one value around; see `ConstantPad2d`."""

    axes = 1


class ConstantPad2d(ConstantPadding):
    """Images with one value around them.

    Parameters
    ----------
    padding : how many pixels left, right, top and bottom, or one number for all; negative ones
        take away.
    value : of what is added.

    Shapes
    ------
    any rank; the last two axes grow.
    """

    axes = 2


class ConstantPad3d(ConstantPadding):
    """(N, C, D, H, W) with one value around; see `ConstantPad2d`."""

    axes = 3


class ReflectionPad1d(Padding):
    """(N, C, L) with what is mirrored at the border around; see `ReflectionPad2d`."""

    axes = 1
    mode = "reflect"


class ReflectionPad2d(Padding):
    """Images with what is mirrored at the border around them.

    Parameters
    ----------
    padding : how many pixels left, right, top and bottom, or one number for all; negative ones
        take away.

    Shapes
    ------
    (N, C, H, W), or without N; the last two axes grow.
    """

    axes = 2
    mode = "reflect"


class ReflectionPad3d(Padding):
    """(N, C, D, H, W) with what is mirrored at the border around; see `ReflectionPad2d`."""

    axes = 3
    mode = "reflect"


class ReplicationPad1d(Padding):
    """(N, C, L) with the border again around; see `ReplicationPad2d`."""

    axes = 1
    mode = "replicate"


class ReplicationPad2d(Padding):
    """Images with the border again around them.

    Parameters
    ----------
    padding : how many pixels left, right, top and bottom, or one number for all; negative ones
        take away.

    Shapes
    ------
    (N, C, H, W), or without N; the last two axes grow.
    """

    axes = 2
    mode = "replicate"


class ReplicationPad3d(Padding):
    """(N, C, D, H, W) with the border again around; see `ReplicationPad2d`."""

    axes = 3
    mode = "replicate"


class CircularPad1d(Padding):
    """(N, C, L) with what is at the other end around; see `CircularPad2d`."""

    axes = 1
    mode = "circular"


class CircularPad2d(Padding):
    """Images with what is at the other end around them.

    Parameters
    ----------
    padding : how many pixels left, right, top and bottom, or one number for all; negative ones
        take away.

    Shapes
    ------
    (N, C, H, W), or without N; the last two axes grow.
    """

    axes = 2
    mode = "circular"


class CircularPad3d(Padding):
    """(N, C, D, H, W) with what is at the other end around; see `CircularPad2d`."""

    axes = 3
    mode = "circular"
