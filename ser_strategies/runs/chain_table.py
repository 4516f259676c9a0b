"""The table at the end of a chain: what was done, how long it took, and the scores."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from ser_strategies.runs.chain_plan import Step
from ser_strategies.runs.decide import Action

DONE: dict[Action, str] = {"run": "ran", "resume": "resumed", "test": "tested", "skip": "skipped"}
MISSING = "—"


class Outcome(NamedTuple):
    """What was done about a stage.

    Args:
        step: The stage.
        action: What was done.
        seconds: How long it took.
    """

    step: Step
    action: Action
    seconds: float


class Score(NamedTuple):
    """A score, and what it is called."""

    name: str
    value: float


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """A row for each stage of each fold and seed.

    Args:
        outcomes: What was done.
    """
    table = Table()
    numbered = [
        name for name in ("fold", "seed") if any(getattr(each.step, name) is not None for each in outcomes)
    ]
    for heading in numbered:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("stage", "what"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seconds", "validation", "test"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step, action, seconds in outcomes:
        numbers = [getattr(step, name) for name in numbered]
        table.add_row(
            *(MISSING if number is None else str(number) for number in numbers),
            step.stage,
            DONE[action],
            MISSING if action == "skip" else f"{seconds:.0f}",
            _shown(validation_score(step.folder)),
            _shown(_tested(step)),
        )
    return table


def summary(outcomes: Sequence[Outcome]) -> str | None:
    """Mean and standard deviation of the test scores; None where there are no two to compare.

    Args:
        outcomes: What was done.
    """
    scores = [score for each in outcomes if (score := _tested(each.step)) is not None]
    if len(scores) < 2 or len({score.name for score in scores}) > 1:
        return None
    values = [score.value for score in scores]
    return (
        f"{scores[0].name}: {statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} "
        f"(mean ± standard deviation over {len(values)} runs)"
    )


def validation_score(folder: Path) -> Score | None:
    """The best validation score of a stage.

    Args:
        folder: Its folder.
    """
    best = _read(folder / "fit.json").get("best", {})
    return None if best.get("score") is None else Score(str(best["monitor"]), best["score"])


def test_score(folder: Path) -> Score | None:
    """The test score of what validation chose by, or else the first there is.

    Args:
        folder: The folder of a stage.
    """
    metrics: dict[str, Any] = _read(folder / "test.json").get("metrics", {})
    chosen = validation_score(folder)
    name = chosen.name.replace("val/", "test/", 1) if chosen else ""
    name = name if name in metrics else next(iter(metrics), "")
    return None if metrics.get(name) is None else Score(name, metrics[name])


def _tested(step: Step) -> Score | None:
    return test_score(step.folder) if step.scores else None


def _shown(score: Score | None) -> str:
    return MISSING if score is None else f"{score.name.rpartition('/')[2]} {score.value:.4f}"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
