"""Adapters: the engine's port (``tinygrad_bn.backend``) over NumPy and over CuPy."""
