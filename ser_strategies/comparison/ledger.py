"""The ledger of a comparison: a folder of plain files, one folder for each strategy, fold and seed.

```
<folder>/comparison.json            what is compared, and how
<folder>/cells/<hash>/cell.json     one run: its strategy, fold, seed and how it ended
<folder>/cells/<hash>/[<stage>/]…   what `fit` and `test` wrote: fit.json, costs.json, test.json, test.parquet
```

Files are written whole or not at all, so that a grid that is killed leaves a ledger that can be read.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ser_strategies.common.files import CHECKSUMS, as_json, write_json
from ser_strategies.comparison.checksums import write_checksums
from ser_strategies.comparison.ledger_cell import (
    CELL,
    ENSEMBLE,
    OF_ENSEMBLE,
    PREDICTIONS,
    REQUIRED,
    RESULTS,
    ROBUSTNESS,
    SCHEMA,
    STATUSES,
    Stages,
    check_schema,
    configuration,
    number,
    read_cell,
    read_json,
    stages_of,
)

COMPARISON = "comparison.json"
CELLS = "cells"
DO_THIS = "give the folder that `ser-strategies compare --out` named"
# Columns there are even if no run has finished, so that nobody has to ask.
COLUMNS = (
    *("hash", "name", "strategy", "fold", "seed", "status", "error", "mode", "seconds", "stages", "ensemble"),
    *("task", "digest", "label_set", "labels", "dimensions", "encoder_source", "encoder_fingerprint"),
    *("monitor", "hardware", "precision", "memory_kind", "val/best"),
)


class LedgerProblem(NamedTuple):
    """A failed, damaged or missing part of a ledger."""

    cell: str  # the hash of the run, or the file, that it is about
    reason: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.reason}"


class Disturbed(NamedTuple):
    """What a run was tested under, in words, and its scores, by the name of the disturbance."""

    words: dict[str, str]
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Ledger:
    """What a comparison left on the disk."""

    folder: Path
    facts: Mapping[str, Any]  # of its comparison.json
    # One row a run: its cell, how it ended, what makes it comparable, `cost/…`, `test/…` and `val/best`.
    runs: pd.DataFrame
    problems: tuple[LedgerProblem, ...] = field(default=())  # unreadable parts, and why
    # Runs of each strategy with configurations that it had before, which are left out.
    earlier: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> "Ledger":
        """Reads a ledger; a run that cannot be read becomes a problem. ValueError if there is no ledger."""
        folder = Path(folder).expanduser()
        cells = _cells(folder)
        problems: list[LedgerProblem] = []
        facts: dict[str, Any] = {}
        if (folder / COMPARISON).exists():
            facts = _comparison(folder, problems)
        else:
            problems.append(LedgerProblem(COMPARISON, f"unreadable: {COMPARISON} is missing"))
        rows = []
        earlier: dict[str, int] = {}
        wanted = facts.get("cells")
        for cell in cells:
            try:
                if isinstance(wanted, dict) and cell.name not in wanted:
                    name = str(read_json(cell / CELL, missing={}).get("name"))
                    earlier[name] = earlier.get(name, 0) + 1
                    continue
                row = read_cell(cell)
                if isinstance(wanted, dict):
                    row["name"] = str(wanted[cell.name]["name"])  # its strategy may have another name now
                if row["status"] == "finished":
                    _check_predictions(_predictions_path(cell))
                rows.append(row)
            except ValueError as error:
                problems.append(LedgerProblem(cell.name, f"unreadable: {error}"))
        return cls(folder, facts, _table(rows), tuple(problems), earlier)

    def predictions(
        self, run: str, columns: Collection[str] | None = None, *, file: str = PREDICTIONS
    ) -> pd.DataFrame:
        """A finished run's predictions for its test split; `columns` that the file lacks are left out.

        Or those of another `file` in the folder of its last stage. ValueError if it cannot be read.
        """
        path = self.last_stage(run) / file
        try:
            with pq.ParquetFile(path) as table:
                wanted = None if columns is None else [c for c in table.schema_arrow.names if c in columns]
                frame: pd.DataFrame = table.read(columns=wanted, use_threads=False).to_pandas()
        except (OSError, pa.ArrowException) as error:
            msg = f"{path.name} of {run} cannot be read ({_first_line(error)})"
            raise ValueError(msg) from error
        return frame

    def costs(self, run: str) -> list[dict[str, Any]]:
        """The costs.json of each stage of a run."""
        return self._stages(run).read("costs.json")

    def trace(self, run: str) -> list[dict[str, Any]]:
        """The trace of a run: facts of each validation, `seconds` since the run was started.

        The time before the first step counts, too: start-up, the cache, and the earlier stages of a chain.
        Seconds are NaN where that is unknown.
        """
        *before, last = self.costs(run)
        rows = last.get("trace")
        waits = [last.get("load_seconds"), last.get("cache_build_seconds")]
        offset = math.fsum(map(number, [*(costs.get("fit_seconds") for costs in before), *waits]))
        facts = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [row | {"seconds": number(row.get("seconds")) + offset} for row in facts]

    def last_stage(self, run: str) -> Path:
        """The folder of the stage that is tested."""
        return self._stages(run).last

    def ensemble(self, run: str) -> dict[str, Any]:
        """What a run that is an ensemble says of its members, and of what it gains."""
        return read_json(self.last_stage(run) / ENSEMBLE)

    def data(self, run: str) -> dict[str, Any]:
        """Facts of the data that a finished run was tested on: protocol in words, sizes, brands."""
        test = read_json(self._stages(run).last / "test.json", missing={})
        return dict(test.get("data") or {})

    def otherwise(self, run: str) -> dict[str, dict[str, float]]:
        """Scores of a finished run where its model is told otherwise, such as without a condition, by row."""
        test = read_json(self._stages(run).last / "test.json", missing={})
        rows = (test.get("conditions") or {}).get("otherwise") or {}
        return {row: {name: number(value) for name, value in each.items()} for row, each in rows.items()}

    def robustness(self, run: str) -> Disturbed:
        """Scores of a finished run under disturbances of the test sounds; empty if it was not tested so."""
        told = read_json(self._stages(run).last / ROBUSTNESS, missing={})
        scores = {
            str(name): {score: number(value) for score, value in each.items()}
            for name, each in (told.get("scores") or {}).items()
        }
        return Disturbed(dict(told.get("words") or {}), scores)

    def configurations(self, run: str) -> list[dict[str, Any]]:
        """The configuration of each stage of a run; empty where it cannot be read."""
        return [configuration(folder) for folder in self._stages(run).folders]

    def environment(self, run: str) -> dict[str, Any]:
        """The surroundings of a run: versions of packages, processor."""
        return read_json(self._stages(run).last / "environment.json", missing={})

    def encoder(self, run: str) -> dict[str, Any]:
        """The encoder that a finished run was tested with: source, revision, family."""
        return dict(read_json(self._stages(run).last / "test.json", missing={}).get("encoder") or {})

    def _stages(self, run: str) -> Stages:
        cell = self.folder / CELLS / run
        return stages_of(cell, read_json(cell / CELL, missing={}))


def write_comparison(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Writes comparison.json: what is compared (names, folds, seeds), the words of the command, options.

    With `cells`, a dictionary by hash, runs of other hashes are those of earlier configurations, and are not
    compared.
    """
    write_json(Path(folder) / COMPARISON, {"schema": SCHEMA, **facts})


