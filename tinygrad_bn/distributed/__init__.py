"""Ranks that train together, each on its shard of the batch: threads of this process.

>>> def work(rank):
...     return tg.distributed.all_reduce(tg.tensor(float(rank))).item()
>>> tg.distributed.spawn(work, 4)
[6.0, 6.0, 6.0, 6.0]
"""

from tinygrad_bn.distributed.collectives import all_gather as all_gather
from tinygrad_bn.distributed.collectives import all_gather_object as all_gather_object
from tinygrad_bn.distributed.collectives import all_reduce as all_reduce
from tinygrad_bn.distributed.collectives import barrier as barrier
from tinygrad_bn.distributed.collectives import broadcast as broadcast
from tinygrad_bn.distributed.collectives import get_rank as get_rank
from tinygrad_bn.distributed.collectives import get_world_size as get_world_size
from tinygrad_bn.distributed.collectives import split_group as split_group
from tinygrad_bn.distributed.data_parallel import average_gradients as average_gradients
from tinygrad_bn.distributed.launch import spawn as spawn
from tinygrad_bn.ops.collective import Group as Group
from tinygrad_bn.ops.collective import current_group as current_group
