"""Random commands with random faults on one folder, which must be whole whenever no fault is at work."""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

from benchmarks.faulted import COMMANDS, Command, files, given_again, prepare, run, scores, start, told
from benchmarks.injected import KINDS, Fault

SIGNALS = {"interrupted": SIGINT, "terminated": SIGTERM}
FAULTS = (*KINDS, *SIGNALS, "none")


def soak(minutes: float, seed: int, out: Callable[[str], None]) -> dict[str, Any]:
    """Gives commands for so many minutes, then each of them undisturbed; what was counted.

    A command whose needs are not there, or that finds a finished run, may say so; one that succeeds must have
    the scores of a folder in which nothing ever went wrong.
    """
    chance, counts, wrong = random.Random(seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        shared, clean = root / "shared", root / "clean"
        points = _clean(clean, root / "count")
        expected = scores(clean)
        prepare(shared, Command(()))
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            name, kind = chance.choice(list(COMMANDS)), chance.choice(FAULTS)
            words = COMMANDS[name].words
            if chance.random() < 0.5:
                words = (*words, *COMMANDS[name].again)
            said = _disturbed(shared, words, kind, chance, points[name], root / "count")
            counts[f"{kind}: {'succeeded' if said.code == 0 else 'ended'}"] += 1
            problem = _wrong(said, kind) or _other(scores_or_problem(shared), expected)
            if problem:
                wrong.append(f"{name}, {kind}: {problem}")
                out(f"  {wrong[-1]}")
        for name, command in COMMANDS.items():
            ended = given_again(shared, command)
            if ended.code:
                wrong.append(f"at the end, {name}: {ended.err[-600:]}")
                out(f"  {wrong[-1]}")
        left = sorted(files(shared) ^ files(clean))
        if scores(shared) != expected or left:
            wrong.append(f"at the end the folders differ: {left[:5]}")
            out(f"  {wrong[-1]}")
    return {"minutes": minutes, "seed": seed, "commands": dict(sorted(counts.items())), "wrong": wrong}


def _clean(folder: Path, count: Path) -> dict[str, int]:
    """All commands, undisturbed, in a folder of their own; how many points each has."""
    prepare(folder, Command(()))
    points = {}
    for name, command in COMMANDS.items():
        count.unlink(missing_ok=True)
        ended = run(folder, command.words, Fault(str(folder), "killed", 0, str(count)))
        assert ended.code == 0, (name, ended.err)
        points[name] = count.stat().st_size if count.exists() else 0
    return points


def _disturbed(
    folder: Path, words: tuple[str, ...], kind: str, chance: random.Random, points: int, count: Path
) -> Any:
    if kind in SIGNALS:
        program = start(folder, words)
        deadline = time.monotonic() + chance.uniform(0.5, 20)
        while program.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        if program.running():
            program.send_signal(SIGNALS[kind])
        return program.wait()
    if kind == "none":
        return run(folder, words)
    count.unlink(missing_ok=True)
    at = chance.randint(1, max(points if kind != "unreadable" else points // 2, 1))
    return run(folder, words, Fault(str(folder), kind, at, str(count)))


def _wrong(ended: Any, kind: str) -> str:
    """What is wrong with how a command ended; only what was stopped may end without a sentence."""
    if ended.code == 0 or kind in {"killed", *SIGNALS}:
        return "" if "Traceback" not in ended.err else f"a traceback: {ended.err[-600:]}"
    return told(ended)


def scores_or_problem(folder: Path) -> dict[str, Any] | str:
    """The scores in a folder, each whole: a half-written one cannot be read."""
    try:
        return scores(folder)
    except (ValueError, OSError) as error:
        return f"a result cannot be read: {error}"


def _other(found: dict[str, Any] | str, expected: dict[str, Any]) -> str:
    """What is there and is another than it should be. What is not there has not been made yet."""
    if isinstance(found, str):
        return found
    # `doctor` may have found a file that could not be read then; it tells anew at the end.
    names = [name for name in found if found[name] != expected.get(name) and name != "said.json"]
    return f"{names[0]} is {found[names[0]]} instead of {expected.get(names[0])}"[:600] if names else ""
