"""One differentiable operation: the class that every operation of the library, and of its users,
derives from.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from tinygrad_bn.autograd.variable import LAST_WRITE, Stamp, Variable, clock
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.config import anomaly_mode, grad_mode, where
from tinygrad_bn.errors import BackendError, DtypeError, GradientError

new = object.__new__
"""A tensor without its __init__, which would look for data to copy."""

recording, hunting = grad_mode.get, anomaly_mode.get


class Function:
    """One differentiable operation; an instance is one node of the graph.

    Subclasses write ``forward`` and ``backward`` on arrays, in the vocabulary of ``self.xp``
    (`tinygrad_bn.backend.VOCABULARY`) and operators. Whatever backward needs, forward keeps as an
    attribute. The same two methods run on NumPy arrays, on CuPy arrays and, for gradients of
    gradients, on Tensors; hence arrays come in as inputs only (``attributes`` are numbers, shapes
    and the like), and nothing is done in place.

    Examples
    --------
    >>> class Cube(Function):
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x * x * x
    ...
    ...     def backward(self, dy):
    ...         return dy * 3 * self.x * self.x
    >>> y = Cube.apply(x)
    """

    view: ClassVar[bool] = False
    """Whether the output may share the memory of the first input."""
    broadcasts: ClassVar[bool] = False
    """Whether inputs broadcast: the chain rule then sums their gradients back to their shapes."""
    auxiliary: ClassVar[bool] = False
    """Whether forward returns a tuple of which only the first has a gradient; the rest are plain
    tensors.
    """

    backend: Backend
    origin: Backend | None = None
    """Whose arrays the inputs are, where those of the outputs are another's."""
    xp: Any
    inputs: tuple[Any, ...] | None = None
    attributes: dict[str, Any]
    needs: Sequence[bool]
    """Which inputs want a gradient: backward may return None for the others."""
    born: int = 0
    """When it was recorded; 0 when it is not any more."""
    stamps: tuple[Stamp, ...] = ()
    outputs: tuple[tuple[tuple[int, ...], Any], ...] | None = None
    """Shape and dtype of each output where forward returned a tuple; None for a single one."""
    hooks: list[tuple[int, Any]] | None = None
    trace: str = ""

    def forward(self, *arrays: Any, **attributes: Any) -> Any:
        """The outputs (an array, or a tuple of arrays) from the inputs' arrays; numbers come as
        they are.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *dy: Any) -> Any:
        """The gradients of the inputs, one each or None, from the gradients of the outputs."""
        raise GradientError(f"{type(self).__name__} has no gradient")

    @classmethod
    def apply(cls, *inputs: Any, **attributes: Any) -> Any:
        """Run the operation on tensors and numbers, and record it where a gradient is wanted.

        Raises
        ------
        BackendError
            If the tensors are on different devices.
        DtypeError
            If an input is neither a tensor nor a number.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Variable):  # most often, and worth a path
            only = inputs[0]
            backend, arrays = only.backend, (only.array,)
            needs: tuple[bool, ...] = (only.requires_grad,)
        else:
            backend, arrays, needs = cls.arrays_of(inputs)
        node = cls()
        node.backend, node.xp = backend, backend.xp
        tracked = True in needs and recording()
        node.needs = needs if tracked else (False,) * len(needs)
        if backend.guard is not None:
            with backend.guard:
                result = node.forward(*arrays, **attributes)
        else:
            result = node.forward(*arrays, **attributes)
        if tracked:
            node.inputs, node.attributes, node.born = inputs, attributes, clock()
            if hunting():
                node.trace = where.get() + "".join(traceback.format_stack(limit=12)[:-1])
        if result.__class__ is tuple or node.backend is not backend:
            return node.wrapped(inputs[0], result, tracked)
        out = new(Variable.tensor_class)  # what `made` does, without a call
        out.array = result if result.__class__ is backend.array_type else backend.asarray(result)
        out.backend = backend
        if tracked:
            out.creator, out.requires_grad = node, True
        if cls.view:
            out._stamp = inputs[0].stamp
        return out

    def made(self, array: Array, tracked: bool) -> Any:
        """A tensor around a single output, or the first."""
        out, backend = new(Variable.tensor_class), self.backend
        out.array = array if array.__class__ is backend.array_type else backend.asarray(array)
        out.backend = backend
        if tracked:
            out.creator, out.requires_grad = self, True
        return out

    @classmethod
    def arrays_of(
        cls, inputs: tuple[Any, ...]
    ) -> tuple[Backend, tuple[Any, ...], tuple[bool, ...]]:
        """The backend of the inputs, their arrays or numbers, and whether they want a gradient."""
        if len(inputs) == 2:
            a, b = inputs
            if isinstance(a, Variable) and isinstance(b, Variable) and a.backend is b.backend:
                return a.backend, (a.array, b.array), (a.requires_grad, b.requires_grad)
        elif len(inputs) == 3:  # as linear layers and norms have
            a, b, c = inputs
            if isinstance(a, Variable) and isinstance(b, Variable) and isinstance(c, Variable):
                backend = a.backend
                if b.backend is backend and c.backend is backend:
                    needs = a.requires_grad, b.requires_grad, c.requires_grad
                    return backend, (a.array, b.array, c.array), needs
        return cls.arrays_and_numbers(inputs)

    @classmethod
    def arrays_and_numbers(
        cls, inputs: tuple[Any, ...]
    ) -> tuple[Backend, tuple[Any, ...], tuple[bool, ...]]:
        """The same with numbers and None among them."""
        backend = None
        arrays: list[Any] = []
        needs: list[bool] = []
        for x in inputs:
            if isinstance(x, Variable):
                if backend is None:
                    backend = x.backend
                elif x.backend is not backend:
                    raise BackendError(
                        f"expected all inputs of {cls.__name__} on {backend.device}, "
                        f"got one on {x.backend.device}"
                    )
                arrays.append(x.array)
                needs.append(x.requires_grad)
            elif isinstance(x, (int, float)) or x is None:
                arrays.append(x)
                needs.append(False)
            else:
                raise DtypeError(
                    f"{cls.__name__} expected tensors and numbers, got {type(x).__name__}"
                )
        if backend is None:
            raise DtypeError(f"{cls.__name__} expected at least one tensor")
        return backend, tuple(arrays), tuple(needs)

    def wrapped(self, source: Any, results: Any, tracked: bool) -> Any:
        """Tensors around several outputs, or around one on the device that it was moved to.

        Those of integers and booleans have no gradient, nor have auxiliary ones.
        """
        if self.auxiliary:
            return tuple(self.made(x, tracked and not i) for i, x in enumerate(results))
        tensors = []
        for position, result in enumerate(results if isinstance(results, tuple) else (results,)):
            out = Variable.tensor_class.wrap(self.backend.asarray(result), self.backend)
            if tracked and out.array.dtype.kind in "fV":
                out.creator, out.requires_grad, out.output = self, True, position
            if self.view:
                out.share(source)
            tensors.append(out)
        if not isinstance(results, tuple):
            return tensors[0]
        if tracked:
            self.outputs = tuple((t.array.shape, t.array.dtype) for t in tensors)
        return tuple(tensors)

    @property
    def name(self) -> str:
        """What the operation is called in messages."""
        return type(self).__name__

    def intact(self) -> bool:
        """Whether no memory of its inputs and outputs was overwritten since."""
        born = self.born
        for x in self.inputs or ():
            if isinstance(x, Variable) and x._stamp is not None and x._stamp.written > born:
                return False
        return all(stamp.written <= born for stamp in self.stamps)

    def require_intact(self) -> None:
        """Refuse if what this node kept was freed, or overwritten in place since.

        Raises
        ------
        GradientError
            In either case: the gradient would not exist, or would be wrong.
        """
        if self.inputs is None:
            self.freed()
        if LAST_WRITE[0] < self.born or self.intact():
            return
        for x in self.inputs or ():
            if isinstance(x, Variable) and x._stamp is not None and x._stamp.written > self.born:
                self.refuse_if_kept(x.array, "input")
        for stamp in self.stamps:
            if stamp.written > self.born:
                self.refuse_if_kept(stamp.array, "output")

    def freed(self) -> NoReturn:
        """Refuse to walk a graph again of which nothing is left."""
        raise GradientError(
            f"the graph of {self.name} was freed by an earlier backward; "
            "pass retain_graph=True to that one"
        )

    def refuse_if_kept(self, array: Array, role: str) -> None:
        """Raise if backward would read the memory of ``array``, which has changed."""
        native = self.backend.array_type
        for kept in self.__dict__.values():
            for value in kept if isinstance(kept, tuple) else (kept,):
                if isinstance(value, native) and self.backend.overlap(value, array):
                    raise GradientError(
                        f"{self.name} needs its {role} of shape {array.shape} for the gradient, "
                        "but it was changed in place after the operation"
                    )
