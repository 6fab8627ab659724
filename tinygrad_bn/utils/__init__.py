"""PyTorch's utilities under its names: ``utils.checkpoint`` and ``utils.data``."""

from tinygrad_bn.utils import checkpoint as checkpoint
from tinygrad_bn.utils import data as data
