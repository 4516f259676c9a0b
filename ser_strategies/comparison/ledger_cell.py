"""One cell of a ledger: what a strategy on one fold with one seed left on the disk, as a row of facts."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.common.files import CHECKSUMS, opened
from ser_strategies.comparison.checksums import check_checksums

SCHEMA = 1
CELL = "cell.json"
PREDICTIONS = "test.parquet"
# What the chosen epoch said of the validation split; a run of an earlier version has kept none.
VALIDATED = "val.parquet"
# Of a run that is an ensemble of others: its members and their weights, and what it is to be judged by.
ENSEMBLE = "ensemble.json"
BASELINES = tuple(f"baselines/{name}.parquet" for name in ("mean", "vote", "single"))
# Scores under disturbances of the test sounds, where they were asked for.
ROBUSTNESS = "test-robustness.json"
# What was predicted under each, an utterance and a disturbance a row; a run of an earlier version has none.
DISTURBED = "test-robustness.parquet"
# What a report is made of, in the folder of each stage.
RESULTS = (
    *("config.yaml", "environment.json", "fit.json", "costs.json", "test.json", PREDICTIONS, VALIDATED),
    *(ROBUSTNESS, DISTURBED),
)
OF_ENSEMBLE = (ENSEMBLE, *BASELINES)
STATUSES = ("running", "finished", "failed")
REQUIRED = ("name", "strategy", "fold", "seed", "status")
# A chain costs what its stages cost together; what it needs at once is what its greediest stage needs. Of
# everything else the last stage speaks, since that is what is tested and kept.
SUMMED = (
    "fit_seconds",
    "train_seconds",
    "validation_seconds",
    "cache_build_seconds",
    "load_seconds",
    "steps",
    "epochs",
    "audio_seconds",
    "cache_bytes",
    "energy_joules",
    "skipped",
    "short",
    "capped",
    "out_of_memory",
)
LARGEST = ("peak_memory_bytes", "peak_memory_reserved_bytes")
NOT_NUMBERS = ("memory_kind", "device", "precision", "trace", "resumed", "partial", "inference_device")
FOLD = re.compile(r"/fold-\d+")


class Stages(NamedTuple):
    """The folders of a run's stages, in order; one for a run of a single stage."""

    folders: tuple[Path, ...]

    @property
    def last(self) -> Path:
        """The stage that is tested."""
        return self.folders[-1]

    def read(self, name: str) -> list[dict[str, Any]]:
        """A JSON file of every stage; empty where a stage has none."""
        return [read_json(folder / name, missing={}) for folder in self.folders]


def read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file; `missing` stands for a file that does not exist.

    ValueError, beginning with the file's name, if it cannot be read or holds no object, or if it does not
    exist and `missing` is None.
    """
    try:
        facts = json.loads(path.read_bytes())
        facts = opened(facts, path) if isinstance(facts, dict) else facts
    except FileNotFoundError:
        if missing is not None:
            return missing
        msg = f"{path.name} is missing"
        raise ValueError(msg) from None
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path.name} cannot be read ({' '.join(str(error).split())})"
        raise ValueError(msg) from error
    if not isinstance(facts, dict):
        msg = f"{path.name} holds a {type(facts).__name__} where an object was expected"
        raise ValueError(msg)
    return facts


def check_schema(facts: Mapping[str, Any], name: str) -> None:
    """Raises ValueError for facts of another format, or of a later version of this one."""
    schema = facts.get("schema")
    if not isinstance(schema, int) or schema < 1:
        msg = f"{name} is not of a comparison: it has no schema number"
        raise ValueError(msg)
    if schema > SCHEMA:
        msg = (
            f"{name} has schema {schema}, written by a later version of ser-strategies; this one reads up to "
            f"{SCHEMA}: update ser-strategies"
        )
        raise ValueError(msg)


def read_cell(folder: Path) -> dict[str, Any]:
    """The row of a cell; ValueError that says which part cannot be read and why."""
    facts = read_json(folder / CELL)
    check_schema(facts, CELL)
    lacking = [name for name in REQUIRED if name not in facts]
    if lacking:
        msg = f"{CELL} is not of a comparison: it has no {' and no '.join(lacking)}"
        raise ValueError(msg)
    if facts["status"] not in STATUSES:
        msg = f"{CELL} has the status {facts['status']!r} where one of {', '.join(STATUSES)} was expected"
        raise ValueError(msg)
    row: dict[str, Any] = {
        "hash": folder.name,
        **{name: facts[name] for name in REQUIRED},
        "error": facts.get("error"),
        "mode": facts.get("mode"),
        "seconds": number(facts.get("seconds")),
        "ensemble": _weights(facts.get("ensemble")),
    }
    for name in ("fold", "seed"):
        if not (row[name] is None or type(row[name]) is int):
            msg = f"{CELL} has the {name} {row[name]!r} where a whole number was expected"
            raise ValueError(msg)
    stages = stages_of(folder, facts)
    row["stages"] = len(stages.folders)
    if facts["status"] != "finished":
        # Whatever it left behind may be torn; that it failed, and why, is what matters of it.
        return row
    check_checksums(folder, read_json(folder / CHECKSUMS, missing={}))
    costs = stages.read("costs.json")
    row |= {f"cost/{name}": value for name, value in total(costs).items()}
    row |= {"hardware": _hardware(stages, costs), "precision": _shared(costs, "precision")}
    row["memory_kind"] = _shared(costs, "memory_kind")
    return row | _results(stages)


def _weights(told: Any) -> dict[str, float] | None:
    """The weight of each member of an ensemble; None for a strategy."""
    if told is None:
        return None
    if not isinstance(told, dict) or not told:
        msg = f"{CELL} has the ensemble {told!r} where a weight of each member was expected"
        raise ValueError(msg)
    return {str(name): number(weight) for name, weight in told.items()}


def stages_of(folder: Path, facts: Mapping[str, Any]) -> Stages:
    """The folders of the stages of a run."""
    named = facts.get("stages") or ["."]
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        msg = f"{CELL} has stages {named!r} where a list of folders was expected"
        raise ValueError(msg)
    if any(Path(each).is_absolute() or ".." in Path(each).parts for each in named):
        msg = f"{CELL} names stages outside its folder: {named!r}"
        raise ValueError(msg)
    return Stages(tuple(folder / each for each in named))


def total(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The costs of a run from those of its stages.

    What is unknown of one stage is unknown of the sum: the rest would pass for all of it.
    """
    names = {name for each in costs for name in each if name not in NOT_NUMBERS}
    # A run that was resumed where nothing was counted before has measured a part of itself only.
    whole = not any(each.get("partial") for each in costs)
    found = {}
    for name in sorted(names):
        values = [number(each.get(name)) for each in costs]
        unknown = any(map(math.isnan, values))
        if name in SUMMED:
            found[name] = math.nan if unknown or not whole else math.fsum(values)
        elif name in LARGEST:
            found[name] = math.nan if unknown or not whole else max(values)
        else:
            found[name] = values[-1]
    # What no machine changes: arithmetic for each second heard, times the seconds heard.
    work = [number(c.get("train_flops_per_audio_second")) * number(c.get("audio_seconds")) for c in costs]
    found["train_flops"] = math.fsum(work) if work and not any(map(math.isnan, work)) else math.nan
    return found


