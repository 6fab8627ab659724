"""Numba kernels behind the port's kernel points: a file a family, loaded when its first kernel is
wanted.

Where Numba is not installed there are none, and every kernel point runs its reference body.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tinygrad_bn.backend import Kernel

FAMILIES = {
    "batch_moments": "batch_norm",
    "batch_normalize": "batch_norm",
    "batch_grad_sums": "batch_norm",
    "batch_grad_input": "batch_norm",
    "batch_normalize_relu": "batch_norm",
    "batch_relu_grad_sums": "batch_norm",
    "batch_relu_grad_input": "batch_norm",
    "whole_batch_norm": "batch_norm",
    "whole_batch_norm_grad": "batch_norm",
    "moving_moments": "running_statistics",
    "one_more": "running_statistics",
    "tracked_moments": "running_statistics",
    "row_moments": "row_norm",
    "row_mean_square": "row_norm",
    "row_normalize": "row_norm",
    "row_grad_sums": "row_norm",
    "row_grad_input": "row_norm",
    "whole_row_norm": "row_norm",
    "whole_rms_norm": "row_norm",
    "whole_row_norm_grad": "row_norm",
    "sgd_update": "gradient_descent",
    "momentum_update": "gradient_descent",
    "lion_update": "gradient_descent",
    "schedule_free_sgd_update": "gradient_descent",
    "lars_update": "gradient_descent",
    "adam_update": "adaptive",
    "adamax_update": "adaptive",
    "nadam_update": "adaptive",
    "radam_update": "adaptive",
    "adagrad_update": "adaptive",
    "adadelta_update": "adaptive",
    "rmsprop_update": "adaptive",
    "schedule_free_adamw_update": "adaptive",
    "lamb_update": "adaptive",
    "softmax_cross_entropy": "cross_entropy",
    "softmax_cross_entropy_grad_input": "cross_entropy",
    "mean_cross_entropy": "mean_cross_entropy",
    "mean_cross_entropy_grad_input": "mean_cross_entropy",
    "softmax_value": "softmax",
    "softmax_grad": "softmax",
    "log_softmax_value": "softmax",
    "log_softmax_grad": "softmax",
    "add_bias": "hidden_layer",
    "column_sums": "hidden_layer",
    "relu": "hidden_layer",
    "relu_grad": "hidden_layer",
    "dropped": "hidden_layer",
    "curve_value": "curves",
    "curve_grad": "curves",
    "sigmoid_value": "curves",
    "sigmoid_grad": "curves",
    "tanh_grad": "curves",
    "rnn_step": "recurrent",
    "rnn_step_grad": "recurrent",
    "lstm_step": "recurrent",
    "lstm_step_grad": "recurrent",
    "lstm_cell_step": "recurrent",
    "lstm_cell_step_grad": "recurrent",
    "gru_step": "recurrent",
    "gru_step_grad": "recurrent",
    "walk_forward": "sequences",
    "walk_backward": "sequences",
    "philox_words": "random_words",
    "refuse_others": "checks",
    "refuse_nan": "checks",
    "refuse_beyond": "checks",
    "convolved": "convolution",
    "spread": "convolution",
    "correlated": "convolution",
    "mixed": "pooling",
    "maxima": "pooling",
    "placed": "pooling",
    "unfolded": "unfolding",
    "folded": "unfolding",
}


class Kernels(dict[str, "Kernel | None"]):
    """The kernels by the name of their kernel point; None where there is none."""

    def __missing__(self, name: str) -> Kernel | None:
        family = FAMILIES.get(name)
        if family is None or find_spec("numba") is None:
            self[name] = None
            return None
        self.update(import_module(f"{__name__}.{family}").KERNELS)
        return self[name]

    get: Any = dict.__getitem__
    """The kernel of that name, whose family is loaded first; there is no default. Every call of a
    kernel point asks, and this runs no Python for a kernel that is there.
    """
