"""One time step of each recurrent cell, and its gradient, as kernel points.

The matrix products stand outside: ``gx`` = W_ih x + b is known for all steps at once, ``gh`` =
W_hh h + b of the step comes with it. What is here works on the elements of (N, H) states. Gates lie
one after the other along the last axis, in PyTorch's order, and are kept after their nonlinearity,
which is all that the gradient needs.

References
----------
Hochreiter and Schmidhuber 1997, "Long short-term memory"; Gers et al. 2000 for the forget gate.
Cho et al. 2014, arXiv:1406.1078, with the reset gate after the product.
Elman 1990, "Finding structure in time".
"""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point


def parts(x: Array, count: int) -> list[Array]:
    """Equal parts of the last axis of x (N, count · H)."""
    size = x.shape[1] // count
    return [x[:, k * size : (k + 1) * size] for k in range(count)]


def beside(xp: Any, arrays: list[Array]) -> Array:
    """Arrays (N, ·) one beside the other."""
    return xp.concatenate(arrays, axis=1)


@kernel_point
def rnn_step(backend: Backend, gx: Array, gh: Array, relu: bool) -> Array:
    """h' = tanh(gx + gh), or max(gx + gh, 0)."""
    xp, a = backend.xp, gx + gh
    return xp.maximum(a, 0) if relu else xp.tanh(a)


@kernel_point
def rnn_step_grad(backend: Backend, dh: Array, h: Array, relu: bool) -> Array:
    """The gradient of gx and gh from that of h'."""
    xp = backend.xp
    return xp.where(h > 0, dh, 0) if relu else dh * (1 - xp.square(h))


def lstm_gates(xp: Any, gx: Array, gh: Array, c: Array) -> tuple[list[Array], Array]:
    """The gates i, f, g, o and c' = f c + i g."""
    i, f, g, o = parts(gx + gh, 4)
    i, f, g, o = xp.sigmoid(i), xp.sigmoid(f), xp.tanh(g), xp.sigmoid(o)
    return [i, f, g, o], f * c + i * g


@kernel_point
def lstm_step(backend: Backend, gx: Array, gh: Array, c: Array) -> tuple[Array, Array, Array]:
    """h' = o tanh(c') and c' = f c + i g, (N, H) each, and the gates i, f, g, o (N, 4H)."""
    xp = backend.xp
    gates, c = lstm_gates(xp, gx, gh, c)
    return gates[3] * xp.tanh(c), c, beside(xp, gates)


@kernel_point
def lstm_step_grad(
    backend: Backend, dh: Array, dc_after: Array, gates: Array, c: Array, c_after: Array
) -> tuple[Array, Array]:
    """The gradients of gx and gh (N, 4H), and of c, from those of h' and c'."""
    xp, tanh = backend.xp, backend.xp.tanh(c_after)
    dc = dc_after + dh * parts(gates, 4)[3] * (1 - xp.square(tanh))
    return lstm_gates_grad(xp, dc, dh * tanh, gates, c)


def lstm_gates_grad(xp: Any, dc: Array, do: Array, gates: Array, c: Array) -> tuple[Array, Array]:
    """The gradients of the sums in the gates, and of c, from those of c' and o."""
    i, f, g, o = parts(gates, 4)
    da = [
        dc * g * i * (1 - i),
        dc * c * f * (1 - f),
        dc * i * (1 - xp.square(g)),
        do * o * (1 - o),
    ]
    return beside(xp, da), dc * f


@kernel_point
def lstm_cell_step(backend: Backend, gx: Array, gh: Array, c: Array) -> tuple[Array, Array]:
    """c' and the gates of `lstm_step`, where h' is not made of c' itself."""
    gates, c = lstm_gates(backend.xp, gx, gh, c)
    return c, beside(backend.xp, gates)


@kernel_point
def lstm_cell_step_grad(
    backend: Backend, dc_after: Array, do: Array, gates: Array, c: Array
) -> tuple[Array, Array]:
    """The gradients of gx and gh (N, 4H), and of c, from those of c' and of the gate o."""
    return lstm_gates_grad(backend.xp, dc_after, do, gates, c)


@kernel_point
def gru_step(backend: Backend, gx: Array, gh: Array, h: Array) -> tuple[Array, Array]:
    """h' = (1 - z) n + z h, and (N, 4H) the gates r, z, n with the recurrent part of n, which r is
    multiplied into.
    """
    xp = backend.xp
    (r, z, n), (r_h, z_h, n_h) = parts(gx, 3), parts(gh, 3)
    r, z = xp.sigmoid(r + r_h), xp.sigmoid(z + z_h)
    n = xp.tanh(n + r * n_h)
    return n + z * (h - n), beside(xp, [r, z, n, n_h])


@kernel_point
def gru_step_grad(
    backend: Backend, dh_after: Array, gates: Array, h: Array
) -> tuple[Array, Array, Array]:
    """The gradients of gx and of gh (N, 3H), and that of h but for its way through gh, from the
    gradient of h'.
    """
    xp = backend.xp
    r, z, n, n_h = parts(gates, 4)
    dn = dh_after * (1 - z) * (1 - xp.square(n))
    dz = dh_after * (h - n) * z * (1 - z)
    dr = dn * n_h * r * (1 - r)
    return beside(xp, [dr, dz, dn]), beside(xp, [dr, dz, dn * r]), dh_after * z
