"""How rows are shared out among teams of threads (``teams.cuh``)."""

from __future__ import annotations

THREADS, WARP = 256, 32
LONGEST = 1024
"""Elements of a row that one warp takes."""


def team_for(length: int) -> int:
    """The threads that a row of that many elements is for: a warp's, or a block's."""
    return WARP if length <= LONGEST else THREADS


def blocks_for(rows: int, team: int) -> tuple[int]:
    return (-(-rows * team // THREADS),)
