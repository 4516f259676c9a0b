"""Ensembles as rows of a comparison, computed from the predictions in its ledger; nothing is trained.

An ensemble has a run, a folder in `cells`, for each fold and seed that all of its members have finished: the
weights of a fold come from that fold's validation split. The folder is named by a hash of the members' runs,
of what they predicted, and of how they are weighed; where any of that changes, the row is computed anew.
"""

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ser_strategies.common.errors import listed
from ser_strategies.common.files import whole_folder, write_json, write_result, write_table
from ser_strategies.comparison.compared_runs import decisive
from ser_strategies.comparison.ledger import (
    CELLS,
    Ledger,
    check_finished,
    read_comparison,
    write_cell,
    write_comparison,
)
from ser_strategies.comparison.ledger_cell import ENSEMBLE, PREDICTIONS, VALIDATED, read_json
from ser_strategies.ensembles.blends import WEIGHTED, Blends, blend
from ser_strategies.ensembles.members import line_up
from ser_strategies.ensembles.shared_costs import costs_together
from ser_strategies.ensembles.weighing_rules import WantedEnsemble, wanted_from

KIND = "ensemble"
# Changes whenever the same members would have other weights.
VERSION = 1


class _Place(NamedTuple):
    """A fold and seed, and the runs that an ensemble is made of there."""

    fold: int | None
    seed: int | None
    runs: pd.DataFrame  # a row of the ledger for each member, whose name is its index

    def __str__(self) -> str:
        named = (("fold", self.fold), ("seed", self.seed))
        return ", ".join(f"{name} {number}" for name, number in named if number is not None) or "its run"

    @property
    def hashes(self) -> dict[str, str]:
        """The run of each member."""
        return {str(name): str(run) for name, run in self.runs["hash"].items()}


class Refreshed(NamedTuple):
    """What came of the ensembles of a ledger."""

    computed: int  # runs that were computed now
    notes: tuple[str, ...]  # folds and seeds that are left out, and why
    failed: tuple[str, ...]  # a sentence for each ensemble that could not be computed


