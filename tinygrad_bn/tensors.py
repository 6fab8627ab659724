"""Tensor: an array with a history, and the operations of PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from tinygrad_bn import config, ops
from tinygrad_bn.autograd.engine import backward
from tinygrad_bn.autograd.variable import Handle, Variable
from tinygrad_bn.backend import Device, backend_for
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import BackendError, DtypeError, GradientError, ShapeError
from tinygrad_bn.ops import conversion
from tinygrad_bn.ops.methods import Methods
from tinygrad_bn.ops.promotion import cast, is_floating


class Tensor(Methods, Variable):
    """A multidimensional array of numbers that remembers how it was computed.

    Made by `tinygrad_bn.tensor`, `from_numpy`, `zeros` and their like; names, arguments and
    defaults of the methods are PyTorch's. ``array`` is the NumPy or CuPy array inside.
    """

    __array_ufunc__ = (
        None  # so that NumPy's operators leave `array * tensor` to us, which refuses it by name
    )

    def __init__(
        self,
        data: object,
        *,
        dtype: Any = None,
        device: object = None,
        requires_grad: bool = False,
    ) -> None:
        self.array, self.backend = conversion.as_array(data, dtype, device)
        if requires_grad:
            self.requires_grad_()

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.array.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype, NumPy's."""
        return self.array.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> Device:
        """Where the memory is: ``"cpu"`` or ``"cuda:0"``."""
        return Device(self.backend.device)

    @property
    def is_cuda(self) -> bool:
        """Whether the memory is a GPU's."""
        return self.backend.device != "cpu"

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return self.creator is None

    @property
    def grad_fn(self) -> Any:
        """The node that made it; None for a leaf."""
        return self.creator

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[ops.shape.one_axis(dim, self.ndim)]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self.array.size  # type: ignore[no-any-return]

    def element_size(self) -> int:
        """Bytes an element."""
        return self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the dtype is float16, bfloat16, float32 or float64."""
        return is_floating(self.dtype)

    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return bool(self.array.flags.c_contiguous)

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("expected a tensor with axes, got a scalar, which has no len()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self[i] for i in range(len(self))])

    # Its values

    @property
    def data(self) -> Self:
        """The same memory outside of the graph."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise DtypeError(f"expected a tensor, got {type(value).__name__}")
        self.array, self.backend, self._stamp = value.array, value.backend, value._stamp
        self.slot = None  # it was laid out for what was there before

    def numpy(self) -> np.ndarray[Any, Any]:
        """The NumPy array inside, sharing memory.

        Raises
        ------
        GradientError, BackendError
            If the tensor has a history to lose, or is not in this machine's memory.
        """
        if self.requires_grad:
            raise GradientError("expected a tensor without history; use tensor.detach().numpy()")
        if self.is_cuda:
            raise BackendError(
                f"expected a tensor on the cpu, got {self.device}; use tensor.cpu().numpy()"
            )
        return self.backend.to_numpy(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> float | int | bool:
        """The one element as a Python number."""
        if self.numel() != 1:
            raise ShapeError(f"expected one element, got shape {self.shape}")
        return self.backend.to_numpy(self.array).reshape(()).item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.backend.to_numpy(self.array).tolist()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if is_floating(self.dtype) or self.ndim:
            raise DtypeError(f"expected a whole number as an index, got {self.dtype} {self.shape}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.ndim else str(self)

    def __repr__(self) -> str:
        body = np.array2string(
            np.asarray(self.backend.to_numpy(self.array)),
            separator=", ",
            prefix="tensor(",
            precision=4,
        )
        notes = [body]
        if self.is_cuda:
            notes.append(f"device={str(self.device)!r}")
        if self.dtype not in (config.get_default_dtype(), np.dtype(np.int64), np.dtype(np.bool_)):
            notes.append(f"dtype={self.dtype.name}")
        if self.creator is not None:
            notes.append(f"grad_fn={self.creator.name}")
        elif self.requires_grad:
            notes.append("requires_grad=True")
        return f"tensor({', '.join(notes)})"

    __dlpack__ = conversion.dlpack
    __dlpack_device__ = conversion.dlpack_device
    __cuda_array_interface__ = property(conversion.cuda_array_interface)

    # Where it is

    def to(
        self,
        *args: Any,
        dtype: Any = None,
        device: object = None,
        non_blocking: bool = False,
        copy: bool = False,
    ) -> Tensor:
        """In another dtype, on another device, or both: ``to("cuda")``, ``to(tg.float64)``,
        ``to(other)``.

        The tensor itself where nothing changes, unless ``copy``. ``non_blocking`` and ``copy`` may
        come last by place, as in PyTorch. With ``non_blocking`` page-locked memory (`pin_memory`)
        is still being read when this returns; every copy from a GPU waits.
        """
        flags = [arg for arg in args if isinstance(arg, bool)]
        copy, non_blocking = copy or flags[1:] == [True], non_blocking or flags[:1] == [True]
        for arg in args[: len(args) - len(flags)]:
            if isinstance(arg, Variable):
                dtype, device = arg.array.dtype, arg.backend.device
            elif isinstance(arg, str) and arg.partition(":")[0] in ("cpu", "cuda"):
                device = arg
            else:
                dtype = arg
        y: Tensor = self
        if device is not None and (backend := backend_for(device)) is not self.backend:
            y = ops.transfer.transfer(y, backend, non_blocking)
        if dtype is not None:
            y = cast(y, as_dtype(dtype))
        return y.clone() if copy and y is self else y

    def cpu(self) -> Tensor:
        """In this machine's memory."""
        return self.to("cpu")

    def cuda(self, device: object = "cuda", non_blocking: bool = False) -> Tensor:
        """In a GPU's memory; its number may do as the ``device``."""
        place = f"cuda:{device}" if isinstance(device, int) else device
        return self.to(device=place, non_blocking=non_blocking)

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of another tensor."""
        return self.to(other.dtype)

    # Its gradient

    @property
    def grad(self) -> Tensor | None:
        """What `backward` accumulated; None before. It is the caller's to keep, and to change."""
        grad = self._grad
        if grad is not None and grad.array is self.slot:  # which the next backward overwrites
            grad.array = self.backend.copy(grad.array)
        return grad  # type: ignore[return-value]  # what accumulates is a Tensor

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise DtypeError(
                    f"expected a tensor or None as the gradient, got {type(value).__name__}"
                )
            if value.shape != self.shape or value.backend is not self.backend:
                raise ShapeError(
                    f"expected a gradient {self.shape} on {self.device}, "
                    f"got {value.shape} on {value.device}"
                )
        self._grad = value

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for a gradient, or no longer, in place; a leaf's affair.

        Raises
        ------
        GradientError, DtypeError
            For the result of an operation, or for integers, which have no gradient.
        """
        if self.creator is not None and not requires_grad:
            raise GradientError("expected a leaf, got the result of an operation; use detach()")
        if requires_grad and not is_floating(self.dtype):
            raise DtypeError(f"expected floats to require a gradient, got {self.dtype}")
        self.requires_grad = bool(requires_grad)
        return self

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Accumulate the gradient of this tensor into every leaf's ``grad``; see
        `autograd.backward`.
        """
        backward(self, None if gradient is None else [gradient], retain_graph, create_graph, inputs)

    def detach(self) -> Self:
        """The same memory outside of the graph."""
        tensor: Self = self.wrap_like(self.array)
        return tensor.share(self)

    def retain_grad(self) -> None:
        """Keep the gradient in ``grad`` although this is not a leaf."""
        if not self.requires_grad:
            raise GradientError("expected a tensor that requires a gradient")
        if self.creator is not None:
            node, position = self.creator, self.output
            node.hooks = [*(node.hooks or ()), (position, self._keep)]

    def _keep(self, grad: Tensor) -> None:
        self.accumulate(grad if grad.requires_grad else grad.array)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Handle:
        """Call ``hook(grad)`` when this tensor's gradient is known; what it returns, if anything,
        replaces it.
        """
        if not self.requires_grad:
            raise GradientError("expected a tensor that requires a gradient to hook")
        if not callable(hook):
            raise DtypeError(f"expected a function as the hook, got {type(hook).__name__}")
        if self.creator is None:
            self._hooks = self._hooks if self._hooks is not None else []
            return Handle(self._hooks, hook)
        node = self.creator
        node.hooks = node.hooks if node.hooks is not None else []
        return Handle(node.hooks, (self.output, hook))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Handle:
        """Call ``hook(tensor)`` after `backward` has added to this leaf's ``grad``."""
        if self.creator is not None or not self.requires_grad:
            raise GradientError("expected a leaf that requires a gradient to hook")
        self._after = self._after if self._after is not None else []
        return Handle(self._after, hook)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if self.creator is not None:
            raise GradientError(
                "expected a leaf to copy deeply, got the result of an operation; use detach()"
            )
        copy = type(self).__new__(type(self))
        by_columns = self.ndim > 1 and self.array.flags.f_contiguous  # as the weights of Linear
        copied = self.backend.copy(self.array.T).T if by_columns else self.backend.copy(self.array)
        copy.array, copy.backend = copied, self.backend
        copy.requires_grad = self.requires_grad
        if self._grad is not None:
            copy._grad = copy.wrap_like(self.backend.copy(self._grad.array))
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        if self.creator is not None:
            raise GradientError(
                "expected a leaf to pickle, got the result of an operation; use detach()"
            )
        values = self.backend.to_numpy(self.array)
        return _rebuild, (type(self), values, self.backend.device, self.requires_grad)

    def _adopt(self, data: object, options: dict[str, Any]) -> None:
        if isinstance(data, Variable):
            self.array, self.backend = data.array, data.backend
        else:
            Tensor.__init__(self, data, **options)

    __hash__ = object.__hash__


class Parameter(Tensor):
    """A tensor that an optimizer updates; a module finds it by its type."""

    def __init__(self, data: object, requires_grad: bool = True, **options: Any) -> None:
        self._adopt(data, options)
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Buffer(Tensor):
    """A tensor that a module saves in its state but does not train; found by its type.

    ``persistent=False`` leaves it out of the state dict.
    """

    def __init__(self, data: object, persistent: bool = True, **options: Any) -> None:
        self._adopt(data, options)
        self.persistent = persistent

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = super().__deepcopy__(memo)
        copy.persistent = self.persistent
        return copy

    def __reduce__(self) -> Any:
        return (*super().__reduce__(), {"persistent": self.persistent})


def _rebuild(kind: type[Tensor], values: Any, device: str, requires_grad: bool) -> Tensor:
    backend = backend_for(device)
    tensor = kind.wrap(backend.asarray(values), backend)
    tensor.requires_grad = requires_grad
    return tensor


Variable.tensor_class = Tensor
