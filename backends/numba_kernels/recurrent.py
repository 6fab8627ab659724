"""The steps of recurrent cells: each row of gates and states while it is in the cache.

A row is gone over in short loops, each of few arrays: LLVM makes vector instructions only where it
need not ask of too many pairs of arrays whether they overlap.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .batch_norm import FLOATS
from .compilation import compiled, inlined
from .gate_math import sigmoid, tanh


@inlined
def add_sigmoid(x: Any, y: Any, b: Any, z: Any) -> None:
    """z = σ(x + y + b), as long as x."""
    for k in range(x.size):
        z[k] = sigmoid(x[k] + y[k] + b[k])


@inlined
def add_tanh(x: Any, y: Any, b: Any, z: Any) -> None:
    """z = tanh(x + y + b), as long as x."""
    for k in range(x.size):
        z[k] = tanh(x[k] + y[k] + b[k])


@inlined
def quarters(row: Any) -> Any:
    """The four parts of a row."""
    size = row.size // 4
    return row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]


@compiled
def rnn_tanh(gx: Any, gh: Any, bias: Any, h: Any) -> None:
    """h = tanh(gx + gh + b)."""
    for r in range(h.shape[0]):
        add_tanh(gx[r], gh[r], bias, h[r])


@compiled
def rnn_relu(gx: Any, gh: Any, bias: Any, h: Any) -> None:
    """h = max(gx + gh + b, 0); NaN stays."""
    for r in range(h.shape[0]):
        x, recurrent, after = gx[r], gh[r], h[r]
        for k in range(after.size):
            a = x[k] + recurrent[k] + bias[k]
            after[k] = 0 if a <= 0 else a


@compiled
def rnn_tanh_grad(dh: Any, h: Any, da: Any) -> None:
    """da = dh (1 - h²)."""
    one = h.dtype.type(1)  # beside a whole number float32 would become float64
    for r in range(h.shape[0]):
        grad, after, before = dh[r], h[r], da[r]
        for k in range(after.size):
            before[k] = grad[k] * (one - after[k] * after[k])


@compiled
def rnn_relu_grad(dh: Any, h: Any, da: Any) -> None:
    """da = dh where h > 0."""
    for r in range(h.shape[0]):
        grad, after, before = dh[r], h[r], da[r]
        for k in range(after.size):
            before[k] = grad[k] if after[k] > 0 else 0


@inlined
def put_gates(x: Any, y: Any, b: Any, gates: Any) -> None:
    """The gates i, f, g, o of a row."""
    size = gates.size // 4
    add_sigmoid(x[: 2 * size], y[: 2 * size], b[: 2 * size], gates[: 2 * size])
    add_tanh(x[2 * size : 3 * size], y[2 * size : 3 * size], b[2 * size :], gates[2 * size :])
    add_sigmoid(x[3 * size :], y[3 * size :], b[3 * size :], gates[3 * size :])


@inlined
def put_cell(gates: Any, before: Any, after: Any) -> None:
    """c' = f c + i g."""
    i, f, g, _ = quarters(gates)
    for k in range(after.size):
        after[k] = f[k] * before[k] + i[k] * g[k]


@compiled
def lstm(gx: Any, gh: Any, bias: Any, c: Any, h_after: Any, c_after: Any, gates: Any) -> None:
    """i, f, g, o from gx + gh + b; c' = f c + i g; h' = o tanh(c')."""
    n, size = c.shape
    for r in range(n):
        put_gates(gx[r], gh[r], bias, gates[r])
        put_cell(gates[r], c[r], c_after[r])
        o, after, h = gates[r, 3 * size :], c_after[r], h_after[r]
        for k in range(size):
            h[k] = o[k] * tanh(after[k])


@compiled
def lstm_cell(gx: Any, gh: Any, bias: Any, c: Any, c_after: Any, gates: Any) -> None:
    """The same without h'."""
    for r in range(c.shape[0]):
        put_gates(gx[r], gh[r], bias, gates[r])
        put_cell(gates[r], c[r], c_after[r])


@compiled
def lstm_output(gates: Any, normed: Any, tanh_c: Any, h: Any) -> None:
    """h' = o tanh(N(c')), and that tanh."""
    n, size = h.shape
    for r in range(n):
        o, x, t, after = gates[r, 3 * size :], normed[r], tanh_c[r], h[r]
        for k in range(size):
            t[k] = tanh(x[k])
        for k in range(size):
            after[k] = o[k] * t[k]


