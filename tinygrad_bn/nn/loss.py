"""Losses as modules: ``loss(input, target)``, a scalar unless ``reduction`` is ``"none"``."""

from __future__ import annotations

from typing import ClassVar

from tinygrad_bn.nn import functional
from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.loss import REDUCTIONS, require_reduction
from tinygrad_bn.tensors import Tensor


class Loss(Module):
    """What losses share.

    Parameters
    ----------
    reduction : ``"none"``, ``"mean"`` or ``"sum"`` over the losses of all samples.
    """

    options: ClassVar[tuple[str, ...]] = ()
    """The other attributes that say which function of its kind it is."""
    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        require_reduction(reduction, self.reductions)
        self.reduction = reduction

    def extra_repr(self) -> str:
        shown = (*self.options, "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


class CrossEntropyLoss(Loss):
    """-log softmax(x)[label], or the cross-entropy with given probabilities of the classes.

    Parameters
    ----------
    weight : of each class, (C,).
    ignore_index : a label that costs nothing and does not count.
    label_smoothing : within [0, 1]: how much of each target is spread evenly over all classes.

    Shapes
    ------
    input: (N, C, *S) or (C,); labels: (N, *S) or (); probabilities: as the input.

    Notes
    -----
    See `functional.cross_entropy`.

    References
    ----------
    Label smoothing: Szegedy et al. (2016), "Rethinking the Inception Architecture for Computer
    Vision", arXiv:1512.00567, section 7.
    """

    options = ("ignore_index", "label_smoothing")

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(Loss):
    """-x[label] for log-probabilities x; arguments and shapes as `CrossEntropyLoss`."""

    options = ("ignore_index",)

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class BCELoss(Loss):
    """-(t log x + (1 - t) log(1 - x)) for probabilities x and t, (*) and (*).

    Parameters
    ----------
    weight : of each element; broadcasts to x.

    Notes
    -----
    Logarithms are held at -100 from below. `BCEWithLogitsLoss` is more exact.
    """

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(Loss):
    """-(p t log σ(x) + (1 - t) log(1 - σ(x))) for scores x and probabilities t, (*) and (*).

    Parameters
    ----------
    weight : of each element; broadcasts to x.
    pos_weight : p, the weight of the positive part; 1 if not given; broadcasts to x.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class MSELoss(Loss):
    """(x - t)²; (*) and (*)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(input, target, reduction=self.reduction)


class L1Loss(Loss):
    """|x - t|; (*) and (*)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(Loss):
    """(x - t)² / (2 beta) where |x - t| < beta, |x - t| - beta / 2 elsewhere; (*) and (*).

    References
    ----------
    Girshick (2015), "Fast R-CNN", arXiv:1504.08083, equation 3.
    """

    options = ("beta",)

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(Loss):
    """(x - t)² / 2 where |x - t| < delta, delta (|x - t| - delta / 2) elsewhere; (*) and (*).

    References
    ----------
    Huber (1964), "Robust estimation of a location parameter".
    """

    options = ("delta",)

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(Loss):
    """t (log t - x) for log-probabilities x and probabilities t; ``"batchmean"`` is the divergence.

    Parameters
    ----------
    log_target : whether the target has the logarithms of t.

    References
    ----------
    Kullback and Leibler (1951), "On information and sufficiency".
    """

    options = ("log_target",)
    reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.kl_div(
            input, target, reduction=self.reduction, log_target=self.log_target
        )


class MarginLoss(Loss):
    """A loss with a margin."""

    options = ("margin",)

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = margin


class CosineEmbeddingLoss(MarginLoss):
    """1 - cos(x1, x2) where the target is 1, max(0, cos(x1, x2) - margin) where it is -1.

    Shapes
    ------
    (N, D), (N, D) and a target (N,); or (D,), (D,) and ().
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return functional.cosine_embedding_loss(
            input1, input2, target, self.margin, reduction=self.reduction
        )


class MarginRankingLoss(MarginLoss):
    """max(0, margin - t (x1 - x2)): a target t of 1 wants x1 to be the greater, -1 x2."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return functional.margin_ranking_loss(
            input1, input2, target, self.margin, reduction=self.reduction
        )


class HingeEmbeddingLoss(MarginLoss):
    """x where the target is 1, max(0, margin - x) where it is -1; x is a distance."""

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.hinge_embedding_loss(input, target, self.margin, reduction=self.reduction)


class PoissonNLLLoss(Loss):
    """eˣ - t x, or x - t log x for ``log_input=False``: minus the log-probability of a count t."""

    options = ("log_input", "full", "eps")

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        *,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.poisson_nll_loss(
            input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(Loss):
    """(log v + (x - t)² / v) / 2: minus the log-density of t under mean x and variance v.

    References
    ----------
    Nix and Weigend (1994), "Estimating the mean and variance of the target distribution".
    """

    options = ("full", "eps")

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor) -> Tensor:
        return functional.gaussian_nll_loss(
            input, target, var, full=self.full, eps=self.eps, reduction=self.reduction
        )


class CosineSimilarity(Module):
    """x1 · x2 / (max(‖x1‖, eps) max(‖x2‖, eps)) along ``dim``."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return functional.cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}"
