"""What is trained: eight networks and batch sizes, their data, and what they ask of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]

OPTIMIZERS: dict[str, dict[str, float]] = {"adam": {}, "sgd": {"momentum": 0.9}}
"""The options of each, beside its learning rate."""
ARRAYS = {"adam": 4, "sgd": 3}
"""What an update touches for each parameter: itself, its gradient, and each buffer."""
UPDATE_BYTES = {"adam": 28, "sgd": 20}
"""What an update moves per parameter in float32: parameter, gradient and each buffer are read, all
but the gradient are written.
"""
NORM_BYTES = 32
"""What batch norm moves per element in float32. Forward, the input is read for the statistics and
again to normalise, and the output written; backward, input and gradient are each read twice, and
the input's gradient written.
"""
DATA_LIMIT = 64 << 20
"""How many bytes the batches of a case may take, if these are more than two."""


@dataclass(frozen=True)
class Case:
    """A network of linear layers with batch norm and ReLU after all but the last, and a batch size.

    Attributes
    ----------
    widths : of the input, the hidden layers and the output.
    most : how many different batches there are, unless they take more than 64 MiB.
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    most: int = 8

    @property
    def parameters(self) -> int:
        """Weights and biases, and γ and β of each norm."""
        return sum(a * b + b for a, b in pairwise(self.widths)) + 2 * sum(self.hidden)

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.widths[1:-1]

    @property
    def flops(self) -> int:
        """Of the products of a step: forward, for the weights, and but for the first layer for its
        input.
        """
        products = [a * b for a, b in pairwise(self.widths)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def weights(self) -> Arrays:
        """Parameters and running statistics that all start from, under PyTorch's names."""
        rng = np.random.default_rng(1)
        found: Arrays = {}
        for layer, (inputs, outputs) in enumerate(pairwise(self.widths)):
            bound = inputs**-0.5
            found[f"{3 * layer}.weight"] = rng.uniform(-bound, bound, (outputs, inputs))
            found[f"{3 * layer}.bias"] = rng.uniform(-bound, bound, outputs)
            if layer < len(self.hidden):
                found[f"{3 * layer + 1}.weight"] = rng.uniform(0.5, 1.5, outputs)
                found[f"{3 * layer + 1}.bias"] = rng.uniform(-0.5, 0.5, outputs)
                found[f"{3 * layer + 1}.running_mean"] = rng.uniform(-0.5, 0.5, outputs)
                found[f"{3 * layer + 1}.running_var"] = rng.uniform(0.5, 1.5, outputs)
        return found

    def batches(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Batches of normal inputs and random labels, from which there is nothing to learn: a loss
        that collapses ends in numbers too small for a processor to be quick with.
        """
        rng = np.random.default_rng(2)
        count = max(2, min(self.most, DATA_LIMIT // (4 * self.batch * self.widths[0])))
        for _ in range(count):
            x = rng.standard_normal((self.batch, self.widths[0]))
            yield x, rng.integers(0, self.widths[-1], self.batch)


MNIST = (784, 256, 256, 10)
CASES = {
    case.name: case
    for case in (
        Case("tiny", (16, 32, 32, 4), 32),
        *(Case(f"b{batch}", MNIST, batch) for batch in (2, 16, 64, 256, 1024, 4096)),
        Case("big", (1024, 2048, 2048, 2048, 1000), 512),
    )
}
