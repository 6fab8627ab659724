"""Well-known data: digits that ship with the library, MNIST and Fashion-MNIST from their files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_bn.data.dataset import TensorDataset
from tinygrad_bn.data.downloads import fetch
from tinygrad_bn.data.idx import read_idx
from tinygrad_bn.errors import DataError
from tinygrad_bn.tensors import Tensor

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS_TRAIN = 1347


@dataclass(frozen=True, slots=True)
class Split:
    """A training part and a test part, each of pairs (image, label).

    Attributes
    ----------
    train, test : features in [0, 1], float32, and labels, int64.
    classes : what the labels 0, 1, ... stand for.
    """

    train: TensorDataset
    test: TensorDataset
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the four files of a set come from, and what they hold.

    Attributes
    ----------
    folder : their folder below the data folder, the cache, or a mirror.
    url : the folder that their authors, or PyTorch's, publish them in.
    classes : what the labels stand for.
    sums : the sha256 of what each file ``<name>-ubyte.gz`` holds, uncompressed.
    """

    folder: str
    url: str
    classes: tuple[str, ...]
    sums: Mapping[str, str]


MNIST = Source(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    DIGITS,
    {
        "train-images-idx3": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION_MNIST = Source(
    "fashion-mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    GARMENTS,
    {
        "train-images-idx3": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)


def digits(flatten: bool = True) -> Split:
    """1797 handwritten digits of 8×8 pixels, which ship with the library.

    The first 1347 are the training part, the last 450 the test part, as they stand in the file.
    There the digits of each of its 13 writers stand together, so that most of the test part is by
    hands that the training part does not know: a fairer test than a shuffled one,
    and a harder one.

    Parameters
    ----------
    flatten : whether an image is one row of pixels.

    Shapes
    ------
    images : (N, 64), or (N, 1, 8, 8) unless ``flatten``; inked area of each pixel, in sixteenths,
        so 0 to 1.
    labels : (N,), 0 to 9.

    References
    ----------
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49. Licensed under CC BY 4.0; see ``digits.txt``
    beside the data.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    train, test = slice(None, DIGITS_TRAIN), slice(DIGITS_TRAIN, None)
    return Split(
        pairs(images[train], labels[train], 16, flatten),
        pairs(images[test], labels[test], 16, flatten),
        DIGITS,
    )


def mnist(flatten: bool = True, mirror: str | None = None) -> Split:
    """60,000 handwritten digits to train on and 10,000 to test with, of 28×28 pixels.

    The four files ``train-images-idx3-ubyte.gz`` and so on are looked for in
    ``$TINYGRAD_BN_DATA/mnist``, then in the user's cache (``tinygrad_bn/mnist`` in
    ``$XDG_CACHE_HOME`` or ``~/.cache``), and downloaded into the cache else.

    Parameters
    ----------
    flatten : whether an image is one row of pixels.
    mirror : an address below which ``mnist/train-images-idx3-ubyte.gz`` and so on are found; by
        default ``$TINYGRAD_BN_MIRROR``, or else the copy that PyTorch keeps.

    Shapes
    ------
    images : (N, 784), or (N, 1, 28, 28) unless ``flatten``; ink from 0 to 1.
    labels : (N,), 0 to 9.

    Raises
    ------
    DataError
        If a file is not what it should be or cannot be downloaded.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", 1998.
    """
    return read(MNIST, flatten, mirror)


def fashion_mnist(flatten: bool = True, mirror: str | None = None) -> Split:
    """60,000 pictures of garments in ten classes to train on and 10,000 to test with, 28×28 pixels.

    They come as those of `mnist` do, from folders ``fashion-mnist``, or from their authors at
    Zalando.

    Parameters
    ----------
    flatten, mirror : as for `mnist`.

    Shapes
    ------
    images : (N, 784), or (N, 1, 28, 28) unless ``flatten``; brightness from 0 to 1.
    labels : (N,), 0 to 9; `Split.classes` names them.

    Raises
    ------
    DataError
        If a file is not what it should be or cannot be downloaded.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747. MIT licence.
    """
    return read(FASHION_MNIST, flatten, mirror)


def read(source: Source, flatten: bool, mirror: str | None) -> Split:
    train, test = (read_part(source, part, flatten, mirror) for part in ("train", "t10k"))
    return Split(train, test, source.classes)


def read_part(source: Source, part: str, flatten: bool, mirror: str | None) -> TensorDataset:
    image_file = locate(source, f"{part}-images-idx3", mirror)
    label_file = locate(source, f"{part}-labels-idx1", mirror)
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise DataError(
            f"expected uint8 (N, 28, 28) in {image_file}, got {images.dtype} {images.shape}"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"expected uint8 {images.shape[:1]} in {label_file}, got {labels.dtype} {labels.shape}"
        )
    if labels.size and labels.max() >= len(source.classes):
        raise DataError(
            f"expected labels below {len(source.classes)} in {label_file}, got {labels.max()}"
        )
    return pairs(images, labels, 255, flatten)


def cache() -> Path:
    """The user's own folder, into which downloads go."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinygrad_bn"


def folders() -> list[Path]:
    """Where files are looked for."""
    own = os.environ.get("TINYGRAD_BN_DATA")
    return [Path(own), cache()] if own else [cache()]


def find(source: Source, name: str) -> Path | None:
    """The file on this machine, if it is there."""
    for folder in folders():
        for file in (f"{name}-ubyte.gz", f"{name}-ubyte"):
            if (found := folder / source.folder / file).is_file():
                return found
    return None


def locate(source: Source, name: str, mirror: str | None) -> Path:
    """The file on this machine, after a download where it must be."""
    if found := find(source, name):
        return found
    target = cache() / source.folder / f"{name}-ubyte.gz"
    mirror = mirror or os.environ.get("TINYGRAD_BN_MIRROR")
    url = f"{mirror.rstrip('/')}/{source.folder}" if mirror else source.url
    fetch(f"{url}/{name}-ubyte.gz", target, source.sums[name])
    return target


def pairs(
    images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], white: int, flatten: bool
) -> TensorDataset:
    """Images (N, H, W) of integers up to ``white``, and their labels, as tensors."""
    x = images.reshape(len(images), -1) if flatten else images[:, None]
    return TensorDataset(
        Tensor(np.divide(x, white, dtype=np.float32)), Tensor(labels.astype(np.int64))
    )
