"""DLPack where NumPy and CuPy stop: bfloat16, and memory that may not be written to.

Neither library exchanges bfloat16. DLPack does: it goes as 16-bit integers, under its own code in
the capsule's description of elements.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

UINT, BFLOAT = 1, 4
"""Codes of dtypes: kDLUInt and kDLBfloat."""
READ_ONLY = 1
"""The flag of memory that may not be written to."""

is_valid = ctypes.pythonapi.PyCapsule_IsValid
is_valid.argtypes, is_valid.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_int
pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
pointer_in.argtypes, pointer_in.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


class Elements(ctypes.Structure):
    """DLDataType."""

    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Described(ctypes.Structure):
    """DLTensor, as far as its elements."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("elements", Elements),
    ]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned, likewise; DLManagedTensor begins with the DLTensor itself."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Described),
    ]


def described(capsule: object) -> tuple[Described, int]:
    """What a capsule that nobody has taken says of its tensor, and its flags."""
    if is_valid(capsule, b"dltensor_versioned"):
        whole = Versioned.from_address(pointer_in(capsule, b"dltensor_versioned"))
        return whole.tensor, whole.flags
    return Described.from_address(pointer_in(capsule, b"dltensor")), 0


def exported(array: Array, **options: Any) -> object:
    """A capsule of an array of NumPy or CuPy, of bfloat16 too."""
    if array.dtype.name != "bfloat16":
        return array.__dlpack__(**options)
    capsule = array.view(np.uint16).__dlpack__(**options)
    described(capsule)[0].elements.code = BFLOAT
    return capsule


class Relabelled:
    """Another library's tensor, whose bfloat16 goes as integers.

    Attributes
    ----------
    was_bfloat16, read_only : what the capsule said.
    """

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.was_bfloat16 = self.read_only = False

    def __dlpack__(self, **options: Any) -> object:
        capsule = self.producer.__dlpack__(**options)
        tensor, flags = described(capsule)
        self.read_only = bool(flags & READ_ONLY)
        if tensor.elements.code == BFLOAT and tensor.elements.bits == 16:
            self.was_bfloat16, tensor.elements.code = True, UINT
        return capsule

    def __dlpack_device__(self) -> Any:
        return self.producer.__dlpack_device__()


def imported(take: Callable[[object], Array], value: object) -> tuple[Array, bool]:
    """An array over another library's memory, by the ``from_dlpack`` of NumPy or CuPy; and whether
    it may not be written to.
    """
    producer = Relabelled(value)
    array = take(producer)
    if producer.was_bfloat16:
        from ml_dtypes import bfloat16

        array = array.view(bfloat16)
    return array, producer.read_only
