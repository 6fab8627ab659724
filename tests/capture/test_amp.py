"""Compiled steps in mixed precision are eager ones, bit for bit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.nn.utils import clip_grad_norm_
from tinygrad_bn.utils.checkpoint import checkpoint

pytest.importorskip("ml_dtypes")

Batch = tuple[tg.Tensor, tg.Tensor]


def batches(count: int, bad: tuple[int, ...] = ()) -> list[Batch]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        x = rng.standard_normal((16, 12)).astype("float32")
        if number in bad:
            x[0, 0] = np.inf
        found.append((tg.tensor(x), tg.tensor(rng.integers(0, 4, 16))))
    return found


class Training:
    """A network whose weights are used twice, with a scaler for float16."""

    def __init__(self, dtype: Any, *, inside: bool = True, **how: Any) -> None:
        tg.manual_seed(0)
        self.device = tg.config.get_default_device().partition(":")[0]
        self.model = nn.Sequential(
            nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12),
            nn.LayerNorm(12), nn.GELU(),
        )  # fmt: skip
        self.head = nn.Linear(12, 4)
        params = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = tg.optim.Adam(params, lr=1e-2)
        self.scaler = tg.amp.GradScaler(
            self.device, 8.0, growth_interval=3, enabled="scaled" in how
        )
        self.dtype, self.inside, self.how = dtype, inside, how
        self.run = tg.compile(self.step) if how.get("compiled") else self.step

    def step(self, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        self.optimizer.zero_grad()
        with tg.autocast(self.device, dtype=self.dtype) if self.inside else nullcontext():
            once = checkpoint(self.model, x) if "checkpointed" in self.how else self.model(x)
            loss = nn.functional.cross_entropy(self.head(self.model(once)), y)
        self.scaler.scale(loss).backward()
        if "clipped" in self.how:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), 0.1)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def state(self) -> list[Any]:
        tensors = [*self.model.state_dict().values(), *self.head.state_dict().values()]
        kept = self.optimizer.state_dict()["state"]
        tensors += [x for entry in kept.values() for x in entry.values()]
        return [x.tolist() for x in tensors] + [self.scaler.state_dict()]


HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clipped": True},
    "checkpointed": {"checkpointed": True},
    "scaled": {"scaled": True},
    "scaled-clipped": {"scaled": True, "clipped": True},
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("inside", [True, False], ids=["region inside", "region around"])
def test_same_bits(how: dict[str, Any], dtype: str, inside: bool, device: str) -> None:
    runs = [Training(dtype, inside=inside, compiled=c, **how) for c in (False, True)]
    infinite = (0, 3, 4) if "scaled" in how else ()
    for x, y in batches(8, infinite):
        losses = []
        for run in runs:
            with nullcontext() if inside else tg.autocast(device, dtype=dtype):
                losses.append(run.run(x, y).item())
        np.testing.assert_equal(*losses)  # of infinite images NaN, in both
    assert repr(runs[0].state()) == repr(runs[1].state())
    if infinite:
        assert runs[1].scaler.get_scale() == 2.0  # three times down, once up


def test_a_region_is_part_of_what_a_program_is_for() -> None:
    model = nn.Linear(12, 4)
    forward = tg.compile(model)
    (x, _), plain = batches(1)[0], []
    with tg.no_grad():
        for dtype in (None, "bfloat16", "float16", None, "bfloat16"):
            with tg.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                y = forward(x)
                assert y.tolist() == model(x).tolist()
            assert y.dtype.name == (dtype or "float32")
            plain.append(forward.program)
    assert plain[0] is plain[3] is not plain[1] is plain[4]
    with tg.no_grad(), tg.autocast("cuda"):  # another program, of the same dtypes
        assert forward(x).dtype == np.float32


def test_a_step_that_keeps_a_scaler_between_calls_is_refused() -> None:
    """What `unscale_` found belongs to one call: a replay would not find it anew."""
    training = Training("float16", scaled=True)

    @tg.compile
    def step(x: tg.Tensor, y: tg.Tensor) -> None:
        training.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(training.head(training.model(x)), y)
        training.scaler.scale(loss).backward()
        training.scaler.step(training.optimizer)

    with pytest.raises(tg.errors.CaptureError, match="kept elsewhere"):
        step(*batches(1)[0])
