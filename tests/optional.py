"""Libraries that tests may do without: who asks for something of an absent one is skipped."""

from __future__ import annotations

from typing import Any

import pytest


class Optional:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(pytest.importorskip(self.name), name)


stats: Any = Optional("scipy.stats")
