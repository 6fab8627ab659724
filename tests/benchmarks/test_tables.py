"""README.md says what the JSON files say."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("matplotlib")
import plots
import rows
import tables

MACHINE: dict[str, Any] = {
    "made": "2026-01-02T03:04:05+00:00",
    "commit": "abc1234",
    "processor": "A Processor",
    "versions": {"numpy": "2.0", "torch": "2.13.0", "jax": None},
    "blas": [{"architecture": "SkylakeX"}, {"architecture": None}],
}


def spread(median: float) -> dict[str, Any]:
    return {"median": median, "quartiles": [median * 0.9, median * 1.1]}


def step_row(compiled: float, eager: float, fused: float, jitted: float) -> dict[str, Any]:
    ours = {"tinygrad_bn compiled": compiled, "tinygrad_bn eager": eager}
    seconds = {**ours, "torch fused": fused, "jax jit": jitted}
    best = min(("torch fused", "jax jit"), key=lambda form: seconds[form])
    rival = {"tinygrad_bn compiled": best, "tinygrad_bn eager": "torch fused"}
    return {
        "seconds": {form: spread(s) for form, s in seconds.items()},
        "floor": {"total": 1e-4},
        "best rival": best,
        "ahead": {
            form: {"rival": rival[form], **spread(seconds[rival[form]] / s)}
            for form, s in ours.items()
        },
        "of the floor": {form: 1e-4 / s for form, s in seconds.items()},
        "absent": {"torch compiled": "failed: no g++"},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    cases = {"b2": step_row(1e-4, 8e-4, 4e-4, 5e-4), "b64": step_row(2e-3, 5e-3, 1e-2, 1e-3)}
    return {
        "machine": MACHINE,
        "absent": {"scikit-learn": "not installed: pip install scikit-learn"},
        "optimizers": {"adam": cases},
    }


def test_a_row_tells_times_ratios_and_the_floor(results):
    table = rows.training(results, "adam")
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["ours compiled"] == "100 µs"
    assert cells["torch fused"] == "400 µs"
    assert cells["torch compiled"] == rows.ABSENT
    assert cells["best of all over ours compiled"] == "4.00× (3.60–4.40), torch fused"
    assert cells["best of PyTorch over ours eager"] == "0.50× (0.45–0.55), torch fused"
    assert cells["floor over ours compiled"] == "100 %"
    cells = dict(zip(table.header, table.rows[1], strict=True))
    assert cells["best of all over ours compiled"] == "0.50× (0.45–0.55), jax jit"
    assert cells["best of PyTorch over ours eager"] == "2.00× (1.80–2.20), torch fused"
    assert rows.training(results, "sgd").rows == []


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (7.84e-6, "7.84 µs"),
        (9.999e-5, "100 µs"),
        (9.994e-4, "999 µs"),
        (9.996e-4, "1.00 ms"),
        (0.01916, "19.2 ms"),
        (12.345, "12.3 s"),
        (None, rows.ABSENT),
    ],
)
def test_times_have_three_digits(seconds, told):
    assert rows.duration(seconds) == told


def test_defeats_are_told_and_victories_are_not(results):
    assert rows.defeats(results) == [
        "ours eager, adam: b2 2.00× torch fused, b64 5.00× jax jit",
        "ours compiled, adam: b64 2.00× jax jit",
    ]


def test_memory_is_compared_with_the_leanest_form_of_pytorch():
    sizes = {"tinygrad_bn eager": 9.0, "tinygrad_bn compiled": 5.0, "torch eager": 10.0}
    sizes |= {"torch fused": 6.0, "jax jit": 1.0}
    row = {"needed": 4.0, "megabytes": {form: {"grown": s} for form, s in sizes.items()}}
    found = {"cases": {"b64": row}}
    (line,) = rows.heavier(found)
    assert line == "ours eager, over PyTorch's leanest form: b64 1.50×"
    assert rows.memory(found).rows == [["b64", "4.0", "9.0", "5.0", "10.0", "6.0", "–", "1.0"]]


def test_the_missing_are_told_once_and_failures_with_their_place(results):
    assert rows.missing(results) == [
        "scikit-learn: not installed: pip install scikit-learn",
        "torch compiled at b2, adam: failed: no g++",
        "torch compiled at b64, adam: failed: no g++",
    ]


def test_the_origin_names_machine_versions_and_a_quick_run(results):
    told = rows.origin({**results, "how": {"quick": True, "disturbed": "40 %"}})
    for part in ("2026-01-02", "`abc1234`", "A Processor", "SkylakeX", "torch 2.13.0", "quick"):
        assert part in told
    assert "jax" not in told
    assert "the core was shared in 40 % of turns" in told
    assert "quick" not in rows.origin(results)


def test_sections_are_rewritten_and_prose_is_kept(results, tmp_path):
    (tmp_path / "steps.json").write_text(json.dumps(results))
    page = "before\n<!-- adam -->\nold\n<!-- /adam -->\nafter\n<!-- fit -->\n<!-- /fit -->\n"
    found = tables.rewritten(page, tmp_path)
    assert found.startswith("before\n<!-- adam -->\n|  | ours compiled")
    assert "old" not in found
    assert "Missing: scikit-learn: not installed: pip install scikit-learn." in found
    assert "<!-- /adam -->\nafter\n<!-- fit -->\n`results/fit.json` does not exist yet" in found
    assert tables.rewritten(found, tmp_path) == found


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="got nonsense"):
        tables.rewritten("<!-- nonsense -->\n<!-- /nonsense -->\n", tmp_path)


def test_defeats_of_what_was_not_measured_are_unknown(results, tmp_path):
    (tmp_path / "steps.json").write_text(json.dumps(results))
    found = tables.defeats(tmp_path)
    assert "- training steps, ours compiled, adam: b64 2.00× jax jit\n" in found
    assert "- memory, not measured yet\n" in found


def test_the_page_is_up_to_date():
    page = tables.README.read_text()
    assert page == tables.rewritten(page), "run: python benchmarks/tables.py"
    known = {match["name"] for match in tables.SECTION.finditer(page)}
    assert known == {*tables.TABLES, "defeats"}


def test_plots_draw_what_was_measured(results, tmp_path):
    assert list(plots.drawn(tmp_path, tmp_path)) == []
    (tmp_path / "steps.json").write_text(json.dumps(results))
    drawn = list(plots.drawn(tmp_path, tmp_path / "plots"))
    assert [path.name for path in drawn] == ["ratios.png", "batch_sizes.png"]
    assert all(path.stat().st_size > 10_000 for path in drawn)
    labels = plots.batch_sizes(results).axes[0].get_legend_handles_labels()[1]
    assert labels == [
        *("tinygrad_bn eager", "tinygrad_bn compiled"),
        "torch fused",
        "jax jit",
        "floor",
    ]
    heights = [bar.get_height() + 1 for bar in plots.ratios(results).axes[0].patches]
    assert heights == pytest.approx([4.0, 0.5, 0.5, 2.0])  # compiled at both sizes, then eager
