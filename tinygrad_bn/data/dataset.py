"""Data sets: anything with a length and samples by number; and how samples become a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from tinygrad_bn.errors import ArgumentError, DtypeError, RangeError, ShapeError
from tinygrad_bn.ops.index import GetItem
from tinygrad_bn.ops.join import stack
from tinygrad_bn.random import Generator, default_generator, randperm
from tinygrad_bn.tensors import Tensor

Indices = np.ndarray[Any, np.dtype[np.int64]]


class Dataset:
    """Samples by number; `DataLoader` makes batches of them.

    Subclasses write ``__len__`` and ``__getitem__``.
    """

    def __getitem__(self, index: Any, /) -> Any:
        """The sample of that number, usually a tuple."""
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__")

    def __len__(self) -> int:
        """How many samples there are."""
        raise NotImplementedError(f"{type(self).__name__} has no __len__")

    def take(self, indices: Indices) -> Any:
        """The samples of these numbers as one batch; subclasses may know a quicker way."""
        return default_collate([self[int(i)] for i in indices])


class TensorDataset(Dataset):
    """The rows of some tensors, side by side: sample i is the tuple of every tensor's row i.

    Parameters
    ----------
    tensors : of the same size along their first axis.

    Raises
    ------
    ShapeError, DtypeError
        If the sizes differ, a tensor has no axis, or something is no tensor.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ArgumentError("expected at least one tensor, got none")
        for x in tensors:
            if not isinstance(x, Tensor):
                raise DtypeError(
                    f"expected tensors, got {type(x).__name__}; see tensor() and from_numpy()"
                )
            if not x.ndim or x.shape[0] != tensors[0].shape[0]:
                raise ShapeError(
                    f"expected tensors of one first size, got {[x.shape for x in tensors]}"
                )
        self.tensors = tensors

    def __getitem__(self, index: Any, /) -> tuple[Tensor, ...]:
        return tuple(x[index] for x in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def take(self, indices: Indices) -> tuple[Tensor, ...]:
        # the numbers come from a loader, so nobody has to wait for a GPU to check them
        return tuple(GetItem.apply(x, index=x.backend.asarray(indices)) for x in self.tensors)


class Subset(Dataset):
    """Some samples of another data set, by their numbers there.

    Raises
    ------
    RangeError
        If a number is outside of the data set.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        numbers = np.array([int(i) for i in indices], np.int64)
        outside = numbers[(numbers < -len(dataset)) | (numbers >= len(dataset))]
        if outside.size:
            raise RangeError(
                f"expected indices within a data set of {len(dataset)}, got {outside[0]}"
            )
        self.dataset = dataset
        self.indices = numbers

    def __getitem__(self, index: int, /) -> Any:
        return self.dataset[int(self.indices[index])]

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: Indices) -> Any:
        return take(self.dataset, self.indices[indices])


def take(dataset: Any, indices: Indices) -> Any:
    """One batch of any data set, also of a list or whatever else has a length and samples."""
    if isinstance(dataset, Dataset):
        return dataset.take(indices)
    return default_collate([dataset[int(i)] for i in indices])


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset]:
    """The data set cut at random into parts that share no sample.

    Parameters
    ----------
    lengths : the sizes of the parts, or their fractions; what rounding leaves over goes to the
        first parts, one each.
    generator : where the permutation comes from; the CPU's default generator if None.

    Raises
    ------
    ArgumentError
        If the lengths do not add up to the data set's, or the fractions to 1.
    """
    sizes = part_sizes(lengths, len(dataset))
    order = randperm(len(dataset), generator=generator or default_generator).tolist()
    return [
        Subset(dataset, order[end - size : end])
        for size, end in zip(sizes, accumulate(sizes), strict=True)
    ]


def part_sizes(lengths: Sequence[int | float], total: int) -> list[int]:
    if any(length < 0 for length in lengths):
        raise ArgumentError(f"expected lengths of 0 or more, got {list(lengths)}")
    if all(isinstance(length, int) for length in lengths):
        sizes = [int(length) for length in lengths]
        if sum(sizes) != total:
            raise ArgumentError(f"expected lengths that add up to {total}, got {sizes}")
        return sizes
    if abs(sum(lengths) - 1) > 1e-9:  # farther than decimal fractions may miss it
        raise ArgumentError(f"expected fractions that add up to 1, got {list(lengths)}")
    sizes = [int(total * fraction) for fraction in lengths]
    for i in range(total - sum(sizes)):
        sizes[i % len(sizes)] += 1
    return sizes


def default_collate(samples: Sequence[Any]) -> Any:
    """A batch from single samples: tensors, arrays and numbers are stacked along a new first axis.

    Tuples, lists and dictionaries become the same of batches, strings a list. Python floats take
    the default dtype.

    Raises
    ------
    DtypeError, ShapeError
        If a sample is of another kind, or unlike the first one.
    """
    first = samples[0]
    if not all(isinstance(sample, type(first)) for sample in samples):
        kinds = sorted({type(sample).__name__ for sample in samples})
        raise DtypeError(f"expected samples of one type, got {' and '.join(kinds)}")
    if isinstance(first, Tensor):
        return stack(samples)
    if isinstance(first, str):
        return list(samples)
    if isinstance(first, (np.generic, np.ndarray)):
        if any(sample.shape != first.shape for sample in samples):
            raise ShapeError(f"expected samples of shape {first.shape}, got others")
        return Tensor(np.stack(samples))
    if isinstance(first, (bool, int, float)):
        return Tensor(list(samples))
    if isinstance(first, Mapping):
        if any(sample.keys() != first.keys() for sample in samples):
            raise ShapeError(f"expected samples with the keys {list(first)}, got others")
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in samples):
            raise ShapeError(f"expected samples of length {len(first)}, got others")
        parts = [default_collate(part) for part in zip(*samples, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    raise DtypeError(
        f"expected samples of tensors, arrays, numbers, strings, tuples, lists or dictionaries, "
        f"got {type(first).__name__}; a collate_fn can make batches of it"
    )
