"""The well-known data sets: what is in them, where they are looked for, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.conftest import Server, idx_bytes, sha256
from tinygrad_bn.data import datasets
from tinygrad_bn.errors import DataError

IMAGES = np.arange(3 * 28 * 28).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([0, 9, 4], np.uint8)
FILES = {
    "train-images-idx3": idx_bytes(IMAGES),
    "train-labels-idx1": idx_bytes(LABELS),
    "t10k-images-idx3": idx_bytes(IMAGES[:1]),
    "t10k-labels-idx1": idx_bytes(LABELS[:1]),
}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and no mirror but the one it names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TINYGRAD_BN_MIRROR", "http://127.0.0.1:9")
    monkeypatch.delenv("TINYGRAD_BN_DATA", raising=False)
    return tmp_path / "cache" / "tinygrad_bn"


def put(folder: Path, **changed: bytes) -> None:
    """The four files, with some changed (``train_images_idx3=...``)."""
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        content = changed.get(name.replace("-", "_"), content)
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(content))


class TestDigits:
    def test_what_is_in_them(self) -> None:
        split = datasets.digits()
        x, y = split.train.tensors
        assert (x.shape, x.dtype.name) == ((1347, 64), "float32")
        assert (y.shape, y.dtype.name) == ((1347,), "int64")
        assert [t.shape for t in split.test.tensors] == [(450, 64), (450,)]
        assert (x.array.min(), x.array.max()) == (0, 1)
        assert split.classes == tuple("0123456789")
        for part in (split.train, split.test):
            share = np.bincount(part.tensors[1].numpy(), minlength=10) / len(part)
            np.testing.assert_allclose(share, 0.1, atol=0.01)  # each digit about equally often

    def test_as_images(self) -> None:
        flat, images = datasets.digits(), datasets.digits(flatten=False)
        assert images.test.tensors[0].shape == (450, 1, 8, 8)
        np.testing.assert_array_equal(
            images.test.tensors[0].numpy().reshape(450, 64), flat.test.tensors[0].numpy()
        )

    def test_they_are_what_others_have(self) -> None:
        sklearn = pytest.importorskip("sklearn.datasets")
        split, wanted = datasets.digits(), sklearn.load_digits()
        x, y = (
            np.concatenate(p) for p in zip(split.train.tensors, split.test.tensors, strict=True)
        )
        np.testing.assert_array_equal(x * 16, wanted.data)  # sixteenths are exact
        np.testing.assert_array_equal(y, wanted.target)

    def test_they_come_with_their_licence(self) -> None:
        text = Path(datasets.__file__).with_name("digits.txt").read_text()
        for word in ("CC BY 4.0", "Alpaydin", "Kaynak", "UCI"):
            assert word in text
            assert word in (datasets.digits.__doc__ or "")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
class TestIdxDataSets:
    def test_own_folder(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path / "own" / name.replace("_", "-"))
        monkeypatch.setenv("TINYGRAD_BN_DATA", str(tmp_path / "own"))
        split = getattr(datasets, name)()
        x, y = split.train.tensors
        assert (x.shape, x.dtype.name, y.dtype.name) == ((3, 784), "float32", "int64")
        # division in float32 is rounded once: half a unit in the last place of 1
        np.testing.assert_allclose(x.numpy(), IMAGES.reshape(3, 784) / 255, atol=2**-25)
        assert y.tolist() == [0, 9, 4]
        assert len(split.test) == 1
        assert len(split.classes) == 10
        assert getattr(datasets, name)(flatten=False).train.tensors[0].shape == (3, 1, 28, 28)

    def test_uncompressed_files_will_do(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "own" / name.replace("_", "-")
        folder.mkdir(parents=True)
        for file, content in FILES.items():
            (folder / f"{file}-ubyte").write_bytes(content)
        monkeypatch.setenv("TINYGRAD_BN_DATA", str(tmp_path / "own"))
        assert len(getattr(datasets, name)().train) == 3

    def test_the_cache_comes_second(
        self, name: str, tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(empty_cache / name.replace("_", "-"))
        monkeypatch.setenv("TINYGRAD_BN_DATA", str(tmp_path / "nothing here"))
        assert len(getattr(datasets, name)().train) == 3

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"train_images_idx3": idx_bytes(IMAGES[:, 1:])}, r"\(N, 28, 28\) .* \(3, 27, 28\)"),
            ({"train_images_idx3": idx_bytes(LABELS)}, r"\(N, 28, 28\) .* uint8 \(3,\)"),
            ({"t10k_images_idx3": idx_bytes(IMAGES.astype("f4"))}, "got float32"),
            ({"train_labels_idx1": idx_bytes(LABELS[:2])}, r"uint8 \(3,\) .* got uint8 \(2,\)"),
            ({"train_labels_idx1": idx_bytes(LABELS.astype("i4"))}, "got int32"),
            ({"train_labels_idx1": idx_bytes(LABELS + np.uint8(1))}, "labels below 10 .* got 10"),
            ({"train_images_idx3": idx_bytes(IMAGES)[:-1]}, "truncated"),
            ({"train_images_idx3": b"\x89PNG"}, "expected an IDX file"),
        ],
    )
    def test_files_of_another_kind(
        self, name: str, empty_cache: Path, changed: dict[str, bytes], message: str
    ) -> None:
        put(empty_cache / name.replace("_", "-"), **changed)
        with pytest.raises(DataError, match=message):
            getattr(datasets, name)()

    @pytest.mark.parametrize("by_argument", [True, False])
    def test_a_mirror(
        self,
        name: str,
        by_argument: bool,
        empty_cache: Path,
        server: Server,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = name.replace("_", "-")
        for file, content in FILES.items():
            server.files[f"/mirror/{folder}/{file}-ubyte.gz"] = gzip.compress(content)
        source: Any = getattr(datasets, name.upper())
        sums = {file: sha256(content) for file, content in FILES.items()}
        monkeypatch.setattr(datasets, name.upper(), dataclasses.replace(source, sums=sums))
        mirror = f"{server.url}/mirror/"
        if not by_argument:
            monkeypatch.setenv("TINYGRAD_BN_MIRROR", mirror)
        split = getattr(datasets, name)(mirror=mirror if by_argument else None)
        assert (len(split.train), len(split.test)) == (3, 1)
        assert {f"{file}-ubyte.gz" for file in FILES} <= {
            path.name for path in (empty_cache / folder).iterdir()
        }
        getattr(datasets, name)()
        assert len(server.requests) == 4  # the second time, all four were there

    def test_a_mirror_with_other_files_is_refused(self, name: str, server: Server) -> None:
        folder = name.replace("_", "-")
        for file, content in FILES.items():
            server.files[f"/{folder}/{file}-ubyte.gz"] = gzip.compress(content)
        with pytest.raises(DataError, match="expected content with sha256"):
            getattr(datasets, name)(mirror=server.url)

    def test_no_network(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(DataError, match=r"cannot download http://127\.0\.0\.1:9"):
            getattr(datasets, name)()


def test_all_checksums_are_of_different_files() -> None:
    sums = [s for source in (datasets.MNIST, datasets.FASHION_MNIST) for s in source.sums.values()]
    assert len(set(sums)) == 8
    assert all(len(bytes.fromhex(s)) == hashlib.sha256().digest_size for s in sums)
