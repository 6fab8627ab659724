"""scikit-learn: an `MLPClassifier` of the network without its norms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

Weights = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def classifier(hidden: tuple[int, ...], batch: int, epochs: int, **options: Any) -> MLPClassifier:
    """Adam without weight decay, over exactly so many epochs."""
    return MLPClassifier(
        hidden_layer_sizes=hidden,
        solver="adam",
        alpha=0.0,
        batch_size=batch,
        learning_rate_init=1e-3,
        max_iter=epochs,
        tol=0.0,
        n_iter_no_change=epochs + 1,
        random_state=0,
        **options,
    )


def fitted(model: MLPClassifier, x: Any, y: Any) -> MLPClassifier:
    """The model after its epochs, which it should not regret."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def begun(model: MLPClassifier, weights: Weights, x: Any, y: Any) -> MLPClassifier:
    """The model such that its next `fit` starts from given weights (out, in) and biases."""
    fitted(model, x, y)  # which makes the arrays
    model.set_params(warm_start=True)
    model.coefs_ = [np.array(weight.T) for weight, _ in weights]
    model.intercepts_ = [np.array(bias) for _, bias in weights]
    return model
