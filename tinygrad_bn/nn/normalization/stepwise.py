"""Batch normalization inside of recurrent layers: statistics of each step of time."""

from __future__ import annotations

from typing import Any, Self

from tinygrad_bn.errors import StateError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.nn.normalization.batch import BatchNorm1d
from tinygrad_bn.ops.join import stack
from tinygrad_bn.tensors import Tensor


class StepBatchNorm(Normalization):
    """Batch norm of values (N, C) that come at steps of time: γ and β are the same at all steps,
    statistics are those of the step, and shared from step max_length - 1 on.

    The statistics of step t are the buffers of the module named t, a `BatchNorm1d` without γ and β.
    """

    def __init__(
        self,
        num_features: int,
        max_length: int,
        gamma: float,
        bias: bool,
        device: object,
        dtype: Any,
        **options: Any,
    ) -> None:
        super().__init__()
        self.num_features, self.max_length, self.gamma = num_features, max_length, gamma
        self.make_affine((num_features,), True, bias, device, dtype)
        options |= {"affine": False, "device": device, "dtype": dtype}
        for step in range(max_length):
            self.register_module(str(step), BatchNorm1d(num_features, **options))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set γ to what it starts as, and β to 0."""
        super().reset_parameters()
        if self.weight is not None:
            init.constant_(self.weight, self.gamma)

    def at(self, step: int) -> BatchNorm1d:
        """What holds the statistics of a step."""
        norm: BatchNorm1d = getattr(self, str(step))
        return norm

    @property
    def last(self) -> int:
        """The step whose statistics later ones share; in evaluation those that no batch has reached
        are among them.
        """
        last = self.max_length - 1
        return last if self.at(last).by_batch else self.learned() - 1

    def learned(self) -> int:
        """How many steps from the first on have seen a batch, for evaluation; at least 1."""
        norms = [self.at(step) for step in range(self.max_length)]
        counts = [x for norm in norms if (x := norm.num_batches_tracked) is not None]
        if len(counts) < self.max_length:
            return self.max_length
        seen = stack(counts).tolist()
        return max(1, next((step for step, n in enumerate(seen) if not n), self.max_length))

    def forward(self, input: Tensor, step: int) -> Tensor:
        """Normalize (N, C) by the statistics of a step."""
        y: Tensor = self.at(step)(input) * self.weight
        return y if self.bias is None else y + self.bias

    def freeze(self, stats: bool = True, affine: bool = True) -> Self:
        """Hold the running statistics of all steps, by which training too then normalises, or γ and
        β, or both.

        Raises
        ------
        StateError
            If a step has no running statistics to normalise by; then nothing has changed.
        """
        norms = [self.at(step) for step in range(self.max_length)]
        bare = [step for step, norm in enumerate(norms) if not norm.tracked]
        if stats and bare:
            raise StateError(
                f"expected running statistics to freeze at every step, got none at {bare}: use "
                "freeze(stats=False)"
            )
        for norm in norms:
            norm.freeze(stats, affine)
        return self._freeze_affine(affine, True)

    def unfreeze(self, stats: bool = True, affine: bool = True) -> Self:
        """Let the running statistics of all steps move again, or γ and β learn, or both."""
        for step in range(self.max_length):
            self.at(step).unfreeze(stats, affine)
        return self._freeze_affine(affine, False)

    def _freeze_affine(self, affine: bool, frozen: bool) -> Self:
        for parameter in self.parameters(recurse=False) if affine else ():
            parameter.requires_grad_(not frozen)
        return self

    def extra_repr(self) -> str:
        first = self.at(0)
        shown = f"{self.num_features}, max_length={self.max_length}, eps={first.eps}"
        return f"{shown}, momentum={first.momentum}, gamma={self.gamma}"

    def __repr__(self) -> str:  # a line for each step would hide the rest of a model
        return f"{type(self).__name__}({self.extra_repr()})"
