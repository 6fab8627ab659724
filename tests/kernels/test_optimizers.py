"""The optimizers' kernels against their reference bodies: the same bits, step after step."""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.optim.problem import Trained
from tinygrad_bn import optim
from tinygrad_bn.backend import KERNEL_POINTS, Kernel, get_backend

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
SIZES = [0, 1, 7, 63, 64, 65, 127, 100_003]

# Their powers are exact for the steps taken here, so that NumPy's pow, which may be another than
# the C library's and not round as well, gives the same.
BETAS = st.sampled_from([0.0, 0.5, 0.75, 0.9375])
RATES = st.sampled_from([0.0, 1e-3, 0.1, 1e3])
EPS = st.sampled_from([0.0, 1e-8, 1.0])
DECAYS = st.sampled_from([None, 1e-2, 3.0])
SHARES = st.floats(0, 1)
FLAGS = st.booleans()


class Rule(NamedTuple):
    """How a kernel point is called: its kinds of state, its numbers in order, and its flag."""

    slots: tuple[str, ...]
    numbers: dict[str, Any]
    flag: str = ""


ADAM = {"lr": RATES, "beta1": BETAS, "beta2": BETAS, "eps": EPS, "weight_decay": DECAYS}
STEP = {"step": st.just("step")}
RULES = {
    "sgd": Rule((), {"lr": RATES, "weight_decay": DECAYS}),
    "momentum": Rule(
        ("any",),
        {**STEP, "lr": RATES, "momentum": BETAS, "dampening": SHARES, "weight_decay": DECAYS},
        "nesterov",
    ),
    "lion": Rule(("any",), {"lr": RATES, "beta1": SHARES, "beta2": SHARES, "weight_decay": DECAYS}),
    "schedule_free_sgd": Rule(
        ("any",), {"lr": RATES, "weight": SHARES, "momentum": SHARES, "weight_decay": DECAYS}
    ),
    "adam": Rule(("any", "positive", "optional"), {**STEP, **ADAM}, "decoupled"),
    "adamax": Rule(("any", "positive"), {**STEP, **ADAM}),
    "nadam": Rule(
        ("any", "positive"),
        {**STEP, "mu": SHARES, "mu_next": SHARES, "mu_product": st.floats(0, 0.9), **ADAM},
        "decoupled",
    ),
    "radam": Rule(("any", "positive"), {**STEP, **ADAM}, "decoupled"),
    "adagrad": Rule(
        ("positive",), {**STEP, "lr": RATES, "lr_decay": RATES, "eps": EPS, "weight_decay": DECAYS}
    ),
    "adadelta": Rule(
        ("positive", "positive"), {"lr": RATES, "rho": SHARES, "eps": EPS, "weight_decay": DECAYS}
    ),
    "rmsprop": Rule(
        ("positive", "optional", "optional"),
        {"lr": RATES, "alpha": SHARES, "eps": EPS, "momentum": BETAS, "weight_decay": DECAYS},
    ),
    "schedule_free_adamw": Rule(
        ("any", "positive"),
        {"lr": RATES, "weight": SHARES, "beta1": SHARES, **{k: ADAM[k] for k in list(ADAM)[2:]}},
    ),
}
WITH_NORMS = {
    "lars": Rule(
        ("any",), {"lr": RATES, "momentum": BETAS, "weight_decay": DECAYS, "trust": RATES}
    ),
    "lamb": Rule(("any", "positive"), {**STEP, **ADAM}),
}


def kernel_of(name: str) -> Kernel:
    kernel = NUMPY.kernels.get(f"{name}_update")
    assert kernel is not None
    return kernel


def values(rng: np.random.Generator, size: int, dtype: Any, scale: float) -> Any:
    """Normal numbers, among them some that are huge, subnormal, infinite or NaN."""
    x = (rng.standard_normal(size) * scale).astype(dtype)
    info = np.finfo(dtype)
    odd = [info.smallest_subnormal, info.tiny / 2, 1e30, -1e30, 0.0, -0.0, np.nan, np.inf, -np.inf]
    places = rng.random(size) < 0.02
    x[places] = rng.choice(np.array(odd, dtype), places.sum())
    return x


