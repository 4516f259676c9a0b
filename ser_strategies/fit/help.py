"""A short help for `fit`, `validate`, `test` and `predict`: options of the chosen classes, then all."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Any

from docstring_parser import parse

from ser_strategies.common.errors import PROGRAM
from ser_strategies.data.corpora import CORPORA
from ser_strategies.fit.shorthand import FULL_NAMES, short_name, value_of
from ser_strategies.strategies import STRATEGIES

# Option -> what it is for, of the commands that have it.
OPTIONS = {
    "--model NAME": "the strategy: {strategies}, or a class path",
    "--data NAME": "the corpus: {corpora}, or a class path",
    "--config FILE": "a YAML file with any of the options, such as those in examples/",
    "--ckpt_path PATH": "fit: the checkpoint to go on from; else the one to score, or the folder of its run, "
    "whose --model and --data need not be given again",
    "--patience N": "fit: stop after so many validations without a better score",
    "--overwrite": "fit: replace a finished run in the same folder",
    "--output TABLE": "predict: the table to write, .csv or .parquet",
    "--seed_everything N": "where all random numbers start from (default: 0)",
    "--trainer.NAME VALUE": "an option of Lightning's trainer, such as --trainer.max_epochs 20, "
    "--trainer.accelerator gpu or --trainer.default_root_dir runs/mine",
    "--print_config": "print the resolved configuration, and run nothing",
}
WIDTH = 30
SHOWN = 10  # options of a strategy where all strategies are listed


def short_help(command: str, words: Sequence[str]) -> str:
    """The help; with `--model` or `--data` among the words, the options of these classes."""
    parts = [f"usage: {PROGRAM} {command} [--config FILE] [--model NAME] [--data NAME] [options]"]
    chosen = [
        (group, kind)
        for group, kinds in (("model", STRATEGIES), ("data", CORPORA))
        for kind in kinds
        if kind.__name__ == FULL_NAMES.get(value_of(f"--{group}", words), value_of(f"--{group}", words))
    ]
    for group, kind in chosen:
        doc = parse(inspect.getdoc(kind) or "")
        parts.append(f"options of {kind.__name__}: {doc.short_description}\n" + _table(_options(group, kind)))
    if not chosen:
        own = [(short_name(kind.__name__), _some(list(_own_options(kind)))) for kind in STRATEGIES]
        parts.append("strategies, and the options that only they have:\n" + _table(own))
    names = {
        "strategies": ", ".join(FULL_NAMES),
        "corpora": ", ".join(kind.__name__ for kind in CORPORA),
    }
    parts.append("options:\n" + _table((name, text.format(**names)) for name, text in OPTIONS.items()))
    parts.append(
        "more help:\n"
        + _table(
            [
                (f"{command} --model partial --help", "the options of a strategy, shortly"),
                (f"{command} --model.help partial", "the same with types and all it inherits"),
                (f"{command} --data.help Manifest", "the same of a corpus"),
                (f"{command} --help-trainer", "every option, those of the trainer included"),
            ]
        )
    )
    return "\n\n".join(parts)


def _some(options: Sequence[str]) -> str:
    """As many as fit beside others on a screen; the help of the strategy alone has the rest."""
    left = len(options) - SHOWN
    return ", ".join(options[:SHOWN]) + (f", and {left} more" if left > 0 else "") or "—"


def _options(group: str, kind: type) -> list[tuple[str, str]]:
    """Each option with the first sentence about it and its default; the class' own come first."""
    found: dict[str, tuple[str, str]] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith(PROGRAM.replace("-", "_")) or "__init__" not in vars(base):
            continue
        said = {each.arg_name: each.description or "" for each in parse(inspect.getdoc(base) or "").params}
        for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
            if name not in {"self", "options"} and said.get(name):
                sentence = re.split(r"(?<=\w)[.;:] ", " ".join(said[name].split()))[0].rstrip(".")
                found.setdefault(name, (f"--{group}.{name}", sentence + _default(parameter.default)))
    return list(found.values())


def _own_options(kind: type) -> Iterator[str]:
    """Options that a class' own constructor names."""
    if "__init__" in vars(kind):
        names = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        yield from (f"--model.{name}" for name in names if name not in {"self", "encoder", "options"})


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty or callable(value):
        return ""
    return f" (default: {value})"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines: list[str] = []
    for name, text in rows:
        first, *rest = wrap(text, 110 - WIDTH - 4) or [""]
        lines += [f"  {name:<{WIDTH}}  {first}", *(f"  {'':<{WIDTH}}  {line}" for line in rest)]
    return "\n".join(lines)
