"""Adapters: what the engine's port (``tinygrad_bn.backend``) looks like over NumPy and over CuPy.
"""
