"""Tensors from data and from formulas: their dtypes, whose memory they are, what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, GradientError, ShapeError


class TestTensor:
    @pytest.mark.parametrize(
        ("data", "dtype"),
        [
            (1, tg.int64),
            (1.5, tg.float32),
            (True, tg.bool),
            ([1, 2.5], tg.float32),
            ([[1], [2]], tg.int64),
            ([True, False], tg.bool),
            ([], tg.float32),
            (np.float64(2.0), tg.float64),
            (np.arange(3, dtype=np.int32), tg.int32),
            (np.zeros(2, np.float16), tg.float16),
        ],
    )
    def test_infers_the_dtype(self, data, dtype, device):
        x = tg.tensor(data, device=device)
        assert x.dtype == dtype
        assert x.device == tg.device(device)
        np.testing.assert_array_equal(x.cpu().numpy(), data)

    def test_copies(self):
        data = np.zeros(3)
        x = tg.tensor(data)
        data[0] = 1
        assert x[0] == 0
        y = tg.tensor(x)
        x[0] = 2
        assert y[0] == 0

    def test_nests_scalar_tensors(self):
        assert tg.tensor([tg.tensor(1.0), 2]).tolist() == [1, 2]

    @pytest.mark.parametrize("data", [[[1], [2, 3]], "abc", [None], object(), {1: 2}, 1j])
    def test_refuses_what_is_not_numbers(self, data):
        with pytest.raises(DtypeError, match="expected"):
            tg.tensor(data)

    @pytest.mark.parametrize(
        "data",
        [
            np.zeros(2, [("a", "f4")]),
            np.zeros(2, "V4"),
            np.ma.array([1.0, 2.0], mask=[False, True]),  # whose mask would be lost
        ],
    )
    def test_refuses_arrays_of_more_than_numbers(self, data):
        for make in (tg.tensor, tg.as_tensor, tg.from_numpy):
            with pytest.raises(DtypeError, match="expected"):
                make(data)

    def test_has_the_byte_order_of_the_machine(self, device):
        x = tg.tensor(np.arange(3, dtype=np.dtype(np.float32).newbyteorder()), device=device)
        assert x.dtype.isnative
        assert (x + x).tolist() == [0, 2, 4]

    def test_refuses_numbers_that_the_dtype_does_not_hold(self):
        for data in (2**40, [10**30], float("inf")):
            with pytest.raises((ArgumentError, DtypeError), match="expected numbers"):
                tg.tensor(data, dtype=tg.int32)

    @pytest.mark.torch
    def test_refuses_a_foreign_tensor_with_a_history(self):
        torch = pytest.importorskip("torch")
        assert tg.tensor(torch.ones(2)).tolist() == [1, 1]
        with pytest.raises(DtypeError, match="require gradient"):
            tg.tensor(torch.ones(2, requires_grad=True))

    def test_requires_grad_of_floats_only(self):
        assert tg.tensor([1.0], requires_grad=True).requires_grad
        with pytest.raises(DtypeError, match="floats"):
            tg.tensor([1], requires_grad=True)


class TestSharedMemory:
    def test_from_numpy(self):
        array = np.arange(6.0).reshape(2, 3).T
        x = tg.from_numpy(array)
        x[0, 0] = 7
        assert array[0, 0] == 7
        assert np.shares_memory(x.numpy(), array)

    def test_from_numpy_of_a_read_only_array(self):
        array = np.zeros(3)
        array.flags.writeable = False
        x = tg.from_numpy(array)
        assert (x + 1).tolist() == [1, 1, 1]
        for write in (lambda: x.fill_(1), lambda: x.__setitem__(0, 1), lambda: x.add_(1)):
            with pytest.raises(ArgumentError, match="read-only"):
                write()
        assert array.tolist() == [0, 0, 0]

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros(2, np.complex64),
            np.array(["a"]),
            np.array([None]),
            np.zeros(2, ">f4"),
            np.zeros(2, "M8[s]"),
            [1, 2],
        ],
    )
    def test_from_numpy_refuses_what_it_cannot_share(self, array):
        with pytest.raises(DtypeError, match="expected"):
            tg.from_numpy(array)

    def test_as_tensor_shares_where_nothing_changes(self):
        array = np.zeros(3, np.float32)
        assert np.shares_memory(tg.as_tensor(array).numpy(), array)
        x = tg.tensor([1.0], requires_grad=True)
        assert tg.as_tensor(x) is x
        assert tg.as_tensor(array, dtype=tg.float64).dtype == tg.float64
        assert tg.as_tensor([1, 2]).dtype == tg.int64

    def test_asarray_has_no_history(self):
        x = tg.tensor([1.0], requires_grad=True)
        y = tg.asarray(x)
        assert not y.requires_grad
        assert np.shares_memory(y.numpy(), x.detach().numpy())
        assert not np.shares_memory(tg.asarray(x, copy=True).numpy(), y.numpy())

    def test_from_dlpack(self):
        array = np.arange(3.0)
        x = tg.from_dlpack(array)
        array[0] = 5
        assert x[0] == 5
        assert np.shares_memory(np.from_dlpack(x), array)
        with pytest.raises(GradientError, match="detach"):
            np.from_dlpack(tg.zeros(2, requires_grad=True))

    @pytest.mark.parametrize("data", [[1, 2], 3, "abc"])
    def test_from_dlpack_refuses_objects_without_it(self, data):
        with pytest.raises(DtypeError, match="__dlpack__"):
            tg.from_dlpack(data)

    def test_from_dlpack_refuses_other_devices(self):
        class OfAnFpga:
            def __dlpack__(self, **options):
                raise AssertionError("expected not to be asked")

            def __dlpack_device__(self):
                return 18, 0

        with pytest.raises(BackendError, match="18"):
            tg.from_dlpack(OfAnFpga())

    @pytest.mark.torch
    def test_from_dlpack_of_torch(self):
        torch = pytest.importorskip("torch")
        theirs = torch.arange(3.0)
        x = tg.from_dlpack(theirs)
        theirs[0] = 5
        assert x[0] == 5
        x[1] = 6
        assert theirs[1] == 6
        assert torch.from_dlpack(x).data_ptr() == theirs.data_ptr()
        for strange in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, requires_grad=True)):
            with pytest.raises(DtypeError, match="expected"):
                tg.from_dlpack(strange)


FORMULAS = {
    "zeros": lambda t: t.zeros(2, 3),
    "zeros of a shape": lambda t: t.zeros((2, 0)),
    "zeros of rank 0": lambda t: t.zeros(()),
    "ones": lambda t: t.ones(2, dtype=t.int32),
    "full of ints": lambda t: t.full((2,), 3),
    "full of floats": lambda t: t.full((2, 2), 3.5),
    "full of bools": lambda t: t.full((1,), True),
    "full in a dtype": lambda t: t.full((1,), 2, dtype=t.float64),
    "arange": lambda t: t.arange(5),
    "arange of floats": lambda t: t.arange(0, 1, 0.1),
    "arange from a float": lambda t: t.arange(1.5, 4),
    "arange downwards": lambda t: t.arange(5, -1, -2),
    "arange of nothing": lambda t: t.arange(2, 2),
    "arange in a dtype": lambda t: t.arange(3, dtype=t.float64),
    "arange of many": lambda t: t.arange(0, 3000, 0.1),
    "linspace": lambda t: t.linspace(-1, 2, 7),
    "linspace of one": lambda t: t.linspace(3, 4, 1),
    "linspace of none": lambda t: t.linspace(3, 4, 0),
    "linspace downwards": lambda t: t.linspace(1, 0, 4, dtype=t.float64),
    "logspace": lambda t: t.logspace(-2, 2, 5),
    "logspace of base 2": lambda t: t.logspace(0, 3, 4, 2.0),
    "eye": lambda t: t.eye(3),
    "eye of a rectangle": lambda t: t.eye(2, 4, dtype=t.int64),
    "zeros_like": lambda t: t.zeros_like(t.ones(2, 3, dtype=t.float64)),
    "ones_like": lambda t: t.ones_like(t.zeros(2, dtype=t.int64)),
    "full_like": lambda t: t.full_like(t.zeros(2), 7),
    "full_like in a dtype": lambda t: t.full_like(t.zeros(2), 7, dtype=t.int64),
    "new_zeros": lambda t: t.ones(2, dtype=t.float64).new_zeros(3, 2),
    "new_zeros by name": lambda t: t.ones(2).new_zeros(size=(3,), dtype=t.int64),
    "new_ones with a gradient": lambda t: t.ones(2).new_ones(3, requires_grad=True).detach(),
    "linspace of whole numbers": lambda t: t.linspace(4.3, -3, 50, dtype=t.int64),
    "logspace of whole numbers": lambda t: t.logspace(0, 1.2, 2, dtype=t.int64),
    "new_ones": lambda t: t.zeros(2, dtype=t.int32).new_ones((3,)),
    "new_full": lambda t: t.zeros(2).new_full((3,), 4),
    "new_tensor": lambda t: t.zeros(2).new_tensor([1, 2]),
    "scalar_tensor": lambda t: t.scalar_tensor(2),
}


class TestFormulas:
    @pytest.mark.torch
    @pytest.mark.parametrize("name", FORMULAS)
    def test_mean_what_pytorchs_do(self, name):
        torch = pytest.importorskip("torch")
        found, expected = FORMULAS[name](tg), FORMULAS[name](torch)
        assert found.dtype.name == str(expected.dtype).removeprefix("torch.")
        assert found.shape == tuple(expected.shape)
        # both are rounded from float64, after steps in another order: one unit in the last place
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1.2e-7, atol=1e-7)

    @pytest.mark.parametrize("name", FORMULAS)
    def test_are_the_same_on_every_device(self, name, device):
        expected = FORMULAS[name](tg)
        tg.set_default_device(device)
        try:
            found = FORMULAS[name](tg)
        finally:
            tg.set_default_device("cpu")
        assert found.device == tg.device(device)
        assert found.dtype == expected.dtype
        # a power may be an ulp off
        np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), rtol=1.2e-7, atol=0)

    def test_linspace_ends_where_it_should(self):
        x = tg.linspace(0.1, 0.7, 13, dtype=tg.float64)
        assert (x[0], x[-1]) == (0.1, 0.7)

    def test_follow_the_default_dtype(self):
        tg.set_default_dtype(tg.float64)
        try:
            assert tg.zeros(1).dtype == tg.full((1,), 2.5).dtype == tg.float64
            assert tg.arange(0, 1, 0.5).dtype == tg.tensor(1.0).dtype == tg.float64
        finally:
            tg.set_default_dtype(tg.float32)

    def test_empty_is_to_be_written_to(self):
        x = tg.empty(2, 3)
        x[...] = 1
        assert tg.empty_like(x).shape == x.new_empty(2, 3).shape == (2, 3)

    @pytest.mark.parametrize(
        ("error", "call"),
        [
            (ShapeError, lambda: tg.zeros(2, -1)),
            (ShapeError, lambda: tg.zeros(2.5, 1)),
            (ShapeError, lambda: tg.ones("ab")),
            (ShapeError, lambda: tg.eye(-1)),
            (ShapeError, lambda: tg.linspace(0, 1, -1)),
            (ArgumentError, lambda: tg.arange(0, 5, -1)),
            (ArgumentError, lambda: tg.arange(0, 5, 0)),
            (ArgumentError, lambda: tg.arange(0, float("inf"))),
            (ArgumentError, lambda: tg.arange(float("nan"), 1)),
            (ArgumentError, lambda: tg.full((2,), 300, dtype=tg.uint8)),
            (DtypeError, lambda: tg.full((2,), "a")),
            (DtypeError, lambda: tg.zeros(2, dtype=np.complex64)),
            (DtypeError, lambda: tg.zeros(2, dtype="nonsense")),
            (DtypeError, lambda: tg.zeros_like(np.zeros(2))),
            (BackendError, lambda: tg.zeros(2, device="tpu")),
            (DtypeError, lambda: tg.arange(3, requires_grad=True)),
        ],
    )
    def test_refuse_bad_input(self, error, call):
        with pytest.raises(error, match="expected"):
            call()


def test_cuda_says_what_there_is_without_importing_cupy_first():
    code = (
        "import sys, tinygrad_bn as tg; assert 'cupy' not in sys.modules;"
        "print(tg.cuda.is_available() == (tg.cuda.device_count() > 0), tg.cuda.current_device());"
        "tg.cuda.synchronize(); tg.cuda.manual_seed_all(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["True", "0"]


def test_cuda_names_its_devices(cuda):
    assert tg.cuda.is_available()
    assert tg.cuda.get_device_name(0) == tg.cuda.get_device_name(cuda) != ""
    tg.cuda.synchronize(cuda)
    with pytest.raises(BackendError, match="99"):
        tg.cuda.get_device_name(99)
