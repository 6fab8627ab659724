"""A small convolutional network on MNIST or Fashion-MNIST, with batch norm and without.

    python examples/10_cnn.py --data mnist --epochs 3 --seeds 3
    python examples/10_cnn.py --data fashion-mnist --epochs 8 --seeds 3

Both networks of a seed begin with the same weights, see the same batches, and take the same steps
of the same schedule. What these two commands give is in README.md beside this file. The images are
downloaded on first use; ``--quick`` reads the small ones that ship with the library.
"""

import argparse
import json
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.optim.lr_scheduler import OneCycleLR
from tinygrad_bn.utils.data import DataLoader

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--data", choices=("mnist", "fashion-mnist", "digits"), default="mnist")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seeds", type=int, default=1, help="how many networks of each kind")
parser.add_argument("--quick", action="store_true", help="ten epochs on digits of 8×8 pixels")
parser.add_argument("--out", type=Path, help="a file for the curves, in JSON")
options = parser.parse_args()
if options.quick:
    options.data, options.epochs, options.seeds = "digits", 10, 1

BATCH, RATE, DECAY, CHECKS = 100, 0.2, 5e-4, 4  # checks an epoch
READERS = {
    "mnist": datasets.mnist,
    "fashion-mnist": datasets.fashion_mnist,
    "digits": datasets.digits,
}
data = READERS[options.data](flatten=False)
images, labels = data.test.tensors
side = -(-images.shape[-1] // 4)  # what two strides of 2 leave


def network(norm: bool) -> nn.Sequential:
    """Three convolutions, the first two of which see every other pixel."""
    layers: list[nn.Module] = []
    for before, after, kernel, stride in ((1, 24, 5, 2), (24, 48, 3, 2), (48, 48, 3, 1)):
        # a norm takes the bias away again: it is there for both networks to begin with the same
        layers.append(nn.Conv2d(before, after, kernel, stride, padding=kernel // 2))
        layers += [nn.BatchNorm2d(after)] if norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * side**2, 10))


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
    model = network(norm)
    order = tg.Generator().manual_seed(seed)
    loader = DataLoader(data.train, BATCH, True, drop_last=True, generator=order)
    optimizer = tg.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    schedule = OneCycleLR(optimizer, RATE, options.epochs * len(loader), pct_start=0.2)

    @tg.compile
    def step(x: tg.Tensor, y: tg.Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
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
        result = {"data": options.data, "epochs": options.epochs, "accuracy in %": curves}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
