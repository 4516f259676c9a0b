"""What is found of strategies that predict how the ratings of an utterance are spread."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from ser_strategies.comparison.compared_runs import ComparedRuns
from ser_strategies.comparison.stats.aligned import Aligned
from ser_strategies.comparison.stats.distributions import (
    Example,
    SpreadCalibration,
    examples_of,
    spread_calibration,
)
from ser_strategies.comparison.stats.intervals import Interval, interval

# Of these there are intervals, since `test` writes what they are made of for each utterance.
OF_UTTERANCES = ("tvd", "jsd", "ccc")
OF_RUNS = ("ccc_marginals", "ccc_individual", "uar_cell", "tvd_known", "ccc_known")


@dataclass(frozen=True)
class RatedFinding:
    """How near the distributions and the spreads of a strategy come to those of ratings."""

    intervals: Mapping[str, Interval]  # by score
    means: Mapping[str, float]  # of scores without an interval: means over runs, NaN where not known
    examples: tuple[Example, ...]  # typical utterances, then the worst
    spreads: Mapping[str, SpreadCalibration]  # by dimension


def rated_of(chosen: ComparedRuns, name: str) -> RatedFinding:
    """What is found of a strategy whose predictions have distributions."""
    aligned = chosen.aligned(name)
    found = aligned.distributions
    assert found is not None
    rows = chosen.finished[chosen.finished["name"] == name]
    return RatedFinding(
        _where_known(aligned),
        {
            score: float(rows[f"test/{score}"].mean()) if f"test/{score}" in rows else float("nan")
            for score in OF_RUNS
        },
        examples_of(found, [str(each) for each in aligned.table["id"]]),
        {each: spread_calibration(found, place) for place, each in enumerate(aligned.dimensions)},
    )


def _where_known(aligned: Aligned) -> dict[str, Interval]:
    found = {}
    for score in OF_UTTERANCES:
        with suppress(ValueError):
            found[score] = interval(aligned, score)
    return found
