"""A small deep-learning library: exact normalization, gradients of every order, NumPy and CuPy
underneath.
"""

import os as _os
import warnings as _warnings
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

__version__ = "0.1.0"

# What overflows is infinite and what is undefined is NaN; as in PyTorch, without a warning a time.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"tinygrad_bn\b")

_package = _os.path.dirname(__file__)
if not _os.path.isdir(_os.path.join(_package, "backends")):  # a source checkout: in ../backends
    __path__.append(_os.path.dirname(_package))

from tinygrad_bn import autograd as autograd
from tinygrad_bn import cuda as cuda
from tinygrad_bn import linalg as linalg
from tinygrad_bn import nn as nn
from tinygrad_bn.autograd import Function as Function
from tinygrad_bn.backend import Device as device
from tinygrad_bn.backend import reference_kernels as reference_kernels
from tinygrad_bn.backend import set_default_device as set_default_device
from tinygrad_bn.config import enable_grad as enable_grad
from tinygrad_bn.config import get_default_device as get_default_device
from tinygrad_bn.config import get_default_dtype as get_default_dtype
from tinygrad_bn.config import get_workspace_limit as get_workspace_limit
from tinygrad_bn.config import inference_mode as inference_mode
from tinygrad_bn.config import is_grad_enabled as is_grad_enabled
from tinygrad_bn.config import no_grad as no_grad
from tinygrad_bn.config import set_default_dtype as set_default_dtype
from tinygrad_bn.config import set_grad_enabled as set_grad_enabled
from tinygrad_bn.config import set_workspace_limit as set_workspace_limit
from tinygrad_bn.creation import *
from tinygrad_bn.dtypes import *
from tinygrad_bn.ops import differentiable as _differentiable  # the chain rule's interpreter
from tinygrad_bn.ops.composed_loss import *
from tinygrad_bn.ops.contraction import *
from tinygrad_bn.ops.division import *
from tinygrad_bn.ops.elementwise import *
from tinygrad_bn.ops.index import *
from tinygrad_bn.ops.join import *
from tinygrad_bn.ops.linear import *
from tinygrad_bn.ops.logic import *
from tinygrad_bn.ops.order import *
from tinygrad_bn.ops.piecewise import *
from tinygrad_bn.ops.placement import *  # its where() has one argument more than elementwise's
from tinygrad_bn.ops.probability import *
from tinygrad_bn.ops.rearrange import *
from tinygrad_bn.ops.reduce import *
from tinygrad_bn.ops.shape import *
from tinygrad_bn.ops.statistics import *
from tinygrad_bn.ops.transfer import *
from tinygrad_bn.ops.trigonometry import *
from tinygrad_bn.ops.unary import *
from tinygrad_bn.random import *
from tinygrad_bn.random import default_generator as default_generator
from tinygrad_bn.tensors import Buffer as Buffer
from tinygrad_bn.tensors import Parameter as Parameter
from tinygrad_bn.tensors import Tensor as Tensor
from tinygrad_bn.threads import get_num_threads as get_num_threads
from tinygrad_bn.threads import set_num_threads as set_num_threads

if _TYPE_CHECKING:
    from tinygrad_bn import amp as amp
    from tinygrad_bn import backends as backends  # type: ignore[attr-defined]  # in ../backends
    from tinygrad_bn import capture as capture
    from tinygrad_bn import data as data
    from tinygrad_bn import distributed as distributed
    from tinygrad_bn import io as io
    from tinygrad_bn import optim as optim
    from tinygrad_bn import utils as utils
    from tinygrad_bn.amp import autocast as autocast
    from tinygrad_bn.amp import get_autocast_dtype as get_autocast_dtype
    from tinygrad_bn.amp import is_autocast_enabled as is_autocast_enabled
    from tinygrad_bn.capture.compiled import compile as compile
    from tinygrad_bn.io import load as load
    from tinygrad_bn.io import save as save
    from tinygrad_bn.trainer import evaluate as evaluate
    from tinygrad_bn.trainer import fit as fit

# What is loaded when it is first asked for, so that an import costs little more than NumPy's.
_PACKAGES = ("amp", "backends", "capture", "data", "distributed", "io", "optim", "utils")
_FUNCTIONS = {
    "autocast": "amp",
    "compile": "capture",
    "evaluate": "trainer",
    "fit": "trainer",
    "get_autocast_dtype": "amp",
    "is_autocast_enabled": "amp",
    "load": "io",
    "save": "io",
}


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return _import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(_import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    if name == "bfloat16":  # needs ml_dtypes, which is optional
        from tinygrad_bn.dtypes import bfloat16

        return bfloat16()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES, *_FUNCTIONS})
