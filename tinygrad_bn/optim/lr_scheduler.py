"""The learning-rate schedules, under the name that PyTorch's module has."""

from tinygrad_bn.optim.composition import ChainedScheduler as ChainedScheduler
from tinygrad_bn.optim.composition import SequentialLR as SequentialLR
from tinygrad_bn.optim.factor_schedules import ConstantLR as ConstantLR
from tinygrad_bn.optim.factor_schedules import CosineAnnealingLR as CosineAnnealingLR
from tinygrad_bn.optim.factor_schedules import (
    CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts,
)
from tinygrad_bn.optim.factor_schedules import ExponentialLR as ExponentialLR
from tinygrad_bn.optim.factor_schedules import LinearLR as LinearLR
from tinygrad_bn.optim.factor_schedules import MultiStepLR as MultiStepLR
from tinygrad_bn.optim.factor_schedules import PolynomialLR as PolynomialLR
from tinygrad_bn.optim.factor_schedules import StepLR as StepLR
from tinygrad_bn.optim.one_cycle import OneCycleLR as OneCycleLR
from tinygrad_bn.optim.plateau import ReduceLROnPlateau as ReduceLROnPlateau
from tinygrad_bn.optim.scheduler import LambdaLR as LambdaLR
from tinygrad_bn.optim.scheduler import LRScheduler as LRScheduler
