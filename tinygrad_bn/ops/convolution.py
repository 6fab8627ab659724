"""Convolution, its transpose, and the correlation that is the gradient of both for the weight.

Each of the three has the other two as its gradients, so that they differentiate to every order; see
``wiring.py`` for the phases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.norm_arguments import require_channels, require_floats
from tinygrad_bn.ops.windows import Pairs, Windows, numbers, on_both_sides, require_room
from tinygrad_bn.ops.wiring import Wiring, convolved, correlated, spread

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
]


class Convolve(Function):
    """x by windows with a weight (O, C/G, *K)."""

    def forward(self, x: Array, weight: Array, bias: Array | None, *, wiring: Wiring) -> Array:
        self.x, self.weight, self.wiring = x, weight, wiring
        if isinstance(x, Variable):
            return Convolve.apply(x, weight, bias, wiring=wiring)
        return convolved(self.backend, x, weight, bias, wiring)

    def backward(self, dy: Array, /) -> tuple[Array | None, ...]:
        backend, wiring, needs = self.backend, self.wiring, self.needs
        return (
            spread_by(backend, dy, self.weight, wiring) if needs[0] else None,
            correlated_by(backend, self.x, dy, wiring) if needs[1] else None,
            sum_of_channels(self.xp, dy, wiring) if needs[2] else None,
        )


class Spread(Function):
    """Each value of y (N, O, *P) over its window, by a weight (O, C/G, *K)."""

    def forward(self, y: Array, weight: Array, bias: Array | None, *, wiring: Wiring) -> Array:
        self.y, self.weight, self.wiring = y, weight, wiring
        if isinstance(y, Variable):
            return Spread.apply(y, weight, bias, wiring=wiring)
        return spread(self.backend, y, weight, bias, wiring)

    def backward(self, dx: Array, /) -> tuple[Array | None, ...]:
        backend, wiring, needs = self.backend, self.wiring, self.needs
        return (
            convolved_by(backend, dx, self.weight, wiring) if needs[0] else None,
            correlated_by(backend, dx, self.y, wiring) if needs[1] else None,
            sum_of_channels(self.xp, dx, wiring) if needs[2] else None,
        )


class Correlate(Function):
    """The weight (O, C/G, *K) that each value of y (N, O, *P) gives to those of its window."""

    def forward(self, x: Array, y: Array, *, wiring: Wiring) -> Array:
        self.x, self.y, self.wiring = x, y, wiring
        return correlated_by(self.backend, x, y, wiring)

    def backward(self, dw: Array, /) -> tuple[Array | None, ...]:
        backend, wiring, needs = self.backend, self.wiring, self.needs
        return (
            spread_by(backend, self.y, dw, wiring) if needs[0] else None,
            convolved_by(backend, self.x, dw, wiring) if needs[1] else None,
        )


def convolved_by(backend: Backend, x: Array, weight: Array, wiring: Wiring) -> Array:
    """The convolution of arrays; of Tensors, as in a replay, an operation with a history."""
    if isinstance(x, Variable):
        return Convolve.apply(x, weight, None, wiring=wiring)
    return convolved(backend, x, weight, None, wiring)


def spread_by(backend: Backend, y: Array, weight: Array, wiring: Wiring) -> Array:
    """The transposed convolution of arrays; of Tensors, an operation with a history."""
    if isinstance(y, Variable):
        return Spread.apply(y, weight, None, wiring=wiring)
    return spread(backend, y, weight, None, wiring)


def correlated_by(backend: Backend, x: Array, y: Array, wiring: Wiring) -> Array:
    """The correlation of arrays; of Tensors, an operation with a history."""
    if isinstance(x, Variable):
        return Correlate.apply(x, y, wiring=wiring)
    return correlated(backend, x, y, wiring)


def sum_of_channels(xp: Any, dy: Array, wiring: Wiring) -> Array:
    """The sum for each channel, over samples and positions."""
    rank = len(dy.shape)
    return xp.sum(dy, axis=tuple(range(rank - 1)) if wiring.last else (0, *range(2, rank)))


def padding_asked_for(padding: Any, windows: Windows) -> Pairs:
    """Numbers, or "valid", or "same": as many windows as positions; an odd one comes after.

    Raises
    ------
    ArgumentError
        For another word, or "same" with strides.
    """
    if not isinstance(padding, str):
        return on_both_sides(numbers("padding", padding, len(windows.kernel), 0))
    if padding not in ("same", "valid"):
        raise ArgumentError(f"expected padding 'same', 'valid' or numbers, got {padding!r}")
    if padding == "valid":
        return windows.padding
    if max(windows.stride) > 1:
        raise ArgumentError(f"expected stride 1 for padding 'same', got {windows.stride}")
    return tuple(((n - 1) // 2, n // 2) for n in windows.reach)


def windows_of(weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Windows:
    """The windows of a weight (O, C/G, *K), by the arguments of a convolution."""
    kernel = weight.shape[2:]
    axes = len(kernel)
    plain = Windows(
        kernel,
        numbers("stride", stride, axes, 1),
        numbers("dilation", dilation, axes, 1),
        on_both_sides((0,) * axes),
    )
    return Windows(kernel, plain.stride, plain.dilation, padding_asked_for(padding, plain))


def require_operands(input: Any, weight: Any, axes: int, axis: int) -> None:
    """Refuse what is not an image and a kernel over so many axes, of one float dtype.

    Raises
    ------
    DtypeError, ShapeError, ArgumentError
    """
    require_floats(input)
    require_floats(weight, "weight")
    if axis not in (1, -1):
        raise ArgumentError(f"expected the channels at axis 1 or -1, got {axis}")
    if weight.dtype != input.dtype:
        raise DtypeError(f"expected input of the weight's {weight.dtype}, got {input.dtype}")
    if weight.ndim != axes + 2 or not min(weight.shape):
        raise ShapeError(f"expected a weight with {axes} axes of a kernel, got {weight.shape}")
    if input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"expected an input of rank {axes + 2}, or {axes + 1} without samples, "
            f"got {input.shape}"
        )


def require_fit(
    input: Tensor, channels: int, wanted: int, bias: Tensor | None, outputs: int, groups: int
) -> None:
    """Refuse other channels than a weight takes, or a bias of others than it gives.

    Raises
    ------
    ShapeError, DtypeError, BackendError
    """
    if channels != wanted:
        raise ShapeError(
            f"expected {wanted} channels for this weight and {groups} groups, got {channels} "
            f"in {input.shape}"
        )
    require_channels(input, outputs, bias=bias)
    if bias is not None and bias.dtype != input.dtype:
        raise DtypeError(f"expected bias of the input's {input.dtype}, got {bias.dtype}")


def require_groups(groups: Any, weight: Tensor) -> int:
    """How many groups there are, which must divide the first axis of the weight."""
    (parts,) = numbers("groups", groups, 1, 1)
    if weight.shape[0] % parts:
        raise ShapeError(f"expected a weight for {parts} equal groups, got {weight.shape}")
    return parts


def batch_of(input: Tensor, axes: int, axis: int) -> tuple[Tensor, int, tuple[int, ...]]:
    """The input with an axis of samples, its channels, and its size."""
    x = input if input.ndim == axes + 2 else input.unsqueeze(0)
    return x, x.shape[axis], x.shape[2:] if axis == 1 else x.shape[1:-1]


def convolution(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    axis: int,
) -> Tensor:
    """Convolution over so many axes; see `conv2d`."""
    require_operands(input, weight, axes, axis)
    windows = windows_of(weight, stride, padding, dilation)
    groups = require_groups(groups, weight)
    x, channels, size = batch_of(input, axes, axis)
    require_fit(input, channels, weight.shape[1] * groups, bias, weight.shape[0], groups)
    require_room(windows, size)
    wiring = Wiring(windows, size, groups, axis == -1)
    y = Convolve.apply(x, weight, bias, wiring=wiring)
    return y if x is input else y.squeeze(0)  # type: ignore[no-any-return]


@under_autocast
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    axis: int = 1,
) -> Tensor:
    """Convolution over one axis: `conv2d` of (N, C, L) with a weight (O, C/G, K)."""
    return convolution(1, input, weight, bias, stride, padding, dilation, groups, axis)


@under_autocast
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    axis: int = 1,
) -> Tensor:
    """The products of every window of an image with a kernel, summed over points and channels.

        y[n, o, p] = b[o] + Σ w[o, c, k] x[n, c, p·stride + k·dilation - padding]

    The sum is over the points k of the window and the C/G channels c in the group of o. Gradients
    exist to every order.

    Parameters
    ----------
    stride, dilation : how far windows, and the points of one, are apart; a number for both axes, or
        one for each.
    padding : how many zeros stand around the image; "valid" for none, or "same" for as many windows
        as there are positions, where an odd zero comes after.
    groups : into how many parts the channels of input and output are divided; as many as channels
        for a depthwise convolution.
    axis : where the channels are: 1, or -1 for channels last, in the input and in the result.

    Shapes
    ------
    input (N, C, H, W), weight (O, C/G, *K), bias (O,) -> (N, O, *P); or without N.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        For another rank, other channels or groups, a kernel larger than the padded input, or
        operands of several dtypes.

    Notes
    -----
    Computed as products with unfolded samples, of which `tinygrad_bn.set_workspace_limit` bounds
    how many there are at once; or on the CPU, with Numba, for few channels (up to 64 of 64) or a
    channel a group, without unfolding. Sixteen-bit floats are computed in float32 and rounded once.
    """
    return convolution(2, input, weight, bias, stride, padding, dilation, groups, axis)


@under_autocast
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    axis: int = 1,
) -> Tensor:
    """Convolution over three axes: `conv2d` of (N, C, D, H, W) with a weight (O, C/G, *K)."""
    return convolution(3, input, weight, bias, stride, padding, dilation, groups, axis)
