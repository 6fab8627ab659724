"""Sequences and dictionaries of modules and of parameters."""

from __future__ import annotations

from collections import OrderedDict

import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import DtypeError, RangeError, StateError


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def factors(modules):
    return [module.factor for module in modules]


class TestSequential:
    def test_calls_one_after_another(self):
        assert nn.Sequential(Times(2), Times(5))(3) == 30
        assert nn.Sequential()(3) == 3

    def test_takes_names_from_a_mapping(self):
        m = nn.Sequential(OrderedDict(first=nn.Linear(1, 2), last=nn.Linear(2, 1)))
        assert list(m.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]
        assert m[0] is m.first
        assert list(m[1:].state_dict()) == ["last.weight", "last.bias"]

    def test_a_slice_is_of_the_same_class_and_shares_the_modules(self):
        class Net(nn.Sequential):
            def __init__(self, n):
                super().__init__(*[Times(i) for i in range(n)])

        m = Net(4).eval()
        few = m[1:3]
        assert type(few) is Net
        assert few[0] is m[1]
        assert [name for name, _ in few.named_children()] == ["0", "1"]
        assert not few.training

    def test_hooks_of_its_parts_run(self):
        m = nn.Sequential(Times(2))
        m[0].register_forward_hook(lambda module, args, output: -output)
        assert m(3) == -6


@pytest.mark.parametrize("kind", [nn.Sequential, lambda *modules: nn.ModuleList(modules)])
class TestSequences:
    def test_index_length_and_iteration(self, kind):
        m = kind(*map(Times, range(3)))
        assert len(m) == 3
        assert factors(m) == [0, 1, 2]
        assert m[-1].factor == 2
        assert m[1] in m
        assert Times(1) not in m
        for index in (3, -4):
            with pytest.raises(RangeError, match=f"from -3 to 2, got {index}"):
                m[index]

    def test_changes_keep_the_names_in_order(self, kind):
        m = kind(Times(0))
        assert m.append(Times(2)) is m
        m.insert(1, Times(1))
        m.extend([Times(3)])
        m += [Times(4)]
        assert factors(m) == [0, 1, 2, 3, 4]
        assert factors(m + kind(Times(5))) == [0, 1, 2, 3, 4, 5]
        assert len(m) == 5
        assert m.pop(1).factor == 1
        del m[-2:]
        m[1] = Times(9)
        m.insert(-1, Times(8))
        assert factors(m) == [0, 8, 9]
        assert [name for name, _ in m.named_children()] == ["0", "1", "2"]

    def test_only_modules_are_taken(self, kind):
        m = kind(Times(0), Times(1))
        for change in (
            lambda: m.append(len),
            lambda: m.extend([Times(2), len]),
            lambda: m.insert(0, len),
            lambda: m.__setitem__(0, len),
            lambda: kind(len),
        ):
            with pytest.raises(DtypeError, match="expected a Module, got builtin"):
                change()
        assert factors(m) == [0, 1]


class TestModuleDict:
    def test_is_a_dictionary(self):
        m = nn.ModuleDict({"a": Times(1), "b": Times(2)})
        m["c"] = Times(3)
        m["a"] = Times(9)
        m.update([("d", Times(4))])
        assert list(m) == list(m.keys()) == ["a", "b", "c", "d"]
        assert factors(m.values()) == [9, 2, 3, 4]
        assert [key for key, _ in m.items()] == list(m)
        assert "a" in m
        assert "x" not in m
        assert m.pop("b").factor == 2
        del m["c"]
        assert len(m) == 2
        m.clear()
        assert not len(m)

    def test_unknown_keys_and_keys_that_are_methods_are_refused(self):
        m = nn.ModuleDict({"a": Times(1)})
        with pytest.raises(KeyError, match=r"\['a'\], got 'b'"):
            m["b"]
        with pytest.raises(StateError, match="'items'"):
            m["items"] = Times(1)
        with pytest.raises(DtypeError):
            m["a"] = 3
        assert m.a.factor == 1


class TestParameters:
    def test_a_list_of_them(self):
        given = nn.Parameter(tg.ones(2))
        m = nn.ParameterList([given, tg.zeros(3)])
        m.append(tg.zeros(1))
        assert m[0] is given
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in m)
        assert list(m.state_dict()) == ["0", "1", "2"]
        assert "(1): Parameter of float32 (3,) on cpu" in repr(m)
        with pytest.raises(DtypeError, match="got float"):
            m.append(1.0)

    def test_a_dictionary_of_them(self):
        m = nn.ParameterDict({"a": tg.ones(2)})
        m["b"] = nn.Parameter(tg.zeros(1))
        assert list(m.state_dict()) == ["a", "b"]
        assert all(isinstance(p, nn.Parameter) for p in m.values())
        assert "(a): Parameter of float32 (2,) on cpu" in repr(m)
