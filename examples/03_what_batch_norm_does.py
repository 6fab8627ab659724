"""What batch normalization does to a deep sigmoid network: its inputs stay where it can learn."""

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.utils.data import DataLoader

DEPTH, WIDTH, STEPS = 6, 64, 200


def network(normalized: bool) -> nn.Sequential:
    """Sigmoid layers; each Linear is followed by a batch norm, or not."""
    tg.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(DEPTH):
        layers.append(nn.Linear(64 if i == 0 else WIDTH, WIDTH))
        if normalized:
            layers.append(nn.BatchNorm1d(WIDTH))
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


digits = datasets.digits()
images, labels = digits.test.tensors

for normalized in (False, True):
    model = network(normalized)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.5)
    generator = tg.Generator().manual_seed(1)
    loader = DataLoader(digits.train, 64, shuffle=True, drop_last=True, generator=generator)
    step = 0
    while step < STEPS:
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            step += 1
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    gradients = [layer.weight.grad.norm().item() for layer in linear]
    model.eval()
    with tg.no_grad():
        before_last = model[:-2](images)  # what goes into the last sigmoid
        accuracy = (model(images).argmax(dim=1) == labels).float().mean().item()
    print("with batch norm" if normalized else "without")
    print(f"  into the last sigmoid: std {before_last.std().item():.3f} over the test digits")
    print(f"  |d loss / d weight|, first layer to last: {' '.join(f'{g:.0e}' for g in gradients)}")
    print(f"  test accuracy after {STEPS} steps: {accuracy:.1%}")
