"""The chain rule: the walk from outputs to leaves, for gradients of any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

from tinygrad_bn import config
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.interpreters import interpreters, replay
from tinygrad_bn.autograd.variable import Stamp, Variable
from tinygrad_bn.backend import Backend, current
from tinygrad_bn.errors import DtypeError, GradientError, ShapeError

Key: TypeAlias = tuple[Any, int]
"""Which value a gradient is of: (its creator, which output), or (the leaf itself, 0)."""


def key_of(x: Variable) -> Key:
    return (x, 0) if x.creator is None else (x.creator, x.output)


def collect(roots: Iterable[Variable]) -> list[Function]:
    """Every node that the roots depend on, the youngest first: a node is younger than what it was
    made from.
    """
    nodes: set[Function] = set()
    stack = [root.creator for root in roots if root.creator is not None]
    while stack:
        node = stack.pop()
        if node in nodes:
            continue
        nodes.add(node)
        if node.inputs is None:
            node.require_intact()
        for x, needed in zip(node.inputs or (), node.needs, strict=True):
            if needed and x.creator is not None and x.creator not in nodes:
                stack.append(x.creator)
    return sorted(nodes, key=attrgetter("born"), reverse=True)


def leading_to(targets: set[Key], nodes: list[Function]) -> set[Function]:
    """Those of ``nodes`` through which a target is reached."""
    useful: set[Function] = set()
    for node in reversed(nodes):
        for x, needed in zip(node.inputs or (), node.needs, strict=True):
            if needed and (x.creator in useful or key_of(x) in targets):
                useful.add(node)
                break
    return useful


def chain_rule(
    roots: Sequence[Variable],
    grads: Sequence[Any],
    *,
    targets: Sequence[Variable] | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> dict[Key, tuple[Variable, Any]]:
    """Gradients of the leaves, or of the targets, by their key.

    ``grads`` are the gradients of the roots: arrays, or Tensors with ``create_graph``; so is what
    comes back.
    """
    nodes = collect(roots)
    found: dict[Key, tuple[Variable, Any]] = {}
    wanted = None if targets is None else {key_of(t): t for t in targets}
    useful = None if wanted is None else leading_to(set(wanted), nodes)
    pending: dict[Function, Any] = {}  # a gradient each; a list where a node has several outputs
    plain = not create_graph and not config.anomaly_mode.get()
    for root, grad in zip(roots, grads, strict=True):
        send(root, grad, pending, found, wanted)
    for node in nodes:
        dy = pending.pop(node, None)
        if dy is None:
            continue
        if node.outputs is not None or node.hooks is not None:
            dy = complete(node, dy, create_graph)
        if wanted is not None:
            for position, grad in enumerate((dy,) if node.outputs is None else dy):
                if (target := wanted.get((node, position))) is not None:
                    found[node, position] = (target, grad)
        if useful is None or node in useful:
            if plain and Stamp.latest < node.born and node.backend.guard is None:
                dxs = node.backward(dy) if node.outputs is None else node.backward(*dy)
            else:
                dxs = differentiate(node, dy, create_graph)
            distribute(node, dxs if dxs.__class__ is tuple else (dxs,), pending, found, wanted)
            if not retain_graph:
                node.release()
    return found


def distribute(
    node: Function,
    dxs: tuple[Any, ...],
    pending: dict[Function, Any],
    found: dict[Key, tuple[Variable, Any]],
    wanted: dict[Key, Variable] | None,
) -> None:
    """Add the gradients of a node's inputs to what is known of them."""
    needs = node.needs
    if len(dxs) != len(needs):
        raise GradientError(
            f"expected {len(needs)} gradients from {node.name}.backward, got {len(dxs)}"
        )
    for x, needed, dx in zip(node.inputs or (), needs, dxs):  # noqa: B905  (of one length, and hot)
        if needed and dx is not None:
            try:
                if dx.shape != x.array.shape or dx.dtype is not x.array.dtype:
                    dx = fitted(node, x, dx)
            except AttributeError:
                raise GradientError(
                    f"expected arrays from {node.name}.backward, got {type(dx).__name__}"
                ) from None
            creator = x.creator
            if creator is None or creator.outputs is not None:
                send(x, dx, pending, found, wanted)
            elif creator in pending:
                pending[creator] = pending[creator] + dx
            else:
                pending[creator] = dx


