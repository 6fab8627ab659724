"""Optimizers that update a whole buffer of parameters by one kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import nullcontext
from operator import is_
from types import MappingProxyType
from typing import Any, ClassVar

from tinygrad_bn import config
from tinygrad_bn.backend import Backend, KernelPoint, current
from tinygrad_bn.errors import StateError
from tinygrad_bn.optim.flat import Bucket, Run
from tinygrad_bn.optim.optimizer import (
    Group,
    Optimizer,
    Params,
    evaluated,
    refuse_shared_memory,
)
from tinygrad_bn.tensors import Tensor


class FlatOptimizer(Optimizer):
    """An optimizer whose rule treats all elements, or each parameter, alike.

    A subclass declares its state and writes ``update``, which calls one kernel point for a run of
    parameters. Parameters, gradients and state lie in one buffer each, per group, dtype and device
    (see `flat.Bucket`).

    Notes
    -----
    Parameters keep their shapes, but move to other memory when the optimizer is made, and tensors
    that shared the old memory do not see them change. ``p.grad`` is a window on the buffer of
    gradients: ``clone()`` it to keep it beyond the next backward pass. State of 16-bit parameters
    is float32 (PyTorch keeps it in 16 bits).
    """

    counters: ClassVar[tuple[str, ...]] = ("step",)
    """State that is one number."""
    slots: ClassVar[tuple[str, ...]] = ()
    """State of the parameters' shape."""
    options: ClassVar[tuple[str, ...]] = ()
    """State that only some options need, and that begins when they do."""
    separately: ClassVar[bool] = False
    """Whether the rule needs each parameter by itself, in its shape."""
    together: ClassVar[KernelPoint[Any, Any] | None] = None
    """Such a rule for all parameters of a run, flat, by their ``bounds``: for backends that have a
    kernel for it, where a call for each parameter would be a launch for each.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self._buckets: list[list[Bucket]] = []
        super().__init__(params, defaults)

    def update(self, run: Run) -> None:
        """Update the parameters of a run, all of which have a gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            refuse_shared_memory(self._parameters())
        except BaseException:
            self.param_groups.pop()
            raise
        self._buckets.append(self.lay_out(group, {}))

    def lay_out(self, group: Group, state: Mapping[Tensor, Mapping[str, Any]]) -> list[Bucket]:
        """Buckets for the parameters of a group, with their saved state."""
        kinds: dict[Any, list[Tensor]] = {}
        for p in group["params"]:
            kinds.setdefault((p.backend.device, p.array.dtype), []).append(p)
        buckets = []
        for params in kinds.values():
            with params[0].backend.guard or nullcontext():
                bucket = Bucket(group, params, self.apart(params[0].backend))
                bucket.arrange([state.get(p, {}) for p in params], self.counters)
            buckets.append(bucket)
        return buckets

    def apart(self, backend: Backend) -> bool:
        """Whether each parameter is updated by a call of its own."""
        point = self.together
        return self.separately and (point is None or backend.kernels.get(point.name) is None)

    def rule(
        self, run: Run, of_one: KernelPoint[Any, Any]
    ) -> tuple[KernelPoint[Any, Any], dict[str, Any]]:
        """What updates a run, and its flags: the rule of one parameter, or `together`."""
        if run.bucket.separately or self.together is None:
            return of_one, {}
        return self.together, {"bounds": run.bounds}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters once; those without a gradient stay, and so does their state.

        Parameters
        ----------
        closure : computes the loss, and the gradients, once more; its result is returned.

        Raises
        ------
        ShapeError, DtypeError
            For a gradient that is not of its parameter's shape, dtype and device; nothing is
            changed then.
        """
        loss = None if closure is None else evaluated(closure)
        at_home = self._at_home()
        repeatable = at_home and getattr(self.update, "repeatable", False)
        for bucket in self._all_buckets() if at_home else self._settled():
            if repeatable and bucket.repeat():
                continue
            with current(bucket.backend):
                runs = bucket.runs if at_home else bucket.due(bucket.gather())
                config.at_each_replay(bucket.reread)
                for run in runs:
                    self.update(run)
            if repeatable:
                bucket.remember()
        return loss

    def _at_home(self) -> bool:
        """Whether every parameter has a gradient, and nothing is to be brought anywhere."""
        for group, buckets in zip(self.param_groups, self._buckets, strict=True):
            if self._regrouped(group, buckets):
                return False
            for bucket in buckets:
                if not bucket.at_home():
                    return False
        return True

    def settle(self) -> None:
        """Lay parameters out again where they do not fit any more."""
        for number, group in enumerate(self.param_groups):
            buckets = self._buckets[number]
            if self._regrouped(group, buckets) or not all(bucket.fits() for bucket in buckets):
                refuse_shared_memory(self._parameters())
                state = {p: self._entry(p, e) for p, e in self._entries(buckets).items()}
                self._buckets[number] = self.lay_out(group, state)

    def _settled(self) -> list[Bucket]:
        """All buckets, gradients checked, laid out again where parameters do not fit."""
        self.settle()
        settled = self._all_buckets()
        for bucket in settled:
            bucket.check_gradients()
        return settled

    @staticmethod
    def _regrouped(group: Group, buckets: list[Bucket]) -> bool:
        """Whether somebody exchanged the group, or parameters in it."""
        params = group["params"]
        if len(buckets) == 1 and buckets[0].group is group:  # as nearly always, and quick
            laid = buckets[0].params
            return len(laid) != len(params) or not all(map(is_, laid, params))
        if any(bucket.group is not group for bucket in buckets):
            return True
        return {id(p) for bucket in buckets for p in bucket.params} != set(map(id, params))

    def _all_buckets(self) -> list[Bucket]:
        return [bucket for buckets in self._buckets for bucket in buckets]

    @property
    def state(self) -> MutableMapping[Any, Any]:
        """What is kept between steps, by parameter: to be written to, but not exchanged."""
        state = {}
        for p, entry in self._entries(self._all_buckets()).items():
            public = {name: p.wrap_like(array) for name, array in entry.items() if name[0] != "_"}
            if public:
                state[p] = MappingProxyType(public)
        return MappingProxyType(state)  # type: ignore[return-value]

    @staticmethod
    def _entries(buckets: list[Bucket]) -> dict[Tensor, dict[str, Any]]:
        entries: dict[Tensor, dict[str, Any]] = {}
        for bucket in buckets:
            for run in bucket.runs:
                entries.update(run.entries())
        return entries

    def _entry(self, p: Tensor, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Saved state as arrays on the device of its parameter, in the order the rule declares.

        Raises
        ------
        StateError
            If it is not the state of this rule, or of a parameter of this shape.
        """
        known = (*self.counters, *self.slots, *self.options)
        entry = {name: value for name, value in saved.items() if value is not None}
        if not entry:
            return {}
        required = {name for name in (*self.counters, *self.slots) if name[0] != "_"}
        if not set(entry) <= set(known) or not required <= set(entry):
            raise StateError(
                f"expected {sorted(required)}, the state of {type(self).__name__}, "
                f"got {sorted(entry)}"
            )
        arrays: dict[str, Any] = {}
        for name in known:
            if name not in entry:
                if name in self.counters:
                    arrays[name] = (
                        1.0  # a hidden counter only tells the first update from later ones
                    )
                continue
            value = entry[name]
            array = value.to(p.device).array if isinstance(value, Tensor) else value
            arrays[name] = p.backend.asarray(array)
            shape = arrays[name].shape
            if name in self.counters and arrays[name].size != 1:
                raise StateError(f"expected one number as {name!r}, got shape {shape}")
            if name not in self.counters and shape != p.array.shape:
                raise StateError(f"expected {name!r} of shape {p.array.shape}, got {shape}")
        return arrays

    def _restore(self, state: dict[Tensor, dict[str, Any]]) -> None:
        entries = {p: self._entry(p, entry) for p, entry in state.items()}
        self._buckets = [self.lay_out(group, entries) for group in self.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "_buckets"}
        return {**kept, "_saved": {p: dict(entry) for p, entry in self.state.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_saved")
        self.__dict__.update(state)
        self._restore(saved)