def array(number: Any) -> Any:
    """An option as the optimizers hand it over: a float64 without axes."""
    return None if number is None else np.array(float(number))


@st.composite
def cases(draw: Any, rules: dict[str, Rule], name: str) -> Any:
    """Buffers and numbers for one kernel point."""
    rule = rules[name]
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    size, dtype = draw(st.sampled_from(SIZES)), draw(st.sampled_from([np.float32, np.float64]))
    scale = draw(st.sampled_from([1e-40, 1e-20, 1.0, 1e18]))
    param, *grads = (values(rng, size, dtype, scale) for _ in range(4))
    state = []
    for kind in rule.slots:
        buffer = values(rng, size, dtype, scale)
        if kind == "positive":
            buffer = abs(buffer)
        state.append(None if kind == "optional" and draw(FLAGS) else buffer)
    numbers = {key: draw(strategy) for key, strategy in rule.numbers.items()}
    return param, grads, state, numbers, {rule.flag: draw(FLAGS)} if rule.flag else {}


def both_ways(name: str, case: Any) -> Any:
    """After each of three steps: what was, what the reference makes of it, and the kernel."""
    param, grads, state, numbers, flags = case
    reference, kernel = KERNEL_POINTS[f"{name}_update"].reference, kernel_of(name)
    slow = (param, *state)
    fast = tuple(None if a is None else a.copy() for a in slow)
    for step, grad in enumerate(grads, 1):
        options = [array(step if n == "step" else n) for n in numbers.values()]
        with np.errstate(all="ignore"):
            before, slow = slow, reference(NUMPY, slow[0], grad, *slow[1:], *options, **flags)
        untouched = grad.copy()
        assert kernel.accepts(fast[0], grad, *fast[1:], *options, **flags)
        result = kernel.run(fast[0], grad, *fast[1:], *options, **flags)
        assert len(result) == len(fast)
        assert all(a is b for a, b in zip(result, fast, strict=True))  # in place
        np.testing.assert_array_equal(grad, untouched)
        yield before, slow, fast


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_kernels_give_the_bits_of_the_reference(name: str, data: Any) -> None:
    """Each operation rounds as NumPy's does, and none is left out or fused with another."""
    for _, slow, fast in both_ways(name, data.draw(cases(RULES, name))):
        for expected, got in zip(slow, fast, strict=True):
            if expected is not None:
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", WITH_NORMS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_kernels_that_scale_by_norms(name: str, data: Any) -> None:
    """The float64 sums differ in order: so does, once rounded, the rate by an ulp."""
    for before, slow, fast in both_ways(name, data.draw(cases(WITH_NORMS, name))):
        for old, expected, got in zip(before, slow, fast, strict=True):
            info = np.finfo(expected.dtype)
            np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
            finite = np.isfinite(expected)
            size = abs(expected[finite]) + abs(old[finite])
            error = abs(got[finite] - expected[finite])
            # three steps of it; and a subnormal number is only as fine as the smallest
            assert np.all(error <= 8 * info.eps * size + 4 * info.smallest_subnormal)
        for mine, theirs in zip(fast, slow, strict=True):
            mine[:] = theirs  # the next step begins with the same again


USUAL: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "Adam": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01},
    "Adamax": {"lr": 0.01},
    "NAdam": {"lr": 0.01, "decoupled_weight_decay": True, "weight_decay": 1e-2},
    "RAdam": {"lr": 0.01},
    "Adagrad": {"lr": 0.05, "lr_decay": 1e-3},
    "Adadelta": {},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Lion": {"lr": 1e-3, "weight_decay": 0.1},
    "LAMB": {"lr": 0.01},
    "LARS": {"lr": 1.0},
    "SGDScheduleFree": {"lr": 0.5},
    "AdamWScheduleFree": {"lr": 0.05, "warmup_steps": 5},
}


