"""Losses scaled up, so that small gradients are not lost in float16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.amp.scale_rules import next_scale, unscaled
from tinygrad_bn.amp.undoing import revoked_where
from tinygrad_bn.autograd.variable import stamp
from tinygrad_bn.backend import Array, Backend, backend_for, current
from tinygrad_bn.creation import tensor
from tinygrad_bn.dtypes import float16, float32, int32
from tinygrad_bn.errors import ArgumentError, DtypeError, StateError
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.optimizer import Optimizer
from tinygrad_bn.tensors import Tensor

KEYS = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


class GradScaler:
    """Scales a loss up before its gradients are taken, and the gradients down before a step.

        with tg.amp.autocast("cuda", dtype=tg.float16):
            loss = criterion(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # only where gradients are clipped or looked at
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    Gradients below 6e-8 are zero in float16; times the scale they are not. Where a gradient is
    infinite or NaN, the scale was too large: the optimizer's step is left out, and the scale falls
    by ``backoff_factor``. After ``growth_interval`` steps without one it grows by
    ``growth_factor``.

    Parameters
    ----------
    device : where the scale is kept, best where the losses are; the default device if None, where
        PyTorch takes "cuda".
    init_scale : the scale to begin with.
    growth_factor, backoff_factor, growth_interval : as above.
    enabled : False makes `scale` give back what it gets, and `step` step.

    Raises
    ------
    ArgumentError
        For factors and intervals that let the scale neither grow nor fall.

    Notes
    -----
    Whether a gradient is finite is known to the device alone, where nobody has to wait for it: an
    optimizer of this library makes its step, and the device puts back what was there before. On the
    CPU, which knows at once, the step is not made. An optimizer of one's own waits, as in PyTorch.
    In a compiled step, `scale`, `step` and `update` belong together.

    References
    ----------
    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    """

    def __init__(
        self,
        device: object = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        require_schedule(growth_factor, backoff_factor, growth_interval)
        self._enabled = bool(enabled)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        backend = backend_for(device)
        self._scale = tensor(float(init_scale), dtype=float32, device=backend.device)
        self._growth_tracker = tensor(0, dtype=int32, device=backend.device)
        self._found: dict[int, Any] = {}
        self._stepped: set[int] = set()

    # The five calls of a step

    def scale(self, outputs: Any) -> Any:
        """The loss times the scale; of several, in lists and tuples, each."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale.to(outputs.backend.device)
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(self.scale(output) for output in outputs)
        raise DtypeError(f"expected tensors to scale, got {type(outputs).__name__}")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer by the scale, and see whether all are finite.

        Raises
        ------
        StateError
            If that has been done since the last `update`.
        ArgumentError
            If no parameter has a gradient.
        DtypeError
            If a gradient is of float16, where what the scale preserves would be lost.
        """
        if not self._enabled:
            return
        if id(optimizer) in self._stepped:
            raise StateError("expected unscale_() before step(), got it after")
        if id(optimizer) in self._found:
            raise StateError("expected unscale_() once between updates, got it again")
        grads = [p._grad for p in optimizer._parameters() if p._grad is not None]
        if not grads:
            raise ArgumentError("expected an optimizer whose parameters have gradients, got none")
        if any(grad.array.dtype == float16 for grad in grads):
            raise DtypeError("expected gradients wider than float16 to unscale, got float16")
        found: dict[str, Array] = {}
        with config.no_grad():
            for backend, array in gradients_of(optimizer):
                self._unscale(backend, array, found)
            for grad in grads:
                grad.stamp.touch()
        self._found[id(optimizer)] = {
            device: Tensor.wrap(backend_for(device).asarray(array), backend_for(device))
            for device, array in found.items()
        }

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's step on gradients without the scale; none where one is not finite.

        Returns
        -------
        What ``optimizer.step`` returns, or None where it was not called.

        Raises
        ------
        StateError, ArgumentError, DtypeError
            If that has been done since the last `update`, for a closure, and as `unscale_`.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or any(map(callable, args)):
            raise ArgumentError("expected a step without a closure, got one")
        if id(optimizer) in self._stepped:
            raise StateError("expected step() once between updates, got it again")
        if id(optimizer) not in self._found:
            self.unscale_(optimizer)
        self._stepped.add(id(optimizer))
        found = self._found[id(optimizer)]
        known_here = set(found) == {"cpu"} and config.tracer.get() is None
        if known_here or not isinstance(optimizer, FlatOptimizer):
            stays = any(bool(x.item()) for x in found.values())
            return None if stays else optimizer.step(*args, **kwargs)
        with revoked_where(optimizer, lambda device: either(found, device).array):
            return optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Let the scale grow or fall by what the gradients were, or set it.

        Raises
        ------
        StateError
            If no gradients have been seen since the last one.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            set_to = new_scale if isinstance(new_scale, Tensor) else tensor(float(new_scale))
            self._scale.overwrite(set_to.detach().to(self._scale.device, float32).array)
        elif not self._found:
            raise StateError("expected unscale_() or step() before update(), got neither")
        else:
            self._follow()
        self._found.clear()
        self._stepped.clear()

    def _unscale(self, backend: Backend, grad: Array, found: dict[str, Array]) -> None:
        """Divide an array of gradients, and note whether it holds what is not finite."""
        with current(backend):
            known = found.get(backend.device)
            if known is None:
                known = backend.xp.zeros((), dtype=np.dtype(np.bool_))
            scale = self._scale.to(backend.device).array
            divided, found[backend.device] = unscaled(backend, grad, known, scale)
            backend.store(grad, divided)

    def _follow(self) -> None:
        """The next scale, and for how many steps it has been the same."""
        backend, device = self._scale.backend, self._scale.backend.device
        xp = backend.xp
        with current(backend):
            scale, tracker = self._scale.array, self._growth_tracker.array
            founds = [either(found, device).array for found in self._found.values()]
            found = founds[0]
            for other in founds[1:]:
                found = xp.logical_or(found, other)
            numbers = self._growth_factor, self._backoff_factor, self._growth_interval
            for tensor in (self._scale, self._growth_tracker):
                tensor.require_outside()
            stamp((self._scale, self._growth_tracker))
            following = next_scale(backend, scale, tracker, found, *numbers)
            for array, value in zip((scale, tracker), following, strict=True):
                backend.store(array, value)

    # Its state

    def get_scale(self) -> float:
        """The scale, for which the host waits; 1 if the scaler is not enabled."""
        return float(self._scale.item()) if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Let the scale grow by another factor."""
        require_schedule(new_factor, self._backoff_factor, self._growth_interval)
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale falls."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Let the scale fall by another factor."""
        require_schedule(self._growth_factor, new_factor, self._growth_interval)
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Let the scale grow after another number of steps."""
        require_schedule(self._growth_factor, self._backoff_factor, new_interval)
        self._growth_interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on, under PyTorch's keys; nothing if it is not enabled."""
        if not self._enabled:
            return {}
        values = (
            self.get_scale(),
            self._growth_factor,
            self._backoff_factor,
            self._growth_interval,
            int(self._growth_tracker.item()),
        )
        return dict(zip(KEYS, values, strict=True))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the state of a scaler, PyTorch's or this library's.

        Raises
        ------
        StateError
            If it is not one; that of a scaler that is not enabled is empty. Nothing is changed.
        """
        if not self._enabled:
            return
        if set(state_dict) != set(KEYS):
            raise StateError(f"expected the keys {KEYS}, got {tuple(state_dict)}")
        scale, growth, backoff, interval, tracker = (state_dict[key] for key in KEYS)
        require_schedule(growth, backoff, interval)
        self._growth_factor, self._backoff_factor = growth, backoff
        self._growth_interval = interval
        backend = self._scale.backend
        self._scale.overwrite(backend.asarray(float(scale), float32))
        self._growth_tracker.overwrite(backend.asarray(int(tracker), int32))


def require_schedule(growth: float, backoff: float, interval: int) -> None:
    """Refuse factors and intervals by which a scale would not grow and fall."""
    if not growth > 1:
        raise ArgumentError(f"expected growth_factor > 1, got {growth}")
    if not 0 < backoff < 1:
        raise ArgumentError(f"expected backoff_factor between 0 and 1, got {backoff}")
    if not isinstance(interval, int) or interval < 1:
        raise ArgumentError(f"expected growth_interval as a whole number ≥ 1, got {interval!r}")


def gradients_of(optimizer: Optimizer) -> Iterator[tuple[Backend, Array]]:
    """The arrays that hold the gradients of an optimizer, each with its backend: its flat buffers
    where they are full of them, as after nearly every backward pass.
    """
    buckets = optimizer._settled() if isinstance(optimizer, FlatOptimizer) else []
    flat = set()
    for bucket in buckets:
        if all(p._grad is not None and p._grad.array is p.slot for p in bucket.params):
            flat |= {id(p) for p in bucket.params}
            yield bucket.backend, config.as_state(bucket.grads)
    for p in optimizer._parameters():
        if p._grad is not None and id(p) not in flat:
            yield p.backend, p._grad.array


def either(found: Mapping[str, Tensor], device: str) -> Tensor:
    """Whether something was found on any device, as a tensor on one."""
    tensors: Iterable[Tensor] = found.values()
    first, *rest = [x.to(device) for x in tensors]
    for other in rest:
        first = first.logical_or(other)
    return first
