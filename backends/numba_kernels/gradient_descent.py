"""Optimizers that step along the gradient or a running mean of it, and are scaled by nothing else.

Each rule is its kernel point's body, element by element; see `flat.py`.
"""

from __future__ import annotations

from typing import Any

from .flat import average, exact, in_place, norm, with_l2


@exact
def sgd(param: Any, grad: Any, lr: Any, weight_decay: Any) -> None:
    to = param.dtype.type
    lr = lr[()]
    rate = to(lr)
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        param[i] = p - rate * g


@exact
def momentum(
    param: Any,
    grad: Any,
    momentum_buffer: Any,
    updates: Any,
    lr: Any,
    mu: Any,
    dampening: Any,
    weight_decay: Any,
    nesterov: Any,
) -> None:
    to = param.dtype.type
    updates, lr, mu, dampening = updates[()], lr[()], mu[()], dampening[()]
    rate, kept = to(lr), to(mu)
    share = to(1 - dampening if updates > 1 else 1.0)
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        velocity = average(momentum_buffer[i], g, kept, share)
        momentum_buffer[i] = velocity
        param[i] = p - rate * (g + kept * velocity if nesterov else velocity)


@exact
def lion(
    param: Any, grad: Any, exp_avg: Any, lr: Any, beta1: Any, beta2: Any, weight_decay: Any
) -> None:
    to = param.dtype.type
    lr, beta1, beta2 = lr[()], beta1[()], beta2[()]
    rate, one = to(lr), to(1)
    b1, c1, b2, c2 = to(beta1), to(1 - beta1), to(beta2), to(1 - beta2)
    keep = None if weight_decay is None else to(1 - lr * weight_decay[()])
    for i in range(param.size):
        p, g, mean = param[i], grad[i], exp_avg[i]
        blend = average(mean, g, b1, c1)
        sign = one if blend > 0 else (-one if blend < 0 else blend)  # NaN is its own sign
        if keep is not None:
            p = keep * p
        param[i] = p - rate * sign
        exp_avg[i] = average(mean, g, b2, c2)


@exact
def schedule_free_sgd(
    param: Any, grad: Any, z: Any, lr: Any, weight: Any, beta: Any, weight_decay: Any
) -> None:
    to = param.dtype.type
    lr, weight, beta = lr[()], weight[()], beta[()]
    rate, w, rest, drift = to(lr), to(weight), to(1 - weight), to(1 - beta * (1 - weight))
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        y, target = param[i], z[i]
        step = rate * with_l2(grad[i], y, decay)
        param[i] = average(target, y, w, rest) - drift * step
        z[i] = target - step


@exact
def lars(
    param: Any,
    grad: Any,
    momentum_buffer: Any,
    lr: Any,
    mu: Any,
    weight_decay: Any,
    trust_coefficient: Any,
) -> None:
    to = param.dtype.type
    lr, mu, trust_coefficient = lr[()], mu[()], trust_coefficient[()]
    length, reach = norm(param), norm(grad)
    if weight_decay is not None:
        reach += weight_decay[()] * length
    trust = trust_coefficient * length / reach if length > 0 and reach > 0 else 1.0
    rate, kept = to(lr * trust), to(mu)
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        velocity = average(momentum_buffer[i], g, kept, rate)
        momentum_buffer[i] = velocity
        param[i] = p - velocity


KERNELS = {
    "sgd_update": in_place(sgd, slots=0),
    "momentum_update": in_place(momentum, slots=1),
    "lion_update": in_place(lion, slots=1),
    "schedule_free_sgd_update": in_place(schedule_free_sgd, slots=1),
    "lars_update": in_place(lars, slots=1),
}
