"""Collectives on tensors: values, bits, memory, devices, gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.cupy_standin import count_traffic
from tests.distributed.watched import spawn
from tests.two_backends import only_stand_in
from tinygrad_bn import distributed
from tinygrad_bn.backend import backend_for
from tinygrad_bn.errors import DtypeError, RangeError

RNG = np.random.default_rng(0)


def arrays(*values):
    return [np.asarray(value.tolist()) for value in values]


class TestValues:
    @pytest.mark.parametrize("size", [1, 2, 5])
    @pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
    def test_of_every_collective(self, size, shape, device):
        given = RNG.normal(size=(size, *shape))

        def work(rank):
            x = tg.tensor(given[rank], device=device, dtype=tg.float64)
            found = [distributed.all_reduce(x), distributed.all_gather(x)]
            found += [distributed.broadcast(x, src) for src in range(size)]
            assert all(y.device == x.device and y.dtype == x.dtype for y in found)
            return arrays(*found)

        for total, stacked, *each in spawn(work, size):
            np.testing.assert_allclose(total, given.sum(0), atol=1e-14)  # five roundings
            np.testing.assert_array_equal(stacked, given)
            np.testing.assert_array_equal(each, given)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "uint8", "bool"])
    def test_keep_the_dtype(self, dtype, device):
        def work(rank):
            x = tg.tensor([1, rank % 2, 0], device=device).to(getattr(tg, dtype))
            results = (
                distributed.all_reduce(x),
                distributed.all_gather(x),
                distributed.broadcast(x),
            )
            assert {y.dtype for y in results} == {x.dtype}
            return [y.cpu().double().tolist() for y in results]

        total = [1, 1, 0] if dtype == "bool" else [3, 1, 0]
        for found in spawn(work, 3):
            assert found == [total, [[1, 0, 0], [1, 1, 0], [1, 0, 0]], [1, 0, 0]]

    def test_a_sum_is_rounded_once_and_has_the_same_bits_on_all_ranks(self, device):
        given = RNG.normal(size=(4, 1000)).astype(np.float32)

        def work(rank):
            return distributed.all_reduce(tg.tensor(given[rank], device=device)).cpu().numpy()

        found = spawn(work, 4)
        expected = given.astype(np.float64).sum(0).astype(np.float32)
        assert all(y.tobytes() == expected.tobytes() for y in found)

    def test_of_objects(self):
        values = [{"rank": 0}, None, [2]]
        found = spawn(lambda rank: distributed.all_gather_object(values[rank]), 3)
        assert found == [values] * 3
        assert found[0] is not found[1]

    def test_a_barrier_holds_until_all_are_there(self):
        came = []

        def work(rank):
            for step in range(20):
                came.append(step)
                distributed.barrier()
                assert came.count(step) == 4

        spawn(work, 4)

    def test_outside_of_a_group_are_those_of_one_rank(self, device):
        x = tg.tensor([1.0, 2.0], device=device)
        assert distributed.current_group() is None
        assert (distributed.get_rank(), distributed.get_world_size()) == (0, 1)
        assert distributed.all_reduce(x).tolist() == distributed.broadcast(x).tolist() == [1, 2]
        assert distributed.all_gather(x).tolist() == [[1, 2]]
        assert distributed.all_gather_object("x") == ["x"]
        distributed.barrier()
        with pytest.raises(RangeError, match="src from 0 to 0, got 1"):
            distributed.broadcast(x, 1)

    def test_refuse_what_is_no_tensor(self):
        for function in (distributed.all_reduce, distributed.all_gather, distributed.broadcast):
            with pytest.raises(DtypeError, match="expected tensor to be a tensor, got ndarray"):
                function(np.ones(3))


class TestMemory:
    def test_results_are_the_ranks_own(self, device):
        def work(rank):
            x = tg.full((64,), float(rank), device=device)
            for _ in range(100):  # whoever is first overwrites what it gave, and what it got
                x.fill_(float(rank))
                results = [
                    distributed.all_reduce(x),
                    distributed.all_gather(x)[2],
                    distributed.broadcast(x, 2),
                ]
                x.fill_(-1.0)
                found = arrays(*results)
                for y in results:
                    y.fill_(-1.0)
                assert [set(y) for y in found] == [{3}, {2}, {2}]

        spawn(work, 3)

    @only_stand_in
    def test_stay_on_the_device(self):
        x = tg.ones(3, device="cuda")

        def work(rank):
            distributed.all_gather(distributed.broadcast(distributed.all_reduce(x)))

        with count_traffic() as traffic:
            spawn(work, 2)
        assert (traffic.d2h, traffic.h2d) == (0, 0)


@only_stand_in
def test_ranks_on_different_devices_each_get_the_result_on_theirs():
    devices = ["cuda:1", "cpu", "cuda:0", "cuda:1"]
    backends = [backend_for(device) for device in devices]

    def work(rank):
        x = tg.tensor([1.0, rank], device=devices[rank], requires_grad=True)
        assert x.backend is backends[rank]
        y = distributed.all_reduce(x)
        gathered = distributed.all_gather(x)
        y.backward(tg.tensor([float(rank), 1.0], device=devices[rank]))
        assert y.device == gathered.device == distributed.broadcast(x, 1).device == x.device
        return y.tolist(), gathered.tolist(), x.grad.tolist()

    gathered = [[1, 0], [1, 1], [1, 2], [1, 3]]
    assert spawn(work, 4) == [([4, 6], gathered, [6, 4])] * 4


def reduced(x, rank):
    return distributed.all_reduce(x)


def gathered(x, rank):
    return distributed.all_gather(x)


def sent(x, rank):
    return distributed.broadcast(x, 1)


WHOLE = {
    reduced: lambda xs: sum(xs[1:], xs[0]),
    gathered: lambda xs: tg.stack(xs),
    sent: lambda xs: xs[1] + 0 * (xs[0] + xs[2]),
}
"""The same of all ranks' tensors at once."""


