"""What a stage was made from, kept beside its checkpoints as stage.json, and what has changed since."""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ser_strategies.common.files import write_json
from ser_strategies.runs.chain_plan import Step
from ser_strategies.runs.data_prints import DataPrint
from ser_strategies.runs.hashes import hash_of

STAMP = "stage.json"
STARTED, FINISHED = "started", "finished"
FACTS = ("version", "configuration", "data", "inputs")
# What does not change what is learned.
IGNORED = {
    "trainer": (
        "default_root_dir",
        "enable_model_summary",
        "enable_progress_bar",
        "log_every_n_steps",
        "logger",
        "profiler",
    ),
    "data": ("workers",),
}
# Not of an input that is a folder: what differs from one run to the next all the same.
PASSING = ("logs", STAMP, "stage.yaml", "stage.lock", "fit.json", "environment.json")
NOTHING = object()
CLASS = ".class_path"


def facts_of(step: Step, data: DataPrint) -> dict[str, Any]:
    """Everything that a stage's result depends on.

    Args:
        step: The stage.
        data: The fingerprint of its corpus.

    Raises:
        ValueError: What it starts from is not there.
    """
    return {
        "version": version("ser-strategies"),
        "configuration": without_ignored(step.portable),
        "data": data.as_dict(),
        "inputs": {name: _hash(step, name, path) for name, path in step.inputs.items()},
    }


def without_ignored(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration less what does not change what is learned.

    Args:
        config: The configuration, as plain data.
    """
    plain: dict[str, Any] = json.loads(json.dumps(config))
    for group, names in IGNORED.items():
        for name in names:
            plain[group].get("init_args", plain[group]).pop(name, None)
    return plain


def write_stamp(folder: Path, state: str, facts: Mapping[str, Any], left_over: Mapping[str, Any]) -> None:
    """Writes stage.json.

    Args:
        folder: The folder of the stage.
        state: started or finished.
        facts: What `facts_of` gave.
        left_over: Files of an earlier run that are still there, and what tells them from new ones.
    """
    write_json(folder / STAMP, {"state": state, **facts, "left_over": dict(left_over)})


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """What stage.json says; None if there is none.

    Args:
        folder: The folder of the stage.
    """
    path = folder / STAMP
    try:
        stamp: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        stamp = {}
    if not isinstance(stamp, dict) or not {"state", "left_over", *FACTS} <= set(stamp):
        msg = f"{path} is damaged: give --overwrite to run everything again, or delete {folder}."
        raise ValueError(msg)
    return stamp


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each thing that has changed, options as they are typed.

    Args:
        before: What stage.json says.
        now: What `facts_of` gave.
    """
    found = []
    if before["version"] != now["version"]:
        found.append(f"ser-strategies changed {before['version']} -> {now['version']}")
    found += _changed_options(before["configuration"], now["configuration"])
    found += _changed_data(before["data"], now["data"])
    names = {**before["inputs"], **now["inputs"]}
    changed = [name for name in names if before["inputs"].get(name) != now["inputs"].get(name)]
    return [*found, *(f"{name} changed" for name in changed)]


def _changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    was, becomes = dict(_flat(before)), dict(_flat(now))
    changed = [
        name for name in sorted({*was, *becomes}) if was.get(name, NOTHING) != becomes.get(name, NOTHING)
    ]
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
    if before["sounds"] != now["sounds"]:
        yield "sound files changed (names, sizes or times)"


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
