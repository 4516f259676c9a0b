"""Writes the artefacts of this version anew: `python -m tests.artefacts.make <folder>`; about two minutes.

Everything is made by doors that a user has. Afterwards weights that nothing needs are left out, and what
could tell of the machine is replaced; README.md says what.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from ser_strategies.cli import main
from tests.artefacts.answers import answers, figures, scores
from tests.artefacts.moved import move
from tests.processor import roundings

ROOT = Path(__file__).parents[2]
CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
DATA = (
    "--data=Synthetic",
    "--data.speakers=3",
    "--data.utterances_per_speaker=4",
    "--data.batch_size=2",
)
RATES = ("--model.encoder_lr=2e-3", "--model.head_lr=2e-2")
FIT = (*DATA, *RATES, *CPU, "--trainer.max_epochs=2")
# One of each strategy, and between them every family and most of what a checkpoint can hold. One that has all
# of its encoder has one that is smaller than any `random:<size>`.
RUNS: dict[str, tuple[str, ...]] = {
    "vanilla": (
        "--model=VanillaFineTuning",
        "--model.encoder=encoder",
        "--model.objective=both",
        "--model.pooling=mean+std",
    ),
    "partial": (
        "--model=PartialFineTuning",
        "--model.encoder=random:wavlm-tiny-prenorm",
        "--model.top_blocks=1",
        "--model.layer_mix=true",
        "--model.pooling=attentive",
        "--model.head=mlp",
        "--model.head_size=16",
    ),
    "lora": (
        "--model=LoRAFineTuning",
        "--model.encoder=random:wav2vec2-tiny",
        "--model.rank=4",
        "--model.decomposed=true",
    ),
    "mixed-precision": (
        "--model=MixedPrecisionFineTuning",
        "--model.encoder=random:hubert-tiny",
        "--model.top_blocks=1",
        "--model.objective=dimensions",
    ),
    "cached": (
        "--model=CachedFineTuning",
        "--model.encoder=random:wav2vec2-tiny-prenorm",
        "--model.top_blocks=1",
        "--model.cache=cache",
    ),
    "tapt": ("--model=TAPT", "--model.encoder=encoder", "--model.negatives=10"),
    "ptapt": (
        "--model=PTAPT",
        "--model.encoder=encoder",
        "--model.teacher=runs/vanilla/best.ckpt",
        "--model.clusters=[4,8]",
        "--model.kmeans_passes=5",
    ),
}
PRETRAINING = ("tapt", "ptapt")
# It has a scheduler, a warm-up and a count of epochs without a better score to go on with.
STOPPED = (
    "--model=VanillaFineTuning",
    "--model.encoder=encoder",
    "--model.scheduler=torch.optim.lr_scheduler.ExponentialLR",
    "--model.scheduler.gamma=0.5",
    "--model.warmup_steps=3",
    "--patience=10",
)
STOPPED_AFTER, ENDS_WITH = 1, 3
CHAIN = ("run", "chain", "--seed", "0,1", "--out", "runs/chain", *CPU)
CHAIN_STAGES = {
    "1-adapt": ("TAPT", "runs/tapt/best.ckpt", 2, {"negatives": 10}),
    # So many epochs that there is time to stop it before they are over.
    "2-finetune": ("VanillaFineTuning", "runs/chain/1-adapt/best.ckpt", 40, {}),
}
COMPARISON = (
    *("compare", "--strategies", "lora", "partial", "--seeds", "2", "--epochs", "4", "--out", "comparison"),
    *("--data=Synthetic", "--data.speakers=6", "--data.utterances_per_speaker=12", "--data.batch_size=4"),
    "--trainer.accelerator=cpu",
)
NOWHERE, SYSTEM = "/home/someone/work", "Linux-x86_64"


def make(folder: Path) -> None:
    """Fills a folder that does not exist yet."""
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    with contextlib.chdir(folder):
        _draw_encoder()
        for name, words in RUNS.items():
            run = (*words, *FIT, f"--trainer.default_root_dir=runs/{name}")
            main(["fit", *run])
            main(["validate" if name in PRETRAINING else "test", *run])
        expected = {"stopped": _stop_a_run()}
        # Before the chain starts from one of them: it remembers a hash of what it started from.
        _leave_out_what_weighs()
        _leave_out_the_machine()
        _stop_a_chain()
        main(list(COMPARISON))
        _write_configurations()
        _leave_out_what_weighs()
        _leave_out_the_machine()
        expected |= {
            "checkpoints": {name: answers(f"runs/{name}/best.ckpt") for name in RUNS},
            "runs": {name: scores(Path("runs", name)) for name in RUNS},
            "comparison": figures(Path("comparison")),
            "processor": roundings(),
        }
        Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def _draw_encoder() -> None:
    """An encoder as the hub would have it, with the quantiser it was pre-trained with; 16 numbers a frame."""
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        num_codevectors_per_group=8,
        codevector_dim=8,
        proj_codevector_dim=8,
    )
    torch.manual_seed(0)
    Wav2Vec2ForPreTraining(config).save_pretrained("encoder")
    settings = {"do_normalize": True, "sampling_rate": 16_000}
    Path("encoder", "preprocessor_config.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _stop_a_run() -> dict[str, Any]:
    """A run that can be gone on with, and what the same run comes to that nobody has stopped."""
    for folder, epochs in (("whole", ENDS_WITH), ("runs/stopped", STOPPED_AFTER)):
        last = (f"--trainer.max_epochs={epochs}", f"--trainer.default_root_dir={folder}")
        main(["fit", *STOPPED, *FIT, *last])
    come_to = scores(Path("whole"))
    shutil.rmtree("whole")
    return come_to


def _stop_a_chain() -> None:
    """Two stages and two seeds; Ctrl-C while the last stage of the second is at work."""
    Path("chain").mkdir()
    for name, (strategy, encoder, epochs, options) in CHAIN_STAGES.items():
        rates = {"encoder_lr": 0.002, "head_lr": 0.002}
        config = {
            "model": {"class_path": strategy, "init_args": {"encoder": encoder, **options, **rates}},
            "data": {
                "class_path": "Synthetic",
                "init_args": {"speakers": 3, "utterances_per_speaker": 4, "batch_size": 2},
            },
            "trainer": {"max_epochs": epochs},
        }
        # JSON is YAML, too.
        Path("chain", f"{name}.yaml").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    last = Path("runs/chain/seed-1/2-finetune")
    with subprocess.Popen(
        [sys.executable, "-m", "ser_strategies", *CHAIN],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as chain:
        while not (last / "last.ckpt").exists():
            time.sleep(0.01)
            assert chain.poll() is None, "the chain has ended before it could be stopped"
        os.killpg(chain.pid, signal.SIGINT)  # as a terminal does
        assert chain.wait() == 130
    assert not (last / "fit.json").exists(), "it was stopped too late"


def _write_configurations() -> None:
    """config.yaml of each example, as `fit` writes it; the examples are made small, as their values show."""
    kept = Path("configurations").resolve()
    kept.mkdir()
    small = ("--data.speakers=3", "--data.utterances_per_speaker=4", "--trainer.max_epochs=1", *CPU)
    with tempfile.TemporaryDirectory() as elsewhere, contextlib.chdir(elsewhere):
        for example in sorted((ROOT / "examples").rglob("*.yaml")):
            main(["fit", "--config", str(example), *small])
            name = "-".join(example.relative_to(ROOT / "examples").with_suffix("").parts)
            (written,) = (path for path in Path("runs").rglob("config.yaml") if not path.is_symlink())
            shutil.copy(written, kept / f"{name}.yaml")
            written.unlink()


def _leave_out_what_weighs() -> None:
    """Optimizers where nothing goes on from them, the last checkpoint beside a best one, pictures."""
    goes_on = {Path("runs/stopped"), Path("runs/chain/seed-1/2-finetune")}
    for path in sorted(Path("runs").rglob("*.ckpt")):
        if path.name == "best.ckpt":
            checkpoint = torch.load(path, weights_only=True)
            torch.save(checkpoint | {"optimizer_states": []}, path)
        elif path.parent not in goes_on:
            path.unlink()
    for folder in ("runs/lora/adapter", "comparison/pictures"):
        shutil.rmtree(folder, ignore_errors=True)
    Path("comparison/report.html").unlink(missing_ok=True)


def _leave_out_the_machine() -> None:
    """Neutral values for where this folder is and for the name of the system; nothing else is told of it."""
    move(sorted(Path().rglob("*")), str(Path.cwd()), NOWHERE)
    for path in Path().rglob("environment.json"):
        facts = json.loads(path.read_text("utf-8")) | {"system": SYSTEM}
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
