"""Second derivatives in training: a gradient penalty, through batch normalization.

A network is fitted to ten noisy points of a sine, and the square of its slope is penalised: the
slope is a derivative, so training by it needs derivatives of derivatives.
"""

import math

import tinygrad_bn as tg
from tinygrad_bn import nn


def fit(penalty: float) -> tuple[float, float]:
    """The mean squared slope, and the error against the sine, of a network fitted to it."""
    tg.manual_seed(0)
    x = tg.linspace(-1.0, 1.0, 10)[:, None]
    y = (math.pi * x).sin() + 0.3 * tg.randn(10, 1)
    model = nn.Sequential(
        nn.Linear(1, 64),
        nn.BatchNorm1d(64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 1),
    )
    optimizer = tg.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        inputs = x.clone().requires_grad_()
        outputs = model(inputs)
        (slope,) = tg.autograd.grad(outputs.sum(), inputs, create_graph=True)
        loss = nn.functional.mse_loss(outputs, y) + penalty * slope.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    grid = tg.linspace(-1.0, 1.0, 201)[:, None].requires_grad_()
    curve = model(grid)
    (slope,) = tg.autograd.grad(curve.sum(), grid)
    error = (curve - (math.pi * grid).sin()).square().mean().sqrt()
    return slope.square().mean().item(), error.item()


for penalty in (0.0, 1e-3, 1e-2):
    roughness, error = fit(penalty)
    print(f"penalty {penalty:<6} mean squared slope {roughness:5.2f}   error {error:.3f}")
