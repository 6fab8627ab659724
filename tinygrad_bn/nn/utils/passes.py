"""Forward passes that are made for what they show, and leave the model in the modes it was in."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

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


def run(model: Module, batch: Any, device: object = None) -> Any:
    """What the model makes of a batch, moved to the device: a tensor, or the first of a sequence,
    as loaders give (input, target).
    """
    input = batch[0] if isinstance(batch, (tuple, list)) else batch
    if device is not None and isinstance(input, Tensor):
        input = input.to(device=device)
    return model(input)
