"""What `estimate` says of a run against what the run then takes, each in a process of its own.

    python -m benchmarks.estimate [--only vanilla cached] [--accelerator cpu]

Three configurations: a whole base encoder, whose optimizer and checkpoint weigh most; a tiny encoder
that is recomputed, on more speech; and one that trains on stored frames. "Ratio" is the estimate over
the run. Memory and bytes hardly depend on what else a machine does; seconds do, those of the estimate
and those of the run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

SPEECH = ["--data", "Synthetic", "--data.batch_size"]
RUNS: dict[str, list[str]] = {
    "vanilla": [
        *("--model", "VanillaFineTuning", "--model.encoder", "random:wav2vec2-base"),
        *(*SPEECH, "2", "--data.speakers", "3", "--data.utterances_per_speaker", "8"),
        *("--trainer.max_epochs", "1"),
    ],
    "recompute": [
        *(
            "--model",
            "VanillaFineTuning",
            "--model.encoder",
            "random:wavlm-tiny",
            "--model.recompute",
            "true",
        ),
        *(*SPEECH, "8", "--data.speakers", "20", "--data.utterances_per_speaker", "12"),
        *("--trainer.max_epochs", "5"),
    ],
    "cached": [
        *("--model", "CachedFineTuning", "--model.encoder", "random:hubert-tiny", "--model.cache", "frames"),
        *(*SPEECH, "8", "--data.speakers", "20", "--data.utterances_per_speaker", "12"),
        *("--trainer.max_epochs", "6"),
    ],
}
FIGURES = (
    "peak_memory_bytes",
    "peak_memory_reserved_bytes",
    "train_seconds",
    "validation_seconds",
    "checkpoint_bytes",
    "cache_bytes",
    "cache_build_seconds",
)


def called(command: str, words: Sequence[str], folder: Path, accelerator: str) -> str:
    """What a command prints, run in a folder on one core."""
    line = [sys.executable, "-m", "ser_strategies", command, *words, "--trainer.accelerator", accelerator]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{command} ended with {ran.returncode}: {ran.stderr}")
    return ran.stdout


def compared(words: Sequence[str], accelerator: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What an estimate says, and what the run took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = json.loads(called("estimate", ["--json", *words], folder, accelerator))
        if list(folder.iterdir()):
            sys.exit(f"the estimate left something behind: {sorted(folder.iterdir())}")
        quiet = ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", "run"]
        called("fit", [*words, *quiet], folder, accelerator)
        return said, json.loads((folder / "run" / "costs.json").read_text(encoding="utf-8"))


def main() -> None:
    """Prints both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one used\n")
    print("| run | figure | estimate | fit | ratio |\n|---|---|---:|---:|---:|")
    for name in options.only:
        said, took = compared(RUNS[name], options.accelerator)
        for figure in FIGURES:
            if said.get(figure) and took.get(figure):
                ratio = said[figure] / took[figure]
                row = f"| {name} | {figure} | {said[figure]:,.4g} | {took[figure]:,.4g} | {ratio:.2f} |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
