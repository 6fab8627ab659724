"""Every piece of gpu.py on the stand-in, tiny: that it runs, what it says, and whom it names."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cupy
import gpu
import pytest
from cases import Case
from on_gpu import Bench, batch_norms, passes, rates, tables, timing, training
from on_gpu.batch_norms import Shape

from tests import cupy_standin
from tests.benchmarks.conftest import ABSENT, once

ROOT = Path(__file__).parents[2]
TINY = Case("tiny", (6, 8, 5), 16)
SMALL = passes.Sizes(33, 8, (2, 64, 4), 5)


class TestTiming:
    def test_turns_alternate_and_begin_with_a_sample_that_does_not_count(self) -> None:
        told: list[str] = []
        times = iter([1.0, 1.0, 1.0, 1.0, 9.0, 2.0, 9.0, 3.0, 9.0, 5.0, 9.0, 4.0])

        def timer(call: Any, repeats: int) -> float:
            call()
            return next(times)

        calls = {name: (lambda n=name: told.append(n)) for name in "ab"}
        pace = timing.Pace(rounds=2, sample=1.0, samples=1)
        assert timing.compare(calls, pace, timer) == {"a": [2.0, 4.0], "b": [3.0, 5.0]}
        assert "".join(told) == "aabb" + "aabbbbaa"

    @pytest.mark.parametrize(("seconds", "repeats"), [(1e-3, 10), (1.0, 1), (0.0, 10_000)])
    def test_a_sample_is_as_many_calls_as_fill_it(self, seconds: float, repeats: int) -> None:
        pace = timing.Pace(sample=0.01)
        assert timing.repeats_of(lambda: None, pace, lambda call, n: seconds) == repeats

    def test_events_stand_around_all_calls_of_a_sample(self, monkeypatch: Any) -> None:
        told: list[str] = []

        class Event:
            record = staticmethod(lambda: told.append("record"))
            synchronize = staticmethod(lambda: told.append("synchronize"))

        cuda = SimpleNamespace(Event=Event, get_elapsed_time=lambda begin, end: 6.0)
        monkeypatch.setattr(cupy, "cuda", cuda)
        assert timing.Events()(lambda: told.append("call"), 3) == pytest.approx(2e-3)
        assert told == ["record", *["call"] * 3, "record", "synchronize"]

    def test_cupy_tells_times_between_events(self) -> None:
        if cupy_standin.is_installed():
            from tests.cupy_standin.record import names

            assert "get_elapsed_time" in names("cuda")
        else:
            assert timing.Events()(lambda: None, 1) >= 0


class TestRates:
    def test_without_pytorch(self, bench: Bench, said: list[str]) -> None:
        found = rates.measure(bench, copied=4096, side=16)
        assert found["copy"]["bytes"] == 4096
        assert found["copy"]["bytes a second"] == pytest.approx(2 * 4096 / 1e-3)
        for dtype in rates.DTYPES:
            row = found["products"][dtype]
            assert row["FLOP a second"] == {
                "tinygrad_bn": pytest.approx(2 * 16**3 / 1e-3, rel=1e-3)
            }
            assert row["absent"] == ABSENT
        assert "an addition, tinygrad_bn" in found["launches"]["seconds"]
        assert len(said) == 4

    @pytest.mark.torch
    def test_beside_pytorch(self, beside: Bench) -> None:
        found = rates.measure(beside, copied=4096, side=16)
        assert set(found["products"]["bfloat16"]["seconds"]) == {"tinygrad_bn", "torch"}
        assert "an addition, torch" in found["launches"]["seconds"]

    def test_a_product_that_fails_is_named(self, bench: Bench, monkeypatch: Any) -> None:
        def fails(*args: Any) -> Any:
            raise MemoryError("out of\nmemory")

        monkeypatch.setattr(rates, "our_product", fails)
        found = rates.products(bench, "float32", 16)
        assert found["seconds"] == {}
        assert found["absent"]["tinygrad_bn"] == "MemoryError: out of memory"

    def test_little_memory_is_not_filled(self, bench: Bench) -> None:
        if not cupy_standin.is_installed():
            pytest.skip("imagines another machine, which a real GPU cannot")
        with cupy_standin.other_machine(free_memory=8 * 4096):
            assert rates.copy_bandwidth(bench, 1 << 30)["bytes"] == 4096


class TestBatchNorms:
    @pytest.mark.parametrize(
        ("phase", "fits", "passes"),
        [
            ("forward", False, 3),
            ("forward", True, 2),
            ("backward", False, 5),
            ("both with ReLU", False, 8),
            ("both with ReLU", True, 5),
        ],
    )
    def test_the_floor_is_bytes_over_bandwidth(self, phase: str, fits: bool, passes: int) -> None:
        size = 65536 * 1024 * 4
        least = batch_norms.floor(phase, size, fits, 4.3e12)
        assert least == pytest.approx(passes * size / 4.3e12, rel=1e-3)

    def test_both_are_a_forward_and_a_backward(self) -> None:
        for one, two, both in zip(
            *(batch_norms.PASSES[f"{p} with ReLU"] for p in ("forward", "backward", "both")),
            strict=True,
        ):
            assert one + two == both

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_every_phase_has_its_row(self, bench: Bench, dtype: str) -> None:
        shape = Shape(33, 8, dtype)
        (row,) = batch_norms.measure(bench, 1e9, [shape]).values()
        assert row["absent"] == ABSENT
        assert row["held in registers"] is True
        assert list(row["phases"]) == list(batch_norms.PASSES)
        found = row["phases"]["forward"]
        assert found["floor"] == pytest.approx(2 * row["bytes of x"] / 1e9, rel=1e-3)
        assert found["of the floor"] == pytest.approx(found["floor"] / 1e-3, rel=1e-2)
        assert "torch over ours" not in found

    def test_many_rows_are_not_held(self, bench: Bench) -> None:
        assert batch_norms.measured(bench, Shape(4099, 4, "float32"), 1e9)["held in registers"] is (
            False
        )

    @pytest.mark.torch
    def test_beside_pytorch(self, beside: Bench) -> None:
        row = batch_norms.measured(beside, Shape(33, 8, "float32"), 1e9)
        assert row["absent"] == {}
        for phase in batch_norms.PASSES:
            assert row["phases"][phase]["torch over ours"]["median"] == 1

    def test_what_no_kernel_takes_is_named_and_not_timed(
        self, bench: Bench, said: list[str]
    ) -> None:
        (row,) = batch_norms.measure(bench, 1e9, [Shape(4, 3, "float64")]).values()
        assert row["phases"] == {}
        assert "expected a CUDA kernel of whole_batch_norm" in row["absent"]["tinygrad_bn"]
        assert len(said) == 1


class TestPasses:
    def test_every_kernel_has_its_row(self, bench: Bench, said: list[str]) -> None:
        found = passes.measure(bench, 1e9, SMALL)
        assert not [name for name, row in found.items() if "absent" in row]
        assert len(found) == len(said) == 2 * 8 + 2 * 5 + 2 + 2 * 2 + 5
        row = found["layer norm, backward, bfloat16"]
        assert row["bytes"] == 3 * 2 * SMALL.rows * SMALL.columns
        assert row["floor"] == pytest.approx(row["bytes"] / 1e9, rel=1e-3)
        assert row["of the floor"] == pytest.approx(row["floor"] / 1e-3, rel=1e-2)

    def test_what_fails_is_named_and_takes_no_other_with_it(
        self, bench: Bench, monkeypatch: Any
    ) -> None:
        monkeypatch.setitem(passes.FAMILIES, "norms", lambda *sizes: 1 / 0)
        found = passes.measure(bench, 1e9, SMALL)
        assert "ZeroDivisionError" in found["norms, float32"]["absent"]["tinygrad_bn"]
        assert "floor" in found["ReLU, float32"]


class TestProgram:
    @pytest.fixture
    def measures(self, bench: Bench) -> dict[str, Any]:
        return {
            "rates": lambda found: rates.measure(bench, 4096, 16),
            "batch norms": lambda found: batch_norms.measure(
                bench, found["rates"]["copy"]["bytes a second"], [Shape(33, 8, "float32")]
            ),
            "kernels": lambda found: passes.measure(bench, 1e9, SMALL),
            "steps": lambda found: training.measure(bench, [TINY], ["float32"]),
        }

    @pytest.fixture
    def results(self, bench: Bench, measures: dict[str, Any]) -> dict[str, Any]:
        assert list(measures) == list(gpu.measurements(bench))
        found = gpu.measured(bench, measures)
        return {"how": {"quick": True, "TF32": gpu.TF32}, **found}

    def test_the_file_says_what_was_measured_where(self, results: Any, tmp_path: Path) -> None:
        path = gpu.written(results, tmp_path / "results")
        found = json.loads(path.read_text())
        assert path.name == gpu.file_of(found["machine"]["gpu"]["name"])
        assert found["how"]["TF32"] == {"tinygrad_bn": False, "torch": False}
        assert {"commit", "driver", "versions", "gpu", "made"} <= set(found["machine"])
        assert {"rates", "batch norms", "steps"} < set(found)
        assert found["absent"] == ABSENT
        assert found["failed"] == {}

    def test_tables_are_plain_text_and_the_missing_are_told_once(self, results: Any) -> None:
        text = "\n".join(tables.padded(table) for table in tables.tables(results))
        parts = "copy, read and written|33 × 8 float32|both with ReLU|GELU, float32|tiny float32"
        for part in parts.split("|"):
            assert part in text
        told = tables.missing(results)
        assert told[0] == "torch: not installed: pip install torch"
        assert sum("torch" in line for line in told) == 1
        assert not gpu.ours_failed(results)

    def test_a_failed_section_takes_only_those_that_need_it(self, bench: Bench) -> None:
        def fails(found: Any) -> Any:
            raise RuntimeError("a reason")

        measures = gpu.measurements(bench)
        chosen = {"rates": fails, "batch norms": measures["batch norms"], "steps": lambda _: {}}
        found = gpu.measured(bench, chosen)
        assert found["failed"]["rates"] == "RuntimeError: a reason"
        assert "need the copy bandwidth" in found["failed"]["batch norms"]
        assert found["steps"] == {}
        assert len(tables.missing(found)) == 3
        assert list(tables.tables(found)) == []
        assert gpu.ours_failed(found)

    def test_a_run_from_end_to_end(
        self, measures: Any, monkeypatch: Any, tmp_path: Path, capsys: Any
    ) -> None:
        monkeypatch.setattr(timing, "Events", lambda: once)
        monkeypatch.setattr(gpu, "pytorch", lambda: (None, dict(ABSENT)))
        monkeypatch.setattr(gpu, "measurements", lambda bench: measures)
        assert gpu.main(["--quick", "--out", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert "A training step\n===" in said
        assert "missing: torch: not installed: pip install torch\n" in said
        (path,) = tmp_path.iterdir()
        found = json.loads(path.read_text())
        assert f"written: {path}" in said
        assert found["how"]["quick"] is True
        assert "tinygrad_bn compiled" in found["steps"]["tiny float32"]["seconds"]

    @pytest.mark.torch
    def test_a_pytorch_that_finds_no_gpu_is_named(self) -> None:
        torch = pytest.importorskip("torch")
        found, absent = gpu.pytorch()
        if torch.cuda.is_available():
            assert found is torch
            assert not torch.backends.cuda.matmul.allow_tf32
        else:
            assert found is None
            assert "finds no GPU" in absent["torch"]

    @pytest.mark.parametrize(
        ("absent", "failed"),
        [
            ({"tinygrad_bn compiled": "CaptureError: something"}, True),
            ({"tinygrad_bn eager": "BackendError: something"}, True),
            ({"tinygrad_bn eager": "no time left of 10 s"}, False),
            ({"torch compiled": "RuntimeError: no g++"}, False),
        ],
    )
    def test_the_exit_code_is_about_ours(self, absent: Any, failed: bool) -> None:
        found = {"failed": {}, "steps": {"b64 float32": {"absent": absent}}}
        assert gpu.ours_failed(found) is failed

    def test_only_a_whole_run_goes_where_results_are(self, tmp_path: Path) -> None:
        def folder(quick: bool, out: Path | None) -> Path:
            return gpu.folder_of(argparse.Namespace(quick=quick, out=out))

        assert folder(False, None) == gpu.RESULTS
        assert folder(True, tmp_path) == folder(False, tmp_path) == tmp_path
        made = folder(True, None)
        assert made != gpu.RESULTS
        made.rmdir()

    def test_files_are_named_for_the_gpu(self) -> None:
        assert gpu.file_of("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3.json"

    def test_without_a_gpu_one_line_says_what_is_needed(self, capsys: Any) -> None:
        if not cupy_standin.is_installed():
            pytest.skip("imagines another machine, which a real GPU cannot")
        with cupy_standin.other_machine(devices=0):
            assert gpu.main([]) == gpu.NO_GPU == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("benchmarks/gpu.py: expected an NVIDIA GPU, found none; ")
        assert said.err.count("\n") == 1
        assert gpu.main(["--check"]) == 0

    def test_the_command_needs_cupy_and_says_so_and_no_numba(self, tmp_path: Path) -> None:
        hide = (
            "import sys\nsys.modules |= dict.fromkeys(('cupy', 'numba', 'rich', 'threadpoolctl'))\n"
        )
        (tmp_path / "sitecustomize.py").write_text(hide)
        done = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "gpu.py")],
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert "needs CuPy, which is not installed; install tinygrad-bn[cuda13]" in line
