"""`read_idx`: every dtype and rank, and no file that is not exactly what its header says."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import CODES, idx_bytes
from tinygrad_bn.data import read_idx
from tinygrad_bn.errors import DataError

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_arrays_of_all_kinds(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], compress: type[bytes]
) -> None:
    wanted = (np.arange(np.prod(shape)) - 2).astype(dtype).reshape(shape)
    (tmp_path / "x").write_bytes(compress(idx_bytes(wanted)))
    found = read_idx(tmp_path / "x")
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_every_truncation_is_an_error(tmp_path: Path, compress: type[bytes]) -> None:
    whole = compress(idx_bytes(IMAGES))
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(DataError, match="expected"):
            read_idx(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(IMAGES) + b"\0", "expected 24 bytes for .* got more"),
        (gzip.compress(idx_bytes(IMAGES) + b"\0"), "got more"),
        (gzip.compress(idx_bytes(IMAGES)) + b"junk", "whole gzip file"),
        (idx_bytes(IMAGES)[:-1], r"expected 24 bytes for \(2, 3, 4\) .* got 23: it is truncated"),
        (idx_bytes(IMAGES)[:10], "expected 3 sizes .* got 6 bytes"),
        (b"\0\1\x08\1" + bytes(4), "expected an IDX file .* begins with '00 01 08 01'"),
        (b"\0\0\x0a\1" + bytes(4), "expected an IDX file"),
        (b"\0\0\x08\0" + bytes(1), "expected an IDX file"),
        (b"\0\0\x08\3" + b"\xff" * 12 + bytes(99), "got 99: it is truncated"),
        (b"<!DOCTYPE html>", "expected an IDX file"),
        (b"", "expected an IDX file"),
    ],
    ids=range(11),  # not the bytes: gzip puts the time into them
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x")


def test_damage_in_a_compressed_file_is_found(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(IMAGES)))
    content[-6] ^= 1  # in its checksum
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="whole gzip file"):
        read_idx(tmp_path / "x")


def test_folders_and_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="cannot read"):
            read_idx(path)
