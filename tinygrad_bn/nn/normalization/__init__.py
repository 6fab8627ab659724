"""Normalization layers, a file each."""

from tinygrad_bn.nn.normalization.base import Normalization as Normalization
from tinygrad_bn.nn.normalization.base import RunningNormalization as RunningNormalization
from tinygrad_bn.nn.normalization.batch import BatchNorm as BatchNorm
from tinygrad_bn.nn.normalization.batch import BatchNorm1d as BatchNorm1d
from tinygrad_bn.nn.normalization.batch import BatchNorm2d as BatchNorm2d
from tinygrad_bn.nn.normalization.batch import BatchNorm3d as BatchNorm3d
from tinygrad_bn.nn.normalization.layer import LayerNorm as LayerNorm
