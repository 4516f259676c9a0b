"""Which score decides a comparison: the one asked for, or the one that chose the epochs."""

import pandas as pd

from ser_strategies.comparison.stats.scores import Score, score_named


def score_of(name: str, finished: pd.DataFrame) -> Score:
    """The score of a name, of what most runs predict.

    Args:
        name: Such as ua or ccc_valence; "test/" or "val/" before it is ignored.
        finished: Finished runs.

    Raises:
        ValueError: There is no such score, with a list of those there are.
    """
    outputs = list(zip(finished["labels"], finished["dimensions"], strict=True))
    labels, dimensions = max(dict.fromkeys(outputs), key=outputs.count)
    return score_named(name.removeprefix("test/").removeprefix("val/"), labels, dimensions)


def decisive(finished: pd.DataFrame, wanted: str | None = None) -> Score:
    """The score that is wanted, if there is one of that name; else the one that chose most epochs.

    Args:
        finished: Finished runs.
        wanted: A name.
    """
    chosen = finished["monitor"].dropna().mode()
    # `val/mean`, the mean of both tasks, has no counterpart on the test set, and no loss has.
    for name in (wanted, *chosen, "ua", "ccc"):
        try:
            if name is not None:
                return score_of(str(name), finished)
        except ValueError:
            continue
    msg = f"expected runs that predict classes or dimensions, got {finished['label_set'].iloc[0]!r}."
    raise ValueError(msg)
