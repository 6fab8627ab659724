"""Training, spelled out: the loop over epochs and batches that the command uses, and no more."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from tinygrad_bn.config import no_grad
from tinygrad_bn.data.loader import DataLoader
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import ChannelNormalization
from tinygrad_bn.nn.utils.passes import in_mode
from tinygrad_bn.tensors import Tensor

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of `fit` has just done.

    Attributes
    ----------
    epoch, number : counted from 1; the number counts all steps of this call.
    loss, output, target : of the batch, before the parameters changed.
    """

    epoch: int
    number: int
    loss: Tensor
    output: Any
    target: Any


def fit(
    model: Module,
    loader: Batches,
    loss: Loss,
    optimizer: Any,
    epochs: int,
    *,
    start: int = 0,
    scheduler: Any = None,
    validate: Callable[[Module], Mapping[str, float]] | None = None,
    on_step: Callable[[Step], object] | None = None,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` until it has seen ``epochs`` epochs; a record of each.

    Parameters
    ----------
    loader : gives pairs (input, target). Where the model has a batch norm, a `DataLoader`'s last
        batch of a single sample joins the one before it.
    loss : of the output and the target, as ``nn.functional.cross_entropy``.
    start : how many epochs the model has seen. An unbroken training goes on bit for bit if the
        states of model, optimizer, scheduler and random generators are what they were then.
    scheduler : stepped after every epoch; one that wants to be stepped more often can be in
        ``on_step``.
    validate : called after every epoch, in evaluation mode and without a graph; the numbers that it
        returns by name enter the record.
    on_step, on_epoch : called with a `Step`, and with each new record when all else of the epoch is
        done: the moment to save a checkpoint.

    Returns
    -------
    For each epoch its number ``epoch``, the mean ``loss`` over its samples, its ``seconds``,
    ``samples_per_second``, and what ``validate`` measured.

    Raises
    ------
    ArgumentError
        If the loader has no batches.

    Examples
    --------
    >>> fit(model, loader, nn.functional.cross_entropy, optim.Adam(model.parameters()), epochs=10)
    """
    loader = without_single(loader, model)
    history: list[dict[str, float]] = []
    number = 0
    for epoch in range(start + 1, epochs + 1):
        model.train()
        began, seen = perf_counter(), 0
        total: Any = 0.0
        for input, target in loader:
            output = model(input)
            value = loss(output, target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            number, seen = number + 1, seen + len(target)
            total = total + value.detach() * len(target)  # stays on the device
            if on_step is not None:
                on_step(Step(epoch, number, value.detach(), output.detach(), target))
        if not seen:
            raise ArgumentError("expected a loader with batches, got none")
        record = {"epoch": epoch, "loss": float(total) / seen}
        record["seconds"] = perf_counter() - began
        record["samples_per_second"] = seen / record["seconds"]
        if scheduler is not None:
            scheduler.step()
        if validate is not None:
            with evaluation(model):
                record |= validate(model)
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
    return history


def evaluate(model: Module, loader: Batches, loss: Loss) -> dict[str, float]:
    """Mean ``loss`` and ``accuracy`` (0 to 1) of a classifier over all samples, in evaluation mode.

    Raises
    ------
    ArgumentError
        If the loader has no batches.
    """
    seen = 0
    total: Any = 0.0
    hits: Any = 0
    with evaluation(model):
        for input, target in loader:
            output = model(input)
            seen += len(target)
            total = total + loss(output, target) * len(target)
            hits = hits + (output.argmax(dim=1) == target).sum()
    if not seen:
        raise ArgumentError("expected a loader with batches, got none")
    return {"loss": float(total) / seen, "accuracy": float(hits) / seen}


@contextmanager
def evaluation(model: Module) -> Generator[None]:
    """Evaluation mode and no graph inside; after it every module is in the mode it was in."""
    with in_mode(model, False), no_grad():
        yield


def without_single(loader: Batches, model: Module) -> Batches:
    """The loader, such that it gives no single sample where the model has a batch norm."""
    if not isinstance(loader, DataLoader):
        return loader
    if not any(isinstance(module, ChannelNormalization) for module in model.modules()):
        return loader
    merging = copy(loader)
    merging.merge_single = True
    return merging
