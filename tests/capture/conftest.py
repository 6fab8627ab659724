"""Tests that ask for a device make everything there: a step knows of no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tinygrad_bn as tg


@pytest.fixture(autouse=True)
def made_there(request: pytest.FixtureRequest) -> Iterator[None]:
    """The device that a test asks for is the default one."""
    if "device" not in request.fixturenames:
        yield
        return
    before = tg.config.get_default_device()
    tg.set_default_device(request.getfixturevalue("device"))
    yield
    tg.set_default_device(before)
