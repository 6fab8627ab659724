"""Curves that kernels are held to."""

from __future__ import annotations

from tinygrad_bn import curves

CURVES = [
    curves.Elu(1.0, 1.0, 1.0),
    curves.Elu(-0.7, 1.05, 0.5),
    curves.Gelu(),
    curves.GeluTanh(),
    curves.LeakyRelu(0.01),
    curves.LogSigmoid(),
    curves.Mish(),
    curves.Silu(),
    curves.Softplus(1.0, 20.0),
    curves.Softplus(-2.0, 3.0),
]
