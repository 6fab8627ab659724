"""State dicts that PyTorch saved, read without PyTorch and without running what is in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from reprlib import repr as brief  # a small pickle can make objects whose whole repr has no end
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn.backend import Backend, Device, backend_for
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import DataError
from tinygrad_bn.files import read_whole
from tinygrad_bn.io.pickles import Call, Machine
from tinygrad_bn.tensors import Tensor

if TYPE_CHECKING:
    from zipfile import ZipFile

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
MAX_RANK = 64
"""NumPy's."""


def is_torch(data: bytes) -> bool:
    """Whether a file's content is PyTorch's, in its present or its old format."""
    return (data.startswith(b"PK\x03\x04") and data[8:9] != b"{") or data.startswith(LEGACY_MAGIC)


def load_torch(path: str | os.PathLike[str], device: object = None) -> Any:
    """What ``torch.save`` wrote: a state dict, or another nesting of tensors and numbers.

    Parameters
    ----------
    device : where the tensors go; the default device if None. Where they were saved does not
        matter.

    Raises
    ------
    DataError
        If the file cannot be read, is truncated, or contains anything but tensors and plain data.

    Notes
    -----
    Nothing in the file is run: a name that is not one of the few that tensors need is an error.
    Tensors come without ``requires_grad``, parameters as tensors, ordered dictionaries as
    dictionaries. As in PyTorch, tensors that shared memory when they were saved share it again, on
    the CPU.
    """
    return from_bytes(read_whole(path), path, device)


def from_bytes(data: bytes, path: object, device: object) -> Any:
    from zipfile import BadZipFile, ZipFile  # 10 ms, with what they import

    if data.startswith(LEGACY_MAGIC):
        raise DataError(
            f"expected PyTorch's zip format, got {path} in the one before version 1.6; "
            f"with PyTorch, save it again: torch.save(torch.load(path), path)"
        )
    try:
        with ZipFile(BytesIO(data)) as archive:
            return Checkpoint(archive, path, backend_for(device)).load()
    except (BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(f"expected a whole file of torch.save, got {path}: {error}") from error


@dataclass(frozen=True, slots=True)
class StorageKind:
    """A class of PyTorch's storages, of which only the dtype's name counts."""

    dtype: str


class Storage:
    """The numbers that one or more tensors are windows on."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.owner = Tensor.wrap(array, backend_for("cpu"))


class Checkpoint:
    """An open file of PyTorch's, and the storages read from it so far."""

    def __init__(self, archive: ZipFile, path: object, backend: Backend) -> None:
        self.archive = archive
        self.path = path
        self.backend = backend
        self.records = {info.filename: info for info in archive.infolist()}
        self.storages: dict[tuple[str, str], Storage] = {}

    def load(self) -> Any:
        pickles = [
            name for name in self.records if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(pickles) != 1:
            raise DataError(
                f"expected one data.pkl in {self.path}, a file of torch.save, got {len(pickles)}"
            )
        self.folder = pickles[0].partition("/")[0]
        order = f"{self.folder}/byteorder"
        if order in self.records and self.read(order) != b"little":
            raise DataError(
                f"expected little-endian numbers in {self.path}, got {bytes(self.read(order))!r}"
            )
        return Machine(self.names(), self.storage).run(bytes(self.read(pickles[0])))

    def read(self, name: str) -> bytearray:
        info = self.records.get(name)
        if info is None:
            raise DataError(f"expected the record {name} in {self.path}, got none")
        if info.compress_type or info.flag_bits & 1:
            raise DataError(
                f"expected plain records in {self.path}, got {name} compressed or encrypted"
            )
        return bytearray(self.archive.read(info))

    def names(self) -> dict[str, Any]:
        """What a pickle may name: nothing here can do more than make a tensor or a container."""
        return {
            "collections OrderedDict": Call(lambda: {}),
            "torch Size": Call(tuple),
            "torch device": Call(device_named),
            "torch._utils _rebuild_tensor_v2": Call(self.tensor),
            "torch._utils _rebuild_parameter": Call(lambda data, requires_grad, hooks: data),
            **{f"torch {kind}": StorageKind(name) for kind, name in DTYPES.items()},
            **{f"torch {name}": np.dtype(name) for name in DTYPES.values() if name != "bfloat16"},
        }

    def storage(self, persistent_id: Any) -> Storage:
        """The numbers that some tensors are windows on: a record of the archive."""
        match persistent_id:
            case ("storage", StorageKind(name), str(key), str(), int(size)):
                pass
            case _:
                raise DataError(
                    f"expected the id of a storage in {self.path}, got {brief(persistent_id)}"
                )
        if (key, name) not in self.storages:
            record = self.read(f"{self.folder}/data/{key}")
            dtype = as_dtype(name).newbyteorder("<")
            if len(record) != size * dtype.itemsize:
                raise DataError(
                    f"expected {size} numbers of {dtype.itemsize} bytes in record {key} "
                    f"of {self.path}, got {len(record)} bytes"
                )
            self.storages[key, name] = Storage(np.frombuffer(record, dtype))
        return self.storages[key, name]

    def tensor(self, storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
        """A window on a storage; offset and strides count elements."""
        if not isinstance(storage, Storage):
            raise DataError(f"expected a storage to make a tensor of, got {brief(storage)}")
        view = window(storage.array, offset, shape, strides)
        tensor = Tensor.wrap(self.backend.asarray(view), self.backend)
        return tensor.share(storage.owner) if self.backend.device == "cpu" else tensor


def device_named(kind: str, index: int | None = None) -> Device:
    if type(kind) is not str:
        raise DataError(f"expected the name of a device, got {brief(kind)}")
    return Device(kind, index)


def window(
    array: np.ndarray[Any, Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """The view of a flat array that PyTorch describes so.

    Raises
    ------
    DataError
        If it would reach outside of the array.
    """
    if (
        any(type(n) is not int or n < 0 for n in (offset, *shape, *strides))
        or len(shape) != len(strides)
        or len(shape) > MAX_RANK
    ):
        got = ", ".join(map(brief, (offset, shape, strides)))
        raise DataError(f"expected an offset, a shape and as many strides, got {got}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if offset > len(array) or (0 not in shape and last >= len(array)):
        raise DataError(
            f"expected a tensor within its {len(array)} numbers, "
            f"got offset {offset}, shape {shape}, strides {strides}"
        )
    if 0 in shape:
        return np.empty(shape, array.dtype)
    steps = [step * array.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(array[offset:], shape, steps)
