"""The second interpreter of an operation's two methods: Tensors in the place of arrays."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Backend
from tinygrad_bn.errors import GradientError

interpreters: list[Callable[[Backend], Backend]] = []
"""The differentiable interpreter, appended by `tinygrad_bn.ops.differentiable`: a backend whose
arrays are Tensors.
"""


def replay(node: Function) -> Function:
    """The node again, on Tensors: everything its forward keeps has a history, so its backward has
    one too.
    """
    node.require_intact()
    for x in node.inputs or ():
        if isinstance(x, Variable) and x._stamp is not None and x._stamp.written > node.born:
            raise GradientError(
                f"{node.name} needs its input of shape {x.array.shape} for a gradient of higher "
                "order, but it was changed in place after the operation"
            )
    twin = type(node)()
    twin.backend = interpreters[0](node.backend)
    twin.xp = twin.backend.xp
    twin.needs = node.needs
    twin.outputs = node.outputs
    twin.forward(*(node.inputs or ()), **node.attributes)
    return twin
