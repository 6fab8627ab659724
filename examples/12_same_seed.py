"""The same seed on the CPU and on the GPU: equal weights, masks and shuffles, and how far sums in
another order then drive the two trainings apart.
"""

import argparse

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.utils.data import DataLoader

BOUND = 1e-3
"""By what losses may differ after so few steps: float32 rounds to 6e-8, and each step of the
training multiplies what came before by little more than 1.
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", default="cuda", help="cuda or cuda:N (default: cuda)")
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()
if not tg.cuda.is_available():
    raise SystemExit(
        "no CUDA GPU here (see `tinygrad-bn info`), and this program compares one with the CPU; "
        "02_mlp.py trains such a network on the CPU alone"
    )


def training(device: str) -> dict[str, np.ndarray]:
    """What a training begins with, draws and arrives at."""
    tg.manual_seed(0)
    tg.set_default_device(device)  # whatever is made from here on is made there
    model = nn.Sequential(
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
    )
    seen = {"weights at the start": model[0].weight.detach().cpu().numpy().copy()}
    seen["a mask of dropout"] = nn.functional.dropout(tg.ones(1000), 0.2).cpu().numpy()
    # of the loader alone: the default generator of the CPU has made the weights in one run only
    generator = tg.Generator("cpu").manual_seed(1)
    loader = DataLoader(datasets.digits().train, 64, True, drop_last=True, generator=generator)
    seen["shuffled labels"] = np.concatenate([labels.cpu().numpy() for _, labels in loader])
    optimizer, losses = tg.optim.AdamW(model.parameters(), lr=1e-3), []
    while len(losses) < options.steps:
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())  # on the device: nobody waits for it
            if len(losses) == options.steps:
                break
    seen["losses"] = np.array([loss.item() for loss in losses])
    tg.set_default_device("cpu")
    return seen


here, there = training("cpu"), training(options.device)
for name in ("weights at the start", "a mask of dropout", "shuffled labels"):
    print(f"{name}: the same bits: {np.array_equal(here[name], there[name])}")
apart = np.abs(here["losses"] - there["losses"])
print("step     loss on cpu     " + f"on {options.device}".ljust(12) + "apart by")
for i in range(0, options.steps, max(options.steps // 5, 1)):
    print(f"{i + 1:4d} {here['losses'][i]:15.7f} {there['losses'][i]:15.7f} {apart[i]:11.1e}")
print(f"never apart by more than {apart.max():.1e}; allowed are {BOUND:.0e}")
if apart.max() > BOUND:
    raise SystemExit("that is too much: something other than rounding differs")
