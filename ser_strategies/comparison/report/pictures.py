"""The pictures and tables of a report: which there are, and how to read each."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ser_strategies.comparison.findings import FRONTS, Findings

if TYPE_CHECKING:
    from ser_strategies.comparison.report.picture import Picture

WIDE, HALF, PHONE = 960.0, 466.0, 350.0
FORMATS = (".svg", ".png", ".pdf")
MORE_FRONTS = {f"pareto-{cost.removeprefix('cost/').replace('_', '-')}": cost for cost in FRONTS[1:]}
NAMES = (
    *("pareto", "curves", "differences", "confusion", "reliability", "distributions", "spreads"),
    *("speakers", "robustness", "times", *MORE_FRONTS),
)
CAPTIONS = {
    "table": (
        "The interval says where the score would be with other speakers and other seeds. Costs are "
        "medians over runs; — is not known."
    ),
    "pareto": (
        "Up and to the left is better. A strategy is on the front unless another is shown to be better at "
        "no more cost; strategies that cannot be told apart all stay on it."
    ),
    "curves": (
        "What a run has reached if it is stopped early: the best validation score so far, the mean over "
        "runs. Time counts from the start of the run, with start-up, cache and the earlier stages of a "
        "chain."
    ),
    "differences": (
        "The first less the second, on the same utterances, with 95 % intervals. The verdict is corrected "
        "for the number of pairs, the intervals are not: one may leave out zero where the verdict is "
        "open."
    ),
    "confusion": (
        "Rows are the true class, columns what was said; percent of the utterances of the true class, "
        "over all runs."
    ),
    "reliability": (
        "How often a strategy is right, in percent, among answers that are equally sure. Under the dashed "
        "line it is surer than right. Larger dots stand for more utterances."
    ),
    "distributions": (
        "For each strategy, with its first seed, utterances at the median of its distance (typical) and the "
        "farthest (worst): the shares of the cells as rated, and beside them as the strategy says, in "
        "percent. Shades are the same in all."
    ),
    "spreads": (
        "Standard deviations on the scale from \N{MINUS SIGN}1 to 1, in bins of as many utterances each, "
        "over all seeds. Over the dashed line raters disagree more than was predicted; a single mark is one "
        "spread for all utterances."
    ),
    "speakers": (
        "A mark for each speaker with enough utterances. The worst of many speakers is bad by chance "
        "alone; p says how often speakers that are all alike would lie this far apart."
    ),
    "robustness": (
        "The score of the same models where the sounds that are tested are disturbed, with intervals "
        "over speakers and seeds. Nothing of it was trained on."
    ),
    "groups": (
        "A gap is the best less the worst group. The interval of a gender is over its speakers, that of a "
        "speaker over their utterances."
    ),
    "times": (
        "Means over runs. A cache that runs share is charged to each in part; the table has a run that "
        "builds it alone."
    ),
    "costs": (
        "A chain costs the sum of its stages; its peak memory is that of the greediest stage, and — is "
        "not known."
    ),
}


def draw(name: str, findings: Findings, width: float = WIDE, cost: str | None = None) -> "Picture | None":
    """A picture of a report, of `cost` where that matters; None where there is nothing to show."""
    # Imported here, so that matplotlib is loaded only where a picture is drawn.
    from ser_strategies.comparison.report import classes, distributions, dotplots, pareto, picture, times

    drawings = {
        "curves": times.curves,
        "differences": dotplots.differences,
        "confusion": classes.confusion,
        "reliability": classes.reliability,
        "distributions": distributions.distributions,
        "spreads": distributions.spreads,
        "speakers": dotplots.speakers,
        "robustness": dotplots.robustness,
        "times": times.shares,
    }
    front = partial(pareto.draw, cost=cost or MORE_FRONTS.get(name, findings.cost))
    with picture.our_style():
        drawn = drawings.get(name, front)(findings, width)
    if drawn is not None:
        drawn.settle()
    return drawn


def pictures_of(findings: Findings) -> "dict[str, Picture]":
    """Every picture that there is something to show in, by its name, for a desk."""
    drawn = {name: draw(name, findings, HALF if name in MORE_FRONTS else WIDE) for name in NAMES}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def check_picture(name: str, cost: str | None, path: Path | None) -> None:
    """Raises ValueError for a picture or a format that there is not."""
    if name not in NAMES:
        msg = f"expected a picture, one of {', '.join(NAMES)}; got {name!r}."
        raise ValueError(msg)
    if path is not None and path.suffix.lower() not in FORMATS:
        msg = f"expected a file that ends in {', '.join(FORMATS)}; got {path.name!r}."
        raise ValueError(msg)
    if cost is not None and name != "pareto":
        msg = f"cost belongs to the picture pareto, not to {name}: leave it out."
        raise ValueError(msg)


def caption(name: str, findings: Findings) -> str:
    """How to read a picture or a table."""
    text = CAPTIONS.get(name, "")
    if name == "table" and findings.table["fold_lowest"].notna().any():
        text += " Under folds are the lowest and the highest fold."
    shown = {"curves": findings.curves, "times": findings.times}.get(name)
    if shown is not None and len(shown) < len(findings.names):
        missing = [each for each in findings.names if each not in shown]
        text += f" Not in the picture, since it is not known: {', '.join(missing)}."
    cost = findings.cost if name == "pareto" else MORE_FRONTS.get(name, "")
    unplaced = findings.fronts[cost].unplaced if cost in findings.fronts else ()
    if unplaced:
        text += f" Not in the picture, since it is not known: {', '.join(unplaced)}."
    return text.strip()
