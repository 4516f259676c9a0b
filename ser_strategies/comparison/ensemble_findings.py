"""What is found of an ensemble in a ledger: its weights, its baselines, what it gains, and where."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ser_strategies.comparison.compared_runs import ComparedRuns, score_of
from ser_strategies.comparison.ledger_cell import BASELINES, number
from ser_strategies.comparison.stats.aligned import Aligned, Run, align
from ser_strategies.comparison.stats.differences import Difference, difference, holm
from ser_strategies.comparison.stats.intervals import Interval, interval

WEIGHTED, SINGLE = "weighted", "single"


@dataclass(frozen=True)
class EnsembleFinding:
    """An ensemble of a comparison, over its folds and seeds."""

    name: str
    by: str  # what its weights are the best by, on validation: log_loss, f1_macro, ua or ccc
    class_wise: bool
    members: Mapping[str, tuple[float, float, float]]  # weight: the mean over runs, the lowest, the highest
    singles: Mapping[str, int]  # in how many runs a member was the best of them on validation
    scores: Mapping[str, Interval]  # on test: weighted, mean, vote (of classes) and the best member alone
    validation: Mapping[str, float]  # the same on validation, means over runs
    gain: Difference  # weighted less the best member alone, on test
    gain_of_runs: float  # the same, mean over the runs
    gain_on_validation: float  # mean over the runs
    higher_is_better: bool = True  # of the score

    @property
    def optimism(self) -> float:
        """How much more the weights gain where they were chosen than where they were not, mean over runs."""
        more = self.gain_on_validation - self.gain_of_runs
        return more if self.higher_is_better else -more


def ensembles_of(compared: ComparedRuns, names: Sequence[str]) -> dict[str, EnsembleFinding]:
    """What is found of each ensemble among these names; one whose files are damaged is left out."""
    found = {}
    for name in names:
        rows = compared.finished[compared.finished["name"] == name]
        if rows["ensemble"].isna().any():
            continue
        try:
            found[name] = _finding(compared, name, rows)
        except (ValueError, KeyError):
            continue
    corrected = holm([each.gain.p for each in found.values()])
    return {
        name: replace(each, gain=_judged(each.gain, p))
        for (name, each), p in zip(found.items(), corrected, strict=True)
    }


def _judged(gain: Difference, p: float) -> Difference:
    """A gain that is looked at beside those of other ensembles."""
    return replace(gain, p_holm=p, better=gain.better if p <= 1 - gain.level + 1e-12 else None)


def _finding(compared: ComparedRuns, name: str, rows: pd.DataFrame) -> EnsembleFinding:
    told = [compared.ledger.ensemble(run) for run in rows["hash"]]
    blends = {WEIGHTED: compared.aligned(name)}
    for file in BASELINES:
        kind = file.rpartition("/")[2].removesuffix(".parquet")
        if all((compared.ledger.last_stage(run) / file).exists() for run in rows["hash"]):
            blends[kind] = _aligned(compared, f"{name}, {kind}", rows, file)
    score = compared.score
    gains = {
        split: statistics.fmean(
            _of(each, split, WEIGHTED, score) - _of(each, split, SINGLE, score) for each in told
        )
        for split in ("val", "test")
    }
    weights = [{str(k): number(v) for k, v in each["weights"].items()} for each in told]
    return EnsembleFinding(
        name,
        str(told[0]["by"]),
        bool(told[0]["class_wise"]),
        {member: _range([each[member] for each in weights]) for member in weights[0]},
        dict(Counter(str(each["single"]) for each in told)),
        {kind: interval(each, score) for kind, each in blends.items()},
        {kind: statistics.fmean(_of(each, "val", kind, score) for each in told) for kind in blends},
        difference(blends[WEIGHTED], blends[SINGLE], score),
        gains["test"],
        gains["val"],
        score_of(score, compared.finished).higher_is_better,
    )


def _aligned(compared: ComparedRuns, name: str, rows: pd.DataFrame, file: str) -> Aligned:
    runs: list[Run] = [
        (None if pd.isna(fold) else int(fold), int(seed), compared.ledger.predictions(run, file=file))
        for fold, seed, run in zip(rows["fold"], rows["seed"].fillna(0), rows["hash"], strict=True)
    ]
    return align(runs, name)


def _of(told: Mapping[str, Any], split: str, kind: str, score: str) -> float:
    """A score of a blend on a split, NaN where it is not known."""
    return number(told[split][kind].get(f"{split}/{score}"))


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.fmean(values), min(values), max(values)
