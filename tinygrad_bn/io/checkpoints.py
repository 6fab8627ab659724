"""Saving and loading nested structures of tensors, as safetensors files."""

from __future__ import annotations

import json
import os
from types import ModuleType
from typing import Any

import numpy as np

from tinygrad_bn.backend import backend_for
from tinygrad_bn.dtypes import bfloat16
from tinygrad_bn.errors import DataError, DependencyError
from tinygrad_bn.files import read_whole, replacing
from tinygrad_bn.io.structure import put_together, take_apart
from tinygrad_bn.io.torch_files import from_bytes, is_torch
from tinygrad_bn.tensors import Tensor

STRUCTURE = "tinygrad_bn"
"""The key of the file's metadata under which the structure lies."""
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a state dict, or any nesting of dicts, lists and tuples, to a safetensors file.

    The file is written beside the old one and renamed over it when it is safely on the disk, so
    that there is a whole one at every moment. `load` gives back what was saved: tensors, numbers,
    strings, booleans and None, keys and tuples as they were.

    Parameters
    ----------
    obj : the structure. Tensors that share memory are each saved whole; gradients and graphs are
        not saved.
    path : by custom with the suffix ``.safetensors``.

    Raises
    ------
    DtypeError
        If something in it cannot be saved; the message says where.
    DataError
        If the file cannot be written: the folder is missing or read-only, the disk full.

    Notes
    -----
    The structure is the JSON text under ``tinygrad_bn`` in the file's metadata. A flat state dict
    makes a file that every reader of safetensors understands, the keys being the names.

    References
    ----------
    The format: https://github.com/huggingface/safetensors
    """
    structure, tensors = take_apart(obj)
    arrays = {
        name: np.asarray(x.backend.to_numpy(x.array), order="C") for name, x in tensors.items()
    }
    library()
    from safetensors.numpy import save as serialize

    data = serialize(arrays, metadata={STRUCTURE: structure})
    with replacing(path) as file:
        file.write(data)


def load(path: str | os.PathLike[str], device: object = None) -> Any:
    """What `save` saved, a flat dict from anybody's safetensors file, or what `load_torch` reads.

    Parameters
    ----------
    device : where the tensors go; the default device if None. Where they were when they were saved
        does not matter.

    Raises
    ------
    DataError
        If the file cannot be read, is truncated, or is of another kind.
    """
    data = read_whole(path)
    if is_torch(data):
        return from_bytes(data, path, device)
    backend = backend_for(device)
    records, metadata = parse(data, path)
    tensors = {
        name: Tensor.wrap(backend.copy(backend.asarray(x)), backend) for name, x in records.items()
    }
    if STRUCTURE not in metadata:
        return tensors
    return put_together(metadata[STRUCTURE], tensors.__getitem__)


def parse(data: bytes, path: object) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """The arrays and the metadata of a safetensors file."""
    safetensors = library()
    try:
        records = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise DataError(f"expected a whole safetensors file, got {path}: {error}") from error
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])  # deserialize has checked it
    arrays = {}
    for name, record in records:
        dtype = bfloat16() if record["dtype"] == "BF16" else DTYPES.get(record["dtype"])
        if dtype is None:
            raise DataError(
                f"expected booleans, integers and floats of 16 bits or more in {path}, "
                f"got {record['dtype']} for {name!r}"
            )
        arrays[name] = np.frombuffer(record["data"], dtype).reshape(record["shape"])
    return arrays, header.get("__metadata__", {})


def library() -> ModuleType:
    try:
        import safetensors
    except ModuleNotFoundError:
        raise DependencyError(
            "expected the package safetensors, which saving and loading need, got none; "
            "pip install safetensors"
        ) from None
    return safetensors
