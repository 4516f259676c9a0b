"""Faults by injection: each command is stopped at a file it is about to touch, then given again.

    python -m benchmarks.faults [--commands fit predict] [--kinds killed full unreadable] [--points 100]

A command runs once undisturbed, and the times it opens, renames, makes or deletes a file in its folder are
counted. Then it runs again and again from the start, and at one of those points it is killed as by the system
(`killed`), the disk is full (`full`), or a file cannot be read (`unreadable`). Whatever comes of that, the
same command given once more, an hour later, must end well, with the scores and the files of the undisturbed
run. A fault that is no kill must be told in a sentence, or change nothing.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

import ser_strategies.__main__ as front
from benchmarks.injected import under_faults
from ser_strategies.cache.store import DAMAGED
from ser_strategies.common.files import ABANDONED, UNFINISHED
from tests.cli.conftest import CPU, ENCODER
from tests.programs import Ended, Program

TINY = ("--data=Synthetic", "--data.speakers=3", "--data.utterances_per_speaker=8")
PARTIAL = ("--model=PartialFineTuning", f"--model.encoder={ENCODER}", "--trainer.max_epochs=2")
FIT = ("fit", *PARTIAL, *CPU, *TINY, "--trainer.default_root_dir=run")
STORED = ("--model=CachedFineTuning", f"--model.encoder={ENCODER}", "--model.cache=cache", *CPU, *TINY)
GRID = ("--strategies", "frozen", "cached", *TINY, "--epochs=1", "--seeds=1", "--jobs=1")
CHAIN = {"1-adapt": ("TAPT", ENCODER), "2-finetune": ("VanillaFineTuning", "chain/1-adapt/best.ckpt")}


class Command(NamedTuple):
    """A command, and what must be there before it."""

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()  # commands that run before it, by name
    again: tuple[str, ...] = ()  # words by which it goes on, or begins anew, over what is there


COMMANDS = {
    "fit": Command(FIT, again=("--overwrite",)),
    "test": Command(("test", *FIT[1:]), needs=("fit",)),
    "predict": Command(
        ("predict", "--ckpt_path=run/best.ckpt", "--output=said.csv", "sounds"), needs=("fit",)
    ),
    "export": Command(("export", "run", "--to=encoder"), needs=("fit",)),
    "ensemble": Command(("ensemble", "run", "other", "--out=both"), needs=("fit", "other")),
    "cache build": Command(("cache", "build", *STORED)),
    "compare": Command(("compare", *GRID, "--trainer.accelerator=cpu", "--out=grid")),
    "run": Command(("run", "chain")),
}
HELPERS = {"other": (*FIT[:-1], "--seed_everything=1", "--trainer.default_root_dir=other")}


def prepare(folder: Path, command: Command) -> None:
    """Makes a folder with all that a command needs."""
    (folder / "sounds").mkdir(parents=True)
    for index in range(3):
        noise = np.random.default_rng(index).normal(0, 0.1, 8_000)
        soundfile.write(folder / f"sounds/{index}.wav", noise, 16_000)
    (folder / "chain").mkdir()
    for stage, (kind, encoder) in CHAIN.items():
        options: dict[str, Any] = {"encoder": encoder}
        options |= {"fresh_quantiser": True, "negatives": 10} if kind == "TAPT" else {}
        trainer = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": f"chain/{stage}"}
        data = {"class_path": "Synthetic", "init_args": {"speakers": 3, "utterances_per_speaker": 8}}
        config = {"model": {"class_path": kind, "init_args": options}, "data": data, "trainer": trainer}
        (folder / f"chain/{stage}.yaml").write_text(json.dumps(config), encoding="utf-8")
    for name in command.needs:
        ended = run(folder, HELPERS.get(name) or COMMANDS[name].words)
        assert ended.code == 0, ended.err


def run(folder: Path, words: tuple[str, ...]) -> Ended:
    """A command in a process of its own, undisturbed."""
    return Program(front.main, words, folder=folder, environment={"HF_HUB_OFFLINE": "1"}).wait()


def disturbed(folder: Path, words: tuple[str, ...], kind: str, at: int) -> tuple[Ended, int]:
    """A command with a fault at one of the points; and how many points there were until its end."""
    count = folder.parent / f"{folder.name}.points"
    ended = Program(under_faults, words, str(folder), kind, at, str(count), folder=folder).wait()
    return ended, int(count.read_text() or 0) if count.exists() else at


def files(folder: Path) -> set[str]:
    """What is there, but for logs, whose folders are counted up, locks, and what was set aside."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    others = {".lock", ".txt", DAMAGED}
    return {str(path) for path in found if "logs" not in path.parts and path.suffix not in others}


