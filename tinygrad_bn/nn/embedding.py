"""Vectors for whole numbers."""

from __future__ import annotations

from typing import Any, Self

from tinygrad_bn.creation import empty
from tinygrad_bn.errors import BackendError, DtypeError, RangeError, ShapeError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.elementwise import where
from tinygrad_bn.ops.index import GetItem, require_within
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.tensors import Parameter, Tensor


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of ``weight`` at the numbers in ``input``; row ``padding_idx`` gets no gradient.

    Shapes
    ------
    (*) of whole numbers, weight (num_embeddings, embedding_dim) -> (*, embedding_dim)

    Raises
    ------
    RangeError
        For a number that has no row; negative ones have none.
    """
    require_tensor(input)
    require_tensor(weight, "weight")
    if input.dtype.kind not in "iu":
        raise DtypeError(f"expected whole numbers to embed, got {input.dtype}")
    if weight.ndim != 2:
        raise ShapeError(f"expected a weight (num_embeddings, embedding_dim), got {weight.shape}")
    if input.backend is not weight.backend:
        raise BackendError(f"expected numbers on {weight.device}, got {input.device}")
    count, dim = weight.shape
    padding_idx = row_number(padding_idx, count)
    require_within(input.backend, input.array, 0, count)
    flat = input.reshape(-1)
    index = flat.backend.copy(flat.array)  # the graph's own: the caller may change his
    y: Tensor = GetItem.apply(weight, index=(index,))
    if padding_idx is not None:
        y = where((flat == padding_idx).unsqueeze(1), y.detach(), y)
    return y.reshape(*input.shape, dim)


def row_number(padding_idx: int | None, count: int) -> int | None:
    """The number of the padding row, counted from the end if it is negative."""
    if padding_idx is None:
        return None
    if not -count <= padding_idx < count:
        raise RangeError(f"expected padding_idx within [{-count}, {count}), got {padding_idx}")
    return padding_idx % count


class Embedding(Module):
    """A learned vector for each whole number below ``num_embeddings``.

    Parameters
    ----------
    num_embeddings, embedding_dim : how many vectors, and of what size.
    padding_idx : a number whose vector starts at zero and gets no gradient.

    Shapes
    ------
    (*) of whole numbers -> (*, embedding_dim); ``weight`` is (num_embeddings, embedding_dim).

    Notes
    -----
    The vectors start standard normal. PyTorch's ``max_norm``, which rewrites the weight while it is
    read, and its sparse gradients are not there.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = row_number(padding_idx, num_embeddings)
        self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Self:
        """With the rows of ``embeddings``, in the same memory; not trained if ``freeze``."""
        require_tensor(embeddings, "embeddings")
        if embeddings.ndim != 2:
            raise ShapeError(f"expected (num_embeddings, embedding_dim), got {embeddings.shape}")
        module = cls(0, embeddings.shape[1])
        module.num_embeddings = embeddings.shape[0]
        module.padding_idx = row_number(padding_idx, embeddings.shape[0])
        module.weight = Parameter(embeddings.detach(), requires_grad=not freeze)
        return module

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx])

    def forward(self, input: Tensor) -> Tensor:
        return embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
