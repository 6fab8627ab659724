"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, decayed, norm, rounding
from tinygrad_bn.optim.optimizer import Group, Params, require_range

ADJUSTMENTS = (None, "original", "match_rms_adamw")


def orthogonalised(
    backend: Backend, x: Array, coefficients: tuple[float, float, float], eps: Array, steps: int
) -> Array:
    """The matrix with x's singular vectors and singular values near 1, by Newton–Schulz iteration.

    X ← a X + (b A + c A²) X with A = X Xᵀ; the quintic a s + b s³ + c s⁵ drives every singular
    value s towards 1.
    """
    xp = backend.xp
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = xp.transpose(x, (1, 0)) if tall else x
    x = x / xp.astype(xp.maximum(norm(backend, x), eps), x.dtype)
    for _ in range(steps):
        gram = xp.matmul(x, xp.transpose(x, (1, 0)))
        x = a * x + xp.matmul(b * gram + c * xp.matmul(gram, gram), x)
    return xp.transpose(x, (1, 0)) if tall else x


@kernel_point
def muon_update(
    backend: Backend,
    param: Array,
    grad: Array,
    momentum_buffer: Array,
    lr: Array,
    momentum: Array,
    eps: Array,
    weight_decay: Array | None,
    *,
    nesterov: bool,
    ns_coefficients: tuple[float, float, float],
    ns_steps: int,
    ratio: float,
) -> tuple[Array, Array]:
    """One step of ``ratio`` lr in the directions of all singular vectors alike."""
    to = rounding(backend, param)
    param, grad = to(param), to(grad)
    momentum_buffer = average(to, momentum_buffer, grad, momentum)
    direction = average(to, momentum_buffer, grad, momentum) if nesterov else momentum_buffer
    direction = orthogonalised(backend, direction, ns_coefficients, eps, ns_steps)
    param = decayed(to, param, lr, weight_decay) - to(ratio * lr) * direction
    return param, momentum_buffer


class Muon(FlatOptimizer):
    """Muon: b ← μ b + (1 - μ) g, param ← (1 - lr λ) param - lr ρ NS(b); for hidden matrices.

    NS replaces the singular values by ones, nearly. Vectors, embeddings and output layers are
    AdamW's.

    Parameters
    ----------
    lr, weight_decay, momentum : lr, the decoupled λ, and μ.
    nesterov : orthogonalise μ b + (1 - μ) g instead of b.
    ns_coefficients, eps, ns_steps : of the Newton–Schulz iteration; ε bounds the norm from below.
    adjust_lr_fn : ρ for an (n, m) matrix: √max(1, n / m) for ``"original"`` or None, 0.2 √max(n,
        m) for
        ``"match_rms_adamw"``.

    Notes
    -----
    The iteration runs in the parameter's precision, but at least in float32; PyTorch's runs in
    bfloat16.

    References
    ----------
    Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks,
    kellerjordan.github.io/posts/muon. Liu, Su et al. (2025), arXiv:2502.16982, for
    ``"match_rms_adamw"``.
    """

    counters = ()
    slots = ("momentum_buffer",)
    separately = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "weight_decay", "momentum", "eps", "ns_steps"):
            require_range(group, name)
        if group["adjust_lr_fn"] not in ADJUSTMENTS:
            raise ArgumentError(
                f"expected adjust_lr_fn among {ADJUSTMENTS}, got {group['adjust_lr_fn']!r}"
            )
        if len(group["ns_coefficients"]) != 3:
            raise ArgumentError(f"expected three ns_coefficients, got {group['ns_coefficients']}")
        for p in group["params"]:
            if p.ndim != 2:
                raise ShapeError(f"expected matrices to optimize, got shape {p.shape}")

    def update(self, run: Run) -> None:
        group = run.group
        rows, columns = run.param.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        else:
            ratio = math.sqrt(max(1, rows / max(columns, 1)))
        run.update(
            muon_update,
            self.slots,
            run.number("lr"),
            run.number("momentum"),
            run.number("eps"),
            run.optional("weight_decay"),
            nesterov=group["nesterov"],
            ns_coefficients=tuple(group["ns_coefficients"]),
            ns_steps=group["ns_steps"],
            ratio=ratio,
        )
