"""The operations as methods of Tensor: one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn import dtypes
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.ops import (
    division,
    elementwise,
    fresh,
    index,
    inplace,
    join,
    linear,
    logic,
    order,
    placement,
    rearrange,
    reduce,
    shape,
    statistics,
    transfer,
    trigonometry,
    unary,
)
from tinygrad_bn.ops.piecewise import relu
from tinygrad_bn.ops.probability import log_softmax, softmax
from tinygrad_bn.ops.promotion import cast

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class Methods(Variable):
    """What `tinygrad_bn.Tensor` can do; a function of the first argument is a method."""

    # Arithmetic
    add = __add__ = __radd__ = elementwise.add
    sub = subtract = __sub__ = elementwise.sub
    __rsub__ = elementwise.rsub
    mul = multiply = __mul__ = __rmul__ = elementwise.mul
    div = divide = true_divide = __truediv__ = division.div
    __rtruediv__ = division.rdiv
    floor_divide = __floordiv__ = division.floor_divide
    __rfloordiv__ = division.rfloor_divide
    remainder = __mod__ = division.remainder
    __rmod__ = division.rremainder
    fmod = division.fmod
    pow = __pow__ = elementwise.pow
    __rpow__ = elementwise.rpow
    neg = negative = __neg__ = unary.neg
    positive = __pos__ = unary.positive
    matmul = __matmul__ = linear.matmul
    __rmatmul__ = linear.rmatmul
    mm = linear.mm
    bmm = linear.bmm
    mv = linear.mv
    dot = linear.dot
    outer = linear.outer
    addmm = linear.addmm
    baddbmm = linear.baddbmm

    # Comparison and choice
    eq = logic.eq
    __eq__ = logic.equals
    ne = not_equal = logic.ne
    __ne__ = logic.differs
    lt = less = __lt__ = logic.lt
    le = less_equal = __le__ = logic.le
    gt = greater = __gt__ = logic.gt
    ge = greater_equal = __ge__ = logic.ge
    equal = logic.equal
    isclose = logic.isclose
    allclose = logic.allclose
    maximum = elementwise.maximum
    minimum = elementwise.minimum
    clamp = clip = elementwise.clamp
    clamp_min = elementwise.clamp_min
    clamp_max = elementwise.clamp_max
    lerp = elementwise.lerp

    logical_and = logic.logical_and
    logical_or = logic.logical_or
    logical_xor = logic.logical_xor
    logical_not = logic.logical_not
    bitwise_and = __and__ = __rand__ = logic.bitwise_and
    bitwise_or = __or__ = __ror__ = logic.bitwise_or
    bitwise_xor = __xor__ = __rxor__ = logic.bitwise_xor
    bitwise_not = __invert__ = logic.bitwise_not

    # Functions of one variable
    abs = absolute = __abs__ = unary.abs
    exp = unary.exp
    expm1 = unary.expm1
    log = unary.log
    log2 = unary.log2
    log10 = unary.log10
    log1p = unary.log1p
    sqrt = unary.sqrt
    rsqrt = unary.rsqrt
    square = elementwise.square
    reciprocal = unary.reciprocal
    sin = trigonometry.sin
    cos = trigonometry.cos
    tan = trigonometry.tan
    asin = arcsin = trigonometry.asin
    acos = arccos = trigonometry.acos
    atan = arctan = trigonometry.atan
    atan2 = arctan2 = elementwise.atan2
    sinh = trigonometry.sinh
    cosh = trigonometry.cosh
    tanh = trigonometry.tanh
    sigmoid = unary.sigmoid
    erf = unary.erf
    erfinv = unary.erfinv
    sign = sgn = unary.sign
    floor = unary.floor
    ceil = unary.ceil
    trunc = fix = unary.trunc
    round = unary.round
    isnan = unary.isnan
    isinf = unary.isinf
    isfinite = unary.isfinite

    # Reductions
    sum = reduce.sum
    mean = reduce.mean
    prod = reduce.prod
    cumsum = reduce.cumsum
    cumprod = reduce.cumprod
    all = reduce.all
    any = reduce.any
    count_nonzero = reduce.count_nonzero
    var = statistics.var
    std = statistics.std
    norm = statistics.norm
    logsumexp = statistics.logsumexp
    logaddexp = statistics.logaddexp

    # Order
    amax = order.amax
    amin = order.amin
    max = order.max
    min = order.min
    argmax = order.argmax
    argmin = order.argmin
    sort = order.sort
    argsort = order.argsort
    topk = order.topk

    # Shapes
    reshape = shape.reshape
    reshape_as = shape.reshape_as
    view = shape.view
    view_as = shape.view_as
    permute = shape.permute
    transpose = swapaxes = swapdims = shape.transpose
    movedim = moveaxis = shape.movedim
    t = shape.t
    T = property(shape.t)
    mT = property(shape.matrix_transpose)
    broadcast_to = shape.broadcast_to
    expand = shape.expand
    expand_as = shape.expand_as
    squeeze = shape.squeeze
    unsqueeze = shape.unsqueeze
    flatten = shape.flatten
    unflatten = shape.unflatten
    split = join.split
    chunk = join.chunk
    tensor_split = join.tensor_split
    unbind = join.unbind
    repeat = rearrange.repeat
    tile = rearrange.tile
    repeat_interleave = rearrange.repeat_interleave
    flip = rearrange.flip
    fliplr = rearrange.fliplr
    flipud = rearrange.flipud
    roll = rearrange.roll
    tril = rearrange.tril
    triu = rearrange.triu
    diag = rearrange.diag
    diagonal = rearrange.diagonal
    trace = rearrange.trace
    clone = transfer.clone
    contiguous = transfer.contiguous
    pin_memory = transfer.pin_memory
    is_pinned = transfer.is_pinned

    # Elements by their places
    __getitem__ = index.getitem
    nonzero = index.nonzero
    gather = placement.gather
    scatter_add = placement.scatter_add
    scatter = placement.scatter
    index_select = placement.index_select
    index_add = placement.index_add
    take = placement.take
    take_along_dim = placement.take_along_dim
    masked_fill = placement.masked_fill
    masked_select = placement.masked_select
    where = placement.chosen_where

    # In place
    __setitem__ = inplace.setitem
    __iadd__ = inplace.iadd
    __isub__ = inplace.isub
    __imul__ = inplace.imul
    __itruediv__ = inplace.idiv
    zero_ = inplace.zero_
    fill_ = inplace.fill_
    copy_ = inplace.copy_
    add_ = inplace.add_
    sub_ = inplace.sub_
    mul_ = inplace.mul_
    div_ = inplace.div_
    clamp_ = clip_ = inplace.clamp_
    uniform_ = inplace.uniform_
    normal_ = inplace.normal_
    bernoulli_ = inplace.bernoulli_

    # Fresh tensors
    new_zeros = new_empty = fresh.new_zeros
    new_ones = fresh.new_ones
    new_full = fresh.new_full
    new_tensor = fresh.new_tensor

    # Activations
    relu = relu
    softmax = softmax
    log_softmax = log_softmax

    # Dtypes
    def float(self: Any) -> Tensor:
        """In float32."""
        return cast(self, dtypes.float32)  # type: ignore[no-any-return]

    def double(self: Any) -> Tensor:
        """In float64."""
        return cast(self, dtypes.float64)  # type: ignore[no-any-return]

    def half(self: Any) -> Tensor:
        """In float16."""
        return cast(self, dtypes.float16)  # type: ignore[no-any-return]

    def bfloat16(self: Any) -> Tensor:
        """In bfloat16."""
        return cast(self, dtypes.bfloat16())  # type: ignore[no-any-return]

    def int(self: Any) -> Tensor:
        """In int32."""
        return cast(self, dtypes.int32)  # type: ignore[no-any-return]

    def long(self: Any) -> Tensor:
        """In int64."""
        return cast(self, dtypes.int64)  # type: ignore[no-any-return]

    def bool(self: Any) -> Tensor:
        """Whether each element is not zero."""
        return cast(self, dtypes.bool)  # type: ignore[no-any-return]
