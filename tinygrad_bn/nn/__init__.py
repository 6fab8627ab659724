"""Neural networks: modules and what they are made of, under PyTorch's names."""

from tinygrad_bn.nn import functional as functional
from tinygrad_bn.nn import init as init
from tinygrad_bn.nn.containers import ModuleDict as ModuleDict
from tinygrad_bn.nn.containers import ModuleList as ModuleList
from tinygrad_bn.nn.containers import ParameterDict as ParameterDict
from tinygrad_bn.nn.containers import ParameterList as ParameterList
from tinygrad_bn.nn.containers import Sequential as Sequential
from tinygrad_bn.nn.dropout import AlphaDropout as AlphaDropout
from tinygrad_bn.nn.dropout import Dropout as Dropout
from tinygrad_bn.nn.linear import Bilinear as Bilinear
from tinygrad_bn.nn.linear import Flatten as Flatten
from tinygrad_bn.nn.linear import Identity as Identity
from tinygrad_bn.nn.linear import Linear as Linear
from tinygrad_bn.nn.linear import Unflatten as Unflatten
from tinygrad_bn.nn.module import Module as Module
from tinygrad_bn.tensor import Buffer as Buffer
from tinygrad_bn.tensor import Parameter as Parameter
