"""Random tensors: PyTorch's names over our own Philox streams, the same on every device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.backend import Array, Backend, backend_for, current
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.promotion import is_floating, require_tensor
from tinygrad_bn.ops.shape import sizes
from tinygrad_bn.philox import Generator as Generator
from tinygrad_bn.philox import generator_on
from tinygrad_bn.philox import manual_seed as manual_seed
from tinygrad_bn.tensors import Tensor

__all__ = [
    "Generator",
    "bernoulli",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
    "set_rng_state",
]


def source(generator: Generator | None, device: object) -> Generator:
    """Where to draw: the generator, or the default one of the device."""
    if device is None and isinstance(generator, Generator):
        return generator
    return generator_on(backend_for(device), generator)


def floating_or_default(dtype: Any) -> np.dtype[Any]:
    wanted = config.get_default_dtype() if dtype is None else as_dtype(dtype)
    if not is_floating(wanted):
        raise DtypeError(f"expected a floating dtype, got {wanted}")
    return wanted


def finished(array: Any, backend: Backend, requires_grad: bool = False) -> Tensor:
    return Tensor.wrap(array, backend).requires_grad_(requires_grad)


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers within [0, 1)."""
    drawn_by, shape = source(generator, device), sizes(size)
    drawn = drawn_by.uniform(shape, floating_or_default(dtype))
    return finished(drawn, drawn_by.backend, requires_grad)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal numbers."""
    drawn_by, shape = source(generator, device), sizes(size)
    drawn = drawn_by.normal(shape, floating_or_default(dtype))
    return finished(drawn, drawn_by.backend, requires_grad)


def randint(
    low: Any = 0,
    high: Any = None,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """Whole numbers within [low, high), int64 by default; ``randint(high, size)`` starts at 0.

    Raises
    ------
    ArgumentError
        If there are none, or the dtype does not hold them.
    """
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise ShapeError("expected randint(low, high, size), got no size")
    low, high, wanted = int(low), int(high), as_dtype(np.int64 if dtype is None else dtype)
    if not -(2**63) <= low < high <= 2**63:
        raise ArgumentError(f"expected low < high, both int64, got [{low}, {high})")
    if wanted.kind in "iu" and not np.iinfo(wanted).min <= low < high <= np.iinfo(wanted).max + 1:
        raise ArgumentError(f"expected a range that {wanted} holds, got [{low}, {high})")
    drawn_by = source(generator, device)
    drawn = drawn_by.integers(low, high, sizes((size,)), wanted)
    return finished(drawn, drawn_by.backend, requires_grad)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """The whole numbers below n in random order, int64 by default."""
    drawn_by, (count,) = source(generator, device), sizes((n,))
    wanted = as_dtype(np.int64 if dtype is None else dtype)
    return (
        finished(drawn_by.permutation(count), drawn_by.backend)
        .to(dtype=wanted)
        .requires_grad_(requires_grad)
    )


def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """1 or 0 for each element of ``input``: 1 with the probability that the element is, or p.

    In the dtype of ``input``; no gradient leads through a draw.

    Raises
    ------
    ArgumentError, DtypeError
        If a probability is outside of [0, 1], or is not a floating number.
    """
    require_tensor(input)
    drawn_by, dtype = generator_on(input.backend, generator), input.dtype
    if p is None:
        if not is_floating(dtype):
            raise DtypeError(f"expected probabilities in a floating dtype, got {dtype}")
        config.at_each_replay(within_unit, input.backend, input.array)
        uniform, bound = drawn_by.uniform(input.shape, dtype), input.array
    else:
        if not 0 <= p <= 1:
            raise ArgumentError(f"expected a probability within [0, 1], got {p}")
        uniform, bound = drawn_by.uniform(input.shape, np.dtype(np.float32)), p
    with current(input.backend):
        drawn = input.backend.xp.astype(uniform < bound, dtype)
    return finished(drawn, input.backend)


def within_unit(backend: Backend, p: Array) -> None:
    """Refuse probabilities outside of [0, 1], and NaN."""
    with current(backend):
        within = bool(backend.xp.all((p >= 0) & (p <= 1)))
    if not within:
        raise ArgumentError("expected probabilities within [0, 1], got others")


def normal(
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers, one for each mean and std of tensors that broadcast, or ``size`` of them."""
    if not ((std >= 0).all() if isinstance(std, Tensor) else std >= 0):
        raise ArgumentError(f"expected standard deviations ≥ 0, got {std}")
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    if tensors and size is not None:
        raise ShapeError("expected a size only for a mean and std that are numbers")
    if not tensors:
        drawn = randn(() if size is None else size, generator=generator, dtype=dtype, device=device)
        return (drawn * std + mean).requires_grad_(requires_grad)
    with config.no_grad():
        like = tensors[0] if len(tensors) == 1 else tensors[0] + tensors[1]
        return randn_like(like, generator=generator) * std + mean


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Indices drawn with probabilities in proportion to each row of weights.

    Without replacement the smallest of independent exponential times, of the weights' rates, win.

    Shapes
    ------
    (n,) -> (num_samples,); (m, n) -> (m, num_samples), int64.

    References
    ----------
    Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir".
    """
    require_tensor(input)
    weights, (count,) = input.detach(), sizes((num_samples,))
    if weights.ndim not in (1, 2) or not count or not is_floating(weights.dtype):
        raise ShapeError(f"expected floats (n,) or (m, n) and samples > 0, got {weights.shape}")
    backend = weights.backend
    config.at_each_replay(require_weights, backend, weights.array, 1 if replacement else count)
    drawn_by, x, xp = generator_on(backend, generator), weights.double().array, backend.xp
    with current(backend):
        if replacement:
            reached = xp.cumsum(x, axis=-1)
            u = drawn_by.uniform((*x.shape[:-1], count), x.dtype) * reached[..., -1:]
            chosen = xp.sum(u[..., None] >= reached[..., None, :], axis=-1)
        else:
            u = drawn_by.uniform(x.shape, x.dtype)
            times = xp.where(x > 0, -xp.log1p(-u) / xp.where(x > 0, x, 1.0), math.inf)
            chosen = xp.argsort(times, axis=-1)[..., :count]
    return finished(chosen, backend)


def require_weights(backend: Backend, weights: Array, count: int) -> None:
    """Refuse weights that are no rates, and rows of too few to choose from."""
    xp = backend.xp
    with current(backend):
        if not xp.all((weights >= 0) & xp.isfinite(weights)):
            raise ArgumentError("expected finite weights ≥ 0, got others")
        available = int(xp.min(xp.sum(weights > 0, axis=-1)))
    if available < count:
        raise ArgumentError(f"expected {count} weights > 0 in every row, got {available}")


# In the likeness of another tensor


def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers of the shape of ``input``, and of its dtype and device."""
    require_tensor(input)
    return rand(
        input.shape,
        generator=generator,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
    )


def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal numbers of the shape of ``input``, and of its dtype and device."""
    require_tensor(input)
    return randn(
        input.shape,
        generator=generator,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
    )


def randint_like(
    input: Tensor,
    low: Any = 0,
    high: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: object = None,
) -> Tensor:
    """Whole numbers within [low, high) in the shape of ``input``, and of its dtype and device."""
    require_tensor(input)
    return randint(
        low,
        high,
        input.shape,
        generator=generator,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
    )


# The default generators


def seed() -> int:
    """Start streams that nobody can foretell on every device; their seed."""
    fresh = Generator().initial_seed()
    manual_seed(fresh)
    return fresh


def initial_seed() -> int:
    """The seed of the CPU's default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the CPU's default generator."""
    return default_generator.get_state()  # type: ignore[no-any-return]


def set_rng_state(new_state: Tensor) -> None:
    """Go on from where `get_rng_state` was called."""
    default_generator.set_state(new_state)


default_generator = generator_on(backend_for("cpu"))
