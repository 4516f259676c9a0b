"""What a run has reached if it is stopped early: the best validation score so far, over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ser_strategies.comparison.compared_runs import ComparedRuns
from ser_strategies.comparison.ledger_cell import number
from ser_strategies.comparison.stats.intervals import LEVEL
from ser_strategies.comparison.stats.resampling import exceeded_by
from ser_strategies.comparison.stats.scores import DISTANCES

# Ends of the names of scores by which the lowest epoch is chosen.
LOWER = ("loss", *DISTANCES)


@dataclass(frozen=True)
class Curve:
    """The best validation score so far, mean over runs, with its interval."""

    seconds: tuple[float, ...]  # since the run was started
    scores: tuple[float, ...]  # at these times
    # Ends of the 95 % intervals, runs taken as independent; none of a single run.
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def curves_of(chosen: ComparedRuns, names: Sequence[str]) -> dict[str, Curve]:
    """The curve of each strategy; one of which a run has no score at all has none."""
    found = {}
    for name in names:
        rows = chosen.finished[chosen.finished["name"] == name]
        runs = []
        for run, monitor in zip(rows["hash"], rows["monitor"], strict=True):
            trace = chosen.ledger.trace(run)
            known = [(row["seconds"], number(row.get(monitor))) for row in trace]
            known = [pair for pair in known if not any(map(math.isnan, pair))]
            seconds, scores = np.array(known, dtype=np.float64).reshape(-1, 2).T
            best = np.minimum if str(monitor).endswith(LOWER) else np.maximum
            runs.append((seconds, best.accumulate(scores)))
        if all(len(seconds) for seconds, _ in runs):
            found[name] = _mean_curve(runs)
    return found


def _mean_curve(runs: list[tuple[np.ndarray, np.ndarray]]) -> Curve:
    """The mean over runs; from when all have a score until the last of them ends."""
    if len({len(seconds) for seconds, _ in runs}) == 1:
        times = np.mean([seconds for seconds, _ in runs], axis=0)
        held = np.array([best for _, best in runs])
    else:
        first, last = max(seconds[0] for seconds, _ in runs), max(seconds[-1] for seconds, _ in runs)
        times = np.linspace(first, last, 40)
        held = np.array([best[np.searchsorted(seconds, times, side="right") - 1] for seconds, best in runs])
    mean = held.mean(axis=0)
    if len(runs) < 2:
        return Curve(tuple(times.tolist()), tuple(mean.tolist()))
    half = exceeded_by((1 - LEVEL) / 2, len(runs) - 1) * held.std(axis=0, ddof=1) / math.sqrt(len(runs))
    return Curve(*(tuple(each.tolist()) for each in (times, mean, mean - half, mean + half)))
