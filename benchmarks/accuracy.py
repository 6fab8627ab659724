"""What the command's defaults reach: an MLP 784-[256, 256]-10 with batch norm and Adam, ten epochs.

    TINYGRAD_BN_DATA=... python benchmarks/accuracy.py [--seeds 5] [--sets mnist fashion-mnist]

Runs `tinygrad-bn train` for each set and seed, as a user would, and reads its metrics. Prints a
table and writes results/accuracy.json.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import unpinned, write

unpinned()

COMMAND = "tinygrad-bn train --data {} --hidden 256,256 --norm batch --optimizer adam --epochs 10"


def trained(name: str, seed: int, folder: Path) -> dict[str, float]:
    """The last epoch's metrics of one run, and the seconds that its epochs took."""
    out = folder / f"{name}-{seed}"
    words = [*COMMAND.format(name).split()[1:], "--seed", str(seed), "--out", str(out)]
    subprocess.run(
        [sys.executable, "-m", "tinygrad_bn", *words], check=True, stdout=subprocess.DEVNULL
    )
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "test_accuracy": float(rows[-1]["test_accuracy"]),
        "seconds": sum(float(row["seconds"]) for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=["mnist", "fashion-mnist"])
    options = parser.parse_args()
    results: dict[str, object] = {}
    print("| data | test accuracy, mean ± s.d. | lowest | seconds a run |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            runs = [trained(name, seed, Path(folder)) for seed in range(options.seeds)]
            accuracies = [100 * run["test_accuracy"] for run in runs]
            mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
            seconds = statistics.median(run["seconds"] for run in runs)
            results[name] = {"command": COMMAND.format(name), "runs": runs}
            print(
                f"| {name} | {mean:.2f} ± {spread:.2f} % | {min(accuracies):.2f} % "
                f"| {seconds:.0f} |",
                flush=True,
            )
    print("written:", write("accuracy", results))


if __name__ == "__main__":
    main()
