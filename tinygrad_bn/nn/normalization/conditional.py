"""Conditional batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.activation import ReLU
from tinygrad_bn.nn.containers import Sequential
from tinygrad_bn.nn.embedding import Embedding
from tinygrad_bn.nn.linear import Linear
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization.channels import ChannelNormalization
from tinygrad_bn.ops.batch_normalization import (
    Moments,
    normalized_by_batch,
    normalized_by_running,
)
from tinygrad_bn.ops.precision import at_least_float32
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.tensors import Tensor


class ConditionalBatchNorm(ChannelNormalization):
    """Conditional batch normalization of (N, C, *S): batch norm, whose γ and β each sample has from
    a condition of its own.

        y = (γ + Δγ) (x - mean) / √(var + ε) + β + Δβ

    ``layer(input, condition)`` takes a class or a vector for each sample. Δγ and Δβ are predicted
    from it, 0 at first: a new layer is batch norm, whatever the condition. The statistics are those
    of the whole batch.

    Parameters
    ----------
    num_features : the number of channels C.
    num_classes : for conditions that are classes; Δγ and Δβ are learned for each of so many.
    condition_features : for conditions that are vectors of this length; Δγ and Δβ are a linear map
        of them, or with ``hidden_features`` a network with one hidden layer of that size and a
        ReLU. Exactly one of ``num_classes`` and ``condition_features`` must be given.
    affine, bias : whether γ (``weight``) and β (``bias``), which all samples share, are learned;
        else they are 1 and 0. Δγ and Δβ exist in any case.
    eps, momentum, track_running_stats, axis, running_var_correction, on_single : as for
        `BatchNorm1d`.

    Shapes
    ------
    input (N, C, *S) of any rank from 2, or with C at another ``axis``; condition (N,) of whole
    numbers below ``num_classes``, or (N, condition_features); mask, where one is given in the call,
    (N, *S), true where the input counts for the batch's statistics; the result as input.

    Raises
    ------
    ArgumentError
        Unless one of ``num_classes`` and ``condition_features`` is given.
    ShapeError, DtypeError, RangeError
        For another number of channels, for less than two values a channel in training, and for a
        condition of another shape or kind, or of a class that does not exist.

    Notes
    -----
    Prefer it where a network should do another thing with the same image: for questions about it,
    for classes and styles to generate. A class costs 2 C parameters in every layer. The paper
    freezes γ and β at those of a pretrained network: load its state dict with ``strict=False`` and
    set ``requires_grad_(False)`` for both. ``freeze()`` holds what predicts Δγ and Δβ too.

    References
    ----------
    de Vries et al. 2017, arXiv:1707.00683, section 3.
    Dumoulin, Shlens and Kudlur 2016, arXiv:1610.07629, section 2.2, for classes.
    """

    predictor: Module
    """From a condition to Δγ and Δβ side by side, (N, 2 C)."""

    def __init__(
        self,
        num_features: int,
        num_classes: int | None = None,
        condition_features: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        hidden_features: int | None = None,
        bias: bool = True,
        axis: int = 1,
        running_var_correction: str = "unbiased",
        on_single: str = "error",
    ) -> None:
        if (num_classes is None) == (condition_features is None):
            raise ArgumentError(
                "expected either num_classes or condition_features, got "
                f"{num_classes} and {condition_features}"
            )
        if num_classes is not None and hidden_features is not None:
            raise ArgumentError(f"expected hidden_features for vectors only, got {hidden_features}")
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device,
            dtype,
            bias=bias,
            axis=axis,
            running_var_correction=running_var_correction,
            on_single=on_single,
        )
        self.num_classes, self.condition_features = num_classes, condition_features
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        outputs = 2 * num_features
        if num_classes is not None:
            self.predictor = Embedding(num_classes, outputs, **made)
        elif hidden_features is None:
            self.predictor = Linear(condition_features or 0, outputs, **made)
        else:
            hidden = Linear(condition_features or 0, hidden_features, **made)
            self.predictor = Sequential(hidden, ReLU(), Linear(hidden_features, outputs, **made))
        self.reset_prediction()

    def reset_parameters(self) -> None:
        """Set γ to 1, β to 0, and Δγ and Δβ to 0 for every condition."""
        super().reset_parameters()
        for module in self.predictor.modules():
            if isinstance(module, Linear):
                module.reset_parameters()
        self.reset_prediction()

    def reset_prediction(self) -> None:
        """Set what makes Δγ and Δβ to 0; a hidden layer stays random, so that they can learn."""
        last = self.predictor[-1] if isinstance(self.predictor, Sequential) else self.predictor
        for parameter in last.parameters():
            init.zeros_(parameter)

    def forward(  # type: ignore[override]  # it has one argument more
        self, input: Tensor, condition: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Normalize (N, C, *S) by the batch's statistics in training, else by the running ones, and
        scale and shift each sample as its condition says.

        A mask (N, *S) is true where the input counts for the batch's statistics.
        """
        scale, shift = self.modulation(input, condition)
        x_hat = super().forward(at_least_float32(input), mask)
        return (x_hat * scale + shift).to(dtype=input.dtype)

    def modulation(self, input: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """γ + Δγ and β + Δβ of each sample, in shapes that broadcast with the input."""
        axis = self.check(input)
        self.check_condition(condition, input.shape[0 if axis else 1])
        predicted = at_least_float32(self.predictor(condition))
        scale, shift = predicted.split([self.num_features] * 2, 1)
        scale = scale + (1.0 if self.weight is None else self.weight)
        shift = shift if self.bias is None else shift + self.bias
        shape = [1] * input.ndim
        shape[0 if axis else 1], shape[axis] = input.shape[0 if axis else 1], self.num_features
        if axis == 0:
            scale, shift = scale.t(), shift.t()
        return scale.reshape(shape), shift.reshape(shape)

    def check_condition(self, condition: Tensor, samples: int) -> None:
        """Refuse what is not a class, or a vector, for each sample.

        Raises
        ------
        ShapeError, DtypeError
        """
        require_tensor(condition, "condition")
        classes = self.num_classes is not None
        shape = (samples,) if classes else (samples, self.condition_features)
        if condition.shape != shape:
            kind = "a class" if classes else "a vector"
            raise ShapeError(
                f"expected a condition {shape}, {kind} for each sample, got {condition.shape}"
            )
        if not classes and not condition.is_floating_point():
            raise DtypeError(f"expected floats as condition, got {condition.dtype}")

    # The steps without γ and β, which are not the channel's alone

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        return normalized_by_batch(input, None, None, mask, eps=self.eps, axis=axis, counts=counts)

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return normalized_by_running(input, mean, var, None, None, eps=self.eps, axis=axis)
