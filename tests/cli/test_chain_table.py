"""The table at the end of a chain."""

import re
from pathlib import Path

from ser_strategies.common.files import write_json
from ser_strategies.runs.progress import summary, table_of
from ser_strategies.runs.stage_run import Outcome
from tests.cli.test_chain_decide import step


def scored(folder: Path, test: dict, monitor: str = "val/ua") -> Path:
    write_json(folder / "fit.json", {"best": {"monitor": monitor, "score": 0.5}})
    write_json(folder / "test.json", {"metrics": test})
    return folder


def rows(outcomes: list[Outcome]) -> list[list[str]]:
    table = table_of(outcomes)
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_the_table_says_what_was_done_and_what_came_of_it(here):
    first = step(here / "1", stage="1-adapt", fold=1, scores=False)
    last = step(scored(here / "2", {"test/loss": 9.0, "test/ua": 0.25}), fold=1)
    assert rows([Outcome(first, "run", 12.4), Outcome(last, "skip", 0.0)]) == [
        ["fold", "seed", "stage", "what", "seconds", "validation", "test"],
        ["1", "1", "1-adapt", "ran", "12", "—", "—"],
        ["1", "1", "2-finetune", "skipped", "—", "ua 0.5000", "ua 0.2500"],
    ]


def test_folds_and_seeds_that_were_not_asked_for_have_no_column(here):
    only = step(scored(here, {"test/x": 1.0}, monitor="val/loss"), seed=None)
    assert rows([Outcome(only, "resume", 1.0)]) == [
        ["stage", "what", "seconds", "validation", "test"],
        ["2-finetune", "resumed", "1", "loss 0.5000", "x 1.0000"],
    ]


def test_the_mean_is_over_all_folds_and_seeds(here):
    values = (0.5, 0.6, 0.1)
    outcomes = [Outcome(step(scored(here / str(value), {"test/ua": value})), "run", 1.0) for value in values]
    missing = Outcome(step(scored(here / "missing", {"test/ua": None})), "run", 1.0)
    said = summary([*outcomes, missing])
    # by hand: mean 0.4, deviations 0.1, 0.2, -0.3, variance 0.14 / 2
    assert re.match(r"test/ua: 0\.4000 ± 0\.2646 \(mean ± standard deviation over 3 ", said)
    assert summary(outcomes[:1]) is None
