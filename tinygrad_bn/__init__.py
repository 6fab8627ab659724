"""A small deep-learning library: exact normalization, gradients of every order, NumPy and CuPy underneath."""

from pathlib import Path as _Path

_package = _Path(__file__).parent
if not (_package / "backends").is_dir():  # a source checkout: the adapters live in ../backends
    __path__.append(str(_package.parent))

from tinygrad_bn import autograd as autograd
from tinygrad_bn.autograd import Function as Function
from tinygrad_bn.ops import differentiable as _differentiable  # noqa: F401  (gives the chain rule its second interpreter)
from tinygrad_bn.tensor import Buffer as Buffer
from tinygrad_bn.tensor import Parameter as Parameter
from tinygrad_bn.tensor import Tensor as Tensor
from tinygrad_bn.tensor import Tensor as tensor
