"""Small networks of images, in the words of whichever library they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

NORMS = {
    "batch": lambda nn, channels: nn.BatchNorm2d(channels),
    "cumulative": lambda nn, channels: nn.BatchNorm2d(channels, momentum=None),
    "group": lambda nn, channels: nn.GroupNorm(2, channels),
    "instance": lambda nn, channels: nn.InstanceNorm2d(channels, affine=True),
    "tracking": lambda nn, channels: nn.InstanceNorm2d(channels, track_running_stats=True),
}
WIDTHS = (4, 6, 8)
"""Channels of the three stages; the second and the third begin with a stride of 2."""


def block(library: Any, norm: Any, before: int, after: int, stride: int) -> Any:
    """A basic residual block, with a convolution of points where shapes change."""
    nn = library.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            self.norm1 = norm(nn, after)
            self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
            self.norm2 = norm(nn, after)
            self.shortcut = nn.Identity()
            if stride != 1 or before != after:
                points = nn.Conv2d(before, after, 1, stride, bias=False)
                self.shortcut = nn.Sequential(points, norm(nn, after))

        def forward(self, x: Any) -> Any:
            y = nn.functional.relu(self.norm1(self.conv1(x)))
            return nn.functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    return Block()


def residual(library: Any, norm: Any) -> Any:
    """Three stages of a block each, global pooling and a linear layer, for (N, 3, H, W)."""
    nn, ends = library.nn, zip(WIDTHS[:1] + WIDTHS, WIDTHS, (1, 2, 2), strict=False)
    return nn.Sequential(
        nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False),
        norm(nn, WIDTHS[0]),
        nn.ReLU(),
        *(block(library, norm, *each) for each in ends),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], 5),
    )


def plain(library: Any, norm: Any) -> Any:
    """Convolutions of several kinds in a row, and pooling, for (N, 3, 8, 8)."""
    nn = library.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
        norm(nn, 8),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False),
        norm(nn, 8),
        nn.Conv2d(8, 6, 1),
        nn.ELU(),
        nn.ConvTranspose2d(6, 4, 2, stride=2),
        norm(nn, 4),
        nn.GELU(),
        nn.Conv2d(4, 8, 3, stride=2, dilation=2, groups=2),
        norm(nn, 8),
        nn.Tanh(),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


NETWORKS = {"residual": residual, "plain": plain}


def batches(
    count: int, n: int = 6, dtype: Any = np.float64
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Images and labels, the mean and the scale of whose channels are not 0 and 1."""
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 3.0, 0.5])[:, None, None]
    return [
        ((scale * rng.standard_normal((n, 3, 8, 8)) + 1).astype(dtype), rng.integers(0, 5, n))
        for _ in range(count)
    ]
