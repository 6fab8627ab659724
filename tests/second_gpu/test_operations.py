"""Operations, layers, utilities and memory on the second GPU.

The stand-in refuses arrays of a device that is not current, so that every operation without a guard
fails here.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends import uploads

import tinygrad_bn as tg
from tests.ops.test_samples import SAMPLES, gradients, run, tensors_of
from tests.second_gpu.place import SECOND, assert_there, batch, network
from tinygrad_bn import nn
from tinygrad_bn.backend import Device
from tinygrad_bn.errors import BackendError

cupy: Any = uploads.cupy

NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
    "GhostBatchNorm": lambda: nn.GhostBatchNorm(4, 2),
    "BatchRenorm": lambda: nn.BatchRenorm(4),
    "MeanOnlyBatchNorm": lambda: nn.MeanOnlyBatchNorm(4),
    "PowerNorm": lambda: nn.PowerNorm(4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "LayerNorm": lambda: nn.LayerNorm([4, 3, 3]),
    "RMSNorm": lambda: nn.RMSNorm(3),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    "FilterResponseNorm": lambda: nn.FilterResponseNorm(4),
    "EvoNormB0": lambda: nn.EvoNormB0(4),
    "EvoNormS0": lambda: nn.EvoNormS0(4, 2),
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)),
    "weight_norm": lambda: nn.utils.weight_norm(nn.Conv2d(4, 4, 3)),
    "weight_standardization": lambda: nn.utils.weight_standardization(nn.Conv2d(4, 4, 3)),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 4, 2),
    "Dropout": lambda: nn.Dropout(0.5),
}


class TestLayers:
    @pytest.mark.parametrize("name", NORMS)
    def test_forward_and_back(self, name: str) -> None:
        found = []
        for device in ("cuda:0", SECOND):
            tg.manual_seed(0)
            layer = NORMS[name]().to(device)
            x = tg.randn(4, 4, 3, 3, device=device, requires_grad=True)
            layer(x).square().sum().backward()
            assert x.grad is not None
            layer.eval()
            found.append([x.grad.tolist(), layer(x).tolist()])
        assert found[0] == found[1]
        assert_there([x.grad, *layer.parameters(), *layer.buffers()])

    @pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU, nn.LayerNormLSTM])
    def test_recurrent(self, kind: Any) -> None:
        layer = kind(3, 4, device=SECOND)
        y, _ = layer(tg.randn(5, 2, 3, device=SECOND))
        y.sum().backward()
        assert_there([y, *(p.grad for p in layer.parameters())])

    def test_embedding_and_losses(self) -> None:
        numbers = tg.tensor([0, 2, 1], device=SECOND)
        rows = nn.Embedding(3, 4, device=SECOND)(numbers)
        loss = nn.functional.cross_entropy(rows, numbers) + nn.functional.mse_loss(rows, rows * 2)
        loss.backward()
        assert_there([loss])


def test_every_operation() -> None:
    """Each sample there, and its gradients in both interpreters."""
    for sample in SAMPLES:
        for create_graph in (False, True):
            inputs = tensors_of(sample, SECOND)
            outputs = run(sample, inputs)
            if sample.name not in ("allclose", "equal"):  # which answer here
                assert_there(outputs)
            if sample.differentiable and any(y.requires_grad for y in outputs):
                gradients(inputs, outputs, create_graph)


class TestUtilities:
    @pytest.mark.parametrize(
        "call",
        [
            lambda m, x: nn.utils.bn_report(m, [x]),
            lambda m, x: nn.utils.update_bn([x, x], m),
            lambda m, x: nn.utils.fold_batch_norm(m.eval())(x),
            lambda m, x: nn.utils.freeze_batch_norm(m)(x),
            lambda m, x: nn.utils.convert_sync_batch_norm(m)(x),
            lambda m, x: nn.utils.init_weight_norm(
                nn.Sequential(nn.utils.weight_norm(nn.Linear(12, 3, device=SECOND))), x
            ),
            lambda m, x: tg.autograd.gradcheck(tg.exp, x.double().requires_grad_()),
        ],
    )
    def test_of_norms(self, call: Callable[..., Any]) -> None:
        call(network(SECOND), batch(SECOND)[0])

    def test_statistics_of_micro_batches(self) -> None:
        model, (x, _) = network(SECOND), batch(SECOND)
        with nn.utils.accumulate_statistics(model):
            model(x[:8])
            model(x[8:])
        assert_there(model.buffers())

    def test_masks(self) -> None:
        mask = tg.tensor([True, False] * 8, device=SECOND)
        assert_there([nn.BatchNorm1d(12, device=SECOND)(batch(SECOND)[0], mask=mask)])

    def test_draws(self) -> None:
        x = tg.rand(4, 5, device=SECOND)
        assert_there([tg.randperm(5, device=SECOND), tg.randint(3, (2,), device=SECOND)])
        assert_there([tg.multinomial(x, 2), tg.multinomial(x, 9, replacement=True)])
        assert_there([tg.bernoulli(x), x.uniform_(), x.normal_(), x.bernoulli_(0.3)])
        for fill in (nn.init.orthogonal_, nn.init.trunc_normal_, nn.init.kaiming_normal_):
            assert_there([fill(tg.empty(3, 4, device=SECOND))])

    def test_indices(self) -> None:
        x = tg.arange(9, device=SECOND).reshape(3, 3)
        assert_there([x[True], x[x[0] > 0, x[0] > 0], tg.einsum("ii->i", x), x.diag()])
        assert_there([nn.functional.one_hot(x[0]), x.tril(), x.trace(), x.argsort()])


class TestMemory:
    def test_random_numbers_are_those_of_every_device(self) -> None:
        for draw in (tg.rand, tg.randn):
            tg.manual_seed(3)
            here = draw(7).tolist()
            tg.manual_seed(3)
            # normals to 2 ulp: libraries compute logarithms and sines with other roundings
            np.testing.assert_allclose(draw(7, device=SECOND).tolist(), here, rtol=3e-7)

    def test_copies_pickles_and_state(self) -> None:
        model = network(SECOND)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_there(again.parameters())
            assert again[0].weight.tolist() == model[0].weight.tolist()
        other = network("cpu")
        other.load_state_dict(model.state_dict())
        assert {p.device for p in other.parameters()} == {Device("cpu")}

    def test_views_indices_and_writes(self) -> None:
        x = tg.arange(12, device=SECOND).reshape(3, 4)
        x[1] = 7
        x[x > 9] = 0
        x[tg.tensor([0], device=SECOND)] += 1
        x[:, 1:2].zero_()
        assert_there([x, x.T, x[1, 2], x.sort().values, x.max(), x.nonzero()])
        assert x.tolist() == [[1, 0, 3, 4], [7, 0, 7, 7], [8, 0, 0, 0]]

    def test_devices_do_not_mix(self) -> None:
        with pytest.raises(BackendError, match="cuda:0"):
            tg.ones(2, device="cuda:0") + tg.ones(2, device=SECOND)

    def test_work_from_within_another_device(self) -> None:
        with cupy.cuda.Device(0):
            y = tg.ones(3, device=SECOND) * 2
            assert y.sum().item() == 6
        with cupy.cuda.Device(1):
            assert tg.ones(3, device="cuda:0").sum().item() == 3

    def test_as_the_default_device(self) -> None:
        tg.set_default_device(SECOND)
        try:
            assert tg.cuda.current_device() == 1
            assert_there([tg.ones(2), tg.ones(2, device="cuda"), tg.tensor([1.0]).to("cuda")])
            assert_there([tg.ones(2, device="cpu").cuda(), *nn.Linear(2, 3).parameters()])
            assert tg.tensor(1.0, device="cpu").pin_memory().is_pinned()
            assert tg.amp.GradScaler()._scale.device == Device(SECOND)
        finally:
            tg.set_default_device("cpu")
        assert tg.ones(2, device="cuda").device == Device("cuda:0")

    def test_it_is_asked_about(self) -> None:
        assert tg.cuda.device_count() == 2
        assert tg.cuda.get_device_name(1).endswith("1")
        tg.cuda.synchronize(1)
