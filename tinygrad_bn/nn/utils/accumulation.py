"""Running statistics under gradient accumulation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import RunningNormalization
from tinygrad_bn.nn.normalization.base import gathering
from tinygrad_bn.ops.batch_normalization import Moments

__all__ = ["accumulate_statistics"]


@contextmanager
def accumulate_statistics(model: Module) -> Generator[None]:
    """Let running statistics advance once for all micro-batches inside, when it ends.

    Each micro-batch is still normalised by its own statistics, since those to come are not known.
    At the end the running statistics, and the count of batches, move one step towards the moments
    of all the values together, as after a single batch of that size; without this every
    micro-batch would be a step, and the variance between micro-batches would be lost.

    If an exception leaves the block, nothing advances. Inside of another one it is a single
    micro-batch of that one. The layers are those that the model has when it begins, in whichever
    thread they are called: all but instance norm, whose running statistics are no moments of
    values.

    References
    ----------
    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.

    Examples
    --------
    >>> with accumulate_statistics(model):
    ...     for x, y in micro_batches:
    ...         (loss(model(x), y) / len(micro_batches)).backward()
    >>> optimizer.step()
    """
    layers = [m for m in model.modules() if isinstance(m, RunningNormalization)]
    with gathering(layers) as gathered:
        yield
    for layer, parts in gathered.items():
        if parts:
            layer.learn(Moments.merged(parts))
