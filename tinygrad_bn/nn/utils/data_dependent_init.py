"""Lengths and biases of weights under weight norm, from what a batch makes of them."""

from __future__ import annotations

from typing import Any, TypeVar

from tinygrad_bn import config
from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.utils.weight_normalization import WeightNorm
from tinygrad_bn.ops.elementwise import where
from tinygrad_bn.ops.precision import at_least_float32
from tinygrad_bn.ops.statistics import std_mean
from tinygrad_bn.tensors import Tensor

M = TypeVar("M", bound=Module)

CHANNELS = {"out_features": -1, "out_channels": 1}
"""What layers call the number of their outputs, and the axis where those stand."""


class Layer:
    """A layer whose pre-activations are to have mean 0 and variance 1, when first it is called."""

    def __init__(self, module: Module, axis: int, g: Tensor, bias: Tensor | None) -> None:
        self.module, self.axis = module, axis
        self.tensors = [x.detach() for x in (g, bias) if x is not None]
        self.before = [x.clone() for x in self.tensors]
        self.done = False

    def begin(self) -> None:
        """Let the layer compute t = v x / ‖v‖."""
        for x, value in zip(self.tensors, (1.0, 0.0), strict=False):
            x.fill_(value)

    def after_forward(self, module: Module, args: tuple[Any, ...], t: Tensor) -> Tensor | None:
        """Set g = 1 / σ[t] and b = -μ[t] / σ[t]; the output that the layer has with them."""
        if self.done:
            return None
        self.done = True
        wide = at_least_float32(t)
        others = tuple(i for i in range(t.ndim) if i != self.axis % t.ndim)
        std, mean = std_mean(wide, others, correction=0, keepdim=True)
        scale = 1.0 / where(std == 0, 1.0, std)
        values = [scale, -mean * scale]
        for x, value in zip(self.tensors, values, strict=False):
            x.overwrite(value.reshape(x.shape).array)
        y = wide - mean if len(self.tensors) == 2 else wide
        return (y * scale).to(t.dtype)

    def restore(self) -> None:
        """Put back what was there."""
        for x, value in zip(self.tensors, self.before, strict=True):
            x.overwrite(value.array)


def layers_of(model: Module) -> list[Layer]:
    """The layers under weight norm.

    Raises
    ------
    ArgumentError
        If there is none, or one without a length for each output, or with a computed bias.
    """
    found: list[Layer] = []
    for path, module in model.named_modules():
        norm = module._derived.get("weight")
        size = next((name for name in CHANNELS if name in vars(module)), None)
        if not isinstance(norm, WeightNorm) or size is None:
            continue
        g, outputs = norm.part(module, "g"), getattr(module, size)
        if g.numel() != outputs:
            raise ArgumentError(
                f"expected a length for each of the {outputs} outputs of {path!r}, got {g.numel()}"
            )
        if "bias" in module._derived:
            raise ArgumentError(f"expected a bias of {path!r} to set, got one that is computed")
        found.append(Layer(module, CHANNELS[size], g, module.bias))
    if not found:
        raise ArgumentError("expected layers under weight_norm in the model, got none")
    return found


def init_weight_norm(model: M, batch: Tensor | tuple[Any, ...]) -> M:
    """Choose the lengths and biases of all layers under `weight_norm` so that for one batch all
    pre-activations have mean 0 and variance 1.

        t = v x / ‖v‖,    g = 1 / σ[t],    b = -μ[t] / σ[t]

    The model runs once, as it stands and without a graph; each layer is initialised when it is
    reached, and hands on what it computes with its new values.

    Parameters
    ----------
    model : layers with ``out_features`` or ``out_channels``, such as Linear, are initialised.
        Others under `weight_norm`, such as embeddings, and layers that are not reached keep their
        values; a layer without a bias only gets variance 1.
    batch : what the model is called with; several arguments as a tuple.

    Returns
    -------
    The model.

    Raises
    ------
    ArgumentError
        If no such layer is under `weight_norm`, or one does not have a length for each output, or
        has a reparametrized bias.

    Notes
    -----
    Running statistics and power iterations do not advance. An output that is the same for the whole
    batch gets g = 1. If the model fails, everything is as it was.

    References
    ----------
    Salimans and Kingma 2016, arXiv:1602.07868, section 3, equations 5 and 6.
    """
    if not isinstance(model, Module):
        raise DtypeError(f"expected a module to initialise, got {model!r}")
    layers = layers_of(model)
    handles = [layer.module.register_forward_hook(layer.after_forward) for layer in layers]
    token = config.recomputing.set(True)  # nothing that counts steps is to advance
    try:
        with config.no_grad():
            for layer in layers:
                layer.begin()
            model(*batch if isinstance(batch, tuple) else (batch,))
    except BaseException:
        for layer in layers:
            layer.restore()
        raise
    finally:
        config.recomputing.reset(token)
        for handle in handles:
            handle.remove()
    for layer in layers:
        if not layer.done:
            layer.restore()
    return model
