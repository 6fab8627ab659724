"""What tests of norms may ask for beside devices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tinygrad_bn as tg


@pytest.fixture(params=["cpu", "cpu-reference", "cuda"], scope="module")
def route(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device for each way that a norm is computed: each backend, and the CPU without kernels."""
    if request.param == "cpu-reference":
        with tg.reference_kernels():
            yield "cpu"
    else:
        yield request.param
