"""Optimizers, learning-rate schedules and averages of parameters, under PyTorch's names."""

from tinygrad_bn.optim.adam import Adam as Adam
from tinygrad_bn.optim.adam import AdamW as AdamW
from tinygrad_bn.optim.optimizer import Optimizer as Optimizer
from tinygrad_bn.optim.sgd import SGD as SGD