@pytest.mark.parametrize("name", USUAL)
def test_training_goes_as_with_the_reference(name: str) -> None:
    """Forty steps; pow differs by 1e-16 of 1, and so 1 - β₂ᵗ ≥ 0.001 by 1e-13 of itself."""
    fast, slow = (Trained(name, "cpu", "float64", **USUAL[name]) for _ in range(2))
    fast.steps(40)
    with tg.reference_kernels():
        slow.steps(40)
    for a, b in zip(fast.values(), slow.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_every_rule_has_a_kernel_but_the_one_made_of_matrix_products() -> None:
    rules = {name for name in KERNEL_POINTS if name.endswith("_update")}
    tested = {f"{name}_update" for name in (*RULES, *WITH_NORMS)}
    assert rules == tested | {"muon_update"}
    assert NUMPY.kernels.get("muon_update") is None


def test_optimizers_use_the_kernel() -> None:
    kernel, calls = kernel_of("adam"), []

    def counted(param: Any, *args: Any, **flags: Any) -> Any:
        calls.append(param.size)
        return kernel.run(param, *args, **flags)

    with patch.dict(NUMPY.kernels, {"adam_update": Kernel(counted, kernel.accepts)}):
        Trained("Adam").steps(2)
    assert len(calls) == 2


def test_nothing_is_compiled_again_when_a_number_changes() -> None:
    p = tg.Parameter(np.ones(3, np.float32))
    optimizer = optim.Adam([p], lr=0.1)
    rule: Any = kernel_of("adam").into.args[0]  # type: ignore[union-attr]
    counts = []
    for lr in (0.1, 0.2, 1, 0):
        p.grad = tg.ones(3)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        counts.append(len(rule.signatures))
    assert len(set(counts)) == 1


def misaligned(x: Any) -> Any:
    """The same values, an odd number of bytes into a buffer."""
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    view = raw.view(x.dtype)
    view[:] = x
    return view


def read_only(x: Any) -> Any:
    y = x.copy()
    y.flags.writeable = False
    return y


OTHERS = {
    "float16": lambda x: x.astype(np.float16),
    "foreign bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "strided": lambda x: np.repeat(x, 2)[::2],
    "misaligned": misaligned,
    "other dtype": lambda x: x.astype(np.float64),
    "other size": lambda x: x[:-1],
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", [*OTHERS, "read-only"])
def test_other_buffers_go_to_the_reference(kind: str, place: int) -> None:
    buffers = [np.ones(8, np.float32) for _ in range(3)]
    make = OTHERS.get(kind, read_only)
    buffers[place] = make(buffers[place])
    numbers = [array(x) for x in (1, 0.1, 0.9, 0.0, None)]
    accepted = kernel_of("momentum").accepts(*buffers, *numbers, nesterov=False)
    assert accepted is (kind == "read-only" and place == 1)  # a gradient is only read


def test_buffers_may_begin_anywhere_and_gradients_be_read_only() -> None:
    rng = np.random.default_rng(3)
    param, grad, velocity = rng.standard_normal((3, 70)).astype(np.float32)
    numbers = [array(x) for x in (2, 0.1, 0.9, 0.0, 0.01)]
    reference = KERNEL_POINTS["momentum_update"].reference
    expected = reference(NUMPY, param, grad, velocity, *numbers, nesterov=True)
    shifted = [np.concatenate([[9], x]).astype(np.float32) for x in (param, velocity)]
    views = [x[1:] for x in shifted]
    kernel_of("momentum").run(views[0], read_only(grad), views[1], *numbers, nesterov=True)
    for x, view, y in zip(shifted, views, expected, strict=True):
        np.testing.assert_array_equal(view, y)
        assert x[0] == 9
