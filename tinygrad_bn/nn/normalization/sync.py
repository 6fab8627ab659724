"""Batch normalization over the ranks of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization.batch import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
from tinygrad_bn.nn.parts import MODULE
from tinygrad_bn.ops.batch_normalization import Moments, normalized_by_batch
from tinygrad_bn.ops.collective import Group, current_group
from tinygrad_bn.tensors import Tensor


class SyncBatchNorm(BatchNorm):
    """Batch normalization of (N, C, *S): each channel over the batches of all ranks together.

        y = γ (x - mean) / √(var + ε) + β

    Training merges the moments of all ranks, however many values each has, so that k ranks with
    their shards do what one does with the whole batch: outputs, gradients of every order, and
    running statistics, which have the same bits on all ranks. Outside of a group, and in one of a
    single rank, it is `BatchNorm1d`, for every rank of input.

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to the variance.
    momentum : the weight of the newest batch in the running statistics; None averages all batches
        alike.
    affine : whether γ (``weight``) and β (``bias``) exist and are learned.
    track_running_stats : whether running statistics exist; without them the batch's are taken
        always.
    process_group : the group to normalise over; by default that in which forward is called.
    bias : whether β exists, where γ does.
    axis : the axis of the channels; -1 for channels last, which are taken as they lie.
    running_var_correction : the variance that the running one moves towards: "unbiased" as in
        PyTorch, "biased" as in Keras and ONNX.
    on_single : what one value a channel over all ranks does in training: an "error", or it is
        normalised by the "running" statistics, which stay.

    Shapes
    ------
    input (N, C, *S) of rank 2 or more, where N may be 0 on some of the ranks; mask, where one is
    given in the call, (N, *S), true where the input counts for the statistics; the result as input.

    Raises
    ------
    ShapeError
        For rank 1 or another number of channels; on all ranks, for a single value a channel over
        them all in training. No samples on any of them give an empty result, and are not counted.
    ArgumentError
        For an ε below 0, and for 0 in training.
    DistributedError
        If a rank does not come: it failed, it returned, or calls something else.

    Notes
    -----
    Prefer it where a rank's own batch is too small to normalise by, fewer than some 16 samples or
    images; it costs two meetings of the ranks forward, and one backward. The ranks must make the
    same calls, forward and backward: all train, or freeze the statistics, or none does.

    The gradient of the input is that of the sum of all ranks' losses. Those of γ and β are this
    rank's part, to be added or averaged with those of all other parameters; see
    `tinygrad_bn.distributed.average_gradients`.

    As in PyTorch, evaluation asks nobody, even without running statistics. It departs from PyTorch
    where it takes a mask and runs on the CPU, and its gradients of every order are exact.

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.
    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
    Peng et al. 2018, "MegDet: A Large Mini-Batch Object Detector", arXiv:1711.07240.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Group | None = None,
        device: object = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        axis: int = 1,
        running_var_correction: str = "unbiased",
        on_single: str = "error",
    ) -> None:
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
        self.process_group = process_group

    @property
    def group(self) -> Group | None:
        """The group that the next batch is normalised over; None where that is this rank alone."""
        group = current_group() if self.process_group is None else self.process_group
        return group if group is not None and group.size > 1 and self.training else None

    def counts(self, input: Tensor, axis: int, mask: Tensor | None) -> Sequence[int]:
        own, group = super().counts(input, axis, mask), self.group
        return own if group is None else group.all_gather_object(own[0])

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        return normalized_by_batch(
            input,
            self.weight,
            self.bias,
            mask,
            eps=self.eps,
            axis=axis,
            counts=counts,
            group=self.group,
        )

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Group | None = None) -> Module:
        """The module with a synchronised layer in the place of each batch norm; see
        `tinygrad_bn.nn.utils.convert_sync_batch_norm`.
        """
        return converted(module, cls, process_group, {})


CONVERTED = (BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm)
"""What means on a single rank what `SyncBatchNorm` does; a subclass may mean something else."""


def converted(
    module: Module,
    kind: type[SyncBatchNorm],
    group: Group | None,
    known: dict[Module, Module],
) -> Module:
    """The module, or what replaces it, with all below it replaced; ``known`` is what each module
    that was met has become.
    """
    if module not in known:
        if type(module) in CONVERTED:
            known[module] = synchronized(module, kind, group)
        else:
            known[module] = module
            for name, part in module._parts(MODULE):
                setattr(module, name, converted(part, kind, group, known))
    return known[module]


def synchronized(module: Module, kind: type[SyncBatchNorm], group: Group | None) -> SyncBatchNorm:
    """The layer with everything that a batch norm has, and a group."""
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    twin.__dict__["_kinds"] = dict(module._kinds)
    twin.process_group = group
    return twin
