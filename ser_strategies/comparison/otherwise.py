"""The same models told something else at test, such as without a condition."""

import math
import statistics
from collections.abc import Sequence

from ser_strategies.comparison.compared_runs import ComparedRuns

AS_TESTED = "as tested"


def told_otherwise(chosen: ComparedRuns, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The deciding score of each strategy's models as tested, and told otherwise: means over its runs."""
    found = {}
    for name in names:
        rows = chosen.finished[chosen.finished["name"] == name]
        column = f"test/{chosen.score}"
        told = [chosen.ledger.otherwise(run) for run in rows["hash"]]
        if all(told) and column in rows:
            means = {
                row: statistics.fmean(each.get(row, {}).get(chosen.score, math.nan) for each in told)
                for row in told[0]
            }
            found[name] = {AS_TESTED: float(rows[column].mean()), **means}
    return found
