"""Batch norms on whole batches, and synchronised ones on their shards."""

from __future__ import annotations

import copy

import numpy as np

import tinygrad_bn as tg
from tests.distributed.watched import spawn
from tinygrad_bn import nn

EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""float64: sums of numbers around 1 in another order."""

LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def shards(x, sizes):
    """The parts of x along its first axis."""
    return np.split(x, np.cumsum(sizes)[:-1])


def whole_and_sync(shape, seed=0, **options):
    """A batch norm for (N, *shape), and a synchronised one of the same γ and β."""
    axis = options.get("axis", 1)
    channels = (1, *shape)[axis]
    whole = LAYERS[1 + len(shape)](channels, dtype=tg.float64, **options)
    sync = nn.SyncBatchNorm(channels, dtype=tg.float64, **options)
    rng = np.random.default_rng(seed)
    for p, q in zip(whole.parameters(), sync.parameters(), strict=True):
        values = tg.tensor(rng.normal(1, 0.5, channels))
        p.detach().copy_(values)
        q.detach().copy_(values)
    return whole, sync


def steps_of(layer, xs, dys, masks=None):
    """What a layer does with batch after batch: outputs, gradients, running statistics."""
    layer, found = copy.deepcopy(layer), []
    device = next(iter((*layer.parameters(), *layer.buffers())), tg.zeros(1)).device
    for i in range(len(xs)):
        x = tg.tensor(xs[i], device=device, requires_grad=True)
        mask = None if masks is None else tg.tensor(masks[i], device=device)
        y = layer(x, mask)
        y.backward(tg.tensor(dys[i], device=device))
        found.append(
            {
                "y": y.detach().cpu().numpy(),
                "dx": x.grad.cpu().numpy(),
                **{f"d{k}": np.array(p.grad.tolist()) for k, p in layer.named_parameters()},
                **{k: np.array(b.tolist()) for k, b in layer.named_buffers()},
            }
        )
        layer.zero_grad()
    return found


def assert_same_steps(whole, sync, sizes, shape, *, steps=3, seed=0, masked=False):
    """Train both, on the whole batch and on its shards, and compare everything."""
    rng = np.random.default_rng(seed)
    xs = rng.normal(3, 2, (steps, sum(sizes), *shape))
    dys = rng.normal(size=xs.shape)
    masks, parts = None, [None] * len(sizes)
    if masked:
        masks = rng.uniform(size=np.delete(xs.shape, 1 + sync.axis % xs[0].ndim)) < 0.6
        masks.reshape(steps, -1)[:, :2] = True
        parts = list(zip(*(shards(mask, sizes) for mask in masks), strict=True))
    x_parts = list(zip(*(shards(x, sizes) for x in xs), strict=True))
    dy_parts = list(zip(*(shards(dy, sizes) for dy in dys), strict=True))
    expected = steps_of(whole, xs, dys, masks)
    found = spawn(lambda r: steps_of(sync, x_parts[r], dy_parts[r], parts[r]), len(sizes))
    for step, one in enumerate(expected):
        ranks = [rank[step] for rank in found]
        for key, value in one.items():
            of_ranks = [rank[key] for rank in ranks]
            if key in ("y", "dx"):
                np.testing.assert_allclose(np.concatenate(of_ranks), value, **EXACT, err_msg=key)
            elif key.startswith("d"):
                np.testing.assert_allclose(sum(of_ranks), value, **EXACT, err_msg=key)
            else:
                np.testing.assert_allclose(of_ranks[0], value, **EXACT, err_msg=key)
                assert len({v.tobytes() for v in of_ranks}) == 1, f"bits of {key}"
