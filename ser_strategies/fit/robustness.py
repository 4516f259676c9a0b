"""Scores of a checkpoint under disturbances of the test sounds: robustness.json, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch import Trainer

from ser_strategies.common.files import whole_file, write_result, write_table
from ser_strategies.common.quantities import ScoreWords
from ser_strategies.comparison.robustness import CLEAN, DISTURBANCE, Withstood, ended, spread
from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.intervals import interval
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.disturbance import WORDS, Disturbance
from ser_strategies.fit.outcome import result_name
from ser_strategies.fit.record import RunRecord
from ser_strategies.fit.scored import PROBABILITY, TRUE, ScoredTable
from ser_strategies.strategies import Strategy

# Callbacks that write the results of a test, which here is not the test.
WRITERS = (RunRecord, ScoredTable)
LEADING = ("test/ua", "test/ccc")


def score_disturbed(trainer: Trainer, model: Strategy, corpus: Corpus, names: Sequence[str]) -> None:
    """Scores what the trainer has just tested once more under each disturbance, and tells the scores.

    What is predicted under each is written beside test.parquet, so that a comparison can tell how sure it is.
    """
    found = {CLEAN: _metrics(trainer)}
    folder = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path(trainer.default_root_dir)
    name = f"{result_name(folder, 'test', corpus.facts())}-robustness"
    kept, callbacks = trainer.callbacks, trainer.callbacks  # type: ignore[attr-defined]
    clean = next((each.rows for each in callbacks if isinstance(each, ScoredTable)), pd.DataFrame())
    silent = [each for each in callbacks if not isinstance(each, WRITERS)]
    said: dict[str, pd.DataFrame] = {}
    try:
        for each in names:
            heard = ScoredTable(writes=False)
            trainer.callbacks = [*silent, heard]  # type: ignore[attr-defined]
            corpus.disturbance = Disturbance(each)
            trainer.test(model, datamodule=corpus, ckpt_path=None, verbose=False)
            found[each], said[each] = _metrics(trainer), heard.rows
    finally:
        corpus.disturbance, trainer.callbacks = None, kept  # type: ignore[attr-defined]
    if trainer.is_global_zero:
        told = {each: WORDS[each] for each in found if each in WORDS}
        lead = leading(found[CLEAN])
        withstood = {each: _withstood(each, found, clean, said.get(each), lead) for each in found}
        facts = {"task": corpus.task, "seed": 0, "words": told, "scores": found, "score": lead}
        if not clean.empty:
            write_table(folder / f"{name}.parquet", _predicted(clean, said))
        write_result(folder / f"{name}.json", facts | {"intervals": _intervals(withstood)})
        draw(withstood, lead, folder / f"{name}.svg")
        print("\n".join(lines(withstood, lead)))
        print(f"written to {folder / f'{name}.json'} and .svg")


def _predicted(clean: pd.DataFrame, said: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What was predicted under each disturbance; what is known of the utterances stands in test.parquet."""
    dimensions = [str(c).removeprefix(TRUE) for c in clean if str(c).startswith(TRUE)]
    wanted = [c for c in clean if c == "id" or str(c).startswith(PROBABILITY) or str(c) in dimensions]
    parts = [rows[wanted].assign(**{DISTURBANCE: each}) for each, rows in said.items()]
    return pd.concat(parts, ignore_index=True) if parts else clean[wanted].head(0).assign(**{DISTURBANCE: ""})


def _withstood(
    name: str,
    found: Mapping[str, Mapping[str, float]],
    clean: pd.DataFrame,
    said: pd.DataFrame | None,
    lead: str,
) -> Withstood:
    """The leading score under one disturbance, its distance from the clean one, and the ends of both."""
    score, before = found[name][lead], found[CLEAN][lead]
    one = Withstood(score, score - before, score - before, score - before, 1)
    try:
        plain = align([(None, 0, clean)], CLEAN)
        if said is None:
            return ended(one, interval(plain, lead.removeprefix("test/")))
        return ended(one, *spread(align([(None, 0, said)], name), plain, lead.removeprefix("test/")))
    except ValueError:  # another score than those of classes and dimensions, or nobody is known to be scored
        return one


def _intervals(withstood: Mapping[str, Withstood]) -> dict[str, dict[str, float | None]]:
    ends = ("low", "high", "change", "change_low", "change_high")
    return {each: {end: getattr(one, end) for end in ends} for each, one in withstood.items()}


def lines(withstood: Mapping[str, Withstood], lead: str) -> list[str]:
    """The leading score under each disturbance, and its distance from the clean one, with their intervals."""
    words = ScoreWords(lead)
    names = {each: WORDS.get(each, "as it is") for each in withstood}
    width = max(map(len, names.values()))
    unit = f" ({words.unit})" if words.unit else ""
    told = [f"  {words.title}{unit} under disturbances of the test sounds, with 95 % intervals"]
    for each, one in withstood.items():
        change = words.difference(one.change, one.change_low, one.change_high)
        score = words.interval(one.score, one.low, one.high)
        told.append(f"  {names[each]:<{width}}  {score}" + ("" if each == CLEAN else f"  ({change})"))
    return told


def leading(scores: Mapping[str, float]) -> str:
    """The score that is told: UA, or CCC without classes, or whatever there is."""
    return next((name for name in LEADING if name in scores), next(iter(scores)))


def draw(withstood: Mapping[str, Withstood], lead: str, path: Path) -> None:
    """One dot for each disturbance, with a line at the clean score."""
    from matplotlib.figure import Figure

    words = ScoreWords(lead)
    scale = 100 if words.unit == "%" else 1
    names = [each for each in withstood if each != CLEAN]
    figure = Figure(figsize=(6.4, 1 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(scale * withstood[CLEAN].score, color="0.6", linewidth=1, label="as it is")
    for row, each in enumerate(names):
        one = withstood[each]
        if one.low is not None and one.high is not None:
            axes.plot([scale * one.low, scale * one.high], [row, row], color="#0b5394", linewidth=1)
        axes.plot([scale * one.score], [row], "o", color="#0b5394")
    axes.set_yticks(range(len(names)), [WORDS.get(each, each) for each in names])
    axes.invert_yaxis()
    axes.set_xlabel(f"{words.title}{f' ({words.unit})' if words.unit else ''}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix[1:])


def _metrics(trainer: Trainer) -> dict[str, float]:
    kept: dict[str, Any] = trainer.callback_metrics
    return {name: value.item() for name, value in kept.items() if name.startswith("test/")}
