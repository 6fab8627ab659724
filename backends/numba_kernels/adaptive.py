"""Optimizers that divide the step by how large gradients lately were.

Each rule is its kernel point's body, element by element; see `flat.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compilation import plus
from .flat import average, exact, in_place, norm, with_decay, with_l2


@exact
def greater(a: Any, b: Any) -> Any:
    """The greater one; NaN if either is, as `numpy.maximum` has it."""
    return b if b > a or b != b else a


@exact
def adam(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    max_exp_avg_sq: Any,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
    decoupled: Any,
) -> None:
    to = param.dtype.type
    step, lr, beta1, beta2, eps = step[()], lr[()], beta1[()], beta2[()], eps[()]
    b1, c1, b2, c2 = to(beta1), to(1 - beta1), to(beta2), to(1 - beta2)
    correction = np.sqrt(1 - beta2**step)
    least, rate = to(eps * correction), to(lr * correction / (1 - beta1**step))
    decay = None if weight_decay is None else to(weight_decay[()])
    keep = None if weight_decay is None else to(1 - lr * weight_decay[()])
    for i in range(param.size):
        p, g = with_decay(param[i], grad[i], keep, decay, decoupled)
        mean = average(exp_avg[i], g, b1, c1)
        power = average(exp_avg_sq[i], g * g, b2, c2)
        exp_avg[i] = mean
        exp_avg_sq[i] = power
        if max_exp_avg_sq is not None:
            power = greater(max_exp_avg_sq[i], power)
            max_exp_avg_sq[i] = power
        param[i] = p - rate * (mean / (np.sqrt(power) + least))


@exact
def adamax(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_inf: Any,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
) -> None:
    to = param.dtype.type
    step, lr, beta1, beta2, eps = step[()], lr[()], beta1[()], beta2[()], eps[()]
    b1, c1, b2, least = to(beta1), to(1 - beta1), to(beta2), to(eps)
    rate = to(lr / (1 - beta1**step))
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        mean = average(exp_avg[i], g, b1, c1)
        height = greater(b2 * exp_inf[i], abs(g) + least)
        exp_avg[i] = mean
        exp_inf[i] = height
        param[i] = p - rate * (mean / height)


@exact
def nadam(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    step: Any,
    mu: Any,
    mu_next: Any,
    mu_product: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
    decoupled: Any,
) -> None:
    to = param.dtype.type
    mu, mu_next, mu_product = mu[()], mu_next[()], mu_product[()]
    step, lr, beta1, beta2, eps = step[()], lr[()], beta1[()], beta2[()], eps[()]
    b1, c1, b2, c2 = to(beta1), to(1 - beta1), to(beta2), to(1 - beta2)
    correction, least = to(1 - beta2**step), to(eps)
    now = to(lr * (1 - mu) / (1 - mu_product))
    ahead = to(lr * mu_next / (1 - mu_product * mu_next))
    decay = None if weight_decay is None else to(weight_decay[()])
    keep = None if weight_decay is None else to(1 - lr * weight_decay[()])
    for i in range(param.size):
        p, g = with_decay(param[i], grad[i], keep, decay, decoupled)
        mean = average(exp_avg[i], g, b1, c1)
        power = average(exp_avg_sq[i], g * g, b2, c2)
        exp_avg[i] = mean
        exp_avg_sq[i] = power
        param[i] = p - (now * g + ahead * mean) / (np.sqrt(power / correction) + least)


@exact
def radam(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
    decoupled: Any,
) -> None:
    to = param.dtype.type
    step, lr, beta1, beta2, eps = step[()], lr[()], beta1[()], beta2[()], eps[()]
    b1, c1, b2, c2 = to(beta1), to(1 - beta1), to(beta2), to(1 - beta2)
    correction, least = 1 - beta2**step, to(eps)
    rate = to(lr / (1 - beta1**step))
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    rectifier = to(
        np.sqrt(
            (length - 4)
            * (length - 2)
            * longest
            / ((longest - 4) * (longest - 2) * length)
            * correction
        )
    )
    rectified = length > 5
    decay = None if weight_decay is None else to(weight_decay[()])
    keep = None if weight_decay is None else to(1 - lr * weight_decay[()])
    for i in range(param.size):
        p, g = with_decay(param[i], grad[i], keep, decay, decoupled)
        mean = average(exp_avg[i], g, b1, c1)
        power = average(exp_avg_sq[i], g * g, b2, c2)
        exp_avg[i] = mean
        exp_avg_sq[i] = power
        step_now = rate * mean
        param[i] = p - (
            step_now * (rectifier / (np.sqrt(power) + least)) if rectified else step_now
        )


@exact
def adagrad(
    param: Any,
    grad: Any,
    sum: Any,
    step: Any,
    lr: Any,
    lr_decay: Any,
    eps: Any,
    weight_decay: Any,
) -> None:
    to = param.dtype.type
    step, lr, lr_decay, eps = step[()], lr[()], lr_decay[()], eps[()]
    rate, least = to(lr / (1 + (step - 1) * lr_decay)), to(eps)
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        total = sum[i] + g * g
        sum[i] = total
        param[i] = p - rate * (g / (np.sqrt(total) + least))


@exact
def adadelta(
    param: Any,
    grad: Any,
    square_avg: Any,
    acc_delta: Any,
    lr: Any,
    rho: Any,
    eps: Any,
    weight_decay: Any,
) -> None:
    to = param.dtype.type
    lr, rho, eps = lr[()], rho[()], eps[()]
    rate, kept, fresh, least = to(lr), to(rho), to(1 - rho), to(eps)
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        power = average(square_avg[i], g * g, kept, fresh)
        delta = np.sqrt(acc_delta[i] + least) / np.sqrt(power + least) * g
        square_avg[i] = power
        acc_delta[i] = average(acc_delta[i], delta * delta, kept, fresh)
        param[i] = p - rate * delta


@exact
def rmsprop(
    param: Any,
    grad: Any,
    square_avg: Any,
    momentum_buffer: Any,
    grad_avg: Any,
    lr: Any,
    alpha: Any,
    eps: Any,
    momentum: Any,
    weight_decay: Any,
) -> None:
    to = param.dtype.type
    lr, alpha, eps, momentum = lr[()], alpha[()], eps[()], momentum[()]
    rate, kept, fresh, least, mu = to(lr), to(alpha), to(1 - alpha), to(eps), to(momentum)
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        p = param[i]
        g = with_l2(grad[i], p, decay)
        power = average(square_avg[i], g * g, kept, fresh)
        square_avg[i] = power
        if grad_avg is not None:
            mean = average(grad_avg[i], g, kept, fresh)
            grad_avg[i] = mean
            power = power - mean * mean
        direction = g / (np.sqrt(power) + least)
        if momentum_buffer is not None:
            direction = mu * momentum_buffer[i] + direction
            momentum_buffer[i] = direction
        param[i] = p - rate * direction


@exact
def schedule_free_adamw(
    param: Any,
    grad: Any,
    z: Any,
    exp_avg_sq: Any,
    lr: Any,
    weight: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
) -> None:
    to = param.dtype.type
    lr, weight, beta1, beta2, eps = lr[()], weight[()], beta1[()], beta2[()], eps[()]
    rate, least, b2, c2 = to(lr), to(eps), to(beta2), to(1 - beta2)
    w, rest, drift = to(weight), to(1 - weight), to(1 - beta1 * (1 - weight))
    decay = None if weight_decay is None else to(weight_decay[()])
    for i in range(param.size):
        y, g, target = param[i], grad[i], z[i]
        power = average(exp_avg_sq[i], g * g, b2, c2)
        exp_avg_sq[i] = power
        step = rate * with_l2(g / (np.sqrt(power) + least), y, decay)
        param[i] = average(target, y, w, rest) - drift * step
        z[i] = target - step


@exact
def lamb_direction(p: Any, mean: Any, power: Any, corrections: Any, least: Any, decay: Any) -> Any:
    direction = mean / corrections[0] / (np.sqrt(power / corrections[1]) + least)
    return with_l2(direction, p, decay)


@exact
def lamb(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
) -> None:
    """The direction is computed twice, once for its norm, which costs less than keeping it."""
    to = param.dtype.type
    step, lr, beta1, beta2, eps = step[()], lr[()], beta1[()], beta2[()], eps[()]
    b1, c1, b2, c2 = to(beta1), to(1 - beta1), to(beta2), to(1 - beta2)
    corrections, least = (to(1 - beta1**step), to(1 - beta2**step)), to(eps)
    decay = None if weight_decay is None else to(weight_decay[()])
    reach = 0.0
    for i in range(param.size):
        g = grad[i]
        mean = average(exp_avg[i], g, b1, c1)
        power = average(exp_avg_sq[i], g * g, b2, c2)
        exp_avg[i] = mean
        exp_avg_sq[i] = power
        direction = lamb_direction(param[i], mean, power, corrections, least, decay)
        reach = plus(reach, np.float64(direction * direction))
    length, reach = norm(param), np.sqrt(reach)
    rate = to(lr * (length / reach if length > 0 and reach > 0 else 1.0))
    for i in range(param.size):
        p = param[i]
        direction = lamb_direction(p, exp_avg[i], exp_avg_sq[i], corrections, least, decay)
        param[i] = p - rate * direction


KERNELS = {
    "adam_update": in_place(adam, slots=3),
    "adamax_update": in_place(adamax, slots=2),
    "nadam_update": in_place(nadam, slots=2),
    "radam_update": in_place(radam, slots=2),
    "adagrad_update": in_place(adagrad, slots=1),
    "adadelta_update": in_place(adadelta, slots=2),
    "rmsprop_update": in_place(rmsprop, slots=3),
    "schedule_free_adamw_update": in_place(schedule_free_adamw, slots=2),
    "lamb_update": in_place(lamb, slots=2),
}
