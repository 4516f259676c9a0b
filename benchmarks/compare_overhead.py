"""What `compare` adds to a run: the same `fit` and `test`, alone and as a run of a comparison.

    OMP_NUM_THREADS=1 python -m benchmarks.compare_overhead [--rounds 3] [--epochs 6]

They take turns. "Training" is the time of the fit from its first step to its last, validation included,
which start-up is not part of; "everything" is the process' whole time, in which a run of a comparison
saves most of its start-up, and the command pays for its own once, however many runs there are.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

FIT = (
    *("--model=VanillaFineTuning", "--model.encoder=random:wav2vec2-tiny", "--data=Synthetic"),
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
)


def training(folder: Path) -> float:
    """Seconds of training and validation of a run."""
    costs = json.loads((folder / "costs.json").read_text(encoding="utf-8"))
    return float(costs["train_seconds"] + costs["validation_seconds"])


def run(*words: str) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "ser_strategies", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def alone(place: Path, epochs: int) -> tuple[float, float]:
    """Training and everything of a fit and a test."""
    words = [*FIT, f"--trainer.max_epochs={epochs}", f"--trainer.default_root_dir={place}"]
    words += ["--seed_everything=0", "--data.order_seed=0"]
    everything = run("fit", *words) + run("test", *words)
    return training(place), everything


def compared(place: Path, epochs: int) -> tuple[float, float]:
    """The same as the only run of a comparison."""
    config = place.with_suffix(".json")
    config.write_text(
        json.dumps(
            {
                "model": {
                    "class_path": "VanillaFineTuning",
                    "init_args": {"encoder": "random:wav2vec2-tiny"},
                },
                "data": {"class_path": "Synthetic"},
                "trainer": {"accelerator": "cpu"},
            }
        ),
        encoding="utf-8",
    )
    words = ("--seeds=1", f"--epochs={epochs}", f"--out={place}")
    everything = run("compare", str(config), *words)
    (cell,) = (place / "cells").iterdir()
    return training(cell), everything


def main() -> None:
    """Prints a row for each round, and the ratio of the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{'':<12}{'training s':>12}{'everything s':>14}")
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "compared": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name, measure in (("alone", alone), ("compared", compared)):
                seconds = measure(Path(folder) / f"{name}-{number}", options.epochs)
                found[name].append(seconds)
                print(f"{name:<12}{seconds[0]:>12.2f}{seconds[1]:>14.2f}", flush=True)
    one, other = (statistics.median(each[0] for each in found[name]) for name in ("compared", "alone"))
    print(f"training, compared / alone: {one / other:.3f}")


if __name__ == "__main__":
    main()
