"""The programs under benchmarks/ import each other as a script's neighbours do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
