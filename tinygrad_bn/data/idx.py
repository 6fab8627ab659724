"""IDX, the format that MNIST and its kin come in."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

from tinygrad_bn.errors import DataError

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """The array in an IDX file, which may be compressed by gzip.

    Raises
    ------
    DataError
        If the file cannot be read, is not an IDX file, or has fewer or more bytes than its header
        promises.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998: the format is
    described there.
    """
    try:
        with open(path, "rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not compressed:
                return parse(raw, path)
            with gzip.GzipFile(fileobj=raw) as file:
                return parse(file, path)
    except DataError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"expected a whole gzip file, got {path}: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def parse(file: BinaryIO | gzip.GzipFile, path: object) -> np.ndarray[Any, Any]:
    magic = take(file, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not magic[3]:
        raise DataError(
            f"expected an IDX file (0, 0, dtype, rank), got {path}, "
            f"which begins with {magic.hex(' ')!r}"
        )
    dtype, rank = np.dtype(DTYPES[magic[2]]), magic[3]
    sizes = take(file, 4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(
            f"expected {rank} sizes in the header of {path}, "
            f"got {len(sizes)} bytes: it is truncated"
        )
    shape = struct.unpack(f">{rank}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    body = take(file, expected)
    if len(body) < expected:
        raise DataError(
            f"expected {expected} bytes for {shape} in {path}, got {len(body)}: it is truncated"
        )
    if file.read(1):
        raise DataError(f"expected {expected} bytes for {shape} in {path}, got more")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.type, copy=False)


def take(file: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    """Up to ``count`` bytes: memory grows with what there is, not with what a header claims."""
    data = bytearray()
    while len(data) < count and (chunk := file.read(min(count - len(data), CHUNK))):
        data += chunk
    return data
