"""A small residual network with batch norm reads digits, and is folded for inference.

Convolutions before a batch norm need no bias: it would take that away with the mean. The network
trains with and without the norm, at the same steps; then each norm becomes part of the convolution
before it, which changes nothing but the time that it takes.
"""

import time

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.nn.utils import fold_batch_norm
from tinygrad_bn.utils.data import DataLoader

EPOCHS, BATCH = 4, 64


def convolution(inputs: int, outputs: int, stride: int, norm: bool) -> list[nn.Module]:
    """A convolution, and the norm behind it."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not norm)
    return [layer, nn.BatchNorm2d(outputs)] if norm else [layer]


def block(channels: int, norm: bool) -> nn.Module:
    """max(x + f(x), 0), with as many channels after as before."""
    return nn.Residual(
        *convolution(channels, channels, 1, norm),
        nn.ReLU(),
        *convolution(channels, channels, 1, norm),
    )


def network(norm: bool) -> nn.Sequential:
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *convolution(1, 8, 1, norm),
        nn.ReLU(),
        block(8, norm),
        *convolution(8, 16, 2, norm),
        nn.ReLU(),
        block(16, norm),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 10),
    )


digits = datasets.digits()
images, labels = digits.test.tensors


def accuracy(model: nn.Module) -> float:
    with tg.no_grad():
        return (model(images).argmax(dim=1) == labels).float().mean().item()


def trained(norm: bool) -> nn.Sequential:
    model = network(norm)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = tg.Generator().manual_seed(1)
    for _ in range(EPOCHS):
        for x, y in DataLoader(digits.train, BATCH, True, drop_last=True, generator=generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


def milliseconds(model: nn.Module) -> float:
    accuracy(model)
    start = time.perf_counter()
    accuracy(model)
    return (time.perf_counter() - start) * 1e3


model = trained(norm=True)
print(f"accuracy with batch norm     {accuracy(model):.1%}")
print(f"accuracy without             {accuracy(trained(norm=False)):.1%}")
folded = fold_batch_norm(model)
with tg.no_grad():
    change = (folded(images) - model(images)).abs().max().item()
print(f"accuracy folded              {accuracy(folded):.1%}, outputs changed by {change:.0e}")
print(f"all test images in {milliseconds(model):.1f} ms, folded in {milliseconds(folded):.1f} ms")
