"""The library's own errors, each of them also the builtin a caller would expect.

Every one is a ``RuntimeError`` too, so that code written for PyTorch, which raises little else,
goes on catching them.
"""

from __future__ import annotations


class TinygradError(RuntimeError):
    """The base of every error this library raises on purpose."""


class ShapeError(TinygradError, ValueError):
    """A rank, a shape, an axis or a size that does not fit."""


class DtypeError(TinygradError, TypeError):
    """A dtype, or a kind of object, that an operation has no meaning for."""


class RangeError(TinygradError, IndexError):
    """An index or a label outside of what it indexes."""


class ArgumentError(TinygradError, ValueError):
    """A value outside of the range in which it means something."""


class BackendError(TinygradError):
    """A backend or device that is missing, unknown, or mixed with another."""


class OutOfMemoryError(BackendError, MemoryError):
    """A device that lacks the memory which is asked of it."""


class DependencyError(TinygradError, ImportError):
    """An optional package that is asked for and not installed."""


class GradientError(TinygradError):
    """A gradient that does not exist, is gone, or would be wrong."""


class CaptureError(TinygradError):
    """Something a compiled step cannot replay."""


class DistributedError(TinygradError):
    """Ranks that cannot go on together: one failed, left, is late, or calls something else."""


class StateError(TinygradError, KeyError):
    """A state dict that does not fit what it is loaded into."""

    def __str__(self) -> str:
        return RuntimeError.__str__(self)  # KeyError's would show the repr of the message


class DataError(TinygradError, OSError):
    """A file that is truncated, foreign, corrupted, or cannot be had."""


class ModuleError(TinygradError, NotImplementedError, AttributeError):
    """A module that lacks what is asked of it: its initialisation, a forward, a named part."""
