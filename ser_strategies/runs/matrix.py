"""The cross-corpus matrix: strategies trained on some corpora, tested on these and others."""

import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.common.errors import MistypedError
from ser_strategies.common.files import copy_file, read_parquet, write_json, write_text
from ser_strategies.comparison.ledger import CELLS, Ledger
from ser_strategies.comparison.ledger_cell import CELL, read_json, stages_of
from ser_strategies.comparison.report.matrix_picture import draw_matrix
from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.intervals import Interval, interval
from ser_strategies.data.corpora.members import shared_classes
from ser_strategies.data.corpus import Corpus
from ser_strategies.fit.lightning_cli import run as run_fit
from ser_strategies.fit.shorthand import value_of
from ser_strategies.runs.api import described
from ser_strategies.runs.arguments import ONE, CompareArguments
from ser_strategies.runs.fingerprints import build
from ser_strategies.runs.grid import run_grid

# What `fit` writes beside a checkpoint and `test` looks for.
BEST, PREDICTIONS = "best.ckpt", "test.parquet"


@dataclass(frozen=True)
class Described:
    """A corpus as its file describes it, with the classes that all corpora of the matrix share."""

    name: str
    config: dict[str, Any]  # class_path and init_args


@dataclass(frozen=True)
class Entry:
    """A score of what was trained on one corpus, on the test split of another."""

    strategy: str
    trained: str
    tested: str
    utterances: int
    interval: Interval


def run_matrix(asked: CompareArguments, *, verbose: bool) -> list[Entry]:
    """Trains each strategy on each corpus, tests it on all, and writes matrix.json, matrix.md and matrix.svg.

    Each training corpus has a comparison of its own in the folder `on-<corpus>`, which is done first, and
    goes on where it was stopped, like what has been scored.
    """
    if asked.folds != ONE:
        msg = "--folds is of one corpus: leave it out, and name the fold of each in its file."
        raise MistypedError(msg)
    corpora = _described([*asked.train_on, *asked.test_on])
    entries: list[Entry] = []
    for path in dict.fromkeys(asked.train_on):
        trained = corpora[path.stem]
        out = asked.out / f"on-{trained.name}"
        options = replace(asked.options, common=(*described("data", trained.config), *asked.options.common))
        part = replace(asked, out=out, options=options, keep_checkpoints=True, train_on=(), test_on=())
        failed = run_grid(part, verbose=verbose).failed
        if failed:
            raise ValueError(f"trained on {trained.name}, {failed}")
        if asked.dry_run:
            continue
        for other in dict.fromkeys(asked.test_on):
            tested = corpora[other.stem]
            if verbose:
                print(f"testing what was trained on {trained.name} on {tested.name} ...", flush=True)
            entries += _scored(out, trained, tested, asked)
    if entries:
        _write(asked.out, entries)
        if verbose:
            print(_markdown(entries))
            print(f"written to {asked.out / 'matrix.json'}, matrix.md and matrix.svg")
    return entries


def _described(paths: Sequence[Path]) -> dict[str, Described]:
    """The corpora by the names of their files, each with the classes that all of them have."""
    found: dict[str, tuple[Path, dict[str, Any], Corpus]] = {}
    for path in paths:
        if path.stem in found and found[path.stem][0] != path:
            msg = f"{found[path.stem][0]} and {path} have one name: rename one, since corpora go by it."
            raise MistypedError(msg)
        if path.stem not in found:
            config = _read(path)
            found[path.stem] = path, config, build(config)
    corpora = {name: corpus for name, (_, _, corpus) in found.items()}
    shared = shared_classes(corpora, common=True)
    described: dict[str, Described] = {}
    for name, (_, config, corpus) in found.items():
        options = dict(config.get("init_args") or {})
        given = dict(options.get("label_map") or {})
        left = {each: None for each in corpus.classes if given.get(each, each) not in shared}
        if given or left:
            options["label_map"] = given | left
        described[name] = Described(name, {"class_path": config["class_path"], "init_args": options})
    return described


