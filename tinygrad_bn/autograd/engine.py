"""The chain rule as users call it: gradients accumulated, or given back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.autograd.endpoints import as_sequence, seeds, variables
from tinygrad_bn.autograd.function import new
from tinygrad_bn.autograd.ownership import taken
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.autograd.walk import Key, Walk, hooked, key_of
from tinygrad_bn.backend import current
from tinygrad_bn.errors import GradientError


def backward(
    tensors: Variable | Sequence[Variable],
    grad_tensors: Variable | Sequence[Variable | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Variable | Sequence[Variable] | None = None,
) -> None:
    """Accumulate d(tensors)/d(leaf) into ``leaf.grad`` for every leaf that requires it.

    Parameters
    ----------
    tensors : the outputs; scalars, unless ``grad_tensors`` is given.
    grad_tensors : the gradients to start from, of the outputs' shapes.
    retain_graph : keep what the graph holds, for another walk; as ``create_graph`` by default.
    create_graph : make the gradients differentiable themselves.
    inputs : accumulate into these only.

    Raises
    ------
    GradientError
        If no graph leads to an output, or the graph was freed or overwritten.
    """
    roots = variables(tensors, "outputs")
    given = None if grad_tensors is None else as_sequence(grad_tensors)
    targets = None if inputs is None else variables(inputs, "inputs")
    retain_graph = create_graph if retain_graph is None else retain_graph
    walk = Walk(roots, targets, retain_graph, create_graph, keeping=True)
    with walk:
        found = walk.run(seeds(roots, given, create_graph))
        if walk.keeping and targets is None:
            keep_in_slots(found)
        for key in [*found]:
            keep(walk.tensor(key), found, key)


def keep_in_slots(found: dict[Any, Any]) -> None:
    """Keep the first gradients of leaves that have a slot, and leave the others in ``found``."""
    kind, others = Variable.tensor_class, {}
    for x, dx in found.items():
        slot, backend = x.slot, x.backend
        if slot is None or x._grad is not None or x._hooks or x._after:
            others[x] = dx
            continue
        if dx is not slot:
            backend.store(slot, dx)
        x._grad = grad = new(kind)
        grad.array, grad.backend = slot, backend
    found.clear()
    found.update(others)


def keep(x: Variable, found: dict[Key, Any], key: Key) -> None:
    """Add what was found, under a key, to the gradient of its tensor."""
    leaf = x.creator is None
    for hook in (leaf and x._hooks) or ():
        found[key] = hooked(hook, found[key], x.backend)
    if x._grad is None and x.slot is None and not isinstance(found[key], Variable):
        x._grad = x.wrap_like(taken([found.pop(key)], x.backend))
    else:
        x.accumulate(found[key])
    for after in (leaf and x._after) or ():
        after(x)


def grad(
    outputs: Variable | Sequence[Variable],
    inputs: Variable | Sequence[Variable],
    grad_outputs: Variable | Sequence[Variable | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``; ``.grad`` of nothing is touched.

    Parameters
    ----------
    outputs, grad_outputs, retain_graph, create_graph : as in `backward`.
    inputs : leaves, or results of operations, that require a gradient.
    allow_unused : give None for an input that no output depends on, instead of an error.
    materialize_grads : give zeros there instead.

    Returns
    -------
    One tensor for each input, of its shape.

    Raises
    ------
    GradientError
        As `backward`, and for an unused input that is not allowed.
    """
    roots, targets = variables(outputs, "outputs"), variables(inputs, "inputs")
    given = None if grad_outputs is None else as_sequence(grad_outputs)
    for target in targets:
        if not target.requires_grad:
            raise GradientError("expected inputs that require a gradient, got one that does not")
    retain_graph = create_graph if retain_graph is None else retain_graph
    walk = Walk(roots, targets, retain_graph, create_graph)
    with walk:
        found = walk.run(seeds(roots, given, create_graph))
        keys = [key_of(target) for target in targets]
        repeated = len({*keys}) < len(keys)
        results: list[Any] = []
        for position, (target, key) in enumerate(zip(targets, keys, strict=True)):
            if key in found:
                results.append(given_back(target, [found[key] if repeated else found.pop(key)]))
            elif materialize_grads:
                with current(target.backend):
                    zeros = target.backend.xp.zeros_like(target.array)
                results.append(target.wrap_like(zeros))
            elif allow_unused:
                results.append(None)
            else:
                raise GradientError(
                    f"expected every input to be used by the outputs, but input {position} is not; "
                    "allow_unused=True gives None for it"
                )
    return tuple(results)


def given_back(x: Variable, held: list[Any]) -> Any:
    """The gradient that a list holds as a tensor of the caller's own, after the hooks of ``x``."""
    for hook in (x.creator is None and x._hooks) or ():
        held[0] = hooked(hook, held[0], x.backend)
    return held[0] if isinstance(held[0], Variable) else x.wrap_like(taken(held, x.backend))
