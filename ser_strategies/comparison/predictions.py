"""The predictions of a ledger's runs, read once and lined up; damaged ones are named and left out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.comparison.ledger import Ledger, LedgerProblem
from ser_strategies.comparison.stats.aligned import PROBABILITY, TRUE, Aligned, Run, align


class RunPredictions:
    """The predictions of the runs of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._frames: dict[str, pd.DataFrame] = {}
        self._broken: dict[str, str] = {}

    @property
    def problems(self) -> tuple[LedgerProblem, ...]:
        """The runs whose predictions are damaged, and why."""
        return tuple(LedgerProblem(run, f"unreadable: {why}") for run, why in self._broken.items())

    def whole(self, runs: Iterable[str]) -> set[str]:
        """Those of the runs whose predictions are whole."""
        return {run for run in runs if self._take(run)}

    def aligned(self, name: str, finished: pd.DataFrame) -> Aligned:
        """A strategy's predictions, each utterance once a seed; ValueError if runs do not fit together."""
        places = zip(finished["fold"], finished["seed"], finished["hash"], strict=True)
        runs: list[Run] = [
            (_number(fold), _number(seed) or 0, self._frames[run]) for fold, seed, run in places
        ]
        return align(runs, name)

    def _take(self, run: str) -> bool:
        if run not in self._frames and run not in self._broken:
            try:
                frame = self._ledger.predictions(run)
                _check(frame)
                self._frames[run] = frame
            except ValueError as error:
                self._broken[run] = str(error)
        return run in self._frames


def _check(frame: pd.DataFrame) -> None:
    """Raises ValueError for what is wrong with a run in itself, so that it does not take others with it."""
    if frame["id"].duplicated().any():
        twice = frame["id"][frame["id"].duplicated()].iloc[0]
        msg = f"its predictions have {twice!r} twice"
        raise ValueError(msg)
    columns = [str(column) for column in frame]
    dimensions = [column.removeprefix(TRUE) for column in columns if column.startswith(TRUE)]
    said = [column for column in columns if column.startswith(PROBABILITY) or column in dimensions]
    if not said:
        msg = f"its predictions have no column {PROBABILITY}<label> and none {TRUE}<dimension>"
        raise ValueError(msg)
    bad = ~np.isfinite(frame[said].to_numpy(np.float64, na_value=np.nan)).all(axis=1)
    if bad.any():
        first = frame["id"][bad].iloc[0]
        counts = f"{bad.sum():,} of {len(frame):,} utterances"
        msg = f"its predictions are no numbers for {counts}, such as {first!r}"
        raise ValueError(msg)


def _number(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
