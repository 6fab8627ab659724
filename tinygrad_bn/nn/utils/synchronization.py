"""Batch norms of a whole model, synchronised over a group."""

from __future__ import annotations

from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization.sync import SyncBatchNorm
from tinygrad_bn.ops.collective import Group

__all__ = ["convert_sync_batch_norm"]


def convert_sync_batch_norm(model: Module, process_group: Group | None = None) -> Module:
    """The model with a `SyncBatchNorm` in the place of each `BatchNorm1d`, 2d and 3d, over
    ``process_group`` or the group in which it is called.

    The model is changed in place; only if it is itself a batch norm, another module comes back.
    Parameters and buffers are the same objects as before, so that an optimizer goes on with them,
    and everything else is kept too: options, mode, what is frozen, hooks. A layer that stands in
    several places still does.

    A subclass of a batch norm stays as it is: ghost batch norm takes its statistics over less than
    the batch on purpose, batch renormalization corrects them, and what others do nobody can know.

    Notes
    -----
    PyTorch has it as ``SyncBatchNorm.convert_sync_batchnorm``, which is here too; there, subclasses
    are converted and lose what they override.
    """
    return SyncBatchNorm.convert_sync_batchnorm(model, process_group)
