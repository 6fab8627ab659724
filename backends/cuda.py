"""Settings of products on a GPU, under PyTorch's names: ``tg.backends.cuda.matmul.allow_tf32``."""

from __future__ import annotations

from tinygrad_bn.backend import precision
from tinygrad_bn.errors import ArgumentError


class MatmulSettings:
    """What all products of the process may do."""

    @property
    def allow_tf32(self) -> bool:
        """Whether products of float32 may round their operands to TensorFloat-32, which has
        float32's range and 10 bits after the point (False until set). On GPUs from Ampere on that
        is several times as fast, and exact to about 1e-3.
        """
        return precision.allow_tf32

    @allow_tf32.setter
    def allow_tf32(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise ArgumentError(f"expected allow_tf32 to be True or False, got {value!r}")
        precision.allow_tf32 = value


matmul = MatmulSettings()
