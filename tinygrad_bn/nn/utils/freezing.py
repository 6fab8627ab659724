"""Batch norms of a whole model, held still."""

from __future__ import annotations

from typing import TypeVar

from tinygrad_bn.errors import StateError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import ChannelNormalization
from tinygrad_bn.nn.normalization.stepwise import StepBatchNorm

__all__ = ["freeze_batch_norm", "unfreeze_batch_norm"]

M = TypeVar("M", bound=Module)


def freeze_batch_norm(model: M, stats: bool = True, affine: bool = True) -> M:
    """Hold the running statistics of every batch norm, by which training too then normalises, or
    what is learned in it, or both; the model.

    What is frozen stays so through ``train()`` and ``eval()``, in copies, and until
    `unfreeze_batch_norm`.

    Raises
    ------
    StateError
        Naming the layers that have no running statistics to hold; then nothing has changed.

    Notes
    -----
    For fine-tuning on batches too small, or too unlike the data of pre-training, to estimate
    statistics: with them frozen, batch norm is an affine map, whose γ and β may go on learning.
    """
    if stats:
        bare = [path or "the model" for path, norm in norms_of(model) if not norm.tracked]
        if bare:
            raise StateError(
                "expected running statistics to freeze in every batch norm, got none in "
                f"{', '.join(bare)}: use stats=False, or track_running_stats=True"
            )
    for norm in freezable(model):
        norm.freeze(stats, affine)
    return model


def unfreeze_batch_norm(model: M, stats: bool = True, affine: bool = True) -> M:
    """Let the running statistics of every batch norm move again, or its parameters learn, or both;
    the model.
    """
    for norm in freezable(model):
        norm.unfreeze(stats, affine)
    return model


def freezable(model: Module) -> list[ChannelNormalization | StepBatchNorm]:
    """The batch norms of a model and, in recurrent layers, what has the γ and β of all steps."""
    in_time = [module for module in model.modules() if isinstance(module, StepBatchNorm)]
    return [*(norm for _, norm in norms_of(model)), *in_time]


def norms_of(model: Module) -> list[tuple[str, ChannelNormalization]]:
    """The batch norms of a model, of every kind, with their paths."""
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, ChannelNormalization) and "running_mean" in module.statistics
    ]
