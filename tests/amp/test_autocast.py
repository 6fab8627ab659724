"""`autocast`: what a region changes, for whom, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.autograd.walk import collect
from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.nn import functional as F
from tinygrad_bn.utils.checkpoint import checkpoint

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16, FLOAT16, FLOAT32 = np.dtype(ml_dtypes.bfloat16), np.dtype("float16"), np.dtype("float32")


@pytest.fixture
def model(device: str) -> nn.Sequential:
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, device=device), nn.Tanh(), nn.Linear(8, 4, device=device))


@pytest.fixture
def x(device: str) -> tg.Tensor:
    tg.manual_seed(1)
    return tg.randn(5, 6, device=device)


def kind(device: str) -> str:
    return device.partition(":")[0]


def casts(y: tg.Tensor) -> int:
    """How many casts of parameters the graph of ``y`` holds."""
    nodes = [node for node in collect([y]) if node.name == "Cast"]
    return sum(node.inputs[0].creator is None for node in nodes)  # type: ignore[index]


def assert_close_in_bfloat16(found: Any, expected: Any) -> None:
    """Sums of a few products that may be rounded, to 8 bits, in another order."""
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 4 * 2.0**-8 * b.abs().max()


class TestRegions:
    def test_products_run_in_the_dtype_asked_for(self, model: Any, x: tg.Tensor) -> None:
        for dtype in (BFLOAT16, FLOAT16):
            with tg.autocast(x.device.type, dtype=dtype):
                assert model(x).dtype == dtype
        assert model(x).dtype == FLOAT32

    def test_dtypes_by_default(self, device: str) -> None:
        with tg.autocast(kind(device)):
            assert tg.get_autocast_dtype(kind(device)) == (BFLOAT16 if device == "cpu" else FLOAT16)

    def test_the_other_kind_of_device_is_left_alone(self, model: Any, x: tg.Tensor) -> None:
        with tg.autocast("cuda" if x.device == "cpu" else "cpu"):
            assert model(x).dtype == FLOAT32

    def test_regions_inside_of_regions(self, model: Any, x: tg.Tensor) -> None:
        here = x.device.type
        with tg.autocast(here, dtype=BFLOAT16):
            with tg.autocast(here, dtype=FLOAT16):
                assert model(x).dtype == FLOAT16
                with tg.autocast(here, enabled=False):
                    assert model(x).dtype == FLOAT32
                    assert not tg.is_autocast_enabled(here)
                    with tg.autocast(here, dtype=BFLOAT16):
                        assert model(x).dtype == BFLOAT16
                assert model(x).dtype == FLOAT16
            assert tg.get_autocast_dtype(here) == BFLOAT16
        assert tg.get_autocast_dtype(here) is None

    def test_a_disabled_region_takes_what_it_is_given(self, model: Any, x: tg.Tensor) -> None:
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            h = model[0](x)
            with tg.autocast(x.device.type, enabled=False):
                with pytest.raises(DtypeError, match="expected input and bias"):
                    model[2](h)
                assert model[2](h.float()).dtype == FLOAT32

    def test_a_region_ends_with_an_error(self, x: tg.Tensor) -> None:
        with pytest.raises(ZeroDivisionError), tg.autocast(x.device.type, dtype=BFLOAT16):
            raise ZeroDivisionError
        assert not tg.is_autocast_enabled(x.device.type)

    def test_as_a_decorator(self, model: Any, x: tg.Tensor) -> None:
        here = x.device.type

        @tg.autocast(here, dtype=BFLOAT16)
        def forward(n: int) -> list[Any]:
            return [model(x).dtype] + (forward(n - 1) if n else [])

        @tg.autocast(here, dtype=BFLOAT16)
        def each() -> Iterator[Any]:
            for _ in range(2):
                yield model(x).dtype

        assert forward(2) == [BFLOAT16] * 3
        for dtype in each():
            assert dtype == BFLOAT16
            assert model(x).dtype == FLOAT32  # between two values it is the caller's turn

    def test_one_object_in_several_threads(self, model: Any, x: tg.Tensor) -> None:
        region = tg.autocast(x.device.type, dtype=BFLOAT16)
        start, found = threading.Barrier(4), list[Any]()

        def run() -> None:
            start.wait()
            for _ in range(20):
                with region:
                    found.append(model(x).dtype)
                found.append(model(x).dtype)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found.count(BFLOAT16) == found.count(FLOAT32) == 80

    @pytest.mark.parametrize("wrong", ["cuda:0", "gpu", 3, None])
    def test_what_is_no_kind_of_device(self, wrong: Any) -> None:
        with pytest.raises(ArgumentError, match="device type 'cpu' or 'cuda', got"):
            tg.autocast(wrong)

    @pytest.mark.parametrize("wrong", [np.float32, np.float64, np.int16])
    def test_what_is_not_sixteen_bits(self, wrong: Any) -> None:
        with pytest.raises(DtypeError, match="bfloat16 or float16 to cast to, got"):
            tg.autocast("cpu", dtype=wrong)


class TestGradients:
    def test_come_back_in_float32(self, model: Any, x: tg.Tensor) -> None:
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            loss = F.mse_loss(model(x), tg.zeros(5, 4, device=x.device))
        assert loss.dtype == FLOAT32
        loss.backward()
        for p in model.parameters():
            assert p.dtype == p.grad.dtype == FLOAT32
        found = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        F.mse_loss(model(x), tg.zeros(5, 4, device=x.device)).backward()
        assert_close_in_bfloat16(found, [p.grad for p in model.parameters()])

    def test_are_the_same_inside_and_after(self, model: Any, x: tg.Tensor) -> None:
        found = []
        for inside in (True, False):
            model.zero_grad()
            with tg.autocast(x.device.type, dtype=BFLOAT16):
                loss = model(x).float().sum()
                if inside:
                    loss.backward()
            if not inside:
                loss.backward()
            found.append([p.grad.tolist() for p in model.parameters()])
        assert found[0] == found[1]

    @pytest.mark.parametrize("inside", [True, False])
    def test_of_gradients(self, model: Any, x: tg.Tensor, inside: bool) -> None:
        """The penalty of a gradient, with the walk that makes the graph in a region or not."""
        here = x.device.type
        x.requires_grad_()
        with tg.autocast(here, dtype=BFLOAT16):
            y = model(x).float().square().sum()
        with tg.autocast(here, dtype=BFLOAT16, enabled=inside):
            (slope,) = tg.autograd.grad(y, x, create_graph=True)
        assert slope.dtype == FLOAT32
        slope.square().sum().backward()
        found = [p.grad.clone() for p in model.parameters()]
        plain = [p.clone().detach().double().requires_grad_() for p in model.parameters()]

        def exact(x: tg.Tensor) -> tg.Tensor:
            return F.linear(F.linear(x, plain[0], plain[1]).tanh(), plain[2], plain[3])

        wide = x.detach().double().requires_grad_()
        (slope,) = tg.autograd.grad(exact(wide).square().sum(), wide, create_graph=True)
        slope.square().sum().backward()
        for p, other in zip(plain, found, strict=True):
            assert p.grad is not None
            # some ten roundings to eight bits, on numbers that hardly cancel
            assert (p.grad - other).abs().max() <= 2.0**-4 * p.grad.abs().max()

    def test_hooks_run_outside_of_the_region(self, model: Any, x: tg.Tensor) -> None:
        seen = []
        model[0].weight.register_hook(lambda grad: seen.append((grad @ grad.T).dtype))
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            model(x).sum().backward()
        assert seen == [FLOAT32]


class TestCache:
    def test_a_parameter_is_cast_once(self, model: Any, x: tg.Tensor) -> None:
        for cached, expected in ((True, 4), (False, 8)):
            with tg.autocast(x.device.type, dtype=BFLOAT16, cache_enabled=cached):
                y = model(x) + model(x)
            assert casts(y) == expected

    def test_regions_inside_share_it(self, model: Any, x: tg.Tensor) -> None:
        here = x.device.type
        with tg.autocast(here, dtype=BFLOAT16):
            y = model(x)
            with tg.autocast(here, dtype=BFLOAT16):
                y = y + model(x)
            with tg.autocast(here, dtype=BFLOAT16, cache_enabled=False):
                z = y + model(x)
        assert (casts(y), casts(z)) == (4, 8)

    def test_a_new_region_casts_anew(self, model: Any, x: tg.Tensor) -> None:
        region = tg.autocast(x.device.type, dtype=BFLOAT16)
        with region:
            y = model(x)
        with region:
            y = y + model(x)
        assert casts(y) == 8

    def test_other_values_are_seen(self, x: tg.Tensor) -> None:
        """PyTorch's cache goes on with the old ones."""
        weight = tg.ones(6, 4, device=x.device, requires_grad=True)
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            assert (x @ weight).abs().sum() > 0
            with tg.no_grad():
                weight.zero_()
            assert (x @ weight).abs().sum() == 0

    def test_other_memory_is_seen(self, x: tg.Tensor) -> None:
        weight = tg.ones(6, 4, device=x.device, requires_grad=True)
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            assert (x @ weight).abs().sum() > 0
            weight.data = tg.zeros(6, 4, device=x.device)
            assert (x @ weight).abs().sum() == 0

    def test_steps_of_an_optimizer_are_seen(self, model: Any, x: tg.Tensor) -> None:
        optimizer = tg.optim.SGD(model.parameters(), lr=0.5)
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            before = model(x)
            before.sum().backward(retain_graph=True)
            optimizer.step()
            after = model(x)
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            assert after.tolist() == model(x).tolist() != before.tolist()

    def test_casts_without_a_graph_do_not_cut_one(self, model: Any, x: tg.Tensor) -> None:
        """In PyTorch the parameters would have no gradient."""
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            with tg.no_grad():
                model(x)
            model(x).sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_a_backward_pass_may_come_between(self, model: Any, x: tg.Tensor) -> None:
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            model(x).sum().backward()
            model(x).sum().backward()
        twice = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            model(x).sum().backward()
        for p, other in zip(model.parameters(), twice, strict=True):
            assert (2 * p.grad).tolist() == other.tolist()

    def test_nothing_is_kept_after_the_region(self, model: Any, x: tg.Tensor) -> None:
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            model(x)
            held = tg.config.autocasting.get().casts
            assert len(held) == 4
        assert not held


