"""What gpu.py found, as tables of plain text, and who is missing from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rows import ABSENT, Results, Table, duration, short

from on_gpu.training import FORMS, OURS


def tables(results: Results) -> Iterator[Table]:
    """Every table of what has been measured."""
    if rates := results.get("rates"):
        yield abilities(rates)
        yield launches(rates)
    if norms := results.get("batch norms"):
        yield batch_norms(norms)
    if kernels := results.get("kernels"):
        yield passes(kernels)
    if steps := results.get("steps"):
        yield training(steps)


def abilities(rates: Results) -> Table:
    """Bandwidth and FLOP/s."""
    table = Table("This GPU", ["", "tinygrad_bn", "torch"])
    copied = f"{rates['copy']['bytes a second'] / 1e12:.3g} TB/s"
    table.rows.append(["copy, read and written", copied, ABSENT])
    for dtype, found in rates["products"].items():
        speeds = found["FLOP a second"]
        cells = [
            f"{speeds[name] / 1e12:.3g} TFLOP/s" if name in speeds else ABSENT
            for name in table.header[1:]
        ]
        table.rows.append([f"product of {found['side']}², {dtype}", *cells])
    return table


def launches(rates: Results) -> Table:
    """What a call costs that computes nothing to speak of."""
    found = rates["launches"]["seconds"]
    return Table("From call to call", ["", "time"], [[n, middle(s)] for n, s in found.items()])


def batch_norms(norms: Results) -> Table:
    """Each kernel against its floor, and PyTorch's time over ours."""
    header = ["batch norm", "phase", "time", "floor", "of the floor", "torch", "torch over ours"]
    table = Table("Batch norm", header)
    for shape, found in norms.items():
        for phase, row in found["phases"].items():
            seconds = row["seconds"]
            cells = [middle(seconds["tinygrad_bn"]), duration(row["floor"])]
            cells += [f"{100 * row['of the floor']:.0f} %", middle(seconds.get("torch"))]
            table.rows.append([shape, phase, *cells, times(row.get("torch over ours"))])
    return table


def passes(kernels: Results) -> Table:
    """Each of the other kernels against its floor."""
    table = Table("Kernels", ["", "time", "floor", "of the floor"])
    for name, row in kernels.items():
        if "floor" in row:
            cells = [middle(row["seconds"]["tinygrad_bn"]), duration(row["floor"])]
            table.rows.append([name, *cells, f"{100 * row['of the floor']:.0f} %"])
    return table


def training(steps: Results) -> Table:
    """Times of a step, and how far ours are ahead of the best form of PyTorch."""
    ahead = [f"best of torch over {short(form)}" for form in OURS]
    table = Table("A training step", ["", *map(short, FORMS), "best of torch", *ahead])
    for name, row in steps.items():
        cells = [middle(row["seconds"].get(form)) for form in FORMS]
        ratios = [times(row.get("ahead", {}).get(form)) for form in OURS]
        table.rows.append([name, *cells, row.get("best rival") or ABSENT, *ratios])
    return table


def middle(found: dict[str, Any] | None) -> str:
    return duration(found["median"] if found else None)


def times(found: dict[str, Any] | None) -> str:
    """A ratio with its quartiles."""
    if found is None:
        return ABSENT
    low, high = found["quartiles"]
    return f"{found['median']:.2f}× ({low:.2f}–{high:.2f})"


def missing(results: Results) -> list[str]:
    """Who is absent, or computes something else, where, and why."""
    everywhere = results.get("absent", {})
    found = [f"{name}: {why}" for name, why in everywhere.items()]
    for place, row in rows_of(results):
        told = {**row.get("absent", {}), **row.get("differing", {})}
        found += [f"{n} at {place}: {w}" for n, w in told.items() if n not in everywhere]
    found += [f"{section}: {why}" for section, why in results.get("failed", {}).items()]
    return found


def rows_of(results: Results) -> Iterable[tuple[str, Any]]:
    rates = results.get("rates", {})
    yield from ((f"a product, {dtype}", row) for dtype, row in rates.get("products", {}).items())
    yield from ((f"batch norm, {s}", row) for s, row in results.get("batch norms", {}).items())
    yield from ((f"kernels, {name}", row) for name, row in results.get("kernels", {}).items())
    yield from ((f"a step, {name}", row) for name, row in results.get("steps", {}).items())


def padded(table: Table) -> str:
    """A table for the terminal: columns as wide as what is in them."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([table.title, "=" * len(table.title), *text, ""])
