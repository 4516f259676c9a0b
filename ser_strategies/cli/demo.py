"""`demo`: every strategy on the embedded corpus, through the same code as `fit` and `test`."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ser_strategies.cli import PROGRAM
from ser_strategies.cli.training import run as run_command
from ser_strategies.cli.words import KindParser

ENCODER = "random:wav2vec2-tiny"
# What each arm says beside the common options: the strategy, and what differs.
ARMS: dict[str, tuple[str, ...]] = {
    "frozen encoder": ("PartialFineTuning", "--model.top_blocks=0", "--model.head_lr=5e-3"),
    "partial, top 2": ("PartialFineTuning", "--model.top_blocks=2"),
    "mixed precision": ("MixedPrecisionFineTuning", "--model.top_blocks=2"),
    "LoRA": (
        "LoRAFineTuning",
        "--model.encoder_lr=5e-3",
        "--model.targets=[q_proj,k_proj,v_proj,out_proj,intermediate_dense,output_dense]",
    ),
    "vanilla": ("VanillaFineTuning",),
}
COMMON = ("--data=Synthetic", "--model.encoder_lr=1e-3", "--model.head_lr=2e-3", "--model.warmup_steps=30")


def run(command: str, arguments: list[str]) -> None:
    """Trains and tests every arm, then prints the table.

    Args:
        command: demo.
        arguments: The words after it.
    """
    parser = KindParser(
        prog=f"{PROGRAM} {command}",
        description="Train and test every strategy on the embedded corpus: offline, in minutes, on a laptop.",
    )
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each arm")
    parser.add_argument("--seed", type=int, default=0, help="seed of the heads and of the order of training")
    parser.add_argument("--out", default="runs/demo", help="folder for the runs")
    options = parser.parse_args(arguments)
    console = Console()
    rows = []
    for name, (strategy, *differences) in ARMS.items():
        folder = Path(options.out) / name.replace(", ", "-").replace(" ", "-").lower()
        console.rule(name)
        shared = [
            f"--seed_everything={options.seed}",
            f"--model={strategy}",
            f"--model.encoder={ENCODER}",
            *COMMON,
            f"--data.order_seed={options.seed}",
            *differences,
            f"--trainer.default_root_dir={folder}",
            f"--trainer.max_epochs={options.epochs}",
            "--trainer.accelerator=cpu",
        ]
        run_command("fit", [*shared, "--overwrite"])
        run_command("test", shared)
        rows.append((name, _read(folder / "fit.json"), _read(folder / "test.json")))
    console.print(_table(rows))
    console.print(
        f"Made-up speech, a tiny encoder with random weights ({ENCODER}), one seed; the speakers of the test "
        "split are heard neither in training nor in validation. It shows that each strategy trains what it "
        f"says, and nothing about real speech. Each run, its configuration and checkpoints: {options.out}/"
    )


def _table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> Table:
    table = Table(title="Synthetic speech, four emotions (chance 25 %)")
    table.add_column("strategy", no_wrap=True)
    for heading in ("trains", "UA test %", "macro F1 %", "UA val %", "fit s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, fit, test in rows:
        scores = [test["metrics"].get(f"test/{score}") for score in ("ua", "f1_macro")]
        table.add_row(
            name,
            f"{fit['trainable_parameters']:,}",
            *map(_percent, [*scores, fit["best"]["score"]]),
            f"{fit['seconds']:.0f}",
        )
    return table


def _percent(score: float | None) -> str:
    return "—" if score is None else f"{100 * score:.1f}"


def _read(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
