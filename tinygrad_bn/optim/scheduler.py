"""What every schedule has: a count of epochs, and for each of them the groups' learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from tinygrad_bn.config import at_each_replay
from tinygrad_bn.errors import ArgumentError, DtypeError, StateError
from tinygrad_bn.optim.optimizer import Optimizer

F = TypeVar("F", bound=Callable[..., Any])


def replayed(step: F) -> F:
    """The step of a schedule, which a compiled training step calls at each replay."""

    @wraps(step)
    def run(*args: Any, **kwargs: Any) -> Any:
        return at_each_replay(step, *args, **kwargs)

    return cast(F, run)


class LRScheduler:
    """Sets the learning rates of an optimizer's groups; ``step()`` begins the next epoch.

    Parameters
    ----------
    optimizer : whose groups get the learning rates; what they have at first is their
        ``initial_lr``.
    last_epoch : the last epoch that has been run; -1 to begin.

    Raises
    ------
    DtypeError, ArgumentError
        For what is no optimizer, and for a schedule to be resumed where no ``initial_lr`` is known.
    """

    def __init_subclass__(cls) -> None:
        """Steps of every schedule are Python's, which a compiled step calls at each replay."""
        if "step" in vars(cls):
            cls.step = replayed(cls.step)  # type: ignore[method-assign]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        require_optimizer(optimizer)
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError("expected groups with an initial_lr to resume a schedule")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[float] = []
        self._begin()

    def _begin(self) -> None:
        """Enter the first epoch, or the one after the last."""
        self._step_count = 0
        LRScheduler.step(self)

    def get_lr(self) -> list[float]:
        """The learning rates of epoch ``last_epoch``, from those of the epoch before."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr")

    def closed_form_lr(self) -> list[float]:
        """The learning rates of epoch ``last_epoch``, from the initial ones."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The learning rates that were set last."""
        return self._last_lr

    @replayed
    def step(self) -> None:
        """Begin the next epoch."""
        self._step_count += 1
        self.last_epoch += 1
        self._set(self.get_lr())

    def restart(self) -> None:
        """Begin with epoch 0, whatever the learning rates are now."""
        self.last_epoch = 0
        self._set(self.closed_form_lr())

    def _undo(self) -> None:
        """Take back the epoch that was begun when the schedule was made."""
        self.last_epoch -= 1

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All that the schedule remembers, without the optimizer and without functions."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "optimizer" and not callable(value)
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where a schedule of this kind was; the optimizer's state is its own.

        Raises
        ------
        StateError
            If it is not the state of such a schedule.
        """
        known = self.state_dict()
        if missing := sorted(name for name in known if name not in state_dict):
            raise StateError(f"expected the state of {type(self).__name__}; {missing} missing")
        vars(self).update({name: state_dict[name] for name in known})


def require_optimizer(optimizer: object) -> None:
    """Refuse what is no optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise DtypeError(f"expected an optimizer, got {type(optimizer).__name__}")


def for_each_group(optimizer: Optimizer, name: str, value: Any) -> list[Any]:
    """One value for each group, from a list of them or from a single one."""
    if not isinstance(value, (list, tuple)):
        return [value] * len(optimizer.param_groups)
    if len(value) != len(optimizer.param_groups):
        raise ArgumentError(
            f"expected {len(optimizer.param_groups)} values of {name}, got {len(value)}"
        )
    return list(value)


class FactorLR(LRScheduler):
    """A schedule that is a factor on the initial learning rate's distance from ``eta_min``.

    It multiplies what the learning rate is, so that several such schedules compose.
    """

    eta_min = 0.0

    def factor_at(self, epoch: int) -> float:
        """The factor of an epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no factor_at")

    def get_lr(self) -> list[float]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self._step_count == 1 and self.last_epoch > 0:
            return rates  # resumed: the optimizer brought them with it
        now = self.factor_at(self.last_epoch)
        before = self.factor_at(self.last_epoch - 1) if self.last_epoch > 0 else 1.0
        if before == now:
            return rates
        if abs(before) < 1e-12:  # there is nothing left to multiply
            return self.closed_form_lr()
        return [self.eta_min + (rate - self.eta_min) * (now / before) for rate in rates]

    def closed_form_lr(self) -> list[float]:
        factor = self.factor_at(self.last_epoch)
        return [self.eta_min + (rate - self.eta_min) * factor for rate in self.base_lrs]


class LambdaLR(LRScheduler):
    """lr = initial lr × ``lr_lambda(epoch)``; one function, or one for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        require_optimizer(optimizer)
        self.lr_lambdas = for_each_group(optimizer, "lr_lambda", lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [
            base * function(self.last_epoch)
            for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """What the schedule remembers; of its functions, nothing."""
        return {name: value for name, value in super().state_dict().items() if name != "lr_lambdas"}
