"""Whether the suite would notice: puts one defect at a time into a copy and runs the tests that must fail.

`python -m tests.defects` tries all, `python -m tests.defects CCC LoRA` those whose names have such a word. It
ends with 1 unless every defect is caught.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ("ser_strategies", "tests", "examples", "docs", "pyproject.toml", "README.md", "Makefile")


@dataclass(frozen=True)
class Defect:
    """One change of a source file, and the tests of which at least one must fail with it.

    Args:
        name: What is wrong.
        file: The file in the package.
        old: Text that stands in it once.
        new: What takes its place.
        tests: What pytest is asked to run.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


CONTRACT = "tests/strategies/test_contract.py"
RESUME = "tests/strategies/test_resume.py"
DEFECTS = (
    Defect(
        "a frozen block in train mode",
        "encoder/tuning.py",
        "module.requires_grad_(False).eval()",
        "module.requires_grad_(False)",
        (f"{CONTRACT}::test_in_a_training_step_what_is_frozen_is_in_eval_mode_and_draws_nothing",),
    ),
    Defect(
        "a frozen block that trains",
        "encoder/tuning.py",
        "encoder.blocks[encoder.cut :]",
        "encoder.blocks[max(encoder.cut - 1, 0) :]",
        (f"{CONTRACT}::test_everything_that_trains_moves_and_nothing_else",),
    ),
    Defect(
        "a true gender told in tests of an unknown one",
        "parts/conditions.py",
        'if known.genders is None or not (self.training or told.gender == "given"):',
        "if known.genders is None:",
        ("tests/parts/test_conditions.py",),
    ),
    Defect(
        "a condition that is never withheld",
        "parts/conditions.py",
        "return (torch.rand(2, batch) >= self.withheld).to(device)",
        "return (torch.rand(2, batch) >= 0).to(device)",
        ("tests/parts/test_conditions.py",),
    ),
    Defect(
        "vectors of texts from another encoder",
        "cache/sentences.py",
        "fingerprint=self.encoder.fingerprint,",
        'fingerprint="",',
        ("tests/cache/test_sentences.py",),
    ),
    Defect(
        "a mask that falls on padding",
        "encoder/masking.py",
        "valid_mask(counts - length + 1, total)",
        "valid_mask(counts, total)",
        ("tests/encoder/test_masking.py",),
    ),
    Defect(
        "a stale cache: the longest sound left out of its name",
        "cache/trunk.py",
        "json.dumps(self.as_dict(), sort_keys=True)",
        'json.dumps(self.as_dict() | {"max_samples": None}, sort_keys=True)',
        ("tests/cache/test_trunk.py",),
    ),
    Defect(
        "folds that share speakers",
        "data/rules.py",
        'splits = {group: names.get(number, "train") for group, number in numbers.items()}\n'
        "        return table[self.column].map(splits).astype(TEXT)",
        'splits = [names.get(row % self.folds, "train") for row in range(len(table))]\n'
        "        return pd.Series(splits, index=table.index, dtype=TEXT)",
        ("tests/data/test_rules.py",),
    ),
    Defect(
        "a CCC that forgives an offset",
        "parts/metrics.py",
        "ssx + ssy + count * (mean_x - mean_y).square()",
        "ssx + ssy",
        ("tests/parts/test_metrics.py",),
    ),
    Defect(
        "class weights from the test split",
        "data/splits.py",
        'Counter(self.rows("train")["label"])',
        'Counter(self.rows("test")["label"])',
        ("tests/data/test_corpus.py",),
    ),
    Defect(
        "LoRA scaled twice",
        "encoder/low_rank.py",
        "lora_alpha=self.alpha,",
        "lora_alpha=2 * self.alpha,",
        ("tests/strategies/test_lora_adapter.py", "tests/encoder/test_tuning.py"),
    ),
    Defect(
        "LoRA left out of the encoder that the next run starts from",
        "encoder/low_rank.py",
        "plain: SpeechModel = self.tuner.merge_and_unload()",
        "plain: SpeechModel = self.tuner.unload()",
        (f"{CONTRACT}::test_a_checkpoint_is_an_encoder_to_start_from",),
    ),
    Defect(
        "a resumed run that forgets the optimizer",
        "strategies/checkpointed.py",
        '        self.run_seed = record["seed"]\n',
        '        self.run_seed = record["seed"]\n'
        '        for state in checkpoint.get("optimizer_states", []):\n'
        '            state["state"] = {}\n',
        (RESUME,),
    ),
    Defect(
        "a resumed run with another seed",
        "strategies/checkpointed.py",
        '        self.run_seed = record["seed"]\n',
        "",
        (RESUME,),
    ),
    Defect(
        "a prediction that depends on its batch",
        "encoder/frames.py",
        'if counts.device.type == "cpu" and bool((counts == steps).all()):',
        'if counts.device.type == "cpu":',
        (f"{CONTRACT}::test_logits_of_a_clip_do_not_depend_on_the_others_in_its_batch",),
    ),
    Defect(
        "sums that processes do not share",
        "parts/sharing.py",
        "torch.distributed.all_reduce(total)",
        "pass",
        ("tests/parts/test_sharing.py", "tests/cli/test_ddp.py"),
    ),
    Defect(
        "scores of one process only",
        "parts/metrics.py",
        'self.add_state("confusion", empty, dist_reduce_fx="sum")',
        'self.add_state("confusion", empty, dist_reduce_fx=lambda both: both[0])',
        ("tests/cli/test_ddp.py",),
    ),
    Defect(
        "a checkpoint chosen by the test split",
        "data/corpus.py",
        'return self._loader("val", shuffle=False)',
        'return self._loader("test", shuffle=False)',
        ("tests/data/test_corpus.py", "tests/cli/test_commands.py"),
    ),
    Defect(
        "a checkpoint chosen for being worst",
        "strategies/recognizer.py",
        "return self.objective.monitor_mode",
        'return "min"',
        ("tests/cli/test_costs.py",),
    ),
)


def main(words: list[str]) -> int:
    """Tries the defects whose names have one of the words, or all; the exit code."""
    chosen = [defect for defect in DEFECTS if not words or any(word in defect.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="defects-") as folder:
        copy = Path(folder)
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        told = run(copy, sorted({test for defect in chosen for test in defect.tests}))
        if told:
            print(f"the tests fail without any defect: {told}")
            return 1
        missed = [defect.name for defect in chosen if not caught(copy, defect)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} defects caught")
    return 1 if missed else 0


def caught(copy: Path, defect: Defect) -> bool:
    """Whether a test fails once the defect is in the copy; the copy is whole again afterwards."""
    path = copy / "ser_strategies" / defect.file
    whole = path.read_text()
    if whole.count(defect.old) != 1:
        sys.exit(f"{defect.name}: expected {defect.old!r} once in {defect.file}: write the defect anew")
    path.write_text(whole.replace(defect.old, defect.new))
    told = run(copy, list(defect.tests))
    path.write_text(whole)
    print(
        f"{'caught    ' if told else 'NOT CAUGHT'}  {defect.name}{'  by ' + told if told else ''}", flush=True
    )
    return bool(told)


def run(copy: Path, tests: list[str]) -> str:
    """The first test that fails in the copy; nothing where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        command,
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if ran.returncode == 0:
        return ""
    failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    broken = failed and failed[0].startswith("ERROR") and "::" not in failed[0]  # not what a test sets up
    if ran.returncode != 1 or not failed or broken:
        sys.exit(
            f"expected tests that fail or pass, got exit code {ran.returncode}:\n{ran.stdout}{ran.stderr}"
        )
    return failed[0].split()[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
