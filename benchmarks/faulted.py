"""The commands that `faults` stops, what must be there before each, and whether what they leave is whole."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from benchmarks.injected import Fault, under_faults
from ser_strategies.cache.store import DAMAGED
from ser_strategies.common.files import ABANDONED, UNFINISHED
from tests.cli.conftest import CPU, ENCODER
from tests.programs import Ended, Program

TINY = ("--data=Synthetic", "--data.speakers=3", "--data.utterances_per_speaker=8")
PARTIAL = ("--model=PartialFineTuning", f"--model.encoder={ENCODER}", "--trainer.max_epochs=2")
TRAINED = (*PARTIAL, *CPU, *TINY)
FIT = ("fit", *TRAINED, "--trainer.default_root_dir=run")
CACHED = ("--model=CachedFineTuning", f"--model.encoder={ENCODER}", "--model.cache=cache", *CPU, *TINY)
GRID = ("compare", "--strategies", "frozen", "cached", *TINY, "--epochs=1", "--seeds=1", "--jobs=1")
CHAIN = {"1-adapt": ("TAPT", ENCODER), "2-finetune": ("VanillaFineTuning", "chain/1-adapt/best.ckpt")}
OWN = ("--data=Manifest", "--data.path=sounds/table.csv", "--data.protocol=own")
# What a run writes that says when or where it was, and pictures, which need not be the same to the byte.
PASSING = {".lock", ".lease", ".txt", ".log", DAMAGED}
# What `doctor` and `cache verify` are there to tell.
REPORTED = re.compile(r"^\d+ errors?$|\d+ files damaged$|^not a cache of this version", re.MULTILINE)
RESULTS = {"fit.json", "val.json", "test.json", "ensemble.json"}
COPIED = {"said.csv", "said.json", "made.csv", "report.md"}


class Command(NamedTuple):
    """A command, and what must be there before it."""

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()  # commands that run before it, by name
    again: tuple[str, ...] = ()  # words by which it goes on, or begins anew, over what is there
    mends: tuple[str, ...] = ()  # the command that makes anew what it has set aside
    code: int = 0


COMMANDS = {
    "fit": Command(FIT, again=("--overwrite",)),
    "other": Command(
        ("fit", *TRAINED, "--seed_everything=1", "--trainer.default_root_dir=other"), again=("--overwrite",)
    ),
    "fit from a cache": Command(
        ("fit", *CACHED, "--trainer.max_epochs=1", "--trainer.default_root_dir=stored"),
        again=("--overwrite",),
    ),
    "test": Command(("test", *FIT[1:]), needs=("fit",)),
    "predict": Command(
        ("predict", "--ckpt_path=run/best.ckpt", "--output=said.csv", "sounds"), needs=("fit",)
    ),
    "export": Command(("export", "run", "--to=encoder"), needs=("fit",)),
    "ensemble": Command(
        ("ensemble", "run", "other", "--out=both"), needs=("fit", "other"), again=("--overwrite",)
    ),
    "cache build": Command(("cache", "build", *CACHED)),
    "cache verify": Command(
        ("cache", "verify", "--cache=cache"), needs=("cache build",), mends=("cache", "build", *CACHED)
    ),
    "estimate": Command(("estimate", *TRAINED)),
    "doctor": Command(("doctor", *OWN, "--json=said.json", "--manifest=made.csv")),
    "examples": Command(("examples", "examples")),
    "compare": Command((*GRID, "--trainer.accelerator=cpu", "--out=grid")),
    "report": Command(("compare", "--report", "grid"), needs=("compare",)),
    "run": Command(("run", "chain", "--out=chained")),
}


def prepare(folder: Path, command: Command) -> None:
    """Makes a folder with all that a command needs."""
    (folder / "sounds").mkdir(parents=True)
    rows = ["path,label,split"]
    for index in range(6):
        noise = np.random.default_rng(index).normal(0, 0.1, 8_000)
        soundfile.write(folder / f"sounds/{index}.wav", noise, 16_000)
        rows.append(f"{index}.wav,{('sad', 'glad')[index % 2]},{('train', 'val', 'test')[index // 2]}")
    (folder / "sounds/table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "chain").mkdir()
    for stage, (kind, encoder) in CHAIN.items():
        options: dict[str, Any] = {"encoder": encoder}
        options |= {"fresh_quantiser": True, "negatives": 10} if kind == "TAPT" else {}
        trainer = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": f"chain/{stage}"}
        data = {"class_path": "Synthetic", "init_args": {"speakers": 3, "utterances_per_speaker": 8}}
        config = {"model": {"class_path": kind, "init_args": options}, "data": data, "trainer": trainer}
        (folder / f"chain/{stage}.yaml").write_text(json.dumps(config), encoding="utf-8")
    for name in command.needs:
        ended = run(folder, COMMANDS[name].words)
        assert ended.code == 0, ended.err


def start(folder: Path, words: tuple[str, ...], fault: Fault | None = None) -> Program:
    """A command in a process of its own."""
    return Program(under_faults, words, fault, folder=folder, environment={"HF_HUB_OFFLINE": "1"})


def run(folder: Path, words: tuple[str, ...], fault: Fault | None = None) -> Ended:
    """A command in a process of its own, until it ends."""
    return start(folder, words, fault).wait()


def files(folder: Path) -> set[str]:
    """What is there, but for logs, whose folders are counted up, locks, and what was set aside."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(path)
        for path in found
        if not {"logs", "pictures"} & set(path.parts) and PASSING.isdisjoint({path.suffix, path.name})
    }


