"""What stands under a picture or a table: how to read it, and what it does not say."""

from ser_strategies.comparison.findings import Findings

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
    "speakers": (
        "A mark for each speaker with enough utterances. The worst of many speakers is bad by chance "
        "alone; p says how often speakers that are all alike would lie this far apart."
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


def caption(name: str, findings: Findings) -> str:
    """How to read a picture or a table.

    Args:
        name: Which.
        findings: What was found; what is missing in a picture is named.
    """
    text = CAPTIONS[name]
    if name == "table" and findings.table["fold_lowest"].notna().any():
        text += " Under folds are the lowest and the highest fold."
    shown = {"curves": findings.curves, "times": findings.times}.get(name)
    if shown is not None and len(shown) < len(findings.names):
        missing = [each for each in findings.names if each not in shown]
        text += f" Not in the picture, since it is not known: {', '.join(missing)}."
    if name == "pareto":
        front = findings.fronts.get("cost/fit_seconds")
        if front is not None and front.unplaced:
            text += f" Not in the picture, since it is not known: {', '.join(front.unplaced)}."
    return text