class Cube(tg.Function):
    """An operation of a user's own."""

    def forward(self, x: Any) -> Any:
        self.x = x
        return x * x * x

    def backward(self, dy: Any, /) -> Any:
        return dy * 3 * self.x * self.x


class TestCustomOperations:
    def test_take_what_comes(self, x: tg.Tensor) -> None:
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            assert Cube.apply(x).dtype == FLOAT32
            assert Cube.apply(x.bfloat16()).dtype == BFLOAT16

    @pytest.mark.parametrize("wanted", [FLOAT32, FLOAT16])
    def test_may_say_what_they_want(self, x: tg.Tensor, wanted: Any) -> None:
        seen = []

        @tg.amp.custom_fwd(device_type=x.device.type, cast_inputs=wanted)
        def cube(x: tg.Tensor, times: int = 1, *, weight: tg.Tensor) -> tg.Tensor:
            seen.append((x @ weight).dtype)
            return Cube.apply(x) * times  # type: ignore[no-any-return]

        weight = tg.ones(6, 6, device=x.device)
        given = x.bfloat16().requires_grad_()
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            y = cube(given, 2, weight=weight)
        assert y.dtype == wanted
        y.sum().backward()
        assert given.grad is not None
        assert given.grad.dtype == BFLOAT16
        assert cube(x, weight=weight).dtype == FLOAT32  # outside of a region as it is
        assert seen == [wanted, FLOAT32]

    def test_on_another_kind_of_device(self, x: tg.Tensor) -> None:
        other = "cuda" if x.device == "cpu" else "cpu"
        cube: Callable[..., Any] = tg.amp.custom_fwd(
            lambda x: x @ x.T, device_type=other, cast_inputs=FLOAT32
        )
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            assert cube(x).dtype == BFLOAT16

    def test_without_a_dtype_it_changes_nothing(self, x: tg.Tensor) -> None:
        product: Callable[..., Any] = tg.amp.custom_fwd(
            lambda x: x @ x.T, device_type=x.device.type
        )
        with tg.autocast(x.device.type, dtype=BFLOAT16):
            assert product(x).dtype == BFLOAT16

    def test_forwards_see_arrays(self, x: tg.Tensor) -> None:
        class Decorated(Cube):
            forward = tg.amp.custom_fwd(Cube.forward, device_type="cuda", cast_inputs=FLOAT32)

        with pytest.raises(DtypeError, match="a method of Decorated; decorate the function"):
            Decorated.apply(x)

    def test_what_cannot_be_cast_to(self) -> None:
        with pytest.raises(DtypeError, match="floats to cast to, got int32"):
            tg.amp.custom_fwd(device_type="cpu", cast_inputs="int32")
        with pytest.raises(ArgumentError, match="device type"):
            tg.amp.custom_fwd(device_type="cuda:0")