def read_comparison(folder: str | Path) -> dict[str, Any]:
    """The content of comparison.json; empty if there is none. ValueError if it is damaged, or too new."""
    path = Path(folder) / COMPARISON
    if not path.exists():
        return {}
    try:
        facts = read_json(path)
        check_schema(facts, COMPARISON)
        _check_shape(facts)
    except ValueError as error:
        msg = f"{folder}: {error}: give another folder, or take {COMPARISON} away if it is damaged."
        raise ValueError(msg) from error
    return facts


def check_finished(cell: Path) -> None:
    """Raises ValueError where a run that says it is finished lacks what is compared."""
    last = stages_of(cell, read_json(cell / CELL)).last
    for name in ("fit.json", "test.json"):
        read_json(last / name)
    _check_predictions(last / PREDICTIONS)


def write_cell(folder: str | Path, facts: Mapping[str, Any], *, sealed: bool = False) -> None:
    """Writes cell.json, in place of an earlier one, into the folder that is named by the hash of the cell.

    The facts are name, strategy, fold, seed and status at least. A run that is finished is `sealed`: the
    checksums of its files are written down, so that a change of them shows. They come before cell.json, which
    says that all is there.
    """
    lacking = [name for name in REQUIRED if name not in facts]
    if lacking or facts["status"] not in STATUSES:
        what = f"no {' and no '.join(lacking)}" if lacking else f"the status {facts['status']!r}"
        msg = f"a cell needs {', '.join(REQUIRED)}, the status one of {', '.join(STATUSES)}; got {what}."
        raise ValueError(msg)
    cell = Path(folder)
    (cell / CHECKSUMS).unlink(missing_ok=True)  # those of an earlier attempt
    whole = {"schema": SCHEMA, **facts}
    if sealed:
        stages = stages_of(cell, whole).folders
        names = [(stage / name).relative_to(cell).as_posix() for stage in stages for name in RESULTS]
        write_checksums(cell, [*names, *OF_ENSEMBLE], {CELL: as_json(whole)})
    write_json(cell / CELL, whole)


