"""Where tensors may be, by PyTorch's names."""

from __future__ import annotations

import re

from tinygrad_bn.errors import BackendError


class Device(str):
    """The place of a tensor's memory: ``"cpu"`` or ``"cuda:0"``; equal to that string."""

    __slots__ = ()

    def __new__(cls, spec: object = "cpu", index: int | None = None) -> Device:
        text = str(spec) if index is None else f"{spec}:{index}"
        match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", text)
        if match is None or (match[1] == "cpu" and match[2] not in (None, "0")):
            raise BackendError(f"expected a device 'cpu', 'cuda' or 'cuda:N', got {text!r}")
        return super().__new__(cls, "cpu" if match[1] == "cpu" else f"cuda:{match[2] or 0}")

    @property
    def type(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]  # a string's method; PyTorch's property
        """The number of the GPU; None for the CPU."""
        return int(self.partition(":")[2]) if ":" in self else None

    def __repr__(self) -> str:
        return f"device({str(self)!r})"
