"""Does adaptation help? Chains against vanilla fine-tuning from the same start, with few labels and with all.

    python -m benchmarks.adaptation --out runs/adaptation
    python -m benchmarks.adaptation --out runs/adaptation-mine --manifest mine.csv --folds 6

Each seed draws the head, the order, the masks and which labels are kept; with a manifest it also has a fold
of its own. Adaptation hears all of the train split, without labels; teacher and fine-tuning have the share of
labels, and the same number of steps whatever it is. A linear probe is a frozen encoder under a head trained
on all labels. Runs that are there are not done again, so processes may share the work: `--only` takes seeds.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from ser_strategies.cli import main as ser_strategies

ENCODER = "random:wav2vec2-tiny"
RATES = ("--model.encoder_lr=1e-3", "--model.head_lr=2e-3", "--model.warmup_steps=30")
ADAPTING = ("--model.encoder_lr=1e-3", "--model.head_lr=1e-3", "--model.warmup_steps=100")
ADAPTATIONS: dict[str, tuple[str, ...]] = {
    "TAPT, contrastive": (
        "--model=TAPT",
        "--model.fresh_quantiser=true",
        "--model.negatives=50",
        "--model.mask_time_probability=0.5",
    ),
    "TAPT, units": (
        "--model=TAPT",
        "--model.objective=units",
        "--model.clusters=[64]",
        "--model.mask_time_probability=0.4",
    ),
    "P-TAPT": (
        "--model=PTAPT",
        "--model.clusters=[16,64,256]",
        "--model.train_projection=true",
        "--model.mask_time_probability=0.4",
        "--model.mask_time_length=10",
    ),
}
# Vanilla fine-tuning, and a linear head, from stored frames: nothing else changes, and it is faster. No arm
# trains the convolutions, so that all of them share what is stored.
VANILLA = ("--model=CachedFineTuning", "--model.top_blocks=all", "--model.stored=float32")
PROBE = (
    *("--model=CachedFineTuning", "--model.top_blocks=0", "--model.stored=float32", "--model.head_lr=5e-3"),
)
FINETUNED_STEPS, PROBED_STEPS = 240, 240
STEPS_BETWEEN_VALIDATIONS = 40
ADAPTED_STEPS = {"TAPT, contrastive": 600, "TAPT, units": 400, "P-TAPT": 400}


class Bench:
    """One corpus, one seed.

    Args:
        options: The words of the command line.
        seed: The seed.
    """

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        self.root = Path(options.out) / f"seed-{seed}"
        if options.manifest is None:
            self.data = ["--data=Synthetic"]
        else:
            self.data = [
                "--data=Manifest",
                f"--data.path={options.manifest}",
                f"--data.folds={options.folds}",
            ]
            self.data.append(f"--data.fold={1 + 2 * seed % options.folds}")
        self.data += [f"--seed_everything={seed}", f"--data.order_seed={seed}"]
        self.data += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]

    def adapted(self, kind: str, share: float) -> Path:
        """Checkpoint of an adapted encoder; P-TAPT's depends on the labels that its teacher had."""
        words = list(ADAPTATIONS[kind])
        name = kind.replace(", ", "-").lower()
        if kind == "P-TAPT":
            name += f"-{share:g}"
            teacher = f"teacher-{share:g}"
            self.finetuned(teacher, ENCODER, share, "--model.frame_loss_weight=1")
            words.append(f"--model.teacher={self.root / teacher / 'best.ckpt'}")
        self.run("fit", name, *words, f"--model.encoder={ENCODER}", *ADAPTING, *steps(ADAPTED_STEPS[kind]))
        return self.root / name / "best.ckpt"

    def finetuned(self, name: str, encoder: str | Path, share: float, *words: str) -> float:
        """UA on the test split, at the epoch that validation chose."""
        common = [
            *(*VANILLA, f"--model.cache={self.root.parent / 'cache'}"),
            *(f"--model.encoder={encoder}", *RATES, *words),
            *(f"--data.train_share={share}", *steps(FINETUNED_STEPS)),
        ]
        return self.scored(name, common)

    def probed(self, name: str, encoder: str | Path) -> float:
        """UA on the test split of a linear head on the frozen encoder."""
        words = [*PROBE, f"--model.cache={self.root.parent / 'cache'}", f"--model.encoder={encoder}"]
        return self.scored(name, [*words, *steps(PROBED_STEPS)])

    def scored(self, name: str, words: list[str]) -> float:
        """Fits, tests, and gives the UA."""
        self.run("fit", name, *words)
        if not (self.root / name / "test.json").exists():
            self.run("test", name, *words)
        return float(self.read(name, "test.json")["metrics"]["test/ua"])

    def run(self, command: str, name: str, *words: str) -> None:
        """A command of the library, unless its result is there."""
        folder = self.root / name
        if command == "fit" and (folder / "fit.json").exists():
            return
        overwrite = ["--overwrite"] if command == "fit" else []
        ser_strategies([command, *self.data, *words, f"--trainer.default_root_dir={folder}", *overwrite])

    def read(self, name: str, file: str) -> dict[str, Any]:
        """What a run wrote."""
        facts: dict[str, Any] = json.loads((self.root / name / file).read_text(encoding="utf-8"))
        return facts


def steps(number: int) -> tuple[str, ...]:
    """So many optimizer steps, and looks at the val split between them, whatever an epoch is."""
    return (
        "--trainer.max_epochs=-1",
        f"--trainer.max_steps={number}",
        "--trainer.check_val_every_n_epoch=null",
        f"--trainer.val_check_interval={STEPS_BETWEEN_VALIDATIONS}",
    )


def main() -> None:
    """Prints one row for each arm, share and corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--manifest", default=None, help="the corpus; without one the embedded corpus")
    parser.add_argument("--folds", type=int, default=6)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05, 0.2, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", type=int, help="run these seeds and print nothing")
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    for seed in options.seeds if options.only is None else options.only:
        bench = Bench(options, seed)
        for share in options.shares:
            found = bench.finetuned(f"vanilla-{share:g}", ENCODER, share)
            rows.setdefault(f"{share:4.0%}  vanilla", []).append(found)
        rows.setdefault(" probe  no adaptation", []).append(bench.probed("probe-none", ENCODER))
        for kind in ADAPTATIONS:
            for share in options.shares:
                encoder = bench.adapted(kind, share)
                name = f"{kind.replace(', ', '-').lower()}-finetuned-{share:g}"
                rows.setdefault(f"{share:4.0%}  {kind}", []).append(bench.finetuned(name, encoder, share))
                if share == 1:
                    name = f"probe-{kind.replace(', ', '-').lower()}"
                    rows.setdefault(f" probe  {kind}", []).append(bench.probed(name, encoder))
    if options.only is not None:
        return
    print(f"{'labels  arm':<28}{'UA %, by seed':<24}{'mean':>7}{'std':>7}")
    for name, values in sorted(rows.items()):
        percent = [100 * value for value in values]
        spread = statistics.stdev(percent) if len(percent) > 1 else float("nan")
        listed = ", ".join(f"{value:.1f}" for value in percent)
        print(f"{name:<28}{listed:<24}{statistics.mean(percent):>7.1f}{spread:>7.1f}")


if __name__ == "__main__":
    main()
