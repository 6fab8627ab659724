"""The operations, a file a family; each is written once, in the vocabulary of ``tinygrad_bn.backend``."""

from tinygrad_bn.ops import elementwise, linear, reduce, shape, transfer, unary

__all__ = ["elementwise", "linear", "reduce", "shape", "transfer", "unary"]
