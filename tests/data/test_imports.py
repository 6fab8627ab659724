"""What `data` and `io` need now and then is imported only then."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "heavy", ["pandas", "safetensors", "rich", "urllib.request", "http.client", "ml_dtypes"]
)
def test_heavy_modules_wait_until_they_are_needed(heavy: str) -> None:
    program = f"import sys, tinygrad_bn.data, tinygrad_bn.io; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
