"""Gradients: of any order, by one chain rule."""

from tinygrad_bn.autograd.engine import backward as backward
from tinygrad_bn.autograd.engine import grad as grad
from tinygrad_bn.autograd.function import Function as Function
