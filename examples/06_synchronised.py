"""Four ranks with a quarter of the batch each learn what one does with all of it.

Batch norm ties the samples of a batch together, so ranks that each normalise by their own shard
train another model. Synchronised, they normalise by the whole batch.
"""

import copy

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import distributed, nn
from tinygrad_bn.data import datasets
from tinygrad_bn.nn.utils import convert_sync_batch_norm

RANKS, BATCH, STEPS = 4, 16, 50  # four digits a rank: too few to normalise by

tg.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)).double()
images, labels = datasets.digits().train.tensors
images = images.double()


def train(rank: int, synchronised: bool) -> np.ndarray:
    """The weights, in a row, after some steps on this rank's share of every batch."""
    ranks = distributed.get_world_size()
    replica = copy.deepcopy(model)
    if synchronised:
        convert_sync_batch_norm(replica)
    optimizer = tg.optim.SGD(replica.parameters(), lr=0.1)
    for step in range(STEPS):
        batch = slice(step * BATCH + rank, (step + 1) * BATCH, ranks)
        optimizer.zero_grad()
        nn.functional.cross_entropy(replica(images[batch]), labels[batch]).backward()
        distributed.average_gradients(replica.parameters())
        optimizer.step()
    return nn.utils.parameters_to_vector(replica.parameters()).detach().numpy()


whole = train(0, synchronised=False)
for synchronised in (False, True):
    replicas = distributed.spawn(train, RANKS, synchronised)
    print("with synchronised batch norm" if synchronised else "with batch norm of each shard")
    print(f"  weights differ from one rank's by {np.abs(replicas[0] - whole).max():.0e}")
    print(f"  all ranks have the same: {all((r == replicas[0]).all() for r in replicas)}")