class TestCheckpoints:
    @pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward after"])
    def test_the_second_forward_is_in_the_same_region(
        self, model: Any, x: tg.Tensor, inside: bool
    ) -> None:
        dtypes, grads = [], []

        def part(x: tg.Tensor) -> tg.Tensor:
            y: tg.Tensor = model(x)
            dtypes.append(y.dtype)
            return y

        for through in (lambda x: checkpoint(part, x), part):
            model.zero_grad()
            given = x.clone().requires_grad_()
            with tg.autocast(x.device.type, dtype=BFLOAT16):
                # the first layer is used outside of the part too: one cast, two graphs
                loss = (through(given).float().sum() + model[0](given).float().sum()).sin()
                if inside:
                    loss.backward()
            if not inside:
                loss.backward()
            grads.append([p.grad for p in (given, *model.parameters())])
        assert dtypes == [BFLOAT16] * 3
        assert_close_in_bfloat16(*grads)

    def test_gradients_of_gradients(self, model: Any, x: tg.Tensor) -> None:
        found = []
        for through in (lambda x: checkpoint(model, x), model):
            given = x.clone().requires_grad_()
            with tg.autocast(x.device.type, dtype=BFLOAT16):
                y = through(given).float().square().sum()
            (slope,) = tg.autograd.grad(y, given, create_graph=True)
            model.zero_grad()
            slope.square().sum().backward()
            found.append([p.grad for p in model.parameters()])
        assert_close_in_bfloat16(*found)


