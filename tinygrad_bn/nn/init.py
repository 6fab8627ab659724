"""How parameters start: in-place initialisers, which leave no trace in the graph.

Every one returns the tensor it was given. Random ones draw from ``generator``, or the default one.

References
----------
xavier: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
networks". kaiming: He et al. 2015, arXiv:1502.01852. orthogonal: Saxe et al. 2014, arXiv:1312.6120.
sparse: Martens 2010, "Deep learning via Hessian-free optimization".
"""

from __future__ import annotations

import math

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.creation import eye
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.random import Generator, rand_like, randn_like
from tinygrad_bn.tensors import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def written(tensor: Tensor, values: Tensor | float) -> Tensor:
    """The tensor, overwritten in place."""
    require_tensor(tensor, "what to initialise")
    with config.no_grad():
        return tensor.overwrite(values.array if isinstance(values, Tensor) else values)


def fans(tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed an output, and outputs an input, of a weight (out, in, *kernel)."""
    require_tensor(tensor, "what to initialise")
    if tensor.ndim < 2:
        raise ShapeError(
            f"expected a weight of rank 2 or more, got {tensor.shape}: no fan in or out"
        )
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor on the standard deviation that makes up for what a nonlinearity takes from it.

    ``param`` is the negative slope of ``"leaky_relu"``, 0.01 by default.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ArgumentError(f"expected a number as the negative slope, got {slope!r}")
        return math.sqrt(2 / (1 + slope**2))
    gains = {"sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    convolutions = [f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)]
    gains |= dict.fromkeys(["linear", *convolutions], 1.0)
    if nonlinearity not in gains:
        known = ", ".join(map(repr, [*gains, "leaky_relu"]))
        raise ArgumentError(f"expected a nonlinearity of {known}, got {nonlinearity!r}")
    return gains[nonlinearity]


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Uniform on [a, b)."""
    if not a <= b:
        raise ArgumentError(f"expected bounds a <= b, got {a} and {b}")
    return written(tensor, rand_like(tensor, generator=generator) * (b - a) + a)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Normal with that mean and standard deviation."""
    if not std >= 0:
        raise ArgumentError(f"expected a standard deviation of at least 0, got {std}")
    return written(tensor, randn_like(tensor, generator=generator) * std + mean)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normal, conditioned on [a, b]: the inverse of the distribution function of uniform numbers.

    The bounds are values, not multiples of ``std``.
    """
    if not std > 0 or not a < b:
        raise ArgumentError(f"expected std > 0 and a < b, got std={std}, a={a}, b={b}")
    scale = std * math.sqrt(2)
    low, high = math.erf((a - mean) / scale), math.erf((b - mean) / scale)
    u = rand_like(tensor, generator=generator).double()  # near ±1 the inverse needs the digits
    return written(tensor, ((u * (high - low) + low).erfinv() * scale + mean).clamp(a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """``val`` everywhere."""
    return written(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """One everywhere."""
    return written(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Zero everywhere."""
    return written(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix: a linear layer hands on as many inputs as it can."""
    require_tensor(tensor, "what to initialise")
    if tensor.ndim != 2:
        raise ShapeError(f"expected a matrix, got {tensor.shape}")
    return written(tensor, eye(*tensor.shape, device=tensor.device))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """The Dirac delta: a convolution hands on as many channels as it can, in each of its groups.

    Shapes
    ------
    (out, in, *kernel) with one to three axes in the kernel; ``groups`` divides out.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"expected (out, in, *kernel) of rank 3, 4 or 5, got {tensor.shape}")
    if groups < 1 or tensor.shape[0] % groups:
        raise ArgumentError(f"expected groups that divide {tensor.shape[0]}, got {groups}")
    values = np.zeros(tensor.shape)
    size = tensor.shape[0] // groups
    center = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(size, tensor.shape[1])):
            values[(group * size + channel, channel, *center)] = 1
    return written(tensor, Tensor(values, device=tensor.device))


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Uniform, of variance 2 gain² / (fan_in + fan_out)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal, of variance 2 gain² / (fan_in + fan_out)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    """gain / √fan."""
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"expected mode 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform, of variance gain² / fan: it keeps the variance of the layers, forwards or backwards.

    Parameters
    ----------
    a : the negative slope of the leaky ReLU that follows.
    mode : ``"fan_in"`` keeps the variance of the activations, ``"fan_out"`` that of the gradients.
    """
    bound = math.sqrt(3) * kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal, of variance gain² / fan; see `kaiming_uniform_`."""
    return normal_(tensor, 0.0, kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """``gain`` times a matrix (out, the rest) with orthonormal rows, or columns if it is tall."""
    if tensor.ndim < 2:
        raise ShapeError(f"expected a tensor of rank 2 or more, got {tensor.shape}")
    if not tensor.numel():
        return tensor
    normal = randn_like(tensor, generator=generator).double().flatten(1).cpu()
    matrix = normal.numpy()
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = np.linalg.qr(matrix.T if wide else matrix)
    q = q * np.sign(np.diag(r))  # without which the distribution would not be uniform
    values = gain * (q.T if wide else q).reshape(tensor.shape)
    return written(tensor, Tensor(values, device=tensor.device))


def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None
) -> Tensor:
    """Normal, with a share ``sparsity`` of each column, rounded up, set to zero."""
    if tensor.ndim != 2:
        raise ShapeError(f"expected a matrix, got {tensor.shape}")
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"expected a sparsity within [0, 1], got {sparsity}")
    order = rand_like(tensor, generator=generator).cpu().numpy().argsort(axis=0)
    kept = order.argsort(axis=0) >= math.ceil(sparsity * tensor.shape[0])
    normal = randn_like(tensor, generator=generator) * std
    return written(tensor, normal * Tensor(kept, device=tensor.device))
