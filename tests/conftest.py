"""What every test may ask for: devices. Without a GPU, "cuda" is CuPy's strict stand-in."""

from __future__ import annotations

import pytest

from tests import cupy_standin

cupy_standin.install()


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """A device to make tensors on: the test runs on each backend."""
    return str(request.param)


@pytest.fixture
def cuda() -> str:
    """The first GPU, or its stand-in."""
    return "cuda:0"