@compiled
def lstm_output_grad(dh: Any, gates: Any, tanh_c: Any, do: Any, dnormed: Any) -> None:
    """The gradients of o and N(c') from that of h'."""
    (n, size), one = dh.shape, dh.dtype.type(1)
    for r in range(n):
        o, t, grad = gates[r, 3 * size :], tanh_c[r], dh[r]
        to_o, to_c = do[r], dnormed[r]
        for k in range(size):
            to_o[k] = grad[k] * t[k]
        for k in range(size):
            to_c[k] = grad[k] * o[k] * (one - t[k] * t[k])


@inlined
def put_gates_grad(gates: Any, before: Any, dc: Any, do: Any, da: Any) -> None:
    """The gradients of the sums in the gates of a row, and dc for c instead of c'."""
    i, f, g, o = quarters(gates)
    di, df, dg, to_o = quarters(da)
    size, one = dc.size, dc.dtype.type(1)
    for k in range(size):
        to_o[k] = do[k] * o[k] * (one - o[k])
    for k in range(size):
        di[k] = dc[k] * g[k] * i[k] * (one - i[k])
    for k in range(size):
        df[k] = dc[k] * before[k] * f[k] * (one - f[k])
    for k in range(size):
        dg[k] = dc[k] * i[k] * (one - g[k] * g[k])
    for k in range(size):
        dc[k] = dc[k] * f[k]


@compiled
def lstm_grad(dh: Any, dc: Any, gates: Any, c: Any, c_after: Any, da: Any) -> None:
    """The gradients of the sums in the gates; that of c' becomes that of c."""
    (n, size), one = c.shape, c.dtype.type(1)
    do = np.empty(size, c.dtype)
    for r in range(n):
        o, grad, after, to_c = gates[r, 3 * size :], dh[r], c_after[r], dc[r]
        for k in range(size):
            do[k] = tanh(after[k])
        for k in range(size):
            to_c[k] = to_c[k] + grad[k] * o[k] * (one - do[k] * do[k])
        for k in range(size):
            do[k] = grad[k] * do[k]
        put_gates_grad(gates[r], c[r], to_c, do, da[r])


@compiled
def lstm_cell_grad(dc: Any, do: Any, gates: Any, c: Any, da: Any) -> None:
    """The same from the gradients of c' and of o."""
    for r in range(c.shape[0]):
        put_gates_grad(gates[r], c[r], dc[r], do[r], da[r])


@compiled
def gru(gx: Any, gh: Any, bias: Any, h: Any, h_after: Any, gates: Any) -> None:
    """r, z, n from gx, gh and the biases of r, z, n and of the recurrent part of n;
    h' = n + z (h - n).
    """
    rows, size = h.shape
    of_n, of_n_h = bias[2 * size : 3 * size], bias[3 * size :]
    for i in range(rows):
        add_sigmoid(gx[i, : 2 * size], gh[i, : 2 * size], bias[: 2 * size], gates[i, : 2 * size])
        r, z, n, n_h = quarters(gates[i])
        x, recurrent, before, after = gx[i, 2 * size :], gh[i, 2 * size :], h[i], h_after[i]
        for k in range(size):
            n_h[k] = recurrent[k] + of_n_h[k]
        for k in range(size):
            n[k] = tanh(x[k] + of_n[k] + r[k] * n_h[k])
        for k in range(size):
            after[k] = n[k] + z[k] * (before[k] - n[k])


@compiled
def gru_grad(dh_after: Any, gates: Any, h: Any, da: Any, da_h: Any, dh: Any) -> None:
    """The gradients of the sums in the gates, of the recurrent parts of them, and of h."""
    (rows, size), one = h.shape, h.dtype.type(1)
    for i in range(rows):
        r, z, n, n_h = quarters(gates[i])
        grad, before, direct = dh_after[i], h[i], dh[i]
        dr, dz, dn = da[i, :size], da[i, size : 2 * size], da[i, 2 * size :]
        dr_h, dz_h, dn_h = da_h[i, :size], da_h[i, size : 2 * size], da_h[i, 2 * size :]
        for k in range(size):
            dn[k] = grad[k] * (one - z[k]) * (one - n[k] * n[k])
        for k in range(size):
            dz[k] = grad[k] * (before[k] - n[k]) * z[k] * (one - z[k])
        for k in range(size):
            dr[k] = dn[k] * n_h[k] * r[k] * (one - r[k])
        for k in range(size):
            dn_h[k] = dn[k] * r[k]
        for k in range(size):
            dr_h[k] = dr[k]
            dz_h[k] = dz[k]
        for k in range(size):
            direct[k] = grad[k] * z[k]


