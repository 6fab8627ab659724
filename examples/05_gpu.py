"""The same program on the GPU: only the device changes, and the random numbers stay the same."""

import argparse
import time

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N (default: cuda)")
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()
if options.device.startswith("cuda") and not tg.cuda.is_available():
    raise SystemExit("no CUDA GPU here (see `tinygrad-bn info`); run with --device cpu")

tg.manual_seed(0)
digits = datasets.digits()
images, labels = (t.to(options.device) for t in digits.train.tensors)
model = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10))
model.to(options.device)
optimizer = tg.optim.Adam(model.parameters(), lr=1e-3)

start = time.perf_counter()
for step in range(1, options.steps + 1):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    if step % 20 == 0:  # reading the loss waits for the device, so seldom
        print(f"step {step}: loss {loss.item():.4f}")
seconds = time.perf_counter() - start
print(f"{options.steps} steps on {options.device}: {seconds:.2f} s")
