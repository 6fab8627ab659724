"""Norms from Keras and ONNX, whose conventions are not PyTorch's.

====================  =======================  ==================  ==================
                      here, PyTorch            Keras               ONNX
====================  =======================  ==================  ==================
``momentum``          weight of the newest     weight of the old   weight of the old
                      batch, 0.1               statistics, 0.99    statistics, 0.9
ε                     1e-5                     1e-3                1e-5
axis of the channels  1                        -1                  1
running variance      unbiased                 biased              biased
====================  =======================  ==================  ==================

The running variance stays what it is, and with ``running_var_correction="biased"`` goes on as it
was. It is not converted: an unbiased one is n / (n - 1) times as large, n being the number of
values a channel in every batch that it has seen, which nothing in a file tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.nn.normalization.batch import BatchNorm
from tinygrad_bn.nn.normalization.layer import LayerNorm

__all__ = ["batch_norm_from_keras", "batch_norm_from_onnx", "layer_norm_from_keras"]

N = TypeVar("N", bound=Normalization)
Config = Mapping[str, Any]
Values = Any
"""A NumPy array, or what NumPy makes one of."""


def batch_norm_from_keras(
    config: Config,
    weights: Sequence[Values],
    running_var_correction: str = "biased",
    device: object = None,
    dtype: Any = None,
) -> BatchNorm:
    """The batch norm of Keras' ``BatchNormalization``, for inputs of any rank from 2.

    Parameters
    ----------
    config : what ``get_config()`` gives, or a part: what is missing is Keras' default.
    weights : what ``get_weights()`` gives: γ where the layer scales, β where it centers, moving
        mean, moving variance.
    running_var_correction : the variance that training goes on with. Keras 3 stores the biased
        one; so did tf.keras 2, but for inputs of rank 4, for which its fused kernel stored the
        "unbiased" one.
    dtype : of the layer; by default that of the moving mean.

    Raises
    ------
    ArgumentError, StateError
        If the layer has an option for which there is another layer here, or none; or if the
        weights are not those that its options make.

    Notes
    -----
    ``trainable=False`` makes Keras' layer evaluate, whatever the mode: it comes frozen.
    """
    refuse(config, synchronized="convert_sync_batch_norm makes it so afterwards")
    refuse(config, renorm="use BatchRenorm", virtual_batch_size="use GhostBatchNorm", adjustment="")
    axes = axes_of(config)
    if len(axes) != 1:
        raise ArgumentError(f"expected one axis of channels, got {axes}")
    names = [*affine_names(config), "running_mean", "running_var"]
    values = named(names, weights)
    layer = BatchNorm(
        channels_of(values),
        config.get("epsilon", 1e-3),
        1 - config.get("momentum", 0.99),
        affine=len(names) > 2,
        device=device,
        dtype=values["running_mean"].dtype if dtype is None else dtype,
        axis=axes[0],
        running_var_correction=running_var_correction,
    )
    filled(layer, values)
    return layer if config.get("trainable", True) else layer.freeze()


def batch_norm_from_onnx(
    attributes: Config, initializers: Sequence[Values], device: object = None, dtype: Any = None
) -> BatchNorm:
    """The batch norm of an ONNX node ``BatchNormalization``, for inputs of any rank from 2.

    Parameters
    ----------
    attributes : the node's, by name; what is missing is ONNX' default.
    initializers : the values of its inputs after the first: scale, B, input_mean, input_var.
    dtype : of the layer; by default that of the mean.

    Returns
    -------
    The layer in training if ``training_mode`` is 1, in evaluation otherwise.

    Raises
    ------
    ArgumentError, StateError
        For an attribute of old operator sets that asks for something else, such as ``spatial=0``;
        or if there are not four vectors of one length.

    References
    ----------
    ONNX operators, BatchNormalization, versions 7 to 15.
    """
    known = {"epsilon", "momentum", "training_mode", "spatial"}
    if unknown := sorted(set(attributes) - known):
        raise ArgumentError(f"expected attributes among {sorted(known)}, got {unknown}")
    if attributes.get("spatial", 1) != 1:
        raise ArgumentError("expected spatial=1, got 0: a mean for each position has no layer here")
    values = named(["weight", "bias", "running_mean", "running_var"], initializers)
    layer = BatchNorm(
        channels_of(values),
        attributes.get("epsilon", 1e-5),
        1 - attributes.get("momentum", 0.9),
        device=device,
        dtype=values["running_mean"].dtype if dtype is None else dtype,
        running_var_correction="biased",
    )
    return filled(layer, values).train(bool(attributes.get("training_mode", 0)))


def layer_norm_from_keras(
    config: Config, weights: Sequence[Values], device: object = None, dtype: Any = None
) -> LayerNorm:
    """The layer norm of Keras' ``LayerNormalization``.

    Parameters
    ----------
    config : what ``get_config()`` gives, or a part: what is missing is Keras' default. Its axes
        must be the last, counted from the end, as -1 or [-2, -1].
    weights : what ``get_weights()`` gives: γ where the layer scales, β where it centers. Their
        shape is what it normalises over, so that there must be one.
    dtype : of the layer; by default that of the weights.

    Raises
    ------
    ArgumentError, StateError
        If the layer has other axes or options, or the weights are not those that its options make.
    """
    refuse(config, rms_scaling="use RMSNorm")
    axes = axes_of(config)
    if sorted(axes) != list(range(-len(axes), 0)):
        raise ArgumentError(f"expected the last axes, counted from the end, got {axes}")
    names = affine_names(config)
    if not names:
        raise ArgumentError("expected center or scale, got neither: the shape is not known")
    values = named(names, weights)
    first = values[names[0]]
    if first.ndim != len(axes):
        raise ArgumentError(f"expected weights along {len(axes)} axes, got {first.shape}")
    layer = LayerNorm(
        first.shape,
        config.get("epsilon", 1e-3),
        device=device,
        dtype=first.dtype if dtype is None else dtype,
    )
    filled(layer, values)
    return layer if config.get("trainable", True) else layer.requires_grad_(False)


def refuse(config: Config, **instead: str) -> None:
    """Raise if one of these options is on."""
    for option, remedy in instead.items():
        if config.get(option):
            raise ArgumentError(
                f"expected {option} to be off, got {config[option]!r}"
                + (f"; {remedy}" if remedy else "")
            )


def axes_of(config: Config) -> list[int]:
    """The axes of a Keras layer, which names one by a number."""
    axis = config.get("axis", -1)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if not all(isinstance(a, (int, np.integer)) for a in axes):
        raise ArgumentError(f"expected whole numbers as axis, got {axis!r}")
    return [int(a) for a in axes]


def affine_names(config: Config) -> list[str]:
    """The parameters that a Keras layer has, in the order of its weights."""
    options = (("weight", "scale"), ("bias", "center"))
    return [name for name, option in options if config.get(option, True)]


def named(names: Sequence[str], values: Sequence[Values]) -> dict[str, np.ndarray[Any, Any]]:
    """The values under the names of the layer's parts."""
    if len(names) != len(values):
        raise ArgumentError(f"expected {len(names)} arrays ({', '.join(names)}), got {len(values)}")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def channels_of(values: Mapping[str, np.ndarray[Any, Any]]) -> int:
    mean = values["running_mean"]
    if mean.ndim != 1:
        raise ArgumentError(f"expected a mean for each channel, got {mean.shape}")
    return int(mean.shape[0])


def filled(layer: N, values: Mapping[str, np.ndarray[Any, Any]]) -> N:
    """The layer with these values, and without the parameters that are not among them."""
    for name in ("weight", "bias"):
        if name not in values:
            setattr(layer, name, None)
    layer.load_state_dict(values, strict=False)
    return layer