def _read(path: Path) -> dict[str, Any]:
    """The section data of a configuration, or a file that is nothing else."""
    try:
        facts = read_yaml(path)
    except FileNotFoundError as error:
        msg = f"{path} does not exist: expected a file with the section data of a configuration."
        raise MistypedError(msg) from error
    data = facts.get("data", facts) if isinstance(facts, dict) else None
    if not isinstance(data, dict) or "class_path" not in data:
        msg = f"{path} describes no corpus: expected class_path and init_args, as in a configuration's data."
        raise MistypedError(msg)
    return {"class_path": str(data["class_path"]), "init_args": dict(data.get("init_args") or {})}


def _scored(out: Path, trained: Described, tested: Described, asked: CompareArguments) -> Iterator[Entry]:
    runs = Ledger.read(out).runs
    finished = runs[runs["status"] == "finished"]
    for name, rows in finished.groupby("name", sort=False):
        frames = []
        for cell, seed in zip(rows["hash"], rows["seed"], strict=True):
            place = asked.out / "scored" / trained.name / str(cell) / tested.name
            if not (place / PREDICTIONS).exists():
                folder = out / CELLS / str(cell)
                _test(stages_of(folder, read_json(folder / CELL)).last, place, tested, asked)
            frames.append((None, int(seed), read_parquet(place / PREDICTIONS)))
        aligned = align(frames, str(name))
        yield Entry(str(name), trained.name, tested.name, len(aligned), interval(aligned, "ua"))


def _test(run: Path, place: Path, tested: Described, asked: CompareArguments) -> None:
    """Tests a run's checkpoint on a corpus, in a folder of its own."""
    place.mkdir(parents=True, exist_ok=True)
    checkpoint = place / BEST
    checkpoint.unlink(missing_ok=True)
    try:
        os.link(run / BEST, checkpoint)
    except OSError:
        copy_file(run / BEST, checkpoint)
    config = read_yaml(run / "config.yaml")
    of_run = (*described("model", config["model"]), f"--trainer.default_root_dir={place}")
    device = value_of("--trainer.accelerator", asked.options.common)
    trainer = [f"--trainer.accelerator={device}"] if device else []
    words = [*of_run, *trainer, *described("data", tested.config), f"--ckpt_path={checkpoint}"]
    with redirect_stdout(StringIO()):
        run_fit("test", [*words, "--trainer.enable_progress_bar=false", "--trainer.logger=false"])
    checkpoint.unlink(missing_ok=True)


def _write(out: Path, entries: Sequence[Entry]) -> None:
    told = [
        {
            "strategy": each.strategy,
            "trained_on": each.trained,
            "tested_on": each.tested,
            "utterances": each.utterances,
            "ua": each.interval.point,
            "low": each.interval.low,
            "high": each.interval.high,
            "clusters": each.interval.clusters,
            "unit": each.interval.unit,
            "seeds": each.interval.seeds,
            "in_corpus": each.trained == each.tested,
        }
        for each in entries
    ]
    write_json(out / "matrix.json", {"score": "ua", "entries": told})
    write_text(out / "matrix.md", _markdown(entries) + "\n")
    draw_matrix(told, out / "matrix.svg")


def _markdown(entries: Sequence[Entry]) -> str:
    """Rows by strategy and training corpus, columns by test corpus; in-corpus scores are bold."""
    columns = list(dict.fromkeys(each.tested for each in entries))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each in entries:
        bold = "**" if each.trained == each.tested else ""
        rows.setdefault((each.strategy, each.trained), {})[each.tested] = (
            f"{bold}{_words(each.interval)}{bold}"
        )
    lines = [
        f"| strategy | trained on | {' | '.join(f'tested on {each}' for each in columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for (strategy, trained), cells in rows.items():
        lines.append(f"| {strategy} | {trained} | {' | '.join(cells.get(each, '') for each in columns)} |")
    return "\n".join([*lines, "", "UA in %, with its 95 % interval over speakers and seeds; in-corpus bold."])


def _words(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{100 * found.point:.1f}"
    return f"{100 * found.point:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
