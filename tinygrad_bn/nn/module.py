"""Module: parameters, buffers and modules under names, and the computation that uses them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from tinygrad_bn import config, dtypes
from tinygrad_bn.autograd.variable import Handle
from tinygrad_bn.backend import backend_for
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import DtypeError, ModuleError
from tinygrad_bn.nn import hooks, state
from tinygrad_bn.nn.parts import BUFFER, MODULE, PARAMETER, Parts
from tinygrad_bn.ops.promotion import is_floating
from tinygrad_bn.tensors import Tensor

hunting = config.anomaly_mode.get


class Joint(NamedTuple):
    """Two modules, one behind the other, that are computed as one where nobody looks between."""

    first: type[Module]
    second: type[Module]
    run: Callable[..., Any]
    """Called with the first module and what comes in."""
    run_added: Callable[..., Any]
    """Called with the first module, what comes in, and what is added between the two."""


class Module(Parts):
    """A function with parameters, made of other such functions.

    Subclasses call ``super().__init__()``, assign `Parameter`, `Buffer` and Module objects as
    attributes, which makes them parts of the module, and define ``forward``.

    Notes
    -----
    Names, arguments and state-dict keys are PyTorch's. Unlike there, parts are ordinary attributes,
    which are quick to read, and loading a state dict that does not fit changes nothing.

    Examples
    --------
    >>> class Affine(Module):
    ...     def __init__(self, n):
    ...         super().__init__()
    ...         self.scale = Parameter(tg.ones(n))
    ...         self.shift = Parameter(tg.zeros(n))
    ...
    ...     def forward(self, x):
    ...         return x * self.scale + self.shift
    """

    _hooks: hooks.Hooks | None = None
    _joint: ClassVar[Joint | None] = None
    """What this class computes along with the module behind it in a `Sequential`."""

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        raise ModuleError(f"expected {type(self).__name__} to define forward; it does not")

    forward: Callable[..., Any] = _forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None and not hunting():
            return self.forward(*args, **kwargs)
        return hooks.call(self, args, kwargs)

    # Its state

    def state_dict(self, prefix: str = "") -> OrderedDict[str, Tensor]:
        """Parameters and persistent buffers by path, detached, in the same memory."""
        found = OrderedDict(
            (prefix + name, value.detach())
            for kinds in (PARAMETER, BUFFER)
            for name, value in self._parts(kinds)
        )
        for name, module in self._parts(MODULE):
            found.update(module.state_dict(prefix=f"{prefix}{name}."))
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> state.IncompatibleKeys:
        """Overwrite parameters and buffers, in place, with tensors or NumPy arrays by path.

        The module keeps its memory, dtypes and device. With ``strict=False`` keys may be missing
        or unexpected; what is returned names them.

        Raises
        ------
        StateError
            Naming every key that is missing, unexpected, or does not fit; nothing has changed.
        """
        return state.load(self, state_dict, strict)

    # Its mode, place and dtype

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module and all below it: training, or with ``False`` evaluation."""
        if not isinstance(mode, bool):
            raise DtypeError(f"expected True or False as the mode, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set this module and all below it to evaluation."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for the gradients of all parameters, or no longer."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for param in self.parameters():
            if param.grad is not None:
                param.grad = None if set_to_none else zeroed(param.grad)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every module below this one, the deepest first, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self, *args: Any, dtype: Any = None, device: object = None) -> Self:
        """Move all parts to a device, cast floating ones: ``to("cuda")``, ``to(tg.float64)``.

        Parameters stay the same objects, and their gradients go with them.

        Raises
        ------
        DtypeError, BackendError
            If the dtype is not a floating one, or there is no such device; nothing has changed.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                dtype, device = arg.dtype, arg.device
            elif isinstance(arg, str) and arg.partition(":")[0] in ("cpu", "cuda"):
                device = arg
            else:
                dtype = arg
        if device is not None:
            device = backend_for(device).device
        if dtype is not None:
            dtype = as_dtype(dtype)
            if not is_floating(dtype):
                raise DtypeError(f"expected a floating dtype for a module, got {dtype}")
        for module in self.modules():
            module._convert(dtype, device)
        return self

    def _convert(self, dtype: Any, device: object) -> None:
        """Convert the parts that are this module's own; a subclass may keep some of them wide."""
        for tensor in (*self.parameters(recurse=False), *self.buffers(recurse=False)):
            convert(tensor, dtype, device)

    def cpu(self) -> Self:
        """Move all parts into this machine's memory."""
        return self.to("cpu")

    def cuda(self, device: object = "cuda") -> Self:
        """Move all parts into a GPU's memory; its number may do as the ``device``."""
        return self.to(device=f"cuda:{device}" if isinstance(device, int) else device)

    def float(self) -> Self:
        """Cast all floating parts to float32."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """Cast all floating parts to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Self:
        """Cast all floating parts to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Self:
        """Cast all floating parts to bfloat16."""
        return self.to(dtypes.bfloat16())

    # Its hooks

    def _hook(self, moment: str, hook: Callable[..., Any], with_kwargs: bool = False) -> Handle:
        if self._hooks is None:
            self._set("_hooks", hooks.Hooks())
        return Handle(getattr(self._hooks, moment), (hook, with_kwargs))

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, with_kwargs: bool = False
    ) -> Handle:
        """Call ``hook(module, args)`` before every forward; it may return other arguments.

        With ``with_kwargs`` it is ``hook(module, args, kwargs)``, which returns both or None.
        """
        return self._hook("before", hook, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, with_kwargs: bool = False
    ) -> Handle:
        """Call ``hook(module, args, output)`` after every forward; it may return another output.

        With ``with_kwargs`` it is ``hook(module, args, kwargs, output)``.
        """
        return self._hook("after", hook, with_kwargs)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(module, grad_input, grad_output)`` when a call's gradients are known.

        Both are tuples, with None for what has no gradient, of the positional arguments and of the
        outputs. A tuple that the hook returns replaces ``grad_input``.
        """
        return self._hook("backward", hook)

    # How it looks

    def extra_repr(self) -> str:
        """What the representation says between its brackets."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [
            f"({name}): {value!r}".replace("\n", "\n  ") for name, value in self._parts(MODULE)
        ]
        if not children and len(lines) < 2:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}(", *lines, *children]) + "\n)"


def zeroed(grad: Tensor) -> Tensor:
    """The gradient, set to zero in place, and outside of any graph."""
    grad = grad.detach()
    return grad.overwrite(0)


def convert(tensor: Tensor, dtype: Any, device: object) -> None:
    """Give a part another dtype, if it is of floats, and another device; its gradient too."""
    dtype = dtype if is_floating(tensor.dtype) else None
    moved = tensor.detach().to(dtype=dtype, device=device)
    if moved.array is tensor.array:
        return
    grad = tensor.grad
    tensor.grad, tensor.slot = None, None
    tensor.data = moved
    if grad is not None:
        tensor.grad = grad.detach().to(dtype=dtype, device=device)
