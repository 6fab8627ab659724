"""`load_torch` on files that PyTorch itself wrote."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_bn.errors import DataError
from tinygrad_bn.io import load, load_torch
from tinygrad_bn.tensors import Tensor


@pytest.mark.torch
class TestAgainstTorch:
    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch")

    def check(self, found: Any, wanted: Any, torch: Any) -> None:
        if isinstance(wanted, torch.Tensor):
            assert isinstance(found, Tensor)
            assert found.dtype.name == str(wanted.dtype).removeprefix("torch.")
            expected = wanted.detach()
            if wanted.dtype == torch.bfloat16:
                found, expected = found.float(), expected.float()
            np.testing.assert_array_equal(found.numpy(), expected.numpy())
        elif isinstance(wanted, dict):
            assert list(found) == list(wanted)
            for key in wanted:
                self.check(found[key], wanted[key], torch)
        elif isinstance(wanted, (list, tuple)):
            assert type(found) is type(wanted)
            for a, b in zip(found, wanted, strict=True):
                self.check(a, b, torch)
        else:
            assert found == wanted
            assert type(found) is type(wanted)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_model_and_optimizer(self, tmp_path: Path, torch: Any, protocol: int) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        saved = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "parameters": list(model.parameters()),
            "epoch": 3,
            "big": 2**70,
            "loss": float("inf"),
            "notes": ["é" * 300, None, True, (1, 2, 3, 4)],
        }
        torch.save(saved, tmp_path / "x.pt", pickle_protocol=protocol)
        found = load_torch(tmp_path / "x.pt")
        self.check(found, saved, torch)

    @pytest.mark.parametrize(
        "dtype",
        [
            "float64",
            "float32",
            "float16",
            "bfloat16",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint8",
            "bool",
        ],
    )
    def test_dtypes(self, tmp_path: Path, torch: Any, dtype: str) -> None:
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        x = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
        torch.save({"x": x}, tmp_path / "x.pt")
        self.check(load_torch(tmp_path / "x.pt"), {"x": x}, torch)

    def test_views(self, tmp_path: Path, torch: Any) -> None:
        base = torch.arange(24.0).reshape(4, 6)
        saved = {
            "transposed": base.T,
            "slice": base[1:3, ::2],
            "expanded": base[:1].expand(5, 6),
            "scalar": base[2, 2],
            "empty": base[:0],
            "diagonal": base.diagonal(),
        }
        torch.save(saved, tmp_path / "x.pt")
        self.check(load_torch(tmp_path / "x.pt"), saved, torch)

    def test_other_dtypes_are_named(self, tmp_path: Path, torch: Any) -> None:
        torch.save(torch.zeros(2, dtype=torch.complex64), tmp_path / "x.pt")
        with pytest.raises(DataError, match=r"torch\.ComplexFloatStorage"):
            load_torch(tmp_path / "x.pt")

    def test_a_whole_module_is_refused_by_name(self, tmp_path: Path, torch: Any) -> None:
        torch.save(torch.nn.Linear(1, 1), tmp_path / "x.pt")
        with pytest.raises(DataError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
            load_torch(tmp_path / "x.pt")

    def test_the_old_format_is_refused(self, tmp_path: Path, torch: Any) -> None:
        torch.save(OrderedDict(), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
        with pytest.raises(DataError, match="save it again"):
            load(tmp_path / "x.pt")
