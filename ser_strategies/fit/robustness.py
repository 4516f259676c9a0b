"""Scores of a checkpoint under disturbances of the test sounds: robustness.json, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from ser_strategies.common.files import write_json
from ser_strategies.common.quantities import ScoreWords
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.disturbance import WORDS, Disturbance
from ser_strategies.fit.outcome import result_name
from ser_strategies.fit.record import RunRecord
from ser_strategies.fit.scored import ScoredTable
from ser_strategies.strategies import Strategy

# Callbacks that write the results of a test, which here is not the test.
WRITERS = (RunRecord, ScoredTable)
LEADING = ("test/ua", "test/ccc")


def score_disturbed(trainer: Trainer, model: Strategy, corpus: Corpus, names: Sequence[str]) -> None:
    """Scores what the trainer has just tested once more under each disturbance, and tells the scores."""
    found = {"clean": _metrics(trainer)}
    folder = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path(trainer.default_root_dir)
    name = f"{result_name(folder, 'test', corpus.facts())}-robustness"
    kept, callbacks = trainer.callbacks, trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [each for each in callbacks if not isinstance(each, WRITERS)]  # type: ignore[attr-defined]
    try:
        for each in names:
            corpus.disturbance = Disturbance(each)
            trainer.test(model, datamodule=corpus, ckpt_path=None, verbose=False)
            found[each] = _metrics(trainer)
    finally:
        corpus.disturbance, trainer.callbacks = None, kept  # type: ignore[attr-defined]
    if trainer.is_global_zero:
        told = {each: WORDS[each] for each in found if each in WORDS}
        write_json(folder / f"{name}.json", {"task": corpus.task, "seed": 0, "words": told, "scores": found})
        draw(found, folder / f"{name}.svg")
        print("\n".join(lines(found)))
        print(f"written to {folder / f'{name}.json'} and .svg")


def lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The leading score under each disturbance, and its distance from the clean one."""
    lead = leading(found["clean"])
    words = ScoreWords(lead)
    clean = found["clean"][lead]
    names = {each: WORDS.get(each, "as it is") for each in found}
    width = max(map(len, names.values()))
    told = [f"  {words.title} under disturbances of the test sounds"]
    for each, scores in found.items():
        value = scores[lead]
        scale = 100 if words.unit == "%" else 1
        change = "" if each == "clean" else f"  ({scale * (value - clean):+.{1 if scale == 100 else 3}f})"
        told.append(f"  {names[each]:<{width}}  {words.with_unit(value)}{change}")
    return told


def leading(scores: Mapping[str, float]) -> str:
    """The score that is told: UA, or CCC without classes, or whatever there is."""
    return next((name for name in LEADING if name in scores), next(iter(scores)))


def draw(found: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """One dot for each disturbance, with a line at the clean score."""
    from matplotlib.figure import Figure

    lead = leading(found["clean"])
    words = ScoreWords(lead)
    scale = 100 if words.unit == "%" else 1
    names = [each for each in found if each != "clean"]
    figure = Figure(figsize=(6.4, 1 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(scale * found["clean"][lead], color="0.6", linewidth=1, label="as it is")
    axes.plot([scale * found[each][lead] for each in names], range(len(names)), "o", color="#0b5394")
    axes.set_yticks(range(len(names)), [WORDS.get(each, each) for each in names])
    axes.invert_yaxis()
    axes.set_xlabel(f"{words.title}{f' ({words.unit})' if words.unit else ''}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    figure.savefig(path)


def _metrics(trainer: Trainer) -> dict[str, float]:
    kept: dict[str, Any] = trainer.callback_metrics
    return {name: value.item() for name, value in kept.items() if name.startswith("test/")}
