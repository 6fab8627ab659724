"""What normalization layers have in common: γ and β, and running statistics."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from tinygrad_bn import creation
from tinygrad_bn.backend import on
from tinygrad_bn.config import recomputing
from tinygrad_bn.dtypes import float32
from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.nn.module import Module, convert
from tinygrad_bn.ops.batch_normalization import Moments, move_towards
from tinygrad_bn.ops.counting import one_more
from tinygrad_bn.ops.norm_arguments import require_correction
from tinygrad_bn.tensors import Buffer, Parameter, Tensor

_gathered: dict[RunningNormalization, list[Moments]] = {}
"""What layers inside of `gathering` have seen. It belongs to a layer, whichever thread calls that,
and stays behind when one is copied.
"""


class Normalization(Module):
    """What normalization layers have in common: their γ and β are not for weight decay."""

    weight: Parameter | None
    bias: Parameter | None

    def make_affine(
        self, shape: Sequence[int], weight: bool, bias: bool, device: object, dtype: Any
    ) -> None:
        """Make γ = 1 and β = 0, or say that there is none."""
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = Parameter(creation.ones(*shape, **options)) if weight else None
        self.bias = Parameter(creation.zeros(*shape, **options)) if bias else None

    def reset_parameters(self) -> None:
        """Set γ to 1 and β to 0."""
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                parameter.detach().fill_(value)


class RunningNormalization(Normalization):
    """What norms with running statistics have in common; those are never narrower than float32."""

    statistics: ClassVar[Mapping[str, float]] = {"running_mean": 0.0, "running_var": 1.0}
    """The running statistics, and what each of them is before any batch."""

    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None
    stats_frozen: bool = False
    """Whether training too normalises by the running statistics, and leaves them alone."""

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: object,
        dtype: Any,
        *,
        bias: bool,
        running_var_correction: str = "unbiased",
    ) -> None:
        super().__init__()
        if num_features < 0:
            raise ArgumentError(f"expected num_features ≥ 0, got {num_features}")
        require_correction(running_var_correction)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.running_var_correction = running_var_correction
        self.make_affine((num_features,), affine, affine and bias, device, dtype)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.make_running_stats(device, dtype)

    def make_running_stats(self, device: object, dtype: Any) -> None:
        """As before any batch; never in fewer bits than float32."""
        for name, value in self.statistics.items():
            start = creation.full((self.num_features,), value, device=device, dtype=dtype)
            setattr(self, name, Buffer(start.float() if start.element_size() < 4 else start))
        self.num_batches_tracked = Buffer(creation.zeros((), dtype="int64", device=device))

    def _convert(self, dtype: Any, device: object) -> None:
        """γ and β as asked; the running statistics never in fewer bits than float32."""
        for parameter in self.parameters(recurse=False):
            convert(parameter, dtype, device)
        narrow = dtype is not None and dtype.itemsize < 4
        for buffer in self.buffers(recurse=False):
            convert(buffer, float32 if narrow else dtype, device)

    def reset_parameters(self) -> None:
        """Set γ to 1 and β to 0, and forget every batch seen."""
        self.reset_running_stats()
        super().reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget every batch seen."""
        for name, value in {**self.statistics, "num_batches_tracked": 0}.items():
            buffer = getattr(self, name)
            if buffer is not None:
                buffer.fill_(value)

    @property
    def tracked(self) -> bool:
        """Whether there are running statistics."""
        for name in self.statistics:  # noqa: SIM110  (read often, and this is quicker)
            if getattr(self, name) is None:
                return False
        return True

    @property
    def by_batch(self) -> bool:
        """Whether the next forward normalises by the batch's own statistics."""
        return (self.training and not self.stats_frozen) or not self.tracked

    def freeze(self, stats: bool = True, affine: bool = True) -> Self:
        """Hold the running statistics, by which training too then normalises, or γ and β, or both.

        What is frozen stays so through ``train()`` and ``eval()``.

        Raises
        ------
        StateError
            If there are no running statistics to normalise by; then nothing has changed.
        """
        if stats and not self.tracked:
            raise StateError(
                f"expected running statistics to freeze, got {type(self).__name__} without: use "
                "freeze(stats=False), or track_running_stats=True"
            )
        return self._freeze(stats, affine, True)

    def unfreeze(self, stats: bool = True, affine: bool = True) -> Self:
        """Let the running statistics move again, or γ and β learn, or both."""
        return self._freeze(stats, affine, False)

    def _freeze(self, stats: bool, affine: bool, frozen: bool) -> Self:
        if stats:
            self.stats_frozen = frozen
        if affine:
            for parameter in self.parameters():
                parameter.requires_grad_(not frozen)
        return self

    def learn(self, moments: Moments) -> None:
        """Count a batch that has values, and move the running statistics towards its moments; not
        while a forward runs again for its gradient, and inside of `gathering` not yet.
        """
        if recomputing.get() or not moments.count:
            return
        if _gathered and (gathered := _gathered.get(self)) is not None:
            gathered.append(moments)
            return
        if self.momentum is None:
            self.follow(moments, self.counted())
        else:
            self.follow(moments, self.momentum, self.num_batches_tracked)

    def follow(self, moments: Moments, rate: float | Tensor, count: Tensor | None = None) -> None:
        """Move the running statistics towards these moments, and the count of batches one on."""
        correction = self.running_var_correction
        move_towards(self.running_mean, self.running_var, moments, rate, correction, count)

    def counted(self) -> Tensor:
        """Count a batch; the weight of the newest one in a plain average, 1 / count."""
        count = self.num_batches_tracked
        if count is None:
            raise StateError("expected num_batches_tracked for momentum=None, got None")
        count.overwrite(on(count.backend, one_more, count.backend, count.array)[0])
        return count.detach().double().reciprocal()

    def extra_repr(self) -> str:
        absent = [name for name in ("weight", "bias") if getattr(self, name) is None]
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
            f"{''.join(f', {name}=False' for name in absent if self.affine)}"
            f", running_var_correction={self.running_var_correction!r}"
            f"{', stats_frozen=True' if self.stats_frozen else ''}"
        )


@contextmanager
def gathering(
    layers: Iterable[RunningNormalization],
) -> Generator[dict[RunningNormalization, list[Moments]]]:
    """Let training forwards leave running statistics alone; what they would have learned instead,
    by layer. Inside of another one it hides that one.
    """
    outer = {layer: _gathered.get(layer) for layer in layers}
    inner: dict[RunningNormalization, list[Moments]] = {layer: [] for layer in outer}
    _gathered.update(inner)
    try:
        yield inner
    finally:
        for layer, parts in outer.items():
            if parts is None:
                del _gathered[layer]
            else:
                _gathered[layer] = parts
