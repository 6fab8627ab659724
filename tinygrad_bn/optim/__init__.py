"""Optimizers, learning-rate schedules and averages of parameters, under PyTorch's names."""

from tinygrad_bn.optim import averaging as swa_utils
from tinygrad_bn.optim import lr_scheduler as lr_scheduler
from tinygrad_bn.optim.adadelta import Adadelta as Adadelta
from tinygrad_bn.optim.adagrad import Adagrad as Adagrad
from tinygrad_bn.optim.adam import Adam as Adam
from tinygrad_bn.optim.adam import AdamW as AdamW
from tinygrad_bn.optim.adamax import Adamax as Adamax
from tinygrad_bn.optim.decay_groups import param_groups as param_groups
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer as FlatOptimizer
from tinygrad_bn.optim.lamb import LAMB as LAMB
from tinygrad_bn.optim.lars import LARS as LARS
from tinygrad_bn.optim.lbfgs import LBFGS as LBFGS
from tinygrad_bn.optim.lion import Lion as Lion
from tinygrad_bn.optim.muon import Muon as Muon
from tinygrad_bn.optim.nadam import NAdam as NAdam
from tinygrad_bn.optim.optimizer import Optimizer as Optimizer
from tinygrad_bn.optim.radam import RAdam as RAdam
from tinygrad_bn.optim.rmsprop import RMSprop as RMSprop
from tinygrad_bn.optim.schedule_free import AdamWScheduleFree as AdamWScheduleFree
from tinygrad_bn.optim.schedule_free import SGDScheduleFree as SGDScheduleFree
from tinygrad_bn.optim.sgd import SGD as SGD
