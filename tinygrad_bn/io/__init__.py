"""Tensors in files: safetensors for our own, and PyTorch's state dicts to read."""

from tinygrad_bn.io.checkpoints import load as load
from tinygrad_bn.io.checkpoints import save as save
from tinygrad_bn.io.torch_files import load_torch as load_torch