def _cells(folder: Path) -> list[Path]:
    """The folders of the runs; ValueError for a folder that is no ledger."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        msg = f"{folder}: expected the folder of a comparison, got {got}: {DO_THIS}."
        raise ValueError(msg)
    inside = folder / CELLS
    cells = sorted(each for each in inside.iterdir() if _visible(each)) if inside.is_dir() else []
    if not (folder / COMPARISON).exists() and not any((cell / CELL).exists() for cell in cells):
        names = sorted(each.name for each in folder.iterdir())
        got = f"one with {', '.join(names[:3])}{' and more' * (len(names) > 3)}" if names else "an empty one"
        hint = " (a single run; `compare` runs several)" if "fit.json" in names else ""
        msg = f"{folder}: expected the folder of a comparison, with {COMPARISON}, got {got}{hint}: {DO_THIS}."
        raise ValueError(msg)
    return cells


def _check_shape(facts: Mapping[str, Any]) -> None:
    """Raises ValueError where comparison.json lists runs in another way than this version writes."""
    cells = facts.get("cells", {})
    whole = isinstance(cells, dict) and all(
        isinstance(each, dict) and {"name", "fold", "seed"} <= set(each) for each in cells.values()
    )
    if not whole or not isinstance(facts.get("commands", []), list):
        msg = f"{COMPARISON} is damaged: its list of runs is not as `compare` writes it"
        raise ValueError(msg)


def _visible(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _comparison(folder: Path, problems: list[LedgerProblem]) -> dict[str, Any]:
    try:
        facts = read_json(folder / COMPARISON)
    except ValueError as error:
        problems.append(LedgerProblem(COMPARISON, f"unreadable: {error}"))
        return {}
    try:
        check_schema(facts, COMPARISON)
        _check_shape(facts)
    except ValueError as error:
        msg = f"{folder}: {error}."
        raise ValueError(msg) from error
    return facts


def _predictions_path(cell: Path) -> Path:
    return stages_of(cell, read_json(cell / CELL)).last / PREDICTIONS


def _check_predictions(path: Path) -> None:
    """Raises ValueError if the table of predictions cannot be there as a whole; only its end is read."""
    try:
        found = pq.read_metadata(path)
    except FileNotFoundError:
        msg = f"{path.name} is missing"
        raise ValueError(msg) from None
    except (OSError, pa.ArrowException) as error:
        msg = f"{path.name} cannot be read ({_first_line(error)})"
        raise ValueError(msg) from error
    names = found.schema.to_arrow_schema().names
    if "id" not in names or found.num_rows == 0:
        what = "has no rows" if "id" in names else "has no column id"
        msg = f"{path.name} {what}"
        raise ValueError(msg)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for name in COLUMNS:
        if name not in frame:
            frame[name] = pd.Series([None] * len(frame), dtype=object)
    for name in ("fold", "seed"):
        frame[name] = frame[name].astype("Int64")  # a corpus without folds has none, which is no number
    others = sorted(set(map(str, frame)) - set(COLUMNS))
    return frame[[*COLUMNS, *others]].sort_values(["name", "fold", "seed", "hash"], ignore_index=True)
