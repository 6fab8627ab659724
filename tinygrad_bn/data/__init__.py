"""Data sets, batches of them, and well-known ones."""

from tinygrad_bn.data import datasets as datasets
from tinygrad_bn.data.dataset import Dataset as Dataset
from tinygrad_bn.data.dataset import Subset as Subset
from tinygrad_bn.data.dataset import TensorDataset as TensorDataset
from tinygrad_bn.data.dataset import default_collate as default_collate
from tinygrad_bn.data.dataset import random_split as random_split
from tinygrad_bn.data.idx import read_idx as read_idx
from tinygrad_bn.data.loader import DataLoader as DataLoader
from tinygrad_bn.data.tables import Table as Table
from tinygrad_bn.data.tables import TableTransform as TableTransform
from tinygrad_bn.data.tables import from_csv as from_csv
