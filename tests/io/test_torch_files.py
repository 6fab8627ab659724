"""`load_torch`: what PyTorch saved comes out bit for bit; nothing that a file says is ever run."""

from __future__ import annotations

import builtins
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_bn.backend import Device
from tinygrad_bn.errors import DataError, TinygradError
from tinygrad_bn.io import load, load_torch
from tinygrad_bn.io.torch_files import LEGACY_MAGIC


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str = "FloatStorage", key: str = "0", size: int = 4) -> bytes:
    parts = text("storage"), name("torch", kind), text(key), text("cpu"), number(size)
    return b"(" + b"".join(parts) + b"tQ"


def tensor(
    offset: int = 0,
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    storage: bytes = storage(),
) -> bytes:
    """The instructions by which torch.save describes a tensor."""
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


FOUR = np.arange(4, dtype="<f4").tobytes()


def write(path: Path, program: bytes, records: dict[str, bytes] | None = None) -> Path:
    """A file of torch.save's layout, with a pickle of one's own making."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for key, content in {"data/0": FOUR, "version": b"3\n", **(records or {})}.items():
            archive.writestr(f"archive/{key}", content)
    return path


class TestLayout:
    """Files made by hand, without PyTorch."""

    def test_a_tensor(self, tmp_path: Path) -> None:
        found = load_torch(write(tmp_path / "x.pt", tensor()))
        assert found.tolist() == [0, 1, 2, 3]
        assert found.dtype == np.float32

    def test_offset_and_strides_count_elements(self, tmp_path: Path) -> None:
        found = load_torch(write(tmp_path / "x.pt", tensor(1, (2, 2), (0, 2))))
        assert found.tolist() == [[1, 3], [1, 3]]

    def test_scalar_and_empty(self, tmp_path: Path) -> None:
        assert load_torch(write(tmp_path / "x.pt", tensor(3, (), ()))).item() == 3
        assert load_torch(write(tmp_path / "x.pt", tensor(4, (0, 5), (5, 1)))).shape == (0, 5)

    def test_on_a_device(self, tmp_path: Path, device: str) -> None:
        found = load_torch(write(tmp_path / "x.pt", tensor(1, (2, 2), (0, 2))), device)
        assert found.device == Device(device)
        assert found.tolist() == [[1, 3], [1, 3]]

    def test_load_knows_the_format_by_its_content(self, tmp_path: Path) -> None:
        assert load(write(tmp_path / "weights.bin", tensor())).tolist() == [0, 1, 2, 3]

    def test_windows_on_one_storage_share_memory(self, tmp_path: Path) -> None:
        a, b = load_torch(write(tmp_path / "x.pt", tensor() + tensor(2, (2,), (1,)) + b"\x86"))
        a.numpy()[2] = 9
        assert b.tolist() == [9, 3]
        assert a.stamp is b.stamp  # so that a graph sees what is written through the other

    def test_a_state_dict_with_metadata(self, tmp_path: Path) -> None:
        state = name("collections", "OrderedDict") + b")R" + text("w") + tensor() + b"s"
        metadata = b"}" + text("_metadata") + b"}s" + b"b"
        found = load_torch(write(tmp_path / "x.pt", state + metadata))
        assert type(found) is dict
        assert list(found) == ["w"]

    def test_size_device_and_dtype(self, tmp_path: Path) -> None:
        size = name("torch", "Size") + b"]" + number(3) + b"a" + b"\x85R"
        device = name("torch", "device") + text("cuda") + number(1) + b"\x86R"
        dtype = name("torch", "float64")
        found = load_torch(write(tmp_path / "x.pt", size + device + dtype + b"\x87"))
        assert found == ((3,), "cuda:1", np.dtype("float64"))

    def test_big_endian_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "x.pt", tensor(), {"byteorder": b"big"})
        with pytest.raises(DataError, match="little-endian"):
            load_torch(tmp_path / "x.pt")
        write(tmp_path / "x.pt", tensor(), {"byteorder": b"little"})
        assert load_torch(tmp_path / "x.pt").tolist() == [0, 1, 2, 3]

    def test_the_old_format_is_recognised(self, tmp_path: Path) -> None:
        (tmp_path / "x.pt").write_bytes(LEGACY_MAGIC + b"\x80\x02M\xe9\x03.")
        for reader in (load, load_torch):
            with pytest.raises(DataError, match=r"before version 1\.6; .* save it again"):
                reader(tmp_path / "x.pt")


class TestMaliciousFiles:
    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    @pytest.mark.parametrize(
        "call",
        [
            (os.system, ("touch {}",)),
            (builtins.eval, ("open({!r}, 'w')",)),
            (builtins.exec, ("open({!r}, 'w')",)),
            (builtins.open, ("{}", "w")),
            (os.mkdir, ("{}",)),
        ],
        ids=lambda call: call[0].__name__,
    )
    def test_no_call_is_made(self, tmp_path: Path, protocol: int, call: Any) -> None:
        function, arguments = call
        trap = str(tmp_path / "trap")

        class Evil:
            def __reduce__(self) -> Any:
                return function, tuple(a.format(trap) for a in arguments)

        program = pickle.dumps({"w": Evil()}, protocol=protocol)
        with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
            archive.writestr("archive/data.pkl", program)
        with pytest.raises(DataError, match="expected a"):
            load_torch(tmp_path / "x.pt")
        assert not os.path.exists(trap)

    @pytest.mark.parametrize(
        ("module", "attribute"),
        [
            ("os", "system"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("torch.serialization", "os.system"),
            ("torch._utils", "_rebuild_tensor"),
            ("tinygrad_bn.io", "save"),
            ("collections", "OrderedDict.__init__"),
        ],
    )
    def test_a_foreign_name_is_an_error_that_says_it(
        self, tmp_path: Path, module: str, attribute: str
    ) -> None:
        stacked = text(module) + text(attribute) + b"\x93"
        for program in (name(module, attribute), stacked):
            with pytest.raises(DataError, match=f"got {module}.{attribute}, which is not run"):
                load_torch(write(tmp_path / "x.pt", program))

    @pytest.mark.parametrize(
        ("offset", "shape", "strides"),
        [
            (1, (4,), (1,)),
            (0, (5,), (1,)),
            (0, (2,), (4,)),
            (0, (2, 2), (2, 2)),
            (4, (), ()),
            (5, (0,), (1,)),
            (2**62, (1,), (1,)),
            (0, (2**62, 2**62), (2**62, 2**62)),
            (0, (2**62, 2**62), (0, 0)),
            (0, (2,), (2**63,)),
            (-1, (1,), (1,)),
            (3, (2,), (-1,)),
            (0, (-1,), (1,)),
            (0, (4,), ()),
            (0, (), (1,)),
            (0, (1,) * 65, (1,) * 65),
        ],
    )
    def test_no_window_reaches_out_of_its_storage(
        self, tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        with pytest.raises(DataError):
            load_torch(write(tmp_path / "x.pt", tensor(offset, shape, strides)))

    def test_a_huge_expansion_takes_no_memory(self, tmp_path: Path) -> None:
        found = load_torch(write(tmp_path / "x.pt", tensor(0, (2**40,), (0,))))
        assert found.shape == (2**40,)

    @pytest.mark.parametrize("number", [b"\x88", b"G?\xf0\0\0\0\0\0\0", text("1"), b"N", b")"])
    def test_offsets_are_whole_numbers(self, tmp_path: Path, number: bytes) -> None:
        good = tensor()
        start = good.index(storage()) + len(storage())
        with pytest.raises(DataError):
            load_torch(write(tmp_path / "x.pt", good[:start] + number + good[start + 11 :]))

    @pytest.mark.parametrize("size", [3, 5, -4, 2**60])
    def test_a_record_must_have_its_size(self, tmp_path: Path, size: int) -> None:
        with pytest.raises(DataError, match=f"expected {size} numbers of 4 bytes"):
            load_torch(write(tmp_path / "x.pt", tensor(storage=storage(size=size))))

    def test_a_record_must_be_there(self, tmp_path: Path) -> None:
        for key in ("1", "../data.pkl", ""):
            with pytest.raises(DataError, match="expected the record"):
                load_torch(write(tmp_path / "x.pt", tensor(storage=storage(key=key))))

    @pytest.mark.parametrize(
        "program",
        [
            b"",
            b"0",
            b"R",
            b"b",
            b"s",
            b"(u",
            b"t",
            b"h\x07",
            b"]\x85R",  # calls a tuple
            text("x") + b")R",
            name("torch", "FloatStorage") + b")R",
            name("torch", "float32") + b")R",
            name("torch._utils", "_rebuild_tensor_v2") + b")R",
            name("torch._utils", "_rebuild_tensor_v2") + b"}b",  # sets attributes of a function
            tensor() + b"}b",  # or of a tensor
            name("torch._utils", "_rebuild_tensor_v2") + b"(K\x01K\x02K\x03K\x04tR",
            text("storage") + b"Q",
            b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + b"K\x04tQ",
            b"}]K\x01s",  # an unhashable key
            b"}(K\x01u",  # a key without a value
            b")" + b"q\x00h\x00\x86" * 99 + b"Q",
            b")" + b"q\x00h\x00\x86" * 99 + text("x") + b"\x93",
            b"})" + b"q\x00h\x00\x86" * 99 + b"K\x01s",  # a key that is hashed for ever
            name("torch", "device") + b")" + b"q\x00h\x00\x86" * 99 + b"\x85R",
            name("collections", "OrderedDict") + b"]" + b"\x85R",
            b"\x8a\xff",
            b"\x8c\xff",
            b"\xff",
            b"\x81",
        ],
    )
    def test_nonsense_is_an_error(self, tmp_path: Path, program: bytes) -> None:
        with pytest.raises(DataError):
            load_torch(write(tmp_path / "x.pt", program))

    def test_compressed_records_are_refused(self, tmp_path: Path) -> None:
        """A small file could otherwise claim any amount of memory."""
        with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(1 << 20))
        with pytest.raises(DataError, match="compressed"):
            load_torch(tmp_path / "x.pt")


class TestForeignFiles:
    def test_every_truncation_is_an_error(self, tmp_path: Path) -> None:
        whole = write(tmp_path / "x.pt", tensor()).read_bytes()
        for length in range(len(whole)):
            (tmp_path / "x.pt").write_bytes(whole[:length])
            with pytest.raises(DataError):
                load_torch(tmp_path / "x.pt")

    def test_damage_is_an_error_or_harmless(self, tmp_path: Path) -> None:
        whole = write(tmp_path / "x.pt", tensor()).read_bytes()
        draw = random.Random(0)
        refused = 0
        for _ in range(500):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            (tmp_path / "x.pt").write_bytes(damaged)
            try:
                load_torch(tmp_path / "x.pt")
            except TinygradError:
                refused += 1
        assert refused > 100  # most bytes count

    def test_a_damaged_pickle_is_an_error_or_harmless(self, tmp_path: Path) -> None:
        """Here the archive is whole, so that its checksums do not catch the damage first."""
        program = b"}(" + text("a") + tensor() + text("b") + tensor(1, (3,), (1,)) + b"u"
        draw = random.Random(0)
        refused = 0
        for _ in range(500):
            damaged = bytearray(program)
            damaged[draw.randrange(len(program))] = draw.randrange(256)
            try:
                load_torch(write(tmp_path / "x.pt", bytes(damaged)))
            except TinygradError:
                refused += 1
        assert refused > 250  # a random instruction rarely makes sense

    def test_other_archives_and_files(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=np.ones(3))
        with pytest.raises(DataError, match=r"one data\.pkl .* got 0"):
            load(tmp_path / "x.npz")
        (tmp_path / "x.pt").write_bytes(b"not a zip")
        with pytest.raises(DataError, match=r"torch\.save"):
            load_torch(tmp_path / "x.pt")
        with pytest.raises(DataError, match="cannot read"):
            load_torch(tmp_path)