@lru_cache(maxsize=64)
def no_bias(size: int, dtype: np.dtype[Any]) -> Array:
    """Zeros, for steps whose sums have their biases already."""
    return np.zeros(size, dtype)


def rnn_step(gx: Array, gh: Array, relu: bool) -> Array:
    h = np.empty(gx.shape, gx.dtype)
    (rnn_relu if relu else rnn_tanh)(gx, gh, no_bias(gx.shape[1], gx.dtype), h)
    return h


def rnn_step_grad(dh: Array, h: Array, relu: bool) -> Array:
    da = np.empty(h.shape, h.dtype)
    (rnn_relu_grad if relu else rnn_tanh_grad)(dh, h, da)
    return da


def lstm_step(gx: Array, gh: Array, c: Array) -> tuple[Array, Array, Array]:
    h_after, c_after = np.empty(c.shape, c.dtype), np.empty(c.shape, c.dtype)
    gates = np.empty(gx.shape, gx.dtype)
    lstm(gx, gh, no_bias(gx.shape[1], gx.dtype), c, h_after, c_after, gates)
    return h_after, c_after, gates


def lstm_step_grad(
    dh: Array, dc_after: Array, gates: Array, c: Array, c_after: Array
) -> tuple[Array, Array]:
    da, dc = np.empty(gates.shape, gates.dtype), dc_after.copy()
    lstm_grad(dh, dc, gates, c, c_after, da)
    return da, dc


def lstm_cell_step(gx: Array, gh: Array, c: Array) -> tuple[Array, Array]:
    c_after, gates = np.empty(c.shape, c.dtype), np.empty(gx.shape, gx.dtype)
    lstm_cell(gx, gh, no_bias(gx.shape[1], gx.dtype), c, c_after, gates)
    return c_after, gates


def lstm_cell_step_grad(dc_after: Array, do: Array, gates: Array, c: Array) -> tuple[Array, Array]:
    da, dc = np.empty(gates.shape, gates.dtype), dc_after.copy()
    lstm_cell_grad(dc, do, gates, c, da)
    return da, dc


def gru_step(gx: Array, gh: Array, h: Array) -> tuple[Array, Array]:
    n, size = h.shape
    h_after, gates = np.empty(h.shape, h.dtype), np.empty((n, 4 * size), h.dtype)
    gru(gx, gh, no_bias(4 * size, h.dtype), h, h_after, gates)
    return h_after, gates


def gru_step_grad(dh_after: Array, gates: Array, h: Array) -> tuple[Array, Array, Array]:
    n, size = h.shape
    da, da_h = np.empty((n, 3 * size), h.dtype), np.empty((n, 3 * size), h.dtype)
    dh = np.empty(h.shape, h.dtype)
    gru_grad(dh_after, gates, h, da, da_h, dh)
    return da, da_h, dh


def accepts(*args: Any) -> bool:
    """Arrays of float32 or of float64, all in C order, with values in them; and flags."""
    first = args[0]
    if first.dtype not in FLOATS or not first.size:
        return False
    return all(
        x.dtype == first.dtype and x.flags.c_contiguous for x in args if x.__class__ is not bool
    )


KERNELS = {
    "rnn_step": Kernel(rnn_step, accepts),
    "rnn_step_grad": Kernel(rnn_step_grad, accepts),
    "lstm_step": Kernel(lstm_step, accepts),
    "lstm_step_grad": Kernel(lstm_step_grad, accepts),
    "lstm_cell_step": Kernel(lstm_cell_step, accepts),
    "lstm_cell_step_grad": Kernel(lstm_cell_step_grad, accepts),
    "gru_step": Kernel(gru_step, accepts),
    "gru_step_grad": Kernel(gru_step_grad, accepts),
}
