"""`save` and `load`: what goes in comes out, and a failure leaves the old file alone."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tinygrad_bn.backend import Device
from tinygrad_bn.errors import ArgumentError, BackendError, DataError, DependencyError, DtypeError
from tinygrad_bn.io import load, save
from tinygrad_bn.tensors import Parameter, Tensor

safetensors = pytest.importorskip("safetensors")


def same(a: object, b: object) -> bool:
    """Whether two structures agree in types, order of keys, dtypes, shapes and bits."""
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and a.detach().numpy().tobytes() == b.numpy().tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return list(a) == list(b) and all(
            type(j) is type(k) and same(a[j], b[k]) for j, k in zip(a, b, strict=True)
        )
    if isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple))
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


class TestRoundTrip:
    @pytest.mark.parametrize(
        "obj",
        [
            None,
            True,
            7,
            -(2**70),
            0.1 + 0.2,
            "naïve \n\0",
            [],
            (),
            {},
            [1, (2.0, [None, "x"]), {"a": ()}],
            {1: "int", "1": "str", 1.5: "float", None: "none", (1, "a"): "tuple"},
            {False: 0},
            {"list": [1], "tensor": "not one", "float": 2.0},
            {"": {"": {}}},
        ],
    )
    def test_plain_data_keep_type_and_value(self, tmp_path: Path, obj: object) -> None:
        save(obj, tmp_path / "x")
        assert same(obj, load(tmp_path / "x"))

    @pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0, 5e-324])
    def test_floats_that_json_lacks_or_might_round(self, tmp_path: Path, value: float) -> None:
        save([value], tmp_path / "x")
        (found,) = load(tmp_path / "x")
        assert np.float64(found).tobytes() == np.float64(value).tobytes()

    def test_optimizer_state(self, tmp_path: Path) -> None:
        state = {
            "state": {
                0: {"step": Tensor(3.0), "exp_avg": Tensor([[1.0, 2.0]])},
                7: {"step": Tensor(3.0), "exp_avg": Tensor([0.5])},
            },
            "param_groups": [
                {
                    "lr": 1e-3,
                    "betas": (0.9, 0.999),
                    "amsgrad": False,
                    "foreach": None,
                    "params": [0, 7],
                }
            ],
        }
        save(state, tmp_path / "x.safetensors")
        assert same(state, load(tmp_path / "x.safetensors"))

    @pytest.mark.parametrize(
        "dtype",
        [
            "float16",
            "float32",
            "float64",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint64",
            "bool",
        ],
    )
    def test_dtypes(self, tmp_path: Path, dtype: str) -> None:
        x = Tensor(np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype))
        save({"x": x}, tmp_path / "x")
        assert same({"x": x}, load(tmp_path / "x"))

    def test_bfloat16(self, tmp_path: Path) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        x = Tensor(np.array([1.0, -2.5, np.inf], ml_dtypes.bfloat16))
        save({"x": x}, tmp_path / "x")
        assert same({"x": x}, load(tmp_path / "x"))

    def test_scalars_empty_and_strided_tensors(self, tmp_path: Path) -> None:
        base = np.arange(24.0).reshape(4, 6)
        state = {
            "scalar": Tensor(1.5),
            "empty": Tensor(np.empty((0, 3), np.float32)),
            "transposed": Tensor(base).transpose(0, 1),
            "strided": Tensor.wrap(base[::2, ::-3], Tensor(0.0).backend),
            "broadcast": Tensor.wrap(np.broadcast_to(base[:1], (4, 6)), Tensor(0.0).backend),
            "big-endian": Tensor.wrap(base.astype(">f8"), Tensor(0.0).backend),
        }
        save(state, tmp_path / "x")
        found = load(tmp_path / "x")
        assert list(found) == list(state)
        for name, x in state.items():
            assert found[name].shape == x.shape
            np.testing.assert_array_equal(found[name].numpy(), x.numpy())
            assert found[name].numpy().flags.writeable

    def test_tensors_that_share_memory_are_each_saved_whole(self, tmp_path: Path) -> None:
        weight = Tensor([1.0, 2.0, 3.0])
        tied = Tensor.wrap(weight.array[1:], weight.backend)
        save({"a": weight, "b": weight, "c": tied}, tmp_path / "x")
        found = load(tmp_path / "x")
        assert same({"a": weight, "b": weight, "c": tied}, found)
        found["a"].numpy()[:] = 0
        assert same(weight, found["b"])

    def test_names_that_collide(self, tmp_path: Path) -> None:
        state = {"a.b": Tensor(1.0), "a": {"b": Tensor(2.0)}, 1: Tensor(3.0), "1": Tensor(4.0)}
        save({**state, "__metadata__": Tensor(5.0)}, tmp_path / "x")
        assert same({**state, "__metadata__": Tensor(5.0)}, load(tmp_path / "x"))

    def test_a_lone_tensor(self, tmp_path: Path) -> None:
        save(Tensor([1, 2]), tmp_path / "x")
        assert same(Tensor([1, 2]), load(tmp_path / "x"))

    def test_parameters_come_back_as_tensors_and_ordered_dicts_as_dicts(
        self, tmp_path: Path
    ) -> None:
        save(OrderedDict(w=Parameter([1.0])), tmp_path / "x")
        found = load(tmp_path / "x")
        assert type(found) is dict
        assert type(found["w"]) is Tensor
        assert not found["w"].requires_grad

    def test_from_and_to_a_device(self, tmp_path: Path, device: str) -> None:
        save({"x": Tensor([1.0, 2.0], device=device)}, tmp_path / "x")
        assert load(tmp_path / "x")["x"].device == "cpu"
        found = load(tmp_path / "x", device=device)["x"]
        assert found.device == Device(device)
        assert found.tolist() == [1, 2]

    def test_an_unknown_device(self, tmp_path: Path) -> None:
        save({"x": Tensor([1.0])}, tmp_path / "x")
        with pytest.raises(BackendError):
            load(tmp_path / "x", device="tpu")


class TestForeignFiles:
    def test_other_readers_understand_a_flat_state_dict(self, tmp_path: Path) -> None:
        from safetensors.numpy import load_file

        save({"layer.weight": Tensor([[1.0, 2.0]]), "layer.bias": Tensor([3])}, tmp_path / "x")
        found = load_file(tmp_path / "x")
        assert found.keys() == {"layer.weight", "layer.bias"}
        np.testing.assert_array_equal(found["layer.weight"], np.float32([[1, 2]]))

    def test_files_of_other_writers_load_as_flat_dicts(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {"w": np.ones((2, 3), np.float32), "n": np.array(5)}
        save_file(arrays, tmp_path / "x", metadata={"format": "np"})
        found = load(tmp_path / "x")
        assert same(found, {"n": Tensor(arrays["n"]), "w": Tensor(arrays["w"])}) or same(
            found, {"w": Tensor(arrays["w"]), "n": Tensor(arrays["n"])}
        )

    def test_every_truncation_is_an_error(self, tmp_path: Path) -> None:
        save({"a": Tensor([1.0, 2.0]), "b": [1, "x"]}, tmp_path / "x")
        whole = (tmp_path / "x").read_bytes()
        for length in range(len(whole)):
            (tmp_path / "x").write_bytes(whole[:length])
            with pytest.raises(DataError, match="expected"):
                load(tmp_path / "x")

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff" * 100, b"{}" * 50]
    )
    def test_files_of_other_kinds(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DataError, match="safetensors"):
            load(tmp_path / "x")

    @pytest.mark.parametrize(
        "structure",
        [
            "{",
            "[1]",
            '{"tensor": "missing"}',
            '{"tensor": ["x"]}',
            '{"object": 1}',
            '{"dict": [1]}',
            '{"dict": [[{"list": []}, 1]]}',
            '{"list": 1, "tuple": 2}',
            '{"list": 5}',
            "[" * 100_000,
            '{"list": [' * 100_000 + "]}" * 100_000,
        ],
    )
    def test_a_structure_nobody_wrote(self, tmp_path: Path, structure: str) -> None:
        from safetensors.numpy import save_file

        save_file({"x": np.ones(1)}, tmp_path / "x", metadata={"tinygrad_bn": structure})
        with pytest.raises(DataError, match="structure"):
            load(tmp_path / "x")

    def test_dtypes_without_operations(self, tmp_path: Path) -> None:
        header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}})
        content = len(header).to_bytes(8, "little") + header.encode() + b"\0"
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DataError, match="F8_E4M3 for 'x'"):
            load(tmp_path / "x")

    def test_a_folder_and_a_missing_file(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none"):
            with pytest.raises(DataError, match="cannot read"):
                load(path)


class TestWhatCannotBeSaved:
    @pytest.mark.parametrize(
        ("obj", "message"),
        [
            ({"a": [np.ones(2)]}, "got ndarray at a.0"),
            ({"lr": np.float64(1)}, "got float64 at lr"),
            ({1, 2}, "got set at the top"),
            ({"f": print}, "builtin_function_or_method at f"),
            ({(1, b"x"): 1}, "got bytes at key.1"),
            ({"z": 1j}, "got complex at z"),
        ],
    )
    def test_other_types_are_named_with_their_place(
        self, tmp_path: Path, obj: object, message: str
    ) -> None:
        with pytest.raises(DtypeError, match=message):
            save(obj, tmp_path / "x")
        assert not list(tmp_path.iterdir())

    def test_tensors_are_no_keys(self, tmp_path: Path) -> None:
        with pytest.raises(DtypeError, match="got Tensor"):
            save({Tensor(1.0): 1}, tmp_path / "x")

    def test_a_structure_in_itself(self, tmp_path: Path) -> None:
        knot: list[object] = []
        knot.append(knot)
        with pytest.raises(ArgumentError, match="in itself"):
            save(knot, tmp_path / "x")

    def test_without_safetensors_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save({}, tmp_path / "x")
        monkeypatch.setitem(sys.modules, "safetensors", None)
        for action in (lambda: save({}, tmp_path / "y"), lambda: load(tmp_path / "x")):
            with pytest.raises(DependencyError, match="pip install safetensors"):
                action()


class TestFailingDisk:
    """Whatever fails, the old file stays as it was and no temporary file is left."""

    def unchanged(self, folder: Path) -> None:
        assert [path.name for path in folder.iterdir()] == ["x"]
        assert same({"old": Tensor([1.0])}, load(folder / "x"))

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        save({"old": Tensor([1.0])}, tmp_path / "x")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(DataError, match="No space left"):
                save({"new": Tensor([2.0])}, tmp_path / "x")
        self.unchanged(tmp_path)

    def test_a_full_disk_in_the_middle(self, tmp_path: Path) -> None:
        """A real limit on the size of files, so that real writes fail part of the way."""
        resource = pytest.importorskip("resource")
        signal = pytest.importorskip("signal")
        save({"old": Tensor([1.0])}, tmp_path / "x")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(
            signal.SIGXFSZ, signal.SIG_IGN
        )  # as Python does; the write then fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(DataError, match="cannot write"):
                save({"new": Tensor(np.ones(1_000_000))}, tmp_path / "x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        self.unchanged(tmp_path)

    def test_an_interrupt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save({"old": Tensor([1.0])}, tmp_path / "x")

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                save({"new": Tensor([2.0])}, tmp_path / "x")
        self.unchanged(tmp_path)

    def test_a_missing_folder_and_a_file_for_one(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "none" / "x", tmp_path / "file" / "x"):
            with pytest.raises(DataError, match="cannot write"):
                save({}, path)

    @pytest.mark.skipif(
        not Path("/sys").is_dir(), reason="needs a folder that root cannot write to"
    )
    def test_a_read_only_folder(self) -> None:
        with pytest.raises(
            DataError, match=r"cannot write /sys/x: (Permission|Operation|Read-only)"
        ):
            save({}, "/sys/x")

    def test_a_folder_or_a_device_in_its_place(self, tmp_path: Path) -> None:
        for path in (tmp_path, Path("/dev/null")):
            with pytest.raises(DataError, match="expected a file"):
                save({}, path)
        assert Path("/dev/null").is_char_device()


def test_a_link_still_leads_to_the_file_after_saving(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "x")
    save([1], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "x") == [1]


def test_others_may_read_the_file_as_the_umask_says(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        save([1], tmp_path / "x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644
