"""What one does to modules and their parameters, under PyTorch's names where it has one."""

from tinygrad_bn.nn.utils import rnn as rnn
from tinygrad_bn.nn.utils.accumulation import accumulate_statistics as accumulate_statistics
from tinygrad_bn.nn.utils.clipping import clip_grad_norm_ as clip_grad_norm_
from tinygrad_bn.nn.utils.clipping import clip_grad_value_ as clip_grad_value_
from tinygrad_bn.nn.utils.clipping import get_total_norm as get_total_norm
from tinygrad_bn.nn.utils.clipping import parameters_to_vector as parameters_to_vector
from tinygrad_bn.nn.utils.clipping import vector_to_parameters as vector_to_parameters
from tinygrad_bn.nn.utils.data_dependent_init import init_weight_norm as init_weight_norm
from tinygrad_bn.nn.utils.drift import BatchNormReport as BatchNormReport
from tinygrad_bn.nn.utils.drift import LayerDrift as LayerDrift
from tinygrad_bn.nn.utils.drift import bn_report as bn_report
from tinygrad_bn.nn.utils.folding import Fold as Fold
from tinygrad_bn.nn.utils.folding import FoldedBatchNorm as FoldedBatchNorm
from tinygrad_bn.nn.utils.folding import fold_batch_norm as fold_batch_norm
from tinygrad_bn.nn.utils.folding import folds_of as folds_of
from tinygrad_bn.nn.utils.freezing import freeze_batch_norm as freeze_batch_norm
from tinygrad_bn.nn.utils.freezing import unfreeze_batch_norm as unfreeze_batch_norm
from tinygrad_bn.nn.utils.reestimation import update_bn as update_bn
from tinygrad_bn.nn.utils.spectral_normalization import remove_spectral_norm as remove_spectral_norm
from tinygrad_bn.nn.utils.spectral_normalization import spectral_norm as spectral_norm
from tinygrad_bn.nn.utils.standardized_weights import (
    remove_weight_standardization as remove_weight_standardization,
)
from tinygrad_bn.nn.utils.standardized_weights import (
    weight_standardization as weight_standardization,
)
from tinygrad_bn.nn.utils.synchronization import convert_sync_batch_norm as convert_sync_batch_norm
from tinygrad_bn.nn.utils.weight_normalization import remove_weight_norm as remove_weight_norm
from tinygrad_bn.nn.utils.weight_normalization import weight_norm as weight_norm