def scores(folder: Path) -> dict[str, Any]:
    """The scores in every result of a folder, to eight digits."""
    found = {}
    for path in sorted(folder.rglob("*.json")):
        if path.name in {"fit.json", "test.json", "ensemble.json"}:
            facts = json.loads(path.read_text(encoding="utf-8"))
            found[str(path.relative_to(folder))] = rounded(facts.get("scores", {}))
    for path in sorted(folder.rglob("said.csv")):
        found[path.name] = path.read_text(encoding="utf-8")
    return found


def rounded(value: Any) -> Any:
    """Plain data with its numbers to eight digits."""
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return value


def verdict(kind: str, first: Ended, folder: Path, command: Command, whole: Path) -> str:
    """What became of a command with a fault, and of the same command after it; empty if all is well."""
    error = [line for line in first.err.splitlines() if line.startswith("error:")]
    if kind != "killed" and first.code != 0 and ("Traceback" in first.err or len(error) != 1):
        return f"not told in a sentence (code {first.code}): {first.err[-400:]}"
    for half in folder.rglob(f".*{UNFINISHED}"):  # as if some time had passed since
        os.utime(half, (0, time.time() - 2 * ABANDONED))
    second = first if first.code == 0 else run(folder, command.words)
    if second.code != 0 and command.again:
        if command.again[0] not in second.err:
            return f"refused without a way on: {second.err[-400:]}"
        second = run(folder, (*command.words, *command.again))
    if second.code != 0:
        return f"does not end well when given again: {second.err[-400:]}"
    if scores(folder) != scores(whole):
        return f"ends with other scores: {scores(folder)} instead of {scores(whole)}"
    if missing := files(whole) - files(folder):
        return f"ends without {sorted(missing)[0]}"
    if left := files(folder) - files(whole):
        return f"leaves {sorted(left)[0]}"
    return ""


def examine(name: str, kinds: list[str], points: int, out: Callable[[str], None]) -> int:
    """All faults of one command; how many ended badly."""
    command, bad = COMMANDS[name], 0
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        ready, whole = root / "ready", root / "whole"
        prepare(ready, command)
        for kind in kinds:
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(ready, whole)
            ended, count = disturbed(whole, command.words, kind, 0)
            assert ended.code == 0, ended.err
            chosen = sorted({round(1 + k * (count - 1) / max(points - 1, 1)) for k in range(points)})
            chosen = [point for point in chosen if 1 <= point <= count]
            told: Counter[str] = Counter()
            for point in chosen:
                folder = root / f"{kind}-{point}"
                shutil.copytree(ready, folder)
                first, _ = disturbed(folder, command.words, kind, point)
                wrong = verdict(kind, first, folder, command, whole)
                told["bad" if wrong else "well" if first.code == 0 else "told, or killed"] += 1
                if wrong:
                    out(f"  {name}, {kind} at {point} of {count}: {wrong}")
                shutil.rmtree(folder)
            bad += told["bad"]
            out(f"{name} | {kind} | {count} points, {len(chosen)} tried | {dict(told)}")
    return bad


def main() -> int:
    """Prints a line for each command and kind of fault, and what ended badly; the exit code tells of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--kinds", nargs="+", default=["killed", "full", "unreadable"])
    parser.add_argument("--points", type=int, default=100)
    asked = parser.parse_args()
    show = partial(print, flush=True)
    return min(sum(examine(name, asked.kinds, asked.points, show) for name in asked.commands), 1)


if __name__ == "__main__":
    sys.exit(main())
