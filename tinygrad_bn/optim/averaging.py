"""Averages of a model's parameters over training: exponential moving ones, and plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, TypeAlias

from tinygrad_bn import config
from tinygrad_bn.dtypes import int64
from tinygrad_bn.errors import ArgumentError, ModuleError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.utils import update_bn as update_bn
from tinygrad_bn.ops.elementwise import where
from tinygrad_bn.tensors import Buffer, Tensor

Average: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the average, the parameter and the number of averaged ones to the new average."""


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average: decay × average + (1 - decay) × parameter."""
    if not 0 <= decay <= 1:
        raise ArgumentError(f"expected decay in [0, 1], got {decay}")

    def ema_update(average: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        return average * decay + current * (1 - decay)

    return ema_update


def get_swa_avg_fn() -> Average:
    """The mean of all: average + (parameter - average) / (number averaged + 1)."""

    def swa_update(average: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        return average + (current - average) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of those that the model goes through.

    Parameters
    ----------
    model : what is copied; it goes on training.
    device : where the averages are; by default, where the model is.
    avg_fn : how to average; `get_swa_avg_fn` by default.
    use_buffers : average floating buffers too, instead of copying them; for batch norm's running
        statistics.

    Notes
    -----
    After plain averaging batch norm's statistics belong to none of the averaged models: estimate
    them anew, with `update_bn`.

    References
    ----------
    Izmailov, Podoprikhin, Garipov, Vetrov & Wilson (2018), arXiv:1803.05407. Polyak & Juditsky
    (1992).
    """

    def __init__(
        self,
        model: Module,
        device: object = None,
        avg_fn: Average | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        self.module = deepcopy(model)
        if device is not None:
            self.module.to(device=device)
        place = next((t.device for t in states(self.module)), device)
        self.n_averaged = Buffer(0, dtype=int64, device=place)
        self.avg_fn = get_swa_avg_fn() if avg_fn is None else avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model makes of the input."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Average in the parameters that ``model`` has now; the first ones are copied.

        Raises
        ------
        ModuleError
            If the model has other parameters; nothing is changed then.
        """
        pairs = list(zip(states(self.module), states(model), strict=False))
        shapes = [[t.shape for t in states(m)] for m in (self.module, model)]
        if shapes[0] != shapes[1]:
            raise ModuleError("expected a model with the parameters of the averaged one")
        parameters = len(list(self.module.parameters()))
        with config.no_grad():
            for position, (mean, source) in enumerate(pairs):
                now = source.detach().to(mean.device)
                averaging = position < parameters or self.use_buffers
                if averaging and mean.is_floating_point():
                    number = self.n_averaged.detach().to(mean.device)
                    average = self.avg_fn(mean.detach(), now, number)
                    now = where(number == 0, now, average)
                mean.overwrite(now.array)
            self.n_averaged.overwrite((self.n_averaged + 1).array)


class EMA(AveragedModel):
    """The exponential moving average of a model: `AveragedModel` with `get_ema_avg_fn`."""

    def __init__(
        self, model: Module, decay: float = 0.999, device: object = None, use_buffers: bool = False
    ) -> None:
        super().__init__(model, device, get_ema_avg_fn(decay), use_buffers)


def states(model: Module) -> Iterator[Tensor]:
    """The parameters and then the buffers of a model."""
    yield from model.parameters()
    yield from model.buffers()
