"""The state of a stage: what stage.json says it was made from, what has changed, and what is left to do."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ser_strategies.common.files import write_json
from ser_strategies.runs.fingerprints import PLACES, DataPrint, hash_of, without_ignored
from ser_strategies.runs.plan import Step

STAMP = "stage.json"
STARTED, FINISHED = "started", "finished"
FACTS = ("version", "configuration", "data", "inputs")
# Not of an input that is a folder: what differs from one run to the next all the same.
PASSING = ("logs", STAMP, "stage.yaml", "stage.lock", "fit.json", "environment.json")
NOTHING = object()
CLASS = ".class_path"
# Gives what a stage's result depends on; it reads whole checkpoints, so it is asked only if that matters.
Facts = Callable[[], dict[str, Any]]
Action = Literal["run", "resume", "test", "skip"]
# What a run writes and a later stage, or a reader, could take for another run's.
RESULTS = ("*.ckpt", "fit.json", "val.json", "test.json", "test-robustness.json")
TOLD = 3


def facts_of(step: Step, data: DataPrint) -> dict[str, Any]:
    """Everything that a stage's result depends on; ValueError where something it starts from is missing."""
    return {
        "version": version("ser-strategies"),
        "configuration": without_ignored(step.portable),
        "data": {**data.as_dict(), "dated": data.dated},
        "inputs": {name: _hash(step, name, path) for name, path in step.inputs.items()},
    }


def write_stamp(folder: Path, state: str, facts: Mapping[str, Any], left_over: Mapping[str, Any]) -> None:
    """Writes stage.json."""
    write_json(folder / STAMP, {"state": state, **facts, "left_over": dict(left_over)})


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """The content of stage.json; None if there is none."""
    path = folder / STAMP
    try:
        stamp: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        stamp = {}
    if not isinstance(stamp, dict) or not {"state", "left_over", *FACTS} <= set(stamp):
        msg = f"{path} is damaged: give --overwrite to run everything again, or delete {folder}."
        raise ValueError(msg)
    return stamp


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each thing that has changed, options as they are typed."""
    found = []
    if before["version"] != now["version"]:
        found.append(f"ser-strategies changed {before['version']} -> {now['version']}")
    moved = before["data"]["sounds"] == now["data"]["sounds"] != now["data"]["dated"]
    places = {f"data.{name}" for name in PLACES} if moved else set()
    found += _changed_options(before["configuration"], now["configuration"], passing=places)
    found += _changed_data(before["data"], now["data"])
    names = {**before["inputs"], **now["inputs"]}
    changed = [name for name in names if before["inputs"].get(name) != now["inputs"].get(name)]
    return [*found, *(f"{name} changed" for name in changed)]


def _changed_options(
    before: Mapping[str, Any], now: Mapping[str, Any], *, passing: Collection[str]
) -> Iterator[str]:
    was, becomes = dict(_flat(before)), dict(_flat(now))
    names = sorted({*was, *becomes} - set(passing))
    changed = [name for name in names if was.get(name, NOTHING) != becomes.get(name, NOTHING)]
    # Where the class is another one, its options are others too, and need not be told one by one.
    classes = [name.removesuffix(CLASS) for name in changed if name.endswith(CLASS)]
    for name in changed:
        option = name.removesuffix(CLASS)
        old, new = _shown(was.get(name, NOTHING)), _shown(becomes.get(name, NOTHING))
        if any(option.startswith(f"{each}.") for each in classes):
            continue
        if option != name:
            old, new = old.rpartition(".")[2], new.rpartition(".")[2]
        yield f"{option} changed {old} -> {new}"


def _changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before["task"] != now["task"]:
        yield f"the data changed {before['task']} -> {now['task']}"
    elif before["digest"] != now["digest"]:
        yield f"the data changed (digest {before['digest']} -> {now['digest']})"
    if before["sounds"] not in {now["sounds"], now["dated"]}:
        yield "sound files changed (names or contents)"


def _flat(value: Any, option: str = "") -> Iterator[tuple[str, Any]]:
    """Options and values, named as they are typed."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            name = option if key == "init_args" else f"{option}.{key}".lstrip(".")
            yield from _flat(each, name)
    else:
        yield option, value


def _shown(value: Any) -> str:
    if value is NOTHING:
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value)


def _hash(step: Step, name: str, path: Path) -> str:
    if not path.exists():
        source = name.partition("/")[0]
        msg = (
            f"{step}: {path} is not there, although {source} is done: correct the name, or give --overwrite."
        )
        raise ValueError(msg)
    return hash_of(path, passing=PASSING)


class Decision(NamedTuple):
    """An action, and the reason for it."""

    action: Action
    reason: str


def decide(
    step: Step,
    facts: Facts,
    *,
    overwrite: bool,
    pending: Collection[str] = (),
) -> Decision:
    """The next action for a stage; in a rehearsal, `pending` names earlier stages that are still to be run.

    FileExistsError if its folder holds a run that is not of a chain.
    """
    if overwrite:
        return Decision("run", "--overwrite")
    stamp = read_stamp(step.folder)
    if stamp is None:
        check_foreign(step)
        return Decision("run", "it has not been run yet")
    waits = sorted(step.sources & set(pending))
    if waits:
        return Decision("run", f"it starts from {waits[0]}, unless that comes out the same as before")
    changes = differences(stamp, facts())
    if changes:
        more = f" and {len(changes) - TOLD} more" if len(changes) > TOLD else ""
        return Decision("run", f"{', '.join(changes[:TOLD])}{more}")
    results = new_results(step.folder, stamp["left_over"])
    if stamp["state"] != FINISHED and "fit.json" not in results:
        if "last.ckpt" in results:
            return Decision("resume", "it was stopped")
        return Decision("run", "it was stopped before its first checkpoint")
    needed = [*step.wanted, *(["best.ckpt"] if step.scores and "test.json" not in results else [])]
    gone = [name for name in needed if not (step.folder / name).exists()]
    if gone:
        return Decision("run", f"its {gone[0]} is gone")
    if step.scores and "test.json" not in results:
        return Decision("test", "it is trained, but not tested")
    return Decision("skip", "nothing has changed")


def check_foreign(step: Step) -> None:
    """Raises FileExistsError where a stage's folder holds a run that `run` knows nothing of."""
    found = sorted(path.name for path in step.folder.glob("*.ckpt"))
    if found and read_stamp(step.folder) is None:
        msg = (
            f"{step.folder} holds a run that is not of a chain ({found[0]}, but no stage.json): give "
            f"--overwrite to replace it, or another --out."
        )
        raise FileExistsError(msg)


def results_in(folder: Path) -> dict[str, list[int]]:
    """The results in a folder, with what tells them from later ones of the same name."""
    found = sorted(path for pattern in RESULTS for path in folder.glob(pattern))
    stats = {path.name: path.stat() for path in found}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def new_results(folder: Path, left_over: dict[str, list[int]]) -> set[str]:
    """Names of the results that are not of an earlier run."""
    return {name for name, stat in results_in(folder).items() if left_over.get(name) != stat}
