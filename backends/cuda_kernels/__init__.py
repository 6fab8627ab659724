"""CUDA kernels behind the port's kernel points: a file a family, loaded when its first kernel is
wanted, with its source beside it in CUDA C++ (``.cu``).

A kernel point that has none here runs its reference body, as every one does of arrays that its
kernel does not accept.
"""

from __future__ import annotations

from importlib import import_module

from tinygrad_bn.backend import Kernel

FAMILIES = {
    "affine": "affine",
    "affine_grad_parameters": "affine",
    "batch_moments": "batch_norm",
    "batch_normalize": "batch_norm",
    "batch_normalize_relu": "batch_norm",
    "batch_grad_sums": "batch_norm",
    "batch_relu_grad_sums": "batch_norm",
    "batch_grad_input": "batch_norm",
    "batch_relu_grad_input": "batch_norm",
    "whole_batch_norm": "batch_norm",
    "whole_batch_norm_grad": "batch_norm",
    "moving_average": "batch_norm",
    "moving_moments": "running_state",
    "one_more": "running_state",
    "whole_residual_norm": "residual_norm",
    "whole_residual_norm_grad": "residual_norm",
    "sgd_update": "optimizers",
    "momentum_update": "optimizers",
    "lion_update": "optimizers",
    "schedule_free_sgd_update": "optimizers",
    "schedule_free_adamw_update": "optimizers",
    "adam_update": "optimizers",
    "adamax_update": "optimizers",
    "nadam_update": "optimizers",
    "radam_update": "optimizers",
    "adagrad_update": "optimizers",
    "adadelta_update": "optimizers",
    "rmsprop_update": "optimizers",
    "lars_update_each": "layerwise",
    "lamb_update_each": "layerwise",
    "add_squares": "clipping",
    "clipped": "clipping",
    "unscaled": "scaling",
    "next_scale": "scaling",
    "taken_back": "scaling",
    "add_bias": "dense",
    "column_sums": "dense",
    "relu": "dense",
    "relu_grad": "dense",
    "curve_value": "curves",
    "curve_grad": "curves",
    "philox_words": "random_words",
    "dropped": "random_words",
    "softmax_cross_entropy": "cross_entropy",
    "softmax_cross_entropy_grad_input": "cross_entropy",
    "mean_cross_entropy": "cross_entropy",
    "mean_cross_entropy_grad_input": "cross_entropy",
    "row_moments": "row_norm",
    "row_mean_square": "row_norm",
    "row_normalize": "row_norm",
    "row_grad_sums": "row_norm",
    "row_grad_input": "row_norm",
    "whole_row_norm": "row_norm",
    "whole_rms_norm": "row_norm",
    "whole_row_norm_grad": "row_norm",
}
"""The file of each kernel point's kernel."""


class Kernels(dict[str, "Kernel | None"]):
    """The kernels by the name of their kernel point; None where there is none."""

    def __missing__(self, name: str) -> Kernel | None:
        family = FAMILIES.get(name)
        if family is None:
            self[name] = None
            return None
        self.update(import_module(f"{__name__}.{family}").KERNELS)
        return self[name]

    def get(self, name: str, default: Kernel | None = None) -> Kernel | None:  # type: ignore[override]
        """The kernel of that name; its family is loaded first."""
        return self[name]
