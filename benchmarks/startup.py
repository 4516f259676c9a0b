"""How soon a command is there: `--help`, and the first step of `fit`, against bare imports.

    python -m benchmarks.startup [--repeats 5] [words of fit]

"Imports" is a Python that imports torch, Lightning and the encoder, builds one, and ends; "first step"
is a whole `ser-strategies fit` until its first batch goes into the model. Commands alternate; figures
are medians of processes that find their files in memory.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

IMPORTS = "import torch, lightning.pytorch; from ser_strategies.encoder import Encoder; Encoder('{encoder}')"
FIT = (
    *("--model=VanillaFineTuning", "--data=Synthetic", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"),
    "--trainer.callbacks+=benchmarks.startup.FirstStep",
)


class FirstStep(Callback):
    """Ends the process at the first step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The batch is about to go into the model."""
        os._exit(0)


def seconds_of(*command: str) -> float:
    """How long a Python command takes.

    Args:
        command: The words after `python`.
    """
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Prints three times and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoder", default="random:wav2vec2-tiny")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"--help": [], "imports": [], "first step": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repeats + 1):
            root = f"--trainer.default_root_dir={folder}/{number}"
            commands = {
                "--help": ("-m", "ser_strategies", "--help"),
                "imports": ("-c", IMPORTS.format(encoder=options.encoder)),
                "first step": (
                    *("-m", "ser_strategies", "fit", *FIT, f"--model.encoder={options.encoder}", root),
                ),
            }
            for name, command in commands.items():
                found[name].append(seconds_of(*command))
    medians = {name: statistics.median(seconds[1:]) for name, seconds in found.items()}
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{versions}, {platform.processor() or platform.machine()}, {options.encoder}")
    for name, seconds in found.items():
        each = " ".join(f"{one:.2f}" for one in seconds[1:])
        print(f"{name:<12}{medians[name]:>7.2f} s   ({each})")
    print(f"first step / imports: {medians['first step'] / medians['imports']:.2f}")


if __name__ == "__main__":
    main()
