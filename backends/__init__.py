"""Adapters: the engine's port (``tinygrad_bn.backend``) over NumPy and over CuPy.

`cuda` has settings of the latter.
"""

from . import cuda as cuda
