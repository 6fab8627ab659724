"""Normalization layers, a file each."""

from tinygrad_bn.nn.normalization.base import Normalization as Normalization
from tinygrad_bn.nn.normalization.base import RunningNormalization as RunningNormalization
from tinygrad_bn.nn.normalization.batch import BatchNorm as BatchNorm
from tinygrad_bn.nn.normalization.batch import BatchNorm1d as BatchNorm1d
from tinygrad_bn.nn.normalization.batch import BatchNorm2d as BatchNorm2d
from tinygrad_bn.nn.normalization.batch import BatchNorm3d as BatchNorm3d
from tinygrad_bn.nn.normalization.channels import ChannelNormalization as ChannelNormalization
from tinygrad_bn.nn.normalization.conditional import ConditionalBatchNorm as ConditionalBatchNorm
from tinygrad_bn.nn.normalization.evo import EvoNormB0 as EvoNormB0
from tinygrad_bn.nn.normalization.evo import EvoNormS0 as EvoNormS0
from tinygrad_bn.nn.normalization.filter_response import TLU as TLU
from tinygrad_bn.nn.normalization.filter_response import FilterResponseNorm as FilterResponseNorm
from tinygrad_bn.nn.normalization.ghost import GhostBatchNorm as GhostBatchNorm
from tinygrad_bn.nn.normalization.group import GroupNorm as GroupNorm
from tinygrad_bn.nn.normalization.instance import InstanceNorm as InstanceNorm
from tinygrad_bn.nn.normalization.instance import InstanceNorm1d as InstanceNorm1d
from tinygrad_bn.nn.normalization.instance import InstanceNorm2d as InstanceNorm2d
from tinygrad_bn.nn.normalization.instance import InstanceNorm3d as InstanceNorm3d
from tinygrad_bn.nn.normalization.layer import LayerNorm as LayerNorm
from tinygrad_bn.nn.normalization.mean_only import MeanOnlyBatchNorm as MeanOnlyBatchNorm
from tinygrad_bn.nn.normalization.power import PowerNorm as PowerNorm
from tinygrad_bn.nn.normalization.renorm import BatchRenorm as BatchRenorm
from tinygrad_bn.nn.normalization.renorm import RenormRamp as RenormRamp
from tinygrad_bn.nn.normalization.response import LocalResponseNorm as LocalResponseNorm
from tinygrad_bn.nn.normalization.rms import RMSNorm as RMSNorm
from tinygrad_bn.nn.normalization.scale import ScaleNorm as ScaleNorm
