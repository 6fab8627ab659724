"""Which operations run in sixteen bits inside of `tinygrad_bn.amp.autocast`, and which never do.

The lists are PyTorch's for CUDA, and with them what it lists for the CPU alone (averages in three
dimensions, binary cross-entropy, traces). Both hold on every device, so that a step has the same
dtypes on all. What is in none of them runs in the dtype of its operands: activations, pooling,
shapes, and batch and instance norm, which take statistics in float32 or wider whatever comes in.
float64 is left as it is everywhere.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce, wraps
from threading import get_ident
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.config import autocasting, grad_mode, tracer, without_autocast
from tinygrad_bn.dtypes import float32
from tinygrad_bn.ops import promotion
from tinygrad_bn.ops.promotion import is_floating, join

P = ParamSpec("P")
R = TypeVar("R")

LOWER = """
    addmm baddbmm bmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d einsum
    linear matmul mm mv prelu recurrence""".split()
"""Products: in the dtype that the region asks for."""

FLOAT32 = """
    acos asin avg_pool3d binary_cross_entropy binary_cross_entropy_with_logits cosh
    cosine_embedding_loss cosine_similarity cross_entropy cumprod cumsum erfinv exp expm1
    gaussian_nll_loss group_norm hinge_embedding_loss huber_loss interpolate kl_div l1_loss
    layer_norm local_response_norm log log10 log1p log2 log_softmax logsumexp margin_ranking_loss
    mse_loss nll_loss norm normalize poisson_nll_loss pow prod rdiv reciprocal rms_norm rpow rsqrt
    sinh smooth_l1_loss softmax softmin softplus sum tan trace vector_norm""".split()
"""What leaves the range of sixteen bits, or adds many numbers up: in float32."""

WIDEST = "atan2 bilinear cat dot scatter_add stack".split()
"""What its operands meet in: in the widest of their dtypes."""

DECORATED: set[str] = set()
"""The names that `under_autocast` has met."""


class Casted:
    """A parameter's cast, for as long as it is one.

    It is none when the parameter has other values or other memory, when a graph is wanted that it
    has not, and when a backward pass has freed its node.
    """

    def __init__(self, x: Variable, y: Variable) -> None:
        self.x, self.array, self.written, self.tracer = x, x.array, written(x), tracer.get()
        self.y: Callable[[], Variable | None] = lambda: y
        if self.tracer is not None:  # a trace must leave nothing behind
            self.y = weakref.ref(y)

    def found(self, x: Variable) -> Variable | None:
        """The cast of ``x``, or None where it is none."""
        y = self.y()
        if y is None or x is not self.x or x.array is not self.array:
            return None
        if written(x) != self.written or tracer.get() is not self.tracer:
            return None
        if grad_mode.get() and (y.creator is None or y.creator.inputs is None):
            return None
        return y


def written(x: Variable) -> int:
    """When the memory of a tensor was last overwritten."""
    return 0 if x._stamp is None else x._stamp.written


class Region:
    """What holds inside of `tinygrad_bn.amp.autocast`.

    Attributes
    ----------
    dtypes : the dtype of products on each kind of device, "cpu" or "cuda", that has one.
    caching : whether parameters are cast once.
    casts : those that were; regions inside of each other share them.
    """

    def __init__(
        self, dtypes: Mapping[str, np.dtype[Any]], caching: bool, casts: dict[Any, Casted]
    ) -> None:
        self.dtypes, self.caching, self.casts = dtypes, caching, casts

    @property
    def key(self) -> tuple[Any, ...]:
        """What two regions have in common that no operation can tell apart."""
        return (*sorted((kind, dtype.name) for kind, dtype in self.dtypes.items()), self.caching)

    def anew(self) -> Region:
        """The same, with no parameter cast yet."""
        return Region(self.dtypes, self.caching, {})

    def lowered(self, x: Variable, dtype: np.dtype[Any]) -> Any:
        """The tensor in ``dtype``; a parameter's cast is one node, however often it is used."""
        leaf = x.requires_grad and x.creator is None and x.array.dtype == float32
        if not (leaf and self.caching):
            return promotion.cast(x, dtype)
        place = id(x), dtype.name, get_ident()
        known = self.casts.get(place)
        y = None if known is None else known.found(x)
        if y is None:
            y = promotion.cast(x, dtype)
            self.casts[place] = Casted(x, y)
        return y


def castable(x: Any) -> bool:
    """Whether it is a tensor of floats that a region may cast."""
    return isinstance(x, Variable) and is_floating(x.array.dtype) and x.array.dtype.itemsize < 8


def brings_together(a: Variable, b: Variable) -> bool:
    """Whether products here cast both operands into one dtype."""
    region = autocasting.get()
    if region is None or not (castable(a) and castable(b)):
        return False
    return kind_of(a) in region.dtypes


def kind_of(x: Variable) -> str:
    """The kind of device that a tensor is on: "cpu" or "cuda"."""
    return x.backend.device.partition(":")[0]


def leaves(args: Iterable[Any]) -> Iterator[Any]:
    """The arguments, and those in lists and tuples among them."""
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from x
        else:
            yield x


def mapped(args: Iterable[Any], to: Callable[[Any], Any]) -> Iterator[Any]:
    """The arguments with ``to`` applied to every tensor that may be cast."""
    for x in args:
        if castable(x):
            yield to(x)
        elif isinstance(x, (list, tuple)) and any(map(castable, x)):
            yield [*mapped(x, to)]
        else:
            yield x


def caster(kind: list[str], region: Region, device: str, args: list[Any]) -> Callable[[Any], Any]:
    """What brings a tensor into the dtype that a list asks for."""
    if kind is LOWER:
        dtype = region.dtypes[device]
        return lambda x: region.lowered(x, dtype)
    wanted = float32
    if kind is WIDEST:
        found = [x.array.dtype for x in args if isinstance(x, Variable)]
        wanted = reduce(join, filter(is_floating, found), region.dtypes[device])
    return lambda x: promotion.cast(x, wanted)


def within(
    region: Region, kind: list[str], function: Callable[..., R], args: Any, kwargs: Any
) -> R:
    """Call a function with its tensors cast as a list says."""
    found = [*leaves(args), *leaves(kwargs.values())]
    first = next((x for x in found if isinstance(x, Variable)), None)
    device = "" if first is None else kind_of(first)
    if device not in region.dtypes:
        return function(*args, **kwargs)
    return cast_first(caster(kind, region, device, found), function, args, kwargs)


def cast_first(to: Callable[[Any], Any], function: Callable[..., R], args: Any, kwargs: Any) -> R:
    """Call a function with its tensors cast, and what it is made of as it is."""
    args, kwargs = [*mapped(args, to)], dict(zip(kwargs, mapped(kwargs.values(), to), strict=True))
    with without_autocast():
        return function(*args, **kwargs)


def under_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public operation, named in one of the lists, obey `tinygrad_bn.amp.autocast`."""
    name = function.__name__
    kind = next(names for names in (LOWER, FLOAT32, WIDEST) if name in names)
    DECORATED.add(name)
    current = autocasting.get

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        region = current()
        if region is None:
            return function(*args, **kwargs)
        return within(region, kind, function, args, kwargs)

    @wraps(function)
    def run_one(input: Any) -> Any:  # as most are: half the price
        region = current()
        return call(input) if region is None else within(region, kind, function, (input,), {})

    call: Callable[..., Any] = function
    if len(inspect.signature(function).parameters) == 1:
        return cast("Callable[P, R]", run_one)
    return run
