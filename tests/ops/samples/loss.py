"""Samples of the losses."""

from __future__ import annotations

import numpy as np

from tests.ops.samples import Sample, normal, uniform, whole

REDUCTIONS = ("none", "mean", "sum")
LABELS = np.array([2, 0, 3])
WITH_IGNORED = np.array([2, -100, 3])
SIGNS = np.array([1, -1, 1, -1])

SCORES = np.exp(normal(3, 4, seed=1))
PROBABILITIES = SCORES / SCORES.sum(1, keepdims=True)
WITHIN = uniform(3, 4, low=0.1, high=0.9)


def call(name: str, **options: object):
    return lambda t, *inputs: getattr(t.nn.functional, name)(*inputs, **options)


def each(name: str, *inputs: np.ndarray, notes: str = "", **options: object) -> list[Sample]:
    """One sample a reduction."""
    return [
        Sample(name, call(name, reduction=r, **options), inputs, notes=f"{r} {notes}".strip())
        for r in REDUCTIONS
    ]


def weighted(name: str, **options: object):
    """With the last input as the weight of classes, or of elements."""
    return lambda t, x, y, w: getattr(t.nn.functional, name)(x, y, weight=w, **options)


SAMPLES = [
    *each("mse_loss", normal(3, 4), normal(3, 4, seed=1)),
    *each("l1_loss", normal(3, 4), normal(3, 4, seed=1)),
    *each("huber_loss", normal(3, 4), normal(3, 4, seed=1), delta=0.7),
    *each("smooth_l1_loss", normal(3, 4), normal(3, 4, seed=1), beta=0.7),
    *each("smooth_l1_loss", normal(3, 4), normal(3, 4, seed=1), beta=0.0, notes="l1"),
    *each("kl_div", np.log(PROBABILITIES[::-1]), PROBABILITIES),
    *each("kl_div", normal(3, 4), normal(3, 4, seed=1), log_target=True, notes="logarithms"),
    Sample("kl_div", call("kl_div", reduction="batchmean"), (normal(3, 4), PROBABILITIES)),
    *each("binary_cross_entropy", WITHIN, uniform(3, 4, low=0.1, high=0.9, seed=1)),
    *each("binary_cross_entropy_with_logits", normal(3, 4), WITHIN),
    Sample(
        "binary_cross_entropy",
        weighted("binary_cross_entropy"),
        (WITHIN, WITHIN[::-1].copy(), uniform(4)),
        gradient_inputs=(0, 1),  # PyTorch has none for this weight
        notes="weight",
    ),
    *(
        Sample(
            "binary_cross_entropy_with_logits",
            lambda t, x, y, w, p: t.nn.functional.binary_cross_entropy_with_logits(
                x, y, w, pos_weight=p
            ),
            (normal(3, 4), WITHIN, uniform(3, 1), uniform(4)),
            gradient_inputs=chosen,
            oracle=chosen is not None,  # PyTorch has no gradient of the weights
            notes=f"weights {chosen or ''}".strip(),
        )
        for chosen in ((0, 1), None)
    ),
    *each("cross_entropy", normal(3, 4), LABELS),
    *each("cross_entropy", normal(3, 4), WITH_IGNORED, label_smoothing=0.2, notes="smooth"),
    *each("cross_entropy", normal(2, 4, 3, 2), whole(2, 3, 2, low=0, high=4), notes="spatial"),
    *each("cross_entropy", normal(4), np.array(2), notes="single"),
    *each("cross_entropy", normal(3, 4), PROBABILITIES, notes="probabilities"),
    *each(
        "cross_entropy",
        normal(2, 4, 3),
        uniform(2, 4, 3),
        label_smoothing=0.3,
        notes="probabilities smooth",
    ),
    *(
        Sample(
            "cross_entropy",
            weighted("cross_entropy", reduction=r, label_smoothing=0.1, ignore_index=3),
            (normal(3, 4), LABELS, uniform(4)),
            gradient_inputs=(0,),
            notes=f"{r} weight",
        )
        for r in REDUCTIONS
    ),
    Sample(
        "cross_entropy",
        weighted("cross_entropy", label_smoothing=0.1),
        (normal(3, 4), PROBABILITIES, uniform(4)),
        gradient_inputs=(0, 1),
        notes="weight probabilities",
    ),
    *each("nll_loss", normal(3, 4), WITH_IGNORED),
    *each("nll_loss", normal(2, 4, 3), whole(2, 3, low=0, high=4), notes="spatial"),
    Sample("nll_loss", call("nll_loss"), (normal(4), np.array(1)), notes="single"),
    Sample(
        "nll_loss",
        weighted("nll_loss"),
        (normal(3, 4), LABELS, uniform(4)),
        gradient_inputs=(0,),
        notes="weight",
    ),
    Sample(
        "cosine_similarity",
        lambda t, a, b: t.cosine_similarity(a, b, 1),
        (normal(3, 4), normal(3, 4, seed=1)),
    ),
    Sample(
        "cosine_similarity",
        lambda t, a, b: t.cosine_similarity(a, b, -1),
        (normal(3, 2, 4), normal(2, 4)),
        notes="broadcast",
    ),
    *each("cosine_embedding_loss", normal(4, 3), normal(4, 3, seed=1), SIGNS, margin=-0.9),
    *each("hinge_embedding_loss", uniform(4), SIGNS, margin=3.0),
    *each("margin_ranking_loss", normal(4), normal(4, seed=1), SIGNS, margin=0.3),
    *each("poisson_nll_loss", normal(4), uniform(4, high=5.0), full=True),
    Sample(
        "poisson_nll_loss",
        call("poisson_nll_loss", log_input=False),
        (uniform(4), uniform(4, seed=1)),
        notes="count",
    ),
    *each("gaussian_nll_loss", normal(3, 4), normal(3, 4, seed=1), uniform(3, 4), full=True),
]