def derivatives(outputs, inputs, order):
    """Gradients, gradients of a function of those, and so on: lists of all inputs' for each order.

    ``outputs`` are the losses of the ranks that stand here, ``inputs`` theirs.
    """
    found = []
    for k in range(order):
        grads = tg.autograd.grad(outputs, inputs, create_graph=True)
        found.append([g.detach().numpy() for g in grads])
        outputs = [(g * (x + k)).tanh().sum() for g, x in zip(grads, inputs, strict=True)]
    return found


@pytest.mark.parametrize("function", WHOLE, ids=lambda f: f.__name__)
def test_gradients_to_order_4_are_those_of_the_sum_of_all_losses(function):
    values, factors = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5))

    def work(rank):
        x = tg.tensor(values[rank], requires_grad=True)
        loss = (function(x, rank).sin() * tg.tensor(factors[rank])).sum()
        return derivatives([loss], [x], 4)

    xs = [tg.tensor(value, requires_grad=True) for value in values]
    losses = [(WHOLE[function](xs).sin() * tg.tensor(factor)).sum() for factor in factors]
    expected = derivatives(losses, xs, 4)
    for rank, found in enumerate(spawn(work, 3)):
        for k in range(4):
            # sums in another order
            np.testing.assert_allclose(found[k][0], expected[k][rank], rtol=1e-10, atol=1e-12)


def test_nan_from_one_rank_stays_out_of_what_others_are_zero_in():
    def work(rank):
        x = tg.ones(2, dtype=tg.float64, requires_grad=True)
        y = distributed.broadcast(x, 0)
        y.backward(tg.tensor([float("nan"), 1.0], dtype=tg.float64))
        return x.grad.tolist()

    source, other = spawn(work, 2)
    assert np.isnan(source[0])
    assert source[1] == 2
    assert other == [0, 0]


class TestSplitGroups:
    def test_hold_the_ranks_of_one_color(self):
        def work(rank):
            part = distributed.split_group("odd" if rank % 2 else "even")
            total = distributed.all_reduce(tg.tensor(rank), part).item()
            again = distributed.split_group(rank < 2, part)
            return part.rank, part.size, total, distributed.get_world_size(again)

        assert spawn(work, 5) == [
            (0, 3, 6, 1),
            (0, 2, 4, 1),
            (1, 3, 6, 2),
            (1, 2, 4, 1),
            (2, 3, 6, 2),
        ]

    def test_meet_apart(self):
        def work(rank):
            part = distributed.split_group(rank == 0)
            for _ in range(0 if rank == 0 else 5):
                distributed.barrier(part)
            return distributed.all_gather_object(rank, part)

        assert spawn(work, 3) == [[0], [1, 2], [1, 2]]

    def test_outside_of_a_group(self):
        assert distributed.split_group("x").size == 1


def test_a_deep_copy_of_a_group_is_the_group():
    def work(rank):
        group = distributed.current_group()
        assert copy.deepcopy({"group": group})["group"] is group
        return repr(group)

    assert spawn(work, 2) == ["<rank 0 of 2 threads>", "<rank 1 of 2 threads>"]
