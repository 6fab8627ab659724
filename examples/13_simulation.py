"""A network learns from a simulation that runs on the GPU: CuPy's arrays are tensors as they are.

The simulation is yours: here a CUDA kernel that moves a swarm of points through the Lorenz system.
A network learns where a point is a while later. Every step it sees a fresh swarm; starts go from
tensors to CuPy, and ends from CuPy to tensors, in the memory where they lie.
"""

import argparse

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--swarm", type=int, default=4096, help="points in each step")
options = parser.parse_args()
if not tg.cuda.is_available():
    raise SystemExit(
        "no CUDA GPU here (see `tinygrad-bn info`), and the simulation is a CUDA kernel; "
        "a simulation in NumPy hands its arrays over in the same way, by tg.from_dlpack"
    )
import cupy  # noqa: E402  (it is there where a GPU is)

LORENZ = """
__global__ void lorenz(const float* start, float* end, int points, int steps, float dt) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= points) return;
    float x = start[3 * i], y = start[3 * i + 1], z = start[3 * i + 2];
    for (int k = 0; k < steps; ++k) {
        float dx = 10 * (y - x), dy = x * (28 - z) - y, dz = x * y - 8.0f / 3 * z;
        x += dt * dx;
        y += dt * dy;
        z += dt * dz;
    }
    end[3 * i] = x;
    end[3 * i + 1] = y;
    end[3 * i + 2] = z;
}
"""
module = cupy.RawModule(code=LORENZ, options=("-std=c++17",), name_expressions=("lorenz",))
kernel = module.get_function("lorenz")


def simulated(start: cupy.ndarray) -> cupy.ndarray:
    """Where points (N, 3) are after 0.2 units of time."""
    end, points = cupy.empty_like(start), start.shape[0]
    args = start, end, np.int32(points), np.int32(200), np.float32(1e-3)
    kernel((-(-points // 128),), (128,), args)
    return end


def swarm(points: int) -> tuple[tg.Tensor, tg.Tensor]:
    """Points about the attractor, and where they go; nothing leaves the GPU, nothing is copied."""
    start = tg.randn(points, 3) * 8 + tg.tensor([0.0, 0.0, 25.0])
    return start, tg.from_dlpack(simulated(cupy.from_dlpack(start)))


tg.manual_seed(0)
tg.set_default_device("cuda")
model = nn.Sequential(
    nn.BatchNorm1d(3),  # states as they come, of any scale
    nn.Linear(3, 128), nn.BatchNorm1d(128), nn.ReLU(),
    nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(),
    nn.Linear(128, 3),
)  # fmt: skip
optimizer = tg.optim.AdamW(model.parameters(), lr=5e-3)
schedule = tg.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=options.steps)
for step in range(1, options.steps + 1):
    start, end = swarm(options.swarm)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(start), end - start)
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % max(options.steps // 5, 1) == 0:  # reading the loss waits for the device, so seldom
        print(f"step {step}: off by {loss.item() ** 0.5:.3f}")

model.eval()
start, end = swarm(options.swarm)
with tg.no_grad():
    off = nn.functional.mse_loss(start + model(start), end).sqrt().item()
moved = nn.functional.mse_loss(start, end).sqrt().item()
print(f"points move by {moved:.2f}, and the network is off by {off:.2f}")