class TestModules:
    def test_what_computes_weights_keeps_their_digits(self, device: str) -> None:
        tg.manual_seed(0)
        x = tg.randn(4, 6, device=device)
        for wrap in (nn.utils.spectral_norm, nn.utils.weight_norm):
            layer = wrap(nn.Linear(6, 8, device=device)).eval()
            plain = layer.weight.tolist()
            with tg.autocast(kind(device), dtype=BFLOAT16):
                assert layer.weight.tolist() == plain
                assert layer(x).dtype == BFLOAT16

    @pytest.mark.parametrize(
        "layer",
        [
            nn.BatchNorm1d(6), nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.RMSNorm(6),
            nn.MeanOnlyBatchNorm(6), nn.GhostBatchNorm(6, 5), nn.BatchRenorm(6), nn.PowerNorm(6),
            nn.ScaleNorm(6), nn.EvoNormB0(6), nn.InstanceNorm1d(6, affine=True), nn.TLU(6),
            nn.FilterResponseNorm(6),
        ],
        ids=lambda layer: type(layer).__name__,
    )  # fmt: skip
    def test_norms_take_sixteen_bits_beside_float32(self, layer: nn.Module) -> None:
        """Their output has the dtype of the input, or float32 where the lists say so; statistics
        are exact either way, and parameters and their gradients float32.
        """
        tg.manual_seed(0)
        x = (100 + tg.randn(10, 6, 4) if isinstance(layer, nn.InstanceNorm1d) else
             100 + tg.randn(10, 6)).bfloat16()  # fmt: skip
        if isinstance(layer, (nn.EvoNormB0, nn.FilterResponseNorm)):
            x = x.reshape(10, 6, 1, 1)
        wide = layer(x.float())
        with tg.autocast("cpu", dtype=BFLOAT16):
            y = layer(x)
        listed = isinstance(layer, (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm))
        assert y.dtype == (FLOAT32 if listed else BFLOAT16)
        if not isinstance(layer, (nn.PowerNorm, nn.BatchRenorm)):  # which read what they then move
            atol = 2.0**-8 * wide.abs().max().item()  # the last rounding, of a half unit
            np.testing.assert_allclose(y.float().detach(), wide.detach(), rtol=0, atol=atol)
        y.float().square().sum().backward()
        assert all(p.grad is None or p.grad.dtype == FLOAT32 for p in layer.parameters())
        assert all(b.dtype != BFLOAT16 for b in layer.buffers())


