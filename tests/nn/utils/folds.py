"""Models to fold, and how far what comes out is from them."""

from __future__ import annotations

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.nn.normalization import BatchNorm
from tinygrad_bn.nn.utils import folds_of


def experienced(model, seed=0):
    """The model with statistics and parameters as after some training, in evaluation."""
    random = np.random.default_rng(seed)
    with tg.no_grad():
        for norm in model.modules():
            if isinstance(norm, BatchNorm):
                for name, low, high in (
                    ("running_mean", -3, 3),
                    ("running_var", 0.1, 4),
                    ("weight", -2, 2),
                    ("bias", -1, 1),
                ):
                    if (x := getattr(norm, name)) is not None:
                        x.overwrite(x.backend.asarray(random.uniform(low, high, x.shape)))
    return model.eval()


def relative_error(folded, model, x):
    with tg.no_grad():
        y, expected = np.asarray(folded(x).tolist()), np.asarray(model(x).tolist())
    return np.abs(y - expected).max() / np.abs(expected).max()


def paths(model):
    return [(fold.norm, fold.into) for fold in folds_of(model)]


def reason(model, norm, pairs=()):
    return next(fold.reason for fold in folds_of(model, pairs) if fold.norm == norm)
