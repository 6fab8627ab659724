"""Forward passes that are made for what they show, and leave the model as it was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tinygrad_bn.backend import current
from tinygrad_bn.nn.module import Module
from tinygrad_bn.tensors import Tensor


@contextmanager
def in_mode(model: Module, training: bool) -> Generator[None]:
    """All modules train inside, or evaluate; after it each is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def buffers_kept(model: Module) -> Generator[None]:
    """After it all buffers are what they were: running statistics, and whatever else moves when a
    layer trains.
    """
    kept = []
    for buffer in model.buffers():
        with current(buffer.backend):
            kept.append((buffer, buffer.backend.copy(buffer.array)))
    try:
        yield
    finally:
        for buffer, array in kept:
            with current(buffer.backend):
                buffer.overwrite(array)


def run(model: Module, batch: Any, device: object = None) -> Any:
    """What the model makes of a batch, moved to the device: a tensor, or the first of a sequence,
    as loaders give (input, target).
    """
    input = batch[0] if isinstance(batch, (tuple, list)) else batch
    if device is not None and isinstance(input, Tensor):
        input = input.to(device=device)
    return model(input)