def scores(folder: Path) -> dict[str, Any]:
    """The scores in every result of a folder, to eight digits, and what is the same each time."""
    found = {}
    whole = [each for each in folder.rglob("*") if UNFINISHED not in str(each.relative_to(folder))]
    for path in sorted(each for each in whole if each.name in RESULTS):
        facts = json.loads(path.read_text(encoding="utf-8"))
        told = {name: facts.get(name) for name in ("scores", "best", "stopped")}
        # Checkpoints are of validations, where the loss of the epoch of training is not known yet.
        told["metrics"] = {k: v for k, v in facts.get("metrics", {}).items() if not k.startswith("train/")}
        found[str(path.relative_to(folder))] = rounded(told)
    for path in sorted(each for each in whole if each.name in COPIED - {"report.md"}):
        found[str(path.relative_to(folder))] = path.read_text(encoding="utf-8").replace(str(folder), "")
    return found


def rounded(value: Any) -> Any:
    """Plain data with its numbers to six digits, and paths by their names."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return Path(value).name if isinstance(value, str) else value


def age(folder: Path) -> None:
    """Makes what was left behind an hour older, as if so much time had passed since."""
    for half in folder.rglob(f".*{UNFINISHED}"):
        os.utime(half, (0, time.time() - 2 * ABANDONED))


def told(ended: Ended) -> str:
    """What is wrong with the way in which a command without success has ended; empty if it is a sentence."""
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    if not ended.err and REPORTED.search(ended.out):
        return ""
    if "Traceback" in ended.err or len(errors) != 1:
        return f"not told in a sentence (code {ended.code}): {ended.err[-600:]}"
    return ""


def given_again(folder: Path, command: Command) -> Ended:
    """The command once more, and if it is refused over what is there, with the words that it asks for."""
    age(folder)
    ended = run(folder, command.words)
    if ended.code != 0 and command.again and command.again[0] in ended.err:
        ended = run(folder, (*command.words, *command.again))
    if ended.code != 0 and "is there already" in ended.err:
        return ended._replace(code=0)  # whether it is whole is looked at next
    return ended


def verdict(kind: str, first: Ended | None, folder: Path, command: Command, whole: Path) -> str:
    """What became of a command with a fault (none: it was killed) and of the same after it; empty if well."""
    if first is not None and first.code != 0 and kind != "killed" and (wrong := told(first)):
        return wrong
    if first is None or first.code != 0:
        second = given_again(folder, command)
        if second.code != 0:
            return f"does not end well when given again: {second.err[-600:]}"
        if command.mends and (mended := run(folder, command.mends)).code != 0:
            return f"leaves what cannot be mended: {mended.err[-600:]}"
    else:
        age(folder)
    if scores(folder) != scores(whole):
        return f"ends with other scores: {difference(scores(folder), scores(whole))}"
    if missing := files(whole) - files(folder):
        return f"ends without {sorted(missing)[0]}"
    if left := files(folder) - files(whole):
        return f"leaves {sorted(left)[0]}"
    return ""


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first result that is another."""
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            return f"{name}: {found.get(name)} instead of {expected.get(name)}"[:600]
    return ""


def fresh(source: Path, folder: Path) -> Path:
    """The folder with the content of another; always at one place, since results name where they are."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, symlinks=True)
    return folder