def send(
    x: Variable,
    grad: Any,
    pending: dict[Function, Any],
    found: dict[Key, tuple[Variable, Any]],
    wanted: dict[Key, Variable] | None,
) -> None:
    """Add a gradient to what is known of the gradient of ``x``."""
    creator = x.creator
    if creator is None:
        key = (x, 0)
        if wanted is None or key in wanted:
            known = found.get(key)
            found[key] = (x, grad if known is None else known[1] + grad)
    elif creator.outputs is None:
        pending[creator] = pending[creator] + grad if creator in pending else grad
    else:
        dy = pending.setdefault(creator, [None] * len(creator.outputs))
        dy[x.output] = grad if dy[x.output] is None else dy[x.output] + grad


def complete(node: Function, dy: Any, as_tensors: bool) -> Any:
    """The gradients of the node's outputs, after their hooks; zeros for those nothing used."""
    parts = [dy] if node.outputs is None else dy
    for position, hook in list(node.hooks or ()):
        if parts[position] is not None:
            parts[position] = hooked(hook, parts[position], node.backend)
    if node.outputs is None:
        return parts[0]
    for position, (shape, dtype) in enumerate(node.outputs):
        if parts[position] is None:
            zeros = node.backend.xp.zeros(shape, dtype=dtype)
            parts[position] = (
                Variable.tensor_class.wrap(zeros, node.backend) if as_tensors else zeros
            )
    return parts


def hooked(hook: Callable[[Any], Any], grad: Any, backend: Backend) -> Any:
    """The gradient as ``hook`` leaves it: what it returns, or the same where it returns None."""
    as_tensor = grad if isinstance(grad, Variable) else Variable.tensor_class.wrap(grad, backend)
    result = hook(as_tensor)
    if result is None:
        return grad
    array = as_tensor.array
    if (
        not isinstance(result, Variable)
        or result.array.shape != array.shape
        or result.array.dtype != array.dtype
    ):
        raise GradientError(
            f"expected a hook to return None or a gradient of {array.dtype} {array.shape}, "
            f"got {getattr(result, 'array', result)!r}"
        )
    return result if isinstance(grad, Variable) else result.array


def differentiate(node: Function, dy: Any, create_graph: bool) -> Any:
    """What the node's backward gives, where there is more to it than calling it."""
    several = node.outputs is not None
    if create_graph:
        node = replay(node)
    else:
        node.require_intact()
    if node.backend.guard is None:
        dx = node.backward(*dy) if several else node.backward(dy)
    else:  # a walk may pass through several devices
        with node.backend.guard:
            dx = node.backward(*dy) if several else node.backward(dy)
    if config.anomaly_mode.get():
        refuse_nan(node, dx if dx.__class__ is tuple else (dx,))
    return dx


def refuse_nan(node: Function, dx: tuple[Any, ...]) -> None:
    for position, grad in enumerate(dx):
        if grad is not None:
            array = grad.array if isinstance(grad, Variable) else grad
            if bool(node.backend.xp.any(node.backend.xp.isnan(array))):
                raise GradientError(
                    f"{node.name} made NaN as the gradient of input {position}. {node.trace}"
                )


def fitted(node: Function, x: Variable, dx: Any) -> Any:
    """The gradient in the shape and dtype of what it is a gradient of."""
    shape, dtype = x.array.shape, x.array.dtype
    xp = interpreters[0](x.backend).xp if isinstance(dx, Variable) else x.backend.xp
    if dx.shape != shape and not node.broadcasts:
        raise ShapeError(f"expected {node.name}.backward to give shape {shape}, got {dx.shape}")
    dx = unbroadcast(xp, dx, shape)
    return dx if dx.dtype == dtype else xp.astype(dx, dtype)


