"""Whether Vesper helps: students of half a teacher's blocks, beside the teacher, frozen and fine-tuned.

    python -m benchmarks.student_study --corpus nemo [--encoder starter] [--out runs/student-study]

Of one teacher three students: its blocks as they are, and after Vesper with masks anywhere or where speech
is loud. Each of the four is fine-tuned, and has its head trained alone, with the same seeds, on speakers whom
nobody has heard. Fine-tuning reads what the convolutions say from a cache, since they rest. The command goes
on where it was stopped.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import yaml

from ser_strategies import compare

SPEECH = Path(os.environ.get("SER_REAL_DATA", "../shared/data"))
CORPORA: dict[str, dict[str, Any]] = {
    "embedded": {"class_path": "Synthetic", "init_args": {"speakers": 12, "utterances_per_speaker": 40}},
    "nemo": {
        "class_path": "Manifest",
        "init_args": {"path": str(SPEECH / "nemo/manifest.csv"), "folds": 3, "fold": 1},
    },
    "ased": {
        "class_path": "Manifest",
        "init_args": {
            "path": str(SPEECH / "ased/manifest.csv"),
            "doubled": "drop",
            "folds": 5,
            "fold": 1,
        },
    },
}
SECONDS = 2.0  # of each clip that is heard, by all
TRAINER = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
# Much in little time: rates fall to the end.
FALLING = {
    "scheduler": "ser_strategies.parts.schedules.FlatThenDecay",
    "scheduler_interval": "step",
    "warmup_steps": 15,
    "max_seconds": SECONDS,
}
# The spans of the paper in seconds: it has 50 frames a second, `starter` 25.
SPANS = {"mask_time_length": 4, "large_length": 20}
VESPER = {"encoder_lr": 5e-4, "head_lr": 1e-3, **SPANS, **FALLING}
# What the untrained student is: Vesper, whose only step moves nothing.
NOTHING = {"encoder_lr": 0.0, "head_lr": 0.0, **SPANS, "max_seconds": SECONDS}
HEAD = {"pooling": "mean+std", "layer_mix": True, "standardise": True, "head_lr": 2e-3}
TUNING: dict[str, dict[str, Any]] = {
    "frozen": {"top_blocks": 0, **HEAD},
    "tuned": {"top_blocks": "all", "encoder_lr": 1e-3, **HEAD},
}


def stage(kind: str, encoder: str, options: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    """A configuration of `fit`, less its corpus."""
    model = {"class_path": kind, "init_args": {"encoder": encoder, **options}}
    return {"model": model, "trainer": TRAINER | trainer}


def written(path: Path, config: dict[str, Any]) -> Path:
    """A configuration as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def arms(folder: Path, teacher: str, epochs: int, vesper_epochs: int) -> dict[str, Path]:
    """The four encoders, each in two ways: a configuration, or the folder of a chain."""
    cache = str(folder.resolve() / "frames")
    students = {
        "extract": stage("Vesper", teacher, NOTHING | {"cache": cache}, max_steps=1, limit_val_batches=1),
    }
    for masks in ("random", "paper"):
        options = VESPER | {"masking": masks, "cache": cache}
        students[f"vesper-{masks}"] = stage("Vesper", teacher, options, max_epochs=vesper_epochs)
    found = {}
    for way, chosen in TUNING.items():
        tuning = FALLING | chosen | {"cache": cache, "mask_time_probability": 0.0}
        path = folder / f"teacher-{way}.yaml"
        found[path.stem] = written(path, stage("CachedFineTuning", teacher, tuning, max_epochs=epochs))
        for name, first in students.items():
            chain = folder / f"{name}-{way}"
            trainer: dict[str, Any] = first["trainer"] | {"default_root_dir": f"{chain}/1-compress"}
            written(chain / "1-compress.yaml", {**first, "trainer": trainer})
            second = stage("CachedFineTuning", f"{chain}/1-compress/best.ckpt", tuning, max_epochs=epochs)
            second["trainer"]["default_root_dir"] = f"{chain}/2-finetune"
            written(chain / "2-finetune.yaml", second)
            found[chain.name] = chain
    return found


def main() -> None:
    """Runs what is left of one corpus, and writes its report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", choices=list(CORPORA), required=True)
    parser.add_argument("--encoder", default="starter", help="the teacher (default: starter)")
    parser.add_argument("--out", type=Path, default=Path("runs/student-study"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--vesper-epochs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    data, folder = CORPORA[asked.corpus], asked.out / asked.corpus
    data["init_args"]["batch_size"] = 16
    named = arms(folder / "arms", asked.encoder, asked.epochs, asked.vesper_epochs)
    result = compare(named, data, seeds=asked.seeds, out=folder / "ledger", jobs=asked.jobs, verbose=True)
    print(result.table().to_string())


if __name__ == "__main__":
    main()
