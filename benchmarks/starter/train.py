"""`starter` from its corpus: both rounds by the library's own classes. Can be stopped, and run again.

python -m benchmarks.starter.corpus --out runs/starter/corpus
python -m benchmarks.starter.train --corpus runs/starter/corpus --out runs/starter
python -m benchmarks.starter.export runs/starter/2-manner/best.ckpt --corpus runs/starter/corpus
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.starter.shape import draw

STEPS_AN_EPOCH = {16: 330, 32: 165}
COMMON = (
    "--seed_everything=0",
    "--model.train_cnn=true",
    "--model.scheduler=LinearLR",
    "--model.scheduler.start_factor=1.0",
    "--model.scheduler.end_factor=0.1",
    "--model.scheduler_interval=step",
    "--trainer.precision=bf16-mixed",
    "--trainer.accelerator=cpu",
    "--trainer.gradient_clip_val=1.0",
    "--trainer.enable_progress_bar=false",
)


def spectrum(start: Path, corpus: Path) -> list[str]:
    """Round 1: what stands behind the masks, in mel bands and pitch.

    Units of such features, as HuBERT begins with, taught it next to nothing in so few steps.
    """
    return [
        "--model=TAPT",
        f"--model.encoder={start}",
        "--model.objective=spectrum",
        "--model.mask_time_probability=0.65",
        "--model.mask_time_length=5",
        "--model.mixing=0.2",
        "--model.encoder_lr=1e-3",
        "--model.warmup_steps=50",
        "--data=Manifest",
        f"--data.path={corpus / 'manifest.csv'}",
        "--data.batch_size=16",
        "--trainer.max_epochs=3",
    ]


def manner(start: Path, corpus: Path) -> list[str]:
    """Round 2: how it is said, whoever says it.

    The synthesisers were told pitch, range, pace and loudness, as far as each can; to hear them in 93 voices
    is to hear prosody apart from the voice, which emotion is made of.
    """
    dimensions = "[pitch,lively,quick,loud]"
    return [
        "--model=VanillaFineTuning",
        f"--model.encoder={start}",
        "--model.objective=dimensions",
        "--model.pooling=mean+std",
        "--model.encoder_lr=5e-4",
        "--model.head_lr=1e-3",
        "--model.warmup_steps=30",
        "--data=Manifest",
        f"--data.path={corpus / 'manifest.csv'}",
        f"--data.dimensions={dimensions}",
        "--data.batch_size=32",
        "--trainer.max_epochs=2",
    ]


def fit(words: list[str], folder: Path, *, falling: int) -> Path:
    """Fits, or goes on; the best checkpoint. The rates fall over so many steps."""
    best, last, done = (folder / name for name in ("best.ckpt", "last.ckpt", "fit.json"))
    if not done.exists():
        again = [f"--ckpt_path={last}"] if last.exists() else []
        command = [sys.executable, "-m", "ser_strategies", "fit", *words, *COMMON, *again]
        command += [f"--model.scheduler.total_iters={falling}"]
        subprocess.run([*command, f"--trainer.default_root_dir={folder}"], check=True, env=os.environ)
    return best


def main() -> None:
    """Both rounds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, default=Path("runs/starter/corpus"))
    parser.add_argument("--out", type=Path, default=Path("runs/starter"))
    chosen = parser.parse_args()
    words = spectrum(draw(chosen.out / "drawn"), chosen.corpus)
    # It was meant to have five epochs, and stopped after three.
    first = fit(words, chosen.out / "1-spectrum", falling=5 * STEPS_AN_EPOCH[16])
    print(fit(manner(first, chosen.corpus), chosen.out / "2-manner", falling=2 * STEPS_AN_EPOCH[32]))


if __name__ == "__main__":
    main()