def number(value: Any) -> float:
    """A finite number, or NaN for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return math.nan
    return float(value)


def _results(stages: Stages) -> dict[str, Any]:
    """The results of a finished run: its task, its encoder and its scores."""
    test = read_json(stages.last / "test.json")
    fit = read_json(stages.last / "fit.json")
    data = test.get("data") or fit.get("data") or {}
    task = data.get("task")
    outputs = [*(test.get("labels") or ()), *(test.get("dimensions") or ())]
    best = fit.get("best") or {}
    scores = {name: number(value) for name, value in (test.get("metrics") or {}).items()}
    return {
        "task": FOLD.sub("", task) if isinstance(task, str) else None,
        "digest": data.get("digest"),
        "label_set": ", ".join(map(str, outputs)) or None,
        "labels": tuple(test.get("labels") or ()),
        "dimensions": tuple(test.get("dimensions") or ()),
        **_start(stages, test),
        "monitor": best.get("monitor"),
        "val/best": number(best.get("score")),
        **{name: value for name, value in scores.items() if name.startswith("test/")},
        **({"oracles": tuple(map(str, test["oracles"]))} if test.get("oracles") else {}),
    }


def _start(stages: Stages, test: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder that everything started from: of a chain, that of its first stage."""
    first = read_json(stages.folders[0] / "fit.json", missing={}).get("encoder")
    identity = first or test.get("encoder") or {}
    source = identity.get("source")
    if len(stages.folders) > 1 and not first:
        source = _configured_encoder(stages.folders[0]) or source
    # An encoder out of a checkpoint has weights of its own; its origin says which it was trained from.
    return {
        "encoder_source": source,
        "encoder_fingerprint": identity.get("origin") or identity.get("fingerprint"),
    }


def configuration(folder: Path) -> dict[str, Any]:
    """The configuration of a stage; empty where that cannot be read."""
    try:
        config = read_yaml(folder / "config.yaml")
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _configured_encoder(folder: Path) -> str | None:
    try:
        return str(configuration(folder)["model"]["init_args"]["encoder"])
    except (KeyError, TypeError):
        return None


def _hardware(stages: Stages, costs: Sequence[Mapping[str, Any]]) -> str | None:
    """The machine in words; costs on another are no fair comparison."""
    cores = read_json(stages.last / "environment.json", missing={}).get("cores")
    found = []
    for each in costs:
        device, processes, threads = each.get("device"), each.get("processes", 1), each.get("threads")
        if not isinstance(device, str):
            return None
        if device.startswith("CPU"):
            device += f", {cores} cores" * bool(cores) + f", {threads} used" * bool(threads)
        found.append(f"{processes} x {device}" if processes != 1 else device)
    return " and ".join(dict.fromkeys(found)) or None


def _shared(costs: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """A text from all stages, joined where they differ."""
    said = dict.fromkeys(each[name] for each in costs if isinstance(each.get(name), str))
    return " and ".join(said) or None