def unbroadcast(xp: Any, grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the axes that broadcasting added or stretched."""
    if grad.shape == shape:
        return grad
    extra = len(grad.shape) - len(shape)
    stretched = (i + extra for i, n in enumerate(shape) if n == 1 and grad.shape[i + extra] != 1)
    return xp.reshape(xp.sum(grad, axis=(*range(extra), *stretched)), shape)


def seeds(roots: Sequence[Variable], grads: Sequence[Any] | None, as_tensors: bool) -> list[Any]:
    """What the walk starts from: the given gradients, or ones for scalars."""
    if grads is not None and len(grads) != len(roots):
        raise GradientError(f"expected {len(roots)} gradients of outputs, got {len(grads)}")
    found: list[Any] = []
    for root, grad in zip(roots, grads or [None] * len(roots), strict=True):
        if not root.requires_grad:
            raise GradientError(
                "expected an output that requires a gradient, got one that no graph leads to"
            )
        if grad is None:
            if root.array.size != 1:
                raise GradientError(
                    f"expected a scalar, or its gradient given, got shape {root.array.shape}"
                )
            ones = root.backend.xp.ones(root.array.shape, dtype=root.array.dtype)
            grad = Variable.tensor_class.wrap(ones, root.backend)
        if not isinstance(grad, Variable):
            raise GradientError(
                f"expected the gradient of an output as a tensor, got {type(grad).__name__}"
            )
        if grad.backend is not root.backend or grad.array.shape != root.array.shape:
            raise GradientError(
                f"expected a gradient of shape {root.array.shape} on {root.backend.device}, "
                f"got {grad.array.shape} on {grad.backend.device}"
            )
        if grad.array.dtype != root.array.dtype:
            raise GradientError(
                f"expected a gradient of {root.array.dtype}, got {grad.array.dtype}"
            )
        found.append(grad if as_tensors else grad.array)
    return found


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
    with (
        config.set_grad_enabled(create_graph),
        config.without_autocast(),
        current(roots[0].backend),
    ):
        start = seeds(roots, given, create_graph)
        found = chain_rule(
            roots,
            start,
            targets=targets,
            retain_graph=create_graph if retain_graph is None else retain_graph,
            create_graph=create_graph,
        )
        for x, grad in found.values():
            for hook in x._hooks or () if x.creator is None else ():
                grad = hooked(hook, grad, x.backend)
            x.accumulate(grad)
            for after in x._after or () if x.creator is None else ():
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
    with (
        config.set_grad_enabled(create_graph),
        config.without_autocast(),
        current(roots[0].backend),
    ):
        start = seeds(roots, given, create_graph)
        found = chain_rule(
            roots,
            start,
            targets=targets,
            retain_graph=create_graph if retain_graph is None else retain_graph,
            create_graph=create_graph,
        )
        results: list[Any] = []
        for position, target in enumerate(targets):
            known = found.get(key_of(target))
            if known is not None:
                value = known[1]
                if target.creator is None:
                    for hook in target._hooks or ():
                        value = hooked(hook, value, target.backend)
                if not isinstance(value, Variable):
                    value = target.wrap_like(target.backend.copy(value))
                results.append(value)
            elif materialize_grads:
                zeros = target.backend.xp.zeros(target.array.shape, dtype=target.array.dtype)
                results.append(target.wrap_like(zeros))
            elif allow_unused:
                results.append(None)
            else:
                raise GradientError(
                    f"expected every input to be used by the outputs, but input {position} is not; "
                    "allow_unused=True gives None for it"
                )
    return tuple(results)


def as_sequence(tensors: Any) -> Sequence[Any]:
    """One tensor, or several, as a sequence."""
    return (tensors,) if isinstance(tensors, Variable) else tuple(tensors)


def variables(tensors: Any, what: str) -> Sequence[Any]:
    """As `as_sequence`; refused if it is empty, or something in it is no tensor."""
    found = as_sequence(tensors) if isinstance(tensors, (Variable, Iterable)) else (tensors,)
    for x in found:
        if not isinstance(x, Variable):
            raise DtypeError(f"expected tensors as {what}, got {type(x).__name__}")
    if not found:
        raise GradientError(f"expected at least one tensor as {what}, got none")
    return found
