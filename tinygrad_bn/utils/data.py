"""The data loading of `tinygrad_bn.data` where PyTorch has it."""

from tinygrad_bn.data import DataLoader as DataLoader
from tinygrad_bn.data import Dataset as Dataset
from tinygrad_bn.data import Subset as Subset
from tinygrad_bn.data import TensorDataset as TensorDataset
from tinygrad_bn.data import random_split as random_split
