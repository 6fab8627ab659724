"""Activations as modules: a function of each element, (*) -> (*), unless they say otherwise.

``inplace``, which PyTorch's have, is accepted and has no effect: results are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tinygrad_bn.creation import full
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn import functional
from tinygrad_bn.nn.module import Module
from tinygrad_bn.tensors import Parameter, Tensor


class Activation(Module):
    """What activations share: how they print."""

    options: ClassVar[tuple[str, ...]] = ()
    """The attributes that say which function of its kind it is."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


class PlainActivation(Activation):
    """An activation without options."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()


class ReLU(PlainActivation):
    """max(x, 0); the gradient at 0 is 0.

    References
    ----------
    Nair and Hinton (2010), "Rectified linear units improve restricted Boltzmann machines".
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(input)


class ReLU6(PlainActivation):
    """min(max(x, 0), 6).

    References
    ----------
    Krizhevsky (2010), "Convolutional deep belief networks on CIFAR-10".
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu6(input)


class LeakyReLU(Activation):
    """x where it is positive, negative_slope · x elsewhere.

    References
    ----------
    Maas, Hannun and Ng (2013), "Rectifier nonlinearities improve neural network acoustic models".
    """

    options = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return functional.leaky_relu(input, self.negative_slope)


class PReLU(Activation):
    """x where it is positive, w x elsewhere, with a learned w for all channels or for each.

    Parameters
    ----------
    num_parameters : 1, or the number of channels.
    init : the value w starts from.

    Shapes
    ------
    (N, C, *S) -> (N, C, *S); ``weight`` is (num_parameters,).

    Notes
    -----
    Weight decay would pull the weight to 0, which makes it a ReLU.

    References
    ----------
    He et al. (2015), "Delving deep into rectifiers", arXiv:1502.01852, equation 1.
    """

    options = ("num_parameters",)

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: object = None, dtype: Any = None
    ) -> None:
        super().__init__()
        if num_parameters < 1:
            raise ArgumentError(f"expected num_parameters ≥ 1, got {num_parameters}")
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), init, device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        return functional.prelu(input, self.weight)


class ELU(Activation):
    """x where it is positive, alpha (eˣ - 1) elsewhere.

    References
    ----------
    Clevert, Unterthiner and Hochreiter (2015), arXiv:1511.07289, equation 15.
    """

    options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return functional.elu(input, self.alpha)


class CELU(Activation):
    """x where it is positive, alpha (exp(x / alpha) - 1) elsewhere: smooth for every alpha.

    References
    ----------
    Barron (2017), "Continuously differentiable exponential linear units", arXiv:1704.07483.
    """

    options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return functional.celu(input, self.alpha)


class SELU(PlainActivation):
    """λ x where it is positive, λ α (eˣ - 1) elsewhere; mean 0 and variance 1 are its fixed point.

    References
    ----------
    Klambauer et al. (2017), "Self-normalizing neural networks", arXiv:1706.02515, equation 2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.selu(input)


class GELU(Activation):
    """x Φ(x), where Φ is the distribution function of the standard normal law.

    Parameters
    ----------
    approximate : ``"none"``, Φ by erf; or ``"tanh"``: (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.

    References
    ----------
    Hendrycks and Gimpel (2016), "Gaussian error linear units", arXiv:1606.08415, section 2.
    """

    options = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return functional.gelu(input, self.approximate)


class SiLU(PlainActivation):
    """x σ(x), also called swish.

    References
    ----------
    Elfwing, Uchibe and Doya (2017), arXiv:1702.03118, equation 8.
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.silu(input)


class Mish(PlainActivation):
    """x tanh(log(1 + eˣ)).

    References
    ----------
    Misra (2019), "Mish: a self regularized non-monotonic activation function", arXiv:1908.08681.
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.mish(input)


class Softplus(Activation):
    """log(1 + exp(beta x)) / beta; x itself where beta x is above the threshold.

    References
    ----------
    Glorot, Bordes and Bengio (2011), "Deep sparse rectifier neural networks", section 3.1.
    """

    options = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        return functional.softplus(input, self.beta, self.threshold)


class Softsign(PlainActivation):
    """x / (1 + |x|).

    References
    ----------
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward networks".
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.softsign(input)


class Hardswish(PlainActivation):
    """x min(max(x + 3, 0), 6) / 6.

    References
    ----------
    Howard et al. (2019), "Searching for MobileNetV3", arXiv:1905.02244, section 5.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardswish(input)


class Hardsigmoid(PlainActivation):
    """min(max(x + 3, 0), 6) / 6, of Howard et al. (2019), arXiv:1905.02244."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardsigmoid(input)


class Hardtanh(Activation):
    """x held within [min_val, max_val]."""

    options = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardtanh(input, self.min_val, self.max_val)


class LogSigmoid(PlainActivation):
    """log σ(x) = -log(1 + e⁻ˣ)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.logsigmoid(input)


class Tanh(PlainActivation):
    """The hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.tanh(input)


class Sigmoid(PlainActivation):
    """σ(x) = 1 / (1 + e⁻ˣ)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.sigmoid(input)


class Tanhshrink(PlainActivation):
    """x - tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.tanhshrink(input)


class Softshrink(Activation):
    """sign(x) max(|x| - lambd, 0)."""

    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return functional.softshrink(input, self.lambd)


class Hardshrink(Activation):
    """x where |x| is above lambd, 0 elsewhere."""

    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return functional.hardshrink(input, self.lambd)


class Threshold(Activation):
    """x where it is above the threshold, value elsewhere."""

    options = ("threshold", "value")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value = threshold, value

    def forward(self, input: Tensor) -> Tensor:
        return functional.threshold(input, self.threshold, self.value)


class AlongAxis(Activation):
    """An activation of all elements along an axis.

    Raises
    ------
    ShapeError
        Without ``dim``, which PyTorch would guess.
    """

    options = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        if dim is None:
            raise ShapeError(f"expected dim, the axis along which {type(self).__name__} works")
        self.dim = dim


class Softmax(AlongAxis):
    """eˣ / Σ eˣ along ``dim``: probabilities from scores."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.softmax(input, self.dim)


class LogSoftmax(AlongAxis):
    """x - log Σ eˣ along ``dim``: log-probabilities from scores."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.log_softmax(input, self.dim)


class Softmin(AlongAxis):
    """e⁻ˣ / Σ e⁻ˣ along ``dim``."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.softmin(input, self.dim)


class GLU(AlongAxis):
    """a σ(b) for the halves a and b of x along ``dim``: (*, 2n, *) -> (*, n, *).

    References
    ----------
    Dauphin et al. (2016), "Language modeling with gated convolutional networks", arXiv:1612.08083.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        return functional.glu(input, self.dim)