RECURRENT = [
    nn.RNN,
    nn.LSTM,
    nn.GRU,
    nn.LayerNormLSTM,
    nn.LayerNormGRU,
    partial(nn.BatchNormLSTM, max_length=5),
]
CELLS = [nn.RNNCell, nn.LSTMCell, nn.GRUCell]


class TestRecurrent:
    @pytest.mark.parametrize("kind_of_layer", RECURRENT)
    @pytest.mark.parametrize("given", [FLOAT32, BFLOAT16, FLOAT16], ids=str)
    def test_layers(self, kind_of_layer: Any, given: Any, device: str) -> None:
        """Products in sixteen bits, whatever float comes in; close to float32's."""
        tg.manual_seed(0)
        layer = kind_of_layer(3, 4, num_layers=2, device=device)
        x = tg.randn(5, 6, 3, device=device)
        wide, _ = layer(x)
        with tg.autocast(kind(device), dtype=BFLOAT16):
            y, states = layer(x.to(given))
            again, _ = layer(x.to(given), states)
        plain = kind_of_layer in (nn.RNN, nn.LSTM, nn.GRU)
        assert y.dtype == again.dtype == BFLOAT16 or not plain
        assert (y.float() - wide).abs().max() <= 0.05  # two layers of five steps, each of 2⁻⁹
        y.float().square().sum().backward()
        for p in layer.parameters():
            assert p.grad is not None
            assert p.grad.dtype == FLOAT32
            assert p.grad.isfinite().all()

    @pytest.mark.parametrize("kind_of_cell", CELLS)
    def test_cells(self, kind_of_cell: Any, device: str) -> None:
        tg.manual_seed(0)
        cell = kind_of_cell(3, 4, device=device)
        x = tg.randn(6, 3, device=device)
        with tg.autocast(kind(device), dtype=BFLOAT16):
            state = cell(x)
            state = cell(x.bfloat16(), state)
        for part in state if isinstance(state, tuple) else (state,):
            assert part.dtype == BFLOAT16
        with pytest.raises(DtypeError, match="expected input of the weights' float32"):
            cell(x.bfloat16())
        with tg.autocast(kind(device), dtype=BFLOAT16), pytest.raises(DtypeError):
            cell(x.double())
