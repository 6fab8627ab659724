"""Weights over their greatest singular value."""

from __future__ import annotations

from typing import Any, TypeVar

from tinygrad_bn import config, random
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.utils.reparametrization import (
    Reparametrization,
    as_matrix,
    axis_of,
    remove,
    weight_to_replace,
)
from tinygrad_bn.ops.elementwise import maximum, where
from tinygrad_bn.ops.precision import at_least_float32
from tinygrad_bn.ops.statistics import vector_norm
from tinygrad_bn.tensors import Buffer, Tensor

M = TypeVar("M", bound=Module)

WARM_UP = 15
"""Power iterations that the vectors begin with."""


class SpectralNorm(Reparametrization):
    """W / σ with σ = uᵀ W v, where power iteration keeps u and v near the singular vectors."""

    function, suffixes = "spectral_norm", ("orig", "u", "v")
    others = {
        "parametrizations.{}.original": "orig",
        "parametrizations.{}.0._u": "u",
        "parametrizations.{}.0._v": "v",
    }

    def __init__(self, name: str, iterations: int, axis: int, eps: float) -> None:
        super().__init__(name)
        self.iterations, self.axis, self.eps = iterations, axis, eps

    @config.without_autocast()
    def __call__(self, module: Module) -> Tensor:
        weight = self.part(module, "orig")
        wide = at_least_float32(weight)
        u, v = config.as_first_seen(lambda: self.vectors(module))
        u, v = u.to(wide.dtype), v.to(wide.dtype)
        sigma = u @ (as_matrix(wide, self.axis) @ v)
        return (wide / where(sigma == 0, 1.0, sigma)).to(weight.dtype)

    def vectors(self, module: Module) -> tuple[Tensor, Tensor]:
        """Copies of u and v: the next iteration overwrites them, when a graph may need these."""
        return self.part(module, "u").clone(), self.part(module, "v").clone()

    @config.without_autocast()
    def iterated(self, weight: Tensor, u: Tensor, v: Tensor, times: int) -> tuple[Tensor, Tensor]:
        """u and v after some more power iterations."""
        w = as_matrix(at_least_float32(weight.detach()), self.axis)
        u, v = u.to(w.dtype), v.to(w.dtype)
        least = self.eps * w.abs().amax()
        for _ in range(times):
            v = unit(w.T @ u, least, v)
            u = unit(w @ v, least, u)
        return u, v

    def before_forward(self, module: Module, args: tuple[Any, ...]) -> None:
        """Iterate, if the module trains and this is not a forward run again for its gradient."""
        if not module.training or config.recomputing.get():
            return
        weight, u, v = (self.part(module, suffix) for suffix in self.suffixes)
        with config.no_grad():
            for old, new in zip((u, v), self.iterated(weight, u, v, self.iterations), strict=True):
                old.overwrite(new.array)

    def remove(self, module: Module) -> None:
        super().remove(module)
        hooks = module._hooks
        assert hooks is not None
        hooks.before[:] = [
            entry for entry in hooks.before if getattr(entry[0], "__self__", None) is not self
        ]


def unit(x: Tensor, least: Tensor, before: Tensor) -> Tensor:
    """x over its norm, which counts as at least ``least``; where x is 0, what was before."""
    norm = vector_norm(x)
    return where(norm > 0, x / maximum(norm, least), before)


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> M:
    """Divide a module's weight by its spectral norm, which makes a linear map 1-Lipschitz.

        W / σ,    σ = uᵀ W v,    v ← Wᵀu / ‖Wᵀu‖,    u ← W v / ‖W v‖

    The parameter ``weight`` is called ``weight_orig`` from now on, and is the same object, so that
    an optimizer goes on with it; ``weight`` is computed from it whenever it is read. The buffers
    ``weight_u`` and ``weight_v`` approach the singular vectors by power iterations before every
    forward in training; σ is differentiated with respect to W only.

    Parameters
    ----------
    name : the parameter's name.
    n_power_iterations : how many iterations before a forward.
    eps : what the norms of Wᵀu and W v count as at least, in units of the greatest |W|.
    dim : the axis of the outputs, the rest of the weight being the other axis of a matrix; by
        default 0, or 1 for transposed convolutions.

    Returns
    -------
    The module.

    Shapes
    ------
    ``weight_u`` has the length of axis ``dim``, ``weight_v`` the product of the others.

    Raises
    ------
    ModuleError
        If the module itself has no such parameter.
    ArgumentError
        If the name is reparametrized already, there is to be no iteration, or ε is negative.
    ShapeError
        If the weight has no such axis, or no elements.

    Notes
    -----
    It bounds what a discriminator or a critic can do, and needs no batch; prefer `weight_norm`
    where speed of training is all that is wanted. A forward that runs again under activation
    checkpointing does not iterate, and takes the u and v that it took before.

    The keys are those of PyTorch's ``torch.nn.utils.spectral_norm``; state dicts of its
    ``parametrizations.spectral_norm`` load too, which iterates u before v. Unlike there, u and v
    begin after 15 iterations, so that evaluation makes sense before training; ε is relative, and a
    weight of the scale 1e-30 has the singular value that it has; and a weight of zeros stays one,
    where PyTorch's is NaN.

    References
    ----------
    Miyato, Kataoka, Koyama and Yoshida 2018, arXiv:1802.05957, equation 8 and algorithm 1.
    """
    weight = weight_to_replace(module, name, SpectralNorm)
    if not isinstance(n_power_iterations, int):
        raise DtypeError(f"expected a whole number of iterations, got {n_power_iterations!r}")
    if n_power_iterations < 1:
        raise ArgumentError(f"expected n_power_iterations ≥ 1, got {n_power_iterations}")
    if not eps >= 0:
        raise ArgumentError(f"expected eps ≥ 0, got {eps}")
    if not weight.numel():
        raise ShapeError(f"expected a weight with elements, got {weight.shape}")
    if dim is None:
        dim = 1 if getattr(module, "transposed", False) else 0
    norm = SpectralNorm(name, n_power_iterations, axis_of(weight, dim), eps)
    with config.no_grad():
        u, v = (
            random.randn(n, dtype=at_least_float32(weight).dtype, device=weight.device)
            for n in as_matrix(weight, norm.axis).shape
        )
        u, v = norm.iterated(weight, u / vector_norm(u), v / vector_norm(v), WARM_UP)
    norm.install(module, weight, Buffer(u.to(weight.dtype)), Buffer(v.to(weight.dtype)))
    module.register_forward_pre_hook(norm.before_forward)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Make a weight under `spectral_norm` a parameter again, a new one of its value.

    Raises
    ------
    ArgumentError
        If it is not under `spectral_norm`.
    """
    remove(module, name, SpectralNorm)
    return module
