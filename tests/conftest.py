"""What every test may ask for: devices. Without a GPU, "cuda" is CuPy's strict stand-in."""

from __future__ import annotations

import pytest

from tests import cupy_standin, without_hypothesis

cupy_standin.install()
without_hypothesis.install()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on the GPU: tests that ask for it as a fixture, and those of modules that hold
    its backend, as kernels are tested.
    """
    for item in items:
        call = getattr(item, "callspec", None)
        on_gpu = call is not None and call.params.get("device") == "cuda"
        asked = "cuda" in getattr(item, "fixturenames", ())
        if on_gpu or asked or hasattr(getattr(item, "module", None), "GPU"):
            item.add_marker(pytest.mark.cuda)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """A device to make tensors on: the test runs on each backend."""
    return str(request.param)


@pytest.fixture
def cuda() -> str:
    """The first GPU, or its stand-in."""
    return "cuda:0"
