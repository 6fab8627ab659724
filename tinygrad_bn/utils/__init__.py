"""PyTorch's utilities under its names: ``utils.checkpoint`` and ``utils.data``."""
