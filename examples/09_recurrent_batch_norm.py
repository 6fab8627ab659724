"""Batch norm inside of a recurrent network: digits read row by row, 8 steps of 8 pixels.

Both networks have the same weights to begin with, see the same batches and take the same steps. In
the second, the two products of each step and the cell are normalised by statistics of that step.
"""

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.utils.data import DataLoader

HIDDEN, EPOCHS, BATCH = 32, 5, 64

digits = datasets.digits()
images, labels = digits.test.tensors


class Reader(nn.Module):
    """A recurrent layer over the rows of an image, and a linear one on its last output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(HIDDEN, 10)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        y, _ = self.layer(x.reshape(-1, 8, 8))
        return self.head(y[:, -1])


def accuracy(model: nn.Module) -> float:
    """Of the test digits, by running statistics."""
    model.eval()
    with tg.no_grad():
        return (model(images).argmax(dim=1) == labels).float().mean().item()


def learned(layer: type[nn.Module], **options: int) -> list[float]:
    """The accuracy after each epoch."""
    tg.manual_seed(0)
    model = Reader(layer(8, HIDDEN, batch_first=True, **options))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    generator, reached = tg.Generator().manual_seed(1), []
    for _ in range(EPOCHS):
        model.train()
        for x, y in DataLoader(digits.train, BATCH, True, drop_last=True, generator=generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        reached.append(accuracy(model))
    return reached


rows = {
    "LSTM": learned(nn.LSTM),
    "BatchNormLSTM": learned(nn.BatchNormLSTM, max_length=8),
    "LayerNormLSTM": learned(nn.LayerNormLSTM),
}
print(f"{'after epoch':14}" + "".join(f"{epoch:8}" for epoch in range(1, EPOCHS + 1)))
for name, reached in rows.items():
    print(f"{name:14}" + "".join(f"{share:8.1%}" for share in reached))
