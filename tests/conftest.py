"""What every test may ask for."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """A device to make tensors on."""
    return str(request.param)
