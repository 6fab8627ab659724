"""The second GPU does what it is asked to while the first is current."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tinygrad_bn.backends import uploads

from tinygrad_bn import cuda

cupy: Any = uploads.cupy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "second_gpu":
            item.add_marker(pytest.mark.cuda)
            item.add_marker(pytest.mark.skipif(cuda.device_count() < 2, reason="there is one GPU"))


@pytest.fixture(autouse=True)
def the_first_stays_current() -> Iterator[None]:
    assert cupy.cuda.runtime.getDevice() == 0
    yield
    assert cupy.cuda.runtime.getDevice() == 0
