"""Sequences of several lengths: padded to one, or packed without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from tinygrad_bn import creation
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn.utils.packing import Packing
from tinygrad_bn.ops.join import cat, stack
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.rearrange import pad
from tinygrad_bn.tensors import Tensor

__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpad_sequence",
]

SIDES = ("right", "left")


class PackedSequence(NamedTuple):
    """Sequences of several lengths without padding, the longest first; from `pack_sequence`.

    ``data`` (R, *) holds step 0 of every sequence, then step 1 of those that have one, and so on;
    ``batch_sizes``, on the CPU, how many each step has. Where the sequences came in another order,
    ``sorted_indices`` says which one is where, and ``unsorted_indices`` where each one is.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The data in another dtype or on another device; the indices go with it."""
        data = self.data.to(*args, **kwargs)
        places = (None if x is None else x.to(device=data.device) for x in self[2:])
        return type(self)(data, self.batch_sizes, *places)

    def cpu(self) -> Self:
        """The same in this machine's memory."""
        return self.to(device="cpu")

    def cuda(self, device: object = "cuda") -> Self:
        """The same in a GPU's memory."""
        return self.to(device=device)

    def double(self) -> Self:
        """The data in float64."""
        return self.to(dtype="float64")

    def float(self) -> Self:
        """The data in float32."""
        return self.to(dtype="float32")

    def half(self) -> Self:
        """The data in float16."""
        return self.to(dtype="float16")

    @property
    def is_cuda(self) -> bool:
        """Whether the data is in a GPU's memory."""
        return self.data.is_cuda

    @property
    def packing(self) -> Packing:
        """How the sequences are packed.

        Raises
        ------
        ShapeError, DtypeError
            If sizes and data do not fit each other.
        """
        require_tensor(self.data, "data")
        require_tensor(self.batch_sizes, "batch_sizes")
        found = Packing.with_sizes(self.batch_sizes.tolist())
        if not self.data.ndim or self.data.shape[0] != sum(found.sizes):
            raise ShapeError(
                f"expected data of {sum(found.sizes)} rows for sizes {list(found.sizes)}, got "
                f"{self.data.shape}"
            )
        if self.sorted_indices is None:
            return found
        order = self.sorted_indices.cpu().numpy()
        if sorted(order.tolist()) != found.order.tolist():
            raise ShapeError(
                f"expected sorted_indices to name each of {len(found.order)} sequences once, got "
                f"{order.tolist()}"
            )
        return Packing(found.lengths, order)


def packed(packing: Packing, data: Tensor, ordered: bool) -> PackedSequence:
    """Rows that have been packed."""
    sizes = creation.tensor(packing.sizes, dtype="int64", device="cpu")
    if ordered:
        return PackedSequence(data, sizes)
    order = creation.tensor(packing.order, device=data.device)
    return PackedSequence(data, sizes, order, order.argsort())


def whole_lengths(lengths: Any, count: int, steps: int) -> list[int]:
    """Lengths of ``count`` sequences of at most so many steps, as a list.

    Raises
    ------
    DtypeError, ShapeError, ArgumentError
        If they are not whole numbers, not as many, or beyond the steps.
    """
    found = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if not all(type(n) is int for n in found):
        raise DtypeError(f"expected whole numbers as lengths, got {found}")
    if len(found) != count:
        raise ShapeError(f"expected {count} lengths, one for each sequence, got {len(found)}")
    if found and max(found) > steps:
        raise ArgumentError(f"expected lengths of at most {steps} steps, got {found}")
    return found


def steps_first(input: Tensor, batch_first: bool) -> Tensor:
    """The input as (T, N, *)."""
    require_tensor(input)
    if input.ndim < 2:
        layout = "(N, T, *)" if batch_first else "(T, N, *)"
        raise ShapeError(f"expected {layout} of rank 2 or more, got {input.shape}")
    return input.transpose(0, 1) if batch_first else input


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Padded sequences (T, N, *) packed; what stands behind their lengths is left out.

    Parameters
    ----------
    lengths : whole numbers, or a tensor of them, one for each sequence.
    batch_first : whether the input is (N, T, *).
    enforce_sorted : whether the lengths must descend; if not, the sequences are sorted, and layers
        give results in the order they came in.

    Raises
    ------
    ArgumentError
        For a length below 1 or beyond T (PyTorch lets that pass), and for lengths that ascend.
    ShapeError, DtypeError
        For an input of rank 0 or 1, another count of lengths, and lengths that are not whole.
    """
    x = steps_first(input, batch_first)
    known = whole_lengths(lengths, x.shape[1], x.shape[0])
    packing = Packing.of(known, ordered=enforce_sorted)
    return packed(packing, packing.pack(x), enforce_sorted)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Packed sequences padded to one length (T, N, *), and their lengths, in the order they came in
    before they were packed.

    Parameters
    ----------
    batch_first : whether to give (N, T, *).
    total_length : T, at least that of the longest sequence, which it is by default.

    Raises
    ------
    ArgumentError
        If the longest sequence is longer.
    """
    packing = sequence.packing
    longest = int(packing.lengths[0])
    if total_length is not None and total_length < longest:
        raise ArgumentError(f"expected total_length of at least {longest}, got {total_length}")
    y = packing.pad(sequence.data, total_length, padding_value)
    lengths = packing.lengths[packing.order.argsort()]
    return y.transpose(0, 1) if batch_first else y, creation.tensor(lengths, device="cpu")


def require_sequences(sequences: Any) -> list[Tensor]:
    """Tensors (L, *), at least one, alike but for L.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
    """
    found = list(sequences)
    if not found:
        raise ArgumentError("expected at least one sequence, got none")
    for x in found:
        require_tensor(x, "every sequence")
        if not x.ndim or x.shape[1:] != found[0].shape[1:]:
            raise ShapeError(
                f"expected sequences (L, *) alike but for L, got {[x.shape for x in found]}"
            )
    return found


def pad_sequence(
    sequences: Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences (L, *) padded to the length of the longest, stacked as (T, N, *).

    Parameters
    ----------
    batch_first : whether to give (N, T, *).
    padding_side : where padding is put, behind on the "right" or before on the "left".
    """
    if padding_side not in SIDES:
        raise ArgumentError(f"expected padding_side 'right' or 'left', got {padding_side!r}")
    found = require_sequences(sequences)
    longest = max(x.shape[0] for x in found)
    last = [0, 0] * (found[0].ndim - 1)
    missing = [longest - x.shape[0] for x in found]
    widths = [(0, n) if padding_side == "right" else (n, 0) for n in missing]
    padded = [
        pad(x, [*last, *width], value=padding_value) for x, width in zip(found, widths, strict=True)
    ]
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Any, batch_first: bool = False
) -> list[Tensor]:
    """The sequences (L, *) that were padded to (T, N, *); (N, T, *) if ``batch_first``."""
    x = steps_first(padded_sequences, batch_first)
    known = whole_lengths(lengths, x.shape[1], x.shape[0])
    return [x[:length, n] for n, length in enumerate(known)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences (L, *) packed; unless ``enforce_sorted``, in any order."""
    found = require_sequences(sequences)
    lengths = [x.shape[0] for x in found]
    packing = Packing.of(lengths, ordered=enforce_sorted)
    rows = cat(found, 0)  # one sequence after the other, without padding between them
    return packed(packing, packing.interleave(rows), enforce_sorted)
