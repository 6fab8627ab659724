"""MNIST read row by row, 28 steps of 28 pixels, by an LSTM with batch norm inside and without.

    python examples/11_rows_of_digits.py --epochs 5 --seeds 3

Both networks of a seed begin with the same weights, see the same batches, and take the same steps
of SGD on the same schedule. In one the two products of every step, and the cell, are normalised by
statistics of that step (Cooijmans et al. 2016). What the command gives is in README.md beside this
file. The images are downloaded on first use; ``--quick`` reads the small ones that ship with the
library.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.optim.lr_scheduler import OneCycleLR
from tinygrad_bn.utils.data import DataLoader

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--seeds", type=int, default=1, help="how many networks of each kind")
parser.add_argument("--hidden", type=int, default=100)
parser.add_argument("--quick", action="store_true", help="ten epochs on digits of 8×8 pixels")
parser.add_argument("--out", type=Path, help="a file for the curves, in JSON")
options = parser.parse_args()
if options.quick:
    options.epochs, options.seeds, options.hidden = 10, 1, 32

BATCH, RATE, CHECKS = 100, 0.1, 2  # checks an epoch
NOISE = 0.2  # on pixels in training: rows at the border are blank, and would have no variance
data = datasets.digits(flatten=False) if options.quick else datasets.mnist(flatten=False)
images, labels = data.test.tensors
rows, pixels = images.shape[-2:]


class Reader(nn.Module):
    """A recurrent layer over the rows of an image, and a linear one on its last output."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        kind = partial(nn.BatchNormLSTM, max_length=rows) if norm else nn.LSTM
        self.layer = kind(pixels, options.hidden, batch_first=True)
        self.head = nn.Linear(options.hidden, 10)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        y, _ = self.layer(x.squeeze(1))
        return self.head(y[:, -1])


def accuracy(model: nn.Module) -> float:
    """Of the test images, in %."""
    model.eval()
    with tg.no_grad():
        parts = zip(images.split(500), labels.split(500), strict=True)
        hits = sum((model(x).argmax(dim=1) == y).sum().item() for x, y in parts)
    model.train()
    return 100 * hits / len(labels)


def learned(norm: bool, seed: int) -> list[float]:
    """The accuracy after each part of an epoch."""
    tg.manual_seed(seed)
    model = Reader(norm)
    order = tg.Generator().manual_seed(seed)
    loader = DataLoader(data.train, BATCH, True, drop_last=True, generator=order)
    optimizer = tg.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    schedule = OneCycleLR(optimizer, RATE, options.epochs * len(loader), pct_start=0.2)

    @tg.compile
    def step(x: tg.Tensor, y: tg.Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x + NOISE * tg.randn_like(x)), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    reached: list[float] = []
    for _ in range(options.epochs):
        for i, (x, y) in enumerate(loader):
            step(x, y)
            if (i + 1) * CHECKS // len(loader) > i * CHECKS // len(loader):
                reached.append(accuracy(model))
    return reached


curves: dict[str, list[list[float]]] = {"with batch norm": [], "without": []}
for seed in range(options.seeds):
    for name, found in curves.items():
        found.append(learned(name == "with batch norm", seed))
        ends = found[-1][CHECKS - 1 :: CHECKS]
        print(f"seed {seed}, {name:16}" + "".join(f"{end:7.2f}" for end in ends), flush=True)
    if options.out:
        result = {"data": "mnist", "epochs": options.epochs, "accuracy in %": curves}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
