"""Regions of a program whose products run in sixteen bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import numpy as np

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.config import Switch, autocasting
from tinygrad_bn.dtypes import as_dtype, bfloat16, float16
from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.ops import promotion
from tinygrad_bn.ops.autocasting import Region, cast_first, castable, kind_of, leaves
from tinygrad_bn.ops.promotion import is_floating

F = TypeVar("F", bound=Callable[..., Any])

DEVICE_TYPES = ("cpu", "cuda")


class autocast(Switch):
    """Run products in sixteen bits inside, and what needs more in float32.

        with tg.amp.autocast("cuda", dtype=tg.bfloat16):
            loss = criterion(model(x), y)
        loss.backward()

    Products (linear maps, convolutions, recurrences) cast their operands to ``dtype``, parameters
    among them, and have results in it. Sums, exponentials, logarithms, powers, softmax, layer and
    group norm and all losses cast theirs to float32. Everything else runs in the dtypes that come;
    activations and batch norm thus stay in sixteen bits, with statistics in float32 or wider.
    Parameters stay float32 themselves, and so do their gradients.

    It stands around the forward pass; a backward pass has the dtypes of its forward, wherever it
    is called. It is a decorator too.

    Parameters
    ----------
    device_type : the kind of device on which it holds, "cpu" or "cuda"; tensors on the other are
        left alone.
    dtype : ``bfloat16`` or ``float16``; by default bfloat16 on the CPU and float16 on a GPU. For
        float16, whose range is short, see `GradScaler`.
    enabled : False runs operations inside as if no region stood around them.
    cache_enabled : whether a parameter is cast only once in the outermost region; True by default,
        and as around it in a region inside of another.

    Raises
    ------
    ArgumentError, DtypeError
        For another kind of device, or another dtype.

    Notes
    -----
    The lists are PyTorch's, and stand in ``ops/autocasting.py``; what PyTorch lists for one kind of
    device only holds for both here, and binary cross-entropy, which it refuses, is computed in
    float32. A parameter that an optimizer changes inside of a region is cast anew, as is one that
    was cast without a graph where there should be one. On a CPU sixteen bits save memory, not time:
    products are computed in float32 and rounded once.

    References
    ----------
    Micikevicius et al. 2018, arXiv:1710.03740.
    """

    variable = autocasting

    def __init__(
        self,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        super().__init__()
        require_device_type(device_type)
        if dtype is None and enabled:
            dtype = bfloat16() if device_type == "cpu" else float16
        self.device_type, self.enabled, self.cache_enabled = device_type, enabled, cache_enabled
        self.dtype = None if dtype is None else sixteen_bits(dtype)

    def __enter__(self) -> None:
        around: Region | None = autocasting.get()
        self._before.append(around)
        dtypes = {} if around is None else dict(around.dtypes)
        dtypes.pop(self.device_type, None)
        if self.enabled and self.dtype is not None:
            dtypes[self.device_type] = self.dtype
        caching = True if around is None else around.caching
        if self.cache_enabled is not None:
            caching = self.cache_enabled
        casts = {} if around is None else around.casts
        autocasting.set(Region(dtypes, caching, casts) if dtypes else None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        region, around = autocasting.get(), self._before[-1]
        if region is not None and around is None:
            region.casts.clear()
        super().__exit__(kind, error, trace)

    def _recreate_cm(self) -> Self:
        return type(self)(self.device_type, self.dtype, self.enabled, self.cache_enabled)


def require_device_type(device_type: object) -> None:
    """Refuse what is not "cpu" or "cuda"."""
    if device_type not in DEVICE_TYPES:
        raise ArgumentError(f"expected a device type 'cpu' or 'cuda', got {device_type!r}")


def sixteen_bits(dtype: Any) -> np.dtype[Any]:
    """The dtype, if it is bfloat16 or float16."""
    found = as_dtype(dtype)
    if not is_floating(found) or found.itemsize != 2:
        raise DtypeError(f"expected bfloat16 or float16 to cast to, got {found}")
    return found


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether products on that kind of device run in sixteen bits here."""
    return get_autocast_dtype(device_type) is not None


def get_autocast_dtype(device_type: str) -> np.dtype[Any] | None:
    """The dtype of products on that kind of device; None outside of a region."""
    require_device_type(device_type)
    region: Region | None = autocasting.get()
    return None if region is None else region.dtypes.get(device_type)


def custom_fwd(
    fwd: F | None = None, *, device_type: str, cast_inputs: Any = None
) -> F | Callable[[F], F]:
    """Let an operation of one's own say in which dtype it runs inside of `autocast`.

        @tg.amp.custom_fwd(device_type="cuda", cast_inputs=tg.float32)
        def energy(x, field):
            return Energy.apply(x, field)

    Inside of a region its floating tensors, float64 apart, are cast, and it is computed as if no
    region stood around it. Outside of one, and without ``cast_inputs``, it is called as it is.

    Parameters
    ----------
    fwd : a function of tensors.
    device_type : the kind of device, "cpu" or "cuda", for which it is meant.
    cast_inputs : the dtype that its tensors are cast to.

    Raises
    ------
    ArgumentError, DtypeError
        For another kind of device, a dtype that is not of floats, or a method of a Function.

    Notes
    -----
    PyTorch's stands above a Function's ``forward``, and needs ``custom_bwd`` beside it. Here a
    forward sees arrays, so that this stands above the function that applies it; a ``backward``
    never runs in a region.
    """
    require_device_type(device_type)
    dtype = None if cast_inputs is None else as_dtype(cast_inputs)
    if dtype is not None and not is_floating(dtype):
        raise DtypeError(f"expected a dtype of floats to cast to, got {dtype}")

    def decorated(function: F) -> F:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], Function):
                raise DtypeError(
                    f"expected a function of tensors to decorate, got one of arrays, a method of "
                    f"{args[0].name}; decorate the function that applies it"
                )
            region: Region | None = autocasting.get()
            given = filter(castable, leaves([*args, *kwargs.values()]))
            if (
                dtype is None
                or region is None
                or device_type not in region.dtypes
                or device_type not in map(kind_of, given)
            ):
                return function(*args, **kwargs)
            return cast_first(lambda x: promotion.cast(x, dtype), function, args, kwargs)

        return cast("F", run)

    return decorated if fwd is None else decorated(fwd)
