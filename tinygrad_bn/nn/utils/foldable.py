"""What batch norms are folded into, and how it takes them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_bn.nn.convolution import Conv1d, Conv2d, Conv3d
from tinygrad_bn.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d
from tinygrad_bn.nn.linear import Identity, Linear
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import BatchNorm
from tinygrad_bn.nn.transposed_convolution import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from tinygrad_bn.tensors import Parameter, Tensor

Scaled = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor] | None]
"""From a module, and a scale and a shift for each channel, to its new weight and bias in float64;
None if it has none such.
"""


@dataclass(frozen=True, slots=True)
class Foldable:
    """How modules of a class, linear but for a bias, take in what is done to their channels.

    Attributes
    ----------
    place : of a module: the axis of the channels, in input and output, and the ranks of which that
        is true.
    channels : of a module: how many come in, and how many go out.
    outputs : for scale · y + shift.
    inputs : for y of scale · x + shift.
    uneven : why there is no such thing for inputs, where there is none.
    """

    place: Callable[[Any], tuple[int, Sequence[int]]]
    channels: Callable[[Any], tuple[int, int]]
    outputs: Scaled
    inputs: Scaled
    uneven: str = ""


def outputs_scaled(layer: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """scale (W x + b) + shift."""
    weight = layer.weight.double()
    weight = weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    return weight, shift if layer.bias is None else layer.bias.double() * scale + shift


def inputs_scaled(layer: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """W (scale x + shift) + b."""
    weight = layer.weight.double()
    moved = weight @ shift
    return weight * scale, moved if layer.bias is None else layer.bias.double() + moved


def points_scaled(layer: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor] | None:
    """W * (scale x + shift) + b; not where zeros stand around x, to which no shift was added."""
    padding = layer.padding
    if padding == "same":
        padding = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    around = padding != "valid" and any(padding)
    if around and layer.padding_mode == "zeros" and bool((shift != 0).any()):
        return None
    weight = layer.weight.double()
    rows, groups = weight.shape[0] // layer.groups, layer.groups
    # the channels that each output sees: those of its group
    each = weight.reshape(groups, rows, weight.shape[1], -1)
    moved = (each.sum(dim=3) @ shift.reshape(groups, -1, 1)).reshape(-1)
    weight = (each * scale.reshape(groups, 1, -1, 1)).reshape(layer.weight.shape)
    return weight, moved if layer.bias is None else layer.bias.double() + moved


def spread_outputs_scaled(layer: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """scale (Wᵀ x + b) + shift: the outputs of a group are axis 1 of its inputs' rows."""
    groups, parts = layer.groups, layer.weight.shape
    each = layer.weight.double().reshape(groups, parts[0] // groups, parts[1], -1)
    weight = (each * scale.reshape(groups, 1, -1, 1)).reshape(parts)
    return weight, shift if layer.bias is None else layer.bias.double() * scale + shift


def spread_inputs_scaled(layer: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor] | None:
    """Wᵀ (scale x + shift) + b; not where the shift would reach positions by other weights."""
    groups, parts = layer.groups, layer.weight.shape
    points = max(layer.kernel_size) == max(layer.stride) == 1
    if not (points and not any(layer.padding)) and bool((shift != 0).any()):
        return None
    weight = layer.weight.double()
    each = weight.reshape(groups, parts[0] // groups, parts[1], -1).sum(dim=3)
    moved = (each * shift.reshape(groups, -1, 1)).sum(dim=1).reshape(-1)
    weight = weight * scale.reshape(-1, *(1 for _ in parts[1:]))
    return weight, moved if layer.bias is None else layer.bias.double() + moved


RANKS = range(2, 9)
"""The ranks of input that are considered where a batch norm takes any."""


def of_images(layer: Any) -> tuple[int, Sequence[int]]:
    return layer.axis, (layer.axes + 2,)


def image_channels(layer: Any) -> tuple[int, int]:
    return layer.in_channels, layer.out_channels


CONVOLUTION = Foldable(
    of_images,
    image_channels,
    outputs_scaled,
    points_scaled,
    "puts zeros around it, which it does not shift",
)
TRANSPOSED = Foldable(
    of_images,
    image_channels,
    spread_outputs_scaled,
    spread_inputs_scaled,
    "gives some positions more of its shift than others",
)
FOLDABLE: dict[type[Module], Foldable] = {
    Linear: Foldable(
        lambda layer: (-1, RANKS),
        lambda layer: (layer.in_features, layer.out_features),
        outputs_scaled,
        inputs_scaled,
    ),
    Conv1d: CONVOLUTION,
    Conv2d: CONVOLUTION,
    Conv3d: CONVOLUTION,
    ConvTranspose1d: TRANSPOSED,
    ConvTranspose2d: TRANSPOSED,
    ConvTranspose3d: TRANSPOSED,
}
"""What norms are folded into."""
TRANSPARENT = (Identity, Dropout, AlphaDropout, Dropout1d, Dropout2d, Dropout3d)
"""What gives back its input in evaluation."""


def as_foldable(module: Module) -> tuple[type[Module], Foldable] | None:
    """The class of the table that a module is of, and what it says."""
    kind = next((kind for kind in type(module).__mro__ if kind in FOLDABLE), None)
    return None if kind is None else (kind, FOLDABLE[kind])


def is_plain(module: Module, kind: type[Module]) -> bool:
    """Whether the module is of the kind and computes what that does."""
    same = getattr(type(module), "forward", None) is kind.forward
    return isinstance(module, kind) and same and "forward" not in vars(module)


def is_hooked(module: Module) -> bool:
    """Whether somebody watches the module, or changes what it takes and gives."""
    hooks = module._hooks
    return hooks is not None and bool(hooks.before or hooks.after or hooks.backward)


def common_ranks(norm: BatchNorm, axis: int, among: Sequence[int]) -> list[int]:
    """The ranks of input in which the norm's channels lie along this axis."""
    return [
        rank
        for rank in norm.ranks or RANKS
        if rank in among
        and all(-rank <= a < rank for a in (axis, norm.axis))
        and (norm.axis - axis) % rank == 0
    ]


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """γ rstd and β - γ rstd mean, float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -scale * norm.running_mean.double()
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def take_in(layer: Any, scaled: tuple[Tensor, Tensor]) -> bool:
    """Give a layer a weight and a bias, rounded to its dtype; not if that leaves its range."""
    weight, bias = (x.to(layer.weight.dtype) for x in scaled)
    if not bool(weight.isfinite().all()) or not bool(bias.isfinite().all()):
        return False
    layer.weight.overwrite(weight.array)
    layer.weight.grad = None
    if layer.bias is None:
        layer.bias = Parameter(bias, requires_grad=layer.weight.requires_grad)
    else:
        layer.bias.overwrite(bias.array)
        layer.bias.grad = None
    return True
