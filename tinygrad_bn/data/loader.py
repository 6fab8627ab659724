"""Batches of a data set, in order or shuffled, made as they are asked for or a few ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_bn.backend import Device, backend_for
from tinygrad_bn.data.dataset import Indices, take
from tinygrad_bn.data.prefetch import ahead
from tinygrad_bn.data.uploading import Uploader, is_uploaded, mapped
from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.random import Generator, default_generator, randperm


class DataLoader:
    """The batches of one epoch; iterate again for the next.

    Parameters
    ----------
    dataset : a `Dataset`, or anything else with a length and samples by number.
    batch_size : how many samples make a batch; the last may have fewer.
    shuffle : whether every epoch visits the samples in a new order.
    drop_last : whether to leave out a last batch with fewer samples.
    collate_fn : makes a batch of a list of samples; without it, the data set's own ``take`` does,
        which for tensors is one indexing operation.
    generator : where the orders come from; the CPU's default generator if None. Its state when an
        epoch begins, that is at ``iter(loader)``, determines that epoch's order: set it back to
        see the same order again.
    prefetch : how many batches a thread keeps ready ahead of the loop; 0 for no thread.
    merge_single : whether a last batch of one sample joins the batch before it, because batch
        normalization cannot train on one value per channel.
    device : where the tensors of a batch are brought; where they are made if None. To a GPU they
        go one batch ahead of the loop, by page-locked memory and in a stream of their own, while
        the GPU computes; the batch is ordered before whatever the stream that is current when the
        loop gets it is given from then on.
    pin_memory : whether tensors that stay in this machine's memory are put where its pages are
        locked, so that ``x.to("cuda", non_blocking=True)`` copies beside what the host does.

    Raises
    ------
    ArgumentError, DtypeError
        If a number is out of its range, or the data set or the generator is none.
    BackendError
        If there is no such device, or no GPU to pin memory for.

    Notes
    -----
    PyTorch's argument names, and ``device``; there, batches of tuples are lists, here they are
    tuples. Batches never share memory with the data set.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        generator: Generator | None = None,
        prefetch: int = 0,
        merge_single: bool = False,
        device: object = None,
        pin_memory: bool = False,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise DtypeError(
                f"expected a data set with a length and samples by number, got {dataset!r}"
            )
        for name, number, least in (("batch_size", batch_size, 1), ("prefetch", prefetch, 0)):
            if not isinstance(number, (int, np.integer)) or number < least:
                raise ArgumentError(f"expected {name} as a whole number ≥ {least}, got {number!r}")
        if not isinstance(generator, (Generator, type(None))):
            raise DtypeError(f"expected a Generator or None, got {type(generator).__name__}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.collate_fn = collate_fn
        self.generator = generator or default_generator
        self.prefetch = prefetch
        self.merge_single = merge_single
        self.device = None if device is None else Device(backend_for(device).device)
        self.pin_memory = bool(pin_memory)
        if pin_memory:
            backend_for("cuda")

    def __len__(self) -> int:
        return len(self.bounds())

    def __iter__(self) -> Iterator[Any]:
        size = len(self.dataset)
        if self.shuffle:
            order = randperm(size, generator=self.generator).cpu().numpy()
        else:
            order = np.arange(size)
        batches: Iterator[Any] = (self.batch(order[a:b]) for a, b in self.bounds())
        if self.device is not None and self.device != "cpu":
            uploader = Uploader(backend_for(self.device), self.prefetch)
            return uploader.delivered(self.ahead(map(uploader.stage, batches)))
        if self.device is not None or self.pin_memory:
            batches = map(self.placed, batches)
        return self.ahead(batches)

    def ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, made by a thread where one is asked for."""
        return ahead(batches, self.prefetch) if self.prefetch else batches

    def placed(self, batch: Any) -> Any:
        """A batch in this machine's memory, where it is wanted there."""
        if self.device is not None:
            batch = mapped(batch, lambda x: x.cpu())
        if self.pin_memory:
            batch = mapped(batch, lambda x: x.pin_memory() if is_uploaded(x) else x)
        return batch

    def bounds(self) -> list[tuple[int, int]]:
        """Where each batch starts and stops in the order."""
        size = len(self.dataset)
        starts = list(range(0, size, self.batch_size))
        tail = size % self.batch_size
        if tail and (self.drop_last or (self.merge_single and tail == 1 and len(starts) > 1)):
            starts.pop()
        stops = [*starts[1:], size - tail if self.drop_last else size]
        return list(zip(starts, stops, strict=False))

    def batch(self, indices: Indices) -> Any:
        """The samples of these numbers, collated."""
        if self.collate_fn is None:
            return take(self.dataset, indices)
        return self.collate_fn([self.dataset[int(i)] for i in indices])
