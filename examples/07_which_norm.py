"""Which norm for which batch: one deep network learns digits with each, from batches of 2 to 64.

Every run sees as many digits, and its learning rate goes with the root of its batch. Norms over the
batch want several samples; norms over the features of a sample do not notice how many there are.
"""

from collections.abc import Callable

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.utils.data import DataLoader

WIDTH, DEPTH, EPOCHS, BATCHES = 48, 4, 3, (2, 8, 64)

NORMS: dict[str, Callable[[], nn.Module] | None] = {
    "none": None,
    "batch": lambda: nn.BatchNorm1d(WIDTH),
    "batch renorm": lambda: nn.BatchRenorm(WIDTH, momentum=0.1, r_max=3, d_max=5),
    "ghost, 16": lambda: nn.GhostBatchNorm(WIDTH, 16),
    "layer": lambda: nn.LayerNorm(WIDTH),
    "group, 4": lambda: nn.GroupNorm(4, WIDTH),
    "RMS": lambda: nn.RMSNorm(WIDTH),
}


def network(norm: Callable[[], nn.Module] | None) -> nn.Sequential:
    """Linear layers, each with the norm and a ReLU behind it."""
    tg.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(DEPTH):
        layers += [
            nn.Linear(64 if i == 0 else WIDTH, WIDTH),
            *([norm()] if norm else []),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


digits = datasets.digits()
images, labels = digits.test.tensors


def accuracy(norm: Callable[[], nn.Module] | None, batch: int) -> float:
    """Of the test digits, after training."""
    model = network(norm)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.02 * (batch / 64) ** 0.5, momentum=0.9)
    generator = tg.Generator().manual_seed(1)
    for _ in range(EPOCHS):
        for x, y in DataLoader(digits.train, batch, True, drop_last=True, generator=generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()
    with tg.no_grad():
        return (model(images).argmax(dim=1) == labels).float().mean().item()


print(f"{'batches of':14}" + "".join(f"{batch:8}" for batch in BATCHES))
for name, norm in NORMS.items():
    print(f"{name:14}" + "".join(f"{accuracy(norm, batch):8.1%}" for batch in BATCHES))
