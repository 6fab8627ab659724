"""JAX: the whole step under one `jit`, which may overwrite the state that it is given."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import jax
import numpy as np
from cases import OPTIMIZERS, Arrays, Case
from jax import numpy as jnp

jax.config.update("jax_cpu_enable_async_dispatch", False)  # the quicker one on one core

EPS, MOMENTUM = 1e-5, 0.1
Tree = dict[str, Any]


def forward(params: Tree, running: Tree, x: Any, train: bool) -> tuple[Any, Tree]:
    """Scores, and the running statistics after them. Weights are (in, out): products need no
    transposition.
    """
    layers = sum(name.endswith("weight") and p.ndim == 2 for name, p in params.items())
    moved: Tree = {}
    for i in range(layers):
        z = x @ params[f"{3 * i}.weight"] + params[f"{3 * i}.bias"]
        if i == layers - 1:
            return z, moved
        norm = f"{3 * i + 1}"
        if f"{norm}.weight" in params:
            z = normalized(params, running, moved, norm, z, train)
        x = jax.nn.relu(z)
    raise AssertionError("a network has a layer")


def normalized(params: Tree, running: Tree, moved: Tree, norm: str, z: Any, train: bool) -> Any:
    mean, var = running[f"{norm}.running_mean"], running[f"{norm}.running_var"]
    if train:
        n = z.shape[0]
        batch_mean = z.mean(0)
        batch_var = jnp.square(z - batch_mean).mean(0)
        moved[f"{norm}.running_mean"] = (1 - MOMENTUM) * mean + MOMENTUM * batch_mean
        moved[f"{norm}.running_var"] = (1 - MOMENTUM) * var + MOMENTUM * n / (n - 1) * batch_var
        mean, var = batch_mean, batch_var
    scale = jax.lax.rsqrt(var + EPS) * params[f"{norm}.weight"]
    return (z - mean) * scale + params[f"{norm}.bias"]


def loss_of(params: Tree, running: Tree, x: Any, y: Any) -> tuple[Any, Tree]:
    scores, running = forward(params, running, x, True)
    logs = jax.nn.log_softmax(scores)
    return -jnp.take_along_axis(logs, y[:, None], axis=1).mean(), running


def adam(params: Tree, grads: Tree, state: tuple[Any, ...], rate: Any) -> tuple[Tree, Any]:
    m, v, t = state
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    size, root = rate / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
    params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + 1e-8), params, m, v)
    return params, (m, v, t)


def sgd(params: Tree, grads: Tree, state: tuple[Any, ...], rate: Any) -> tuple[Tree, Any]:
    momentum = OPTIMIZERS["sgd"]["momentum"]
    velocity = jax.tree.map(lambda u, g: momentum * u + g, state[0], grads)
    return jax.tree.map(lambda p, u: p - rate * u, params, velocity), (velocity,)


UPDATES = {"adam": adam, "sgd": sgd}


def step_of(optimizer: str) -> Callable[..., Any]:
    """The whole step: state and batch to state and loss."""

    def step(state: Any, rate: Any, x: Any, y: Any) -> Any:
        params, running, buffers = state
        (loss, running), grads = jax.value_and_grad(loss_of, has_aux=True)(params, running, x, y)
        params, buffers = UPDATES[optimizer](params, grads, buffers, rate)
        return (params, running, buffers), loss

    return jax.jit(step, donate_argnums=0)


def parameters(case: Case, dtype: Any) -> tuple[Tree, Tree]:
    """What all start from: parameters, with matrices as (in, out), and running statistics."""
    params: Tree = {}
    running: Tree = {}
    for name, x in case.weights().items():
        tree = running if "running" in name else params
        tree[name] = jnp.asarray(x.T, dtype)
    return params, running


class Training:
    """A model's parameters, its optimizer's buffers and its batches."""

    def __init__(self, case: Case, optimizer: str, dtype: str) -> None:
        params, running = parameters(case, dtype)
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
        buffers = (*zeros, jnp.zeros((), dtype)) if optimizer == "adam" else (zeros[0],)
        self._state = (params, running, buffers)
        self._rate = jnp.asarray(1e-3, dtype)
        self.batches = cycle(
            [(jnp.asarray(x, dtype), jnp.asarray(y, jnp.int32)) for x, y in case.batches()]
        )
        self._step = step_of(optimizer)

    def step(self) -> Any:
        self._state, loss = self._step(self._state, self._rate, *next(self.batches))
        return loss.block_until_ready()

    def learn(self, rate: float) -> None:
        self._rate = jnp.asarray(rate, self._rate.dtype)

    def state(self) -> Arrays:
        params, running, _ = self._state
        return {name: np.array(x).T for name, x in {**params, **running}.items()}


def training(name: str, how: str, case: Case, optimizer: str, dtype: str) -> Training:
    """A training whose whole step is compiled."""
    if dtype == "float64":
        with jax.enable_x64(True):
            return Exact(case, optimizer, dtype)
    return Training(case, optimizer, dtype)


class Exact(Training):
    """A training in float64, which JAX has to be asked for at every step."""

    def step(self) -> Any:
        with jax.enable_x64(True):
            return super().step()

    def learn(self, rate: float) -> None:
        with jax.enable_x64(True):
            super().learn(rate)


def inference(name: str, how: str, case: Case) -> Callable[[], Any]:
    """The model's scores of the next batch."""
    params, running = parameters(case, "float32")
    if "folded" in how:
        params = folded(params, running)
    run = jax.jit(lambda params, running, x: forward(params, running, x, False)[0])
    following = cycle([jnp.asarray(x, jnp.float32) for x, _ in case.batches()])
    return lambda: run(params, running, next(following)).block_until_ready()


def folded(params: Tree, running: Tree) -> Tree:
    """The parameters with batch norms in the layers before them."""
    found = dict(params)
    for name in [name for name in running if name.endswith("running_mean")]:
        norm = name.partition(".")[0]
        layer = str(int(norm) - 1)
        gain = found.pop(f"{norm}.weight") / jnp.sqrt(running[f"{norm}.running_var"] + EPS)
        shift = found.pop(f"{norm}.bias") - running[name] * gain
        found[f"{layer}.weight"] = found[f"{layer}.weight"] * gain
        found[f"{layer}.bias"] = found[f"{layer}.bias"] * gain + shift
    return found
