"""The state of modules: saved, loaded, copied and pickled."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.test_module import Scaled
from tinygrad_bn import nn
from tinygrad_bn.errors import GradientError, StateError


class TestStateDict:
    def test_has_pytorchs_order_and_shares_memory(self):
        m = Scaled()
        state = m.state_dict(prefix="net.")
        assert isinstance(state, OrderedDict)
        names = ["scale", "mean", "count", "inner.weight", "inner.bias"]
        assert list(state) == [f"net.{name}" for name in names]
        assert not any(value.requires_grad for value in state.values())
        state["net.scale"].overwrite(np.array([5.0, 6.0]))
        assert m.scale.tolist() == [5, 6]

    def test_loads_in_place(self):
        source, target = Scaled(), Scaled()
        kept = {name: value.array for name, value in target.state_dict().items()}
        result = target.load_state_dict(source.state_dict())
        assert result == ([], [])
        assert (result.missing_keys, result.unexpected_keys) == ([], [])
        for name, value in target.state_dict().items():
            assert value.array is kept[name]
            assert np.array_equal(value.numpy(), source.state_dict()[name].numpy())
        assert target.scale.requires_grad

    def test_takes_numpy_arrays_and_keeps_its_dtypes(self):
        m = nn.Linear(2, 1)
        m.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3])})
        assert m.weight.dtype == m.bias.dtype == np.float32
        assert m(tg.ones(2)).tolist() == [6.0]

    def test_everything_that_does_not_fit_is_named_and_nothing_is_changed(self):
        m = Scaled()
        before = copy.deepcopy(m.state_dict())
        state = {k: v + 1 for k, v in before.items()}
        del state["mean"]
        state |= {
            "scale": tg.zeros(3),
            "inner.bias": [0.0, 0.0],
            "count": np.array(1.5),
            "extra": tg.zeros(1),
        }
        with pytest.raises(StateError) as caught:
            m.load_state_dict(state)
        for line in (
            "this Scaled",
            "missing keys: 'mean'",
            "unexpected keys: 'extra'",
            "'scale': expected shape (2,), got (3,)",
            "'inner.bias': expected a tensor or a NumPy array, got list",
            "'count': expected int64, got float64",
        ):
            assert line in str(caught.value)
        for name, value in m.state_dict().items():
            assert np.array_equal(value.numpy(), before[name].numpy())

    def test_loads_across_devices(self, cuda):
        source, target = nn.Linear(2, 2), nn.Linear(2, 2, device=cuda)
        target.load_state_dict(source.state_dict())
        assert target.weight.device == cuda
        assert target.weight.tolist() == source.weight.tolist()
        source.load_state_dict(target.state_dict())
        assert source.weight.device == "cpu"

    def test_objects_and_complex_numbers_are_refused(self):
        m = nn.Linear(1, 1, bias=False)
        for bad in (np.array([[None]]), np.array([[1j]])):
            with pytest.raises(StateError, match=f"'weight': expected float32, got {bad.dtype}"):
                m.load_state_dict({"weight": bad})
        with pytest.raises(StateError, match="a mapping"):
            m.load_state_dict([m.weight])

    def test_strict_false_tolerates_other_keys_but_no_other_shapes(self):
        m = nn.Linear(2, 1)
        result = m.load_state_dict({"bias": np.ones(1), "x": np.ones(1)}, strict=False)
        assert result == (["weight"], ["x"])
        assert m.bias.item() == 1
        with pytest.raises(StateError, match="'bias'"):
            m.load_state_dict({"bias": np.ones(2)}, strict=False)

    def test_a_graph_sees_that_it_was_loaded_over(self):
        m = nn.Linear(2, 2)
        y = m(tg.ones(3, 2, requires_grad=True)).sum()
        m.load_state_dict(nn.Linear(2, 2).state_dict())
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()


class TestCopies:
    def test_a_deep_copy_shares_nothing_and_keeps_what_was_shared(self):
        m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        m[1].weight = m[0].weight
        twin = copy.deepcopy(m)
        assert twin[1].weight is twin[0].weight is not m[0].weight
        assert type(twin[0].weight) is nn.Parameter
        twin[0].weight.detach().overwrite(0)
        assert m[0].weight.abs().sum().item() > 0
        assert list(twin.state_dict()) == list(m.state_dict())

    def test_a_copied_buffer_is_as_persistent_as_before(self):
        for buffer in (nn.Buffer(tg.ones(1), persistent=False), nn.Buffer(tg.ones(1))):
            for twin in (copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
                assert type(twin) is nn.Buffer
                assert twin.persistent == buffer.persistent
                assert twin.tolist() == [1]

    def test_pickles(self):
        m = Scaled().eval()
        twin = pickle.loads(pickle.dumps(m))
        x = tg.randn(4, 3)
        assert np.array_equal(twin(x).detach().numpy(), m(x).detach().numpy())
        assert list(twin.state_dict()) == list(m.state_dict())
        assert not twin.training
        assert twin.scale.requires_grad