def refresh_ensembles(
    folder: Path,
    wanted: Sequence[WantedEnsemble] = (),
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Refreshed:
    """Computes the ensembles that a ledger has, and those wanted now, where anything has changed.

    `alone` makes a context in which nobody else writes comparison.json.
    """
    ledger = Ledger.read(folder)
    runs = ledger.runs[ledger.runs["ensemble"].isna()]
    strategies = list(dict.fromkeys(runs["name"]))
    every = _every(read_comparison(folder), wanted, strategies)
    rows: dict[str, dict[str, Any]] = {}
    computed, notes, failed = 0, [], []
    for name, each in every.items():
        try:
            made, left_out = _rows_of(ledger, runs, each, each.among(strategies))
        except ValueError as error:
            failed.append(f"{name}: {error}")
            continue
        notes += left_out
        computed += sum(is_new for _, is_new in made.values())
        rows |= {
            run: {"name": name, "fold": fold, "seed": seed, "kind": KIND}
            for (fold, seed), (run, _) in made.items()
        }
    with alone():
        facts = read_comparison(folder)
        every = _every(facts, wanted, strategies)
        if not every:
            return Refreshed(0, (), ())
        cells = _strategies_listed(facts, runs) | rows
        _drop_others(folder, cells)
        names = list(dict.fromkeys(str(each["name"]) for each in cells.values()))
        told = {name: each.as_dict() for name, each in every.items()}
        kept = {key: value for key, value in facts.items() if key != "schema"}
        write_comparison(folder, kept | {"names": names, "cells": cells, "ensembles": told})
    return Refreshed(computed, tuple(notes), tuple(failed))


def _every(
    facts: Mapping[str, Any], wanted: Sequence[WantedEnsemble], strategies: Sequence[str]
) -> dict[str, WantedEnsemble]:
    """The ensembles that a comparison has and those wanted now, but for names that strategies have taken."""
    known = {name: wanted_from(name, each) for name, each in (facts.get("ensembles") or {}).items()}
    every = known | {each.name: each for each in wanted}
    return {name: each for name, each in every.items() if name not in strategies}


def _strategies_listed(facts: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The runs of strategies that are compared; a ledger that lists none compares all that it has."""
    if isinstance(facts.get("cells"), dict):
        return {run: each for run, each in facts["cells"].items() if each.get("kind") != KIND}
    places = zip(runs["hash"], runs["name"], runs["fold"], runs["seed"], strict=True)
    return {
        run: {"name": name, "fold": _number(fold), "seed": _number(seed)} for run, name, fold, seed in places
    }


def _rows_of(
    ledger: Ledger, runs: pd.DataFrame, wanted: WantedEnsemble, members: Sequence[str]
) -> tuple[dict[tuple[Any, Any], tuple[str, bool]], list[str]]:
    """The hash of an ensemble's run on each fold and seed, and whether it is new; what is left out."""
    if len(members) < 2:
        msg = f"it has {len(members)} of the members that it needs two of: {listed(members) or 'none'}."
        raise ValueError(msg)
    places, left_out = _places(runs, members)
    if not places:
        msg = f"no fold and seed has been finished by all of {listed(members, 'and')}: let their runs finish."
        raise ValueError(msg)
    made = {}
    for place in places:
        digest = _hash(ledger, place, wanted)
        cell = ledger.folder / CELLS / digest
        is_new = not _is_whole(cell)
        if is_new:
            _compute(ledger, place, wanted, cell)
        made[place.fold, place.seed] = digest, is_new
    return made, [f"{wanted.name}: {each}" for each in left_out]


def _places(runs: pd.DataFrame, members: Sequence[str]) -> tuple[list[_Place], list[str]]:
    """The folds and seeds that all members have finished; of each other one, in words, who has not."""
    mine = runs[runs["name"].isin(members)]
    places, left_out = [], []
    for fold, seed in mine[["fold", "seed"]].drop_duplicates().sort_values(["fold", "seed"]).to_numpy(object):
        here = (mine["fold"].fillna(-1) == (-1 if pd.isna(fold) else fold)) & (
            mine["seed"].fillna(-1) == (-1 if pd.isna(seed) else seed)
        )
        finished = mine[here & (mine["status"] == "finished")].drop_duplicates("name").set_index("name")
        place = _Place(_number(fold), _number(seed), finished)
        lacking = [name for name in members if name not in finished.index]
        if lacking:
            left_out.append(f"{place} is left out, which {listed(lacking, 'and')} has not finished")
            continue
        places.append(place._replace(runs=finished.loc[list(members)]))
    return places, left_out


def _number(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _hash(ledger: Ledger, place: _Place, wanted: WantedEnsemble) -> str:
    """Of the runs of the members, what they predicted, and how they are weighed."""
    members = []
    for name, run in place.hashes.items():
        last = ledger.last_stage(run)
        prints = []
        for file in (VALIDATED, PREDICTIONS):
            if not (last / file).exists():
                msg = (
                    f"{name} ({place}) has no {file}, by which members are weighed: a version that kept none "
                    f"has run it; delete {ledger.folder / CELLS / run} and give the same `compare` again."
                )
                raise ValueError(msg)
            prints.append(zlib.crc32((last / file).read_bytes()))
        members.append([name, run, *prints])
    rule = {"by": wanted.rule.by, "class_wise": wanted.rule.class_wise, "seed": wanted.rule.seed}
    facts = {"version": VERSION, "name": wanted.name, "members": members, "rule": rule}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _is_whole(cell: Path) -> bool:
    try:
        check_finished(cell)
        return bool(read_json(cell / ENSEMBLE)) and all((cell / each).exists() for each in (VALIDATED,))
    except ValueError:
        return False


def _compute(ledger: Ledger, place: _Place, wanted: WantedEnsemble, cell: Path) -> None:
    """Weighs the members of a fold and seed, and writes the run, whole or not at all."""
    started = time.monotonic()
    rows = place.runs
    digests = rows["digest"].dropna().unique()
    if len(digests) > 1:
        msg = (
            f"its members ({place}) differ in who is in which split (protocol digests "
            f"{listed(digests, 'and')}): only members of one split can be weighed together."
        )
        raise ValueError(msg)
    frames = {
        file: {name: ledger.predictions(run, file=file) for name, run in place.hashes.items()}
        for file in (VALIDATED, PREDICTIONS)
    }
    score = decisive(rows).name
    outputs = line_up(frames[VALIDATED], "val"), line_up(frames[PREDICTIONS], "test")
    blends = blend(*outputs, wanted.rule, score)
    with whole_folder(cell) as unfinished:
        _write(ledger, place, wanted, blends, unfinished, (rows, score, started))


def _write(
    ledger: Ledger,
    place: _Place,
    wanted: WantedEnsemble,
    blends: Blends,
    cell: Path,
    told: tuple[pd.DataFrame, str, float],
) -> None:
    rows, score, started = told
    write_table(cell / VALIDATED, blends.val[WEIGHTED])
    write_table(cell / PREDICTIONS, blends.test[WEIGHTED])
    for name, table in blends.test.items():
        if name != WEIGHTED:
            write_table(cell / "baselines" / f"{name}.parquet", table)
    weighed = blends.as_dict(score) | {"runs": place.hashes}
    write_result(cell / ENSEMBLE, weighed)
    data = _data(ledger, rows)
    monitor = _words(rows["monitor"])
    best = {"monitor": monitor, "score": weighed["val"][WEIGHTED].get(monitor), "epoch": None}
    write_result(cell / "fit.json", {"best": best, "encoder": _encoder(rows), "data": data})
    first = rows.iloc[0]
    outputs = {"labels": list(first["labels"]), "dimensions": list(first["dimensions"])}
    facts = {"checkpoint": None, **outputs, "data": data, "metrics": weighed["test"][WEIGHTED]}
    # Whatever a member was told at test that a machine alone would not know, the ensemble was told, too.
    oracles = [each for each in rows.get("oracles", ()) if isinstance(each, tuple)]
    facts["oracles"] = list(dict.fromkeys(oracle for several in oracles for oracle in several))
    write_result(cell / "test.json", facts)
    write_result(cell / "costs.json", costs_together([ledger.costs(each) for each in rows["hash"]]))
    write_json(cell / "environment.json", ledger.environment(first["hash"]))
    cell_facts = {
        "name": wanted.name,
        "strategy": f"ensemble of {listed(place.runs.index, 'and')}",
        "fold": place.fold,
        "seed": place.seed,
        "status": "finished",
        "error": None,
        "mode": _words(rows["mode"]),
        "stages": ["."],
        "seconds": round(time.monotonic() - started, 3),
        "ensemble": weighed["weights"],
    }
    write_cell(cell, cell_facts, sealed=True)


def _data(ledger: Ledger, rows: pd.DataFrame) -> dict[str, Any]:
    """What the members' results say of their data, with everything that any of them is branded with."""
    found = [ledger.data(each) for each in rows["hash"]]
    brands = dict.fromkeys(brand for each in found for brand in each.get("brands") or ())
    return found[0] | {"brands": list(brands)}


def _encoder(rows: pd.DataFrame) -> dict[str, Any]:
    """The encoder that all members start from, or that they start from several."""
    prints = rows["encoder_fingerprint"].dropna().unique()
    if len(prints) == 1:
        return {"source": rows["encoder_source"].iloc[0], "fingerprint": prints[0]}
    several = hashlib.sha256(" ".join(map(str, sorted(prints))).encode()).hexdigest()
    return {"source": _words(rows["encoder_source"]), "fingerprint": several if len(prints) else None}


def _words(values: "pd.Series[Any]") -> str | None:
    return " and ".join(dict.fromkeys(map(str, values.dropna()))) or None


def _drop_others(folder: Path, kept: Mapping[str, Any]) -> None:
    """Deletes ensembles of members that have changed: what they were made of is gone, or stands elsewhere."""
    for cell in (folder / CELLS).iterdir():
        if cell.name not in kept and (cell / ENSEMBLE).is_file():
            shutil.rmtree(cell, ignore_errors=True)
