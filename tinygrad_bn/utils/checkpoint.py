"""Less memory for more arithmetic: a part of a network that is computed again when its gradient is
wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_bn import config
from tinygrad_bn.autograd.endpoints import as_sequence
from tinygrad_bn.autograd.engine import grad
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.autograd.walk import collect
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError, GradientError
from tinygrad_bn.philox import generator_on
from tinygrad_bn.tensors import Tensor


class Segment:
    """A call that can be made again: function, arguments, and the random numbers it drew."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        preserve: bool,
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.positions = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        self.generator = generator_on(args[self.positions[0]].backend) if preserve else None
        self.place = self.generator.place() if self.generator is not None else None
        self.recording = config.Recording()
        self.region = config.autocasting.get()

    def run(self, tensors: Sequence[Any]) -> Any:
        """Call the function with other tensors for its tensor arguments."""
        args = list(self.args)
        for i, x in zip(self.positions, tensors, strict=True):
            args[i] = x
        token = config.recording.set(self.recording)
        try:
            return self.function(*args, **self.kwargs)
        finally:
            config.recording.reset(token)

    def rerun(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Call it as it was called before: the same random numbers, running statistics and dtypes,
        and no step counted.
        """
        self.recording.rewind()
        token = config.recomputing.set(True)
        region = None if self.region is None else self.region.anew()  # casts have graphs to free
        outside = config.autocasting.set(region)
        present = self.generator.place() if self.generator is not None else None
        try:
            if self.generator is not None:
                self.generator.go_to(self.place)
            with config.enable_grad():
                return tuple(as_sequence(self.run(tensors)))
        finally:
            config.autocasting.reset(outside)
            config.recomputing.reset(token)
            if self.generator is not None:
                self.generator.go_to(present)


def leaves_of(tensors: Sequence[Any]) -> list[Any]:
    """The leaves that a gradient of the tensors would reach."""
    found: dict[int, Any] = {}
    for node in collect(tensors):
        for x, needed in zip(node.inputs or (), node.needs, strict=True):
            if needed and x.creator is None:
                found[id(x)] = x
    return list(found.values())


class Recompute(Function):
    """The outputs of a segment, without the graph that made them; its inputs are all leaves of that
    graph.
    """

    def forward(self, *inputs: Array, segment: Segment, outputs: list[Array]) -> tuple[Array, ...]:
        count = len(segment.positions)
        if isinstance(
            inputs[0], Variable
        ):  # a gradient is differentiated: the segment's own graph serves
            self.leaves = inputs
            self.results = segment.rerun(inputs[:count])
            return self.results
        self.segment = segment
        given = tuple(outputs)
        outputs.clear()  # whoever asked for them has them; the node keeps nothing
        return given

    def backward(self, *dy: Any) -> tuple[Any, ...]:
        if isinstance(dy[0], Variable):
            return self.pulled(self.results, self.leaves, dy, create_graph=True)
        count = len(self.segment.positions)
        inputs = self.inputs or ()
        fresh = [x.detach().requires_grad_(x.requires_grad) for x in inputs[:count]]
        results = self.segment.rerun(fresh)
        wrapped = [Tensor.wrap(g, self.backend) for g in dy]
        grads = self.pulled(results, (*fresh, *inputs[count:]), wrapped, create_graph=False)
        return tuple(None if g is None else g.array for g in grads)

    def pulled(
        self, results: Sequence[Any], leaves: Sequence[Any], dy: Sequence[Any], create_graph: bool
    ) -> tuple[Any, ...]:
        """The gradients of the leaves that want one, None for the others."""
        wanted = [x for x, needed in zip(leaves, self.needs, strict=True) if needed]
        pairs = [(y, g) for y, g in zip(results, dy, strict=True) if y.requires_grad]
        if not pairs:
            raise GradientError("expected the recomputed function to give the same outputs again")
        grads = iter(
            grad(
                [y for y, _ in pairs],
                wanted,
                [g for _, g in pairs],
                create_graph=create_graph,
                allow_unused=True,
            )
        )
        return tuple(next(grads) if needed else None for needed in self.needs)


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Call ``function``, forget its graph, and compute it again when the gradient is wanted.

    Parameters
    ----------
    function : takes ``args`` and ``kwargs``; returns a tensor or a tuple of tensors. Parameters of
        modules that it uses get their gradients too.
    use_reentrant : PyTorch's switch between two implementations; there is one here, and either
        value is accepted.
    preserve_rng_state : draw the same random numbers (dropout's) the second time.

    Notes
    -----
    Gradients of every order pass through. Running statistics advance once, not again in the second
    computation.

    References
    ----------
    Chen, Xu, Zhang and Guestrin 2016, arXiv:1604.06174.
    """
    if not config.grad_mode.get():
        return function(*args, **kwargs)
    tensors = [x for x in args if isinstance(x, Tensor)]
    if not tensors:
        raise ArgumentError("expected at least one tensor among the arguments of the function")
    segment = Segment(function, args, kwargs, preserve_rng_state)
    inner = [x.detach().requires_grad_(x.requires_grad) for x in tensors]
    result = segment.run(inner)
    outputs = as_sequence(result)
    if not any(y.requires_grad for y in outputs):
        return result
    own = {id(x) for x in inner}
    parameters = [x for x in leaves_of(outputs) if id(x) not in own]
    recorded = Recompute.apply(
        *tensors, *parameters, segment=segment, outputs=[y.array for y in outputs]
    )
    return recorded[0] if isinstance(result, Variable) else recorded
