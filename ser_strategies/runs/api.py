"""`compare` and `run` from Python: strategies and corpora as objects, names, files or plain data."""

import dataclasses
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from jsonargparse import ArgumentParser

from ser_strategies.comparison.comparison import Comparison
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.ensembles.weighing_rules import By, WeighingRule, wanted_ensembles
from ser_strategies.fit.lightning_cli import LINKED
from ser_strategies.runs.arguments import (
    ONE,
    CompareArguments,
    FitOptions,
    Folds,
    RunArguments,
    as_folds,
    as_numbers,
    as_seeds,
)
from ser_strategies.runs.arms import called
from ser_strategies.runs.chain import run_chain
from ser_strategies.runs.executors import CellExecutor
from ser_strategies.runs.grid import run_grid
from ser_strategies.runs.presets import PRESETS
from ser_strategies.runs.stage_run import Outcome
from ser_strategies.strategies import STRATEGIES, Strategy

# What a strategy is told by the corpus, whatever it was built with.
OF_CORPUS = {*LINKED, "num_classes"}
Options = Mapping[str, Any]
Data = Corpus | str | Options | None


class CompareRules(TypedDict, total=False):
    """Options of `compare` that are the same in Python as on the command line."""

    patience: int | None
    deadline: float | None
    stall: float | None
    jobs: int | None
    executor: CellExecutor | None
    keep_checkpoints: bool
    retry: bool
    robustness: str | None
    score: str | None
    cost: str
    baseline: str | None
    margin: float
    allow_unfair: bool
    ensemble_by: By | None
    ensemble_class_wise: bool


def compare(
    strategies: Mapping[str, Strategy | str | Path | Options] | Iterable[str | Path],
    data: Data = None,
    *,
    model: Options | None = None,
    trainer: Options | None = None,
    folds: int | str | Iterable[int] | None = None,
    seeds: int | str | Iterable[int] = 3,
    out: str | Path = "runs/compare",
    epochs: int | None = None,
    steps: int | None = None,
    seconds: int | None = None,
    ensembles: Mapping[str, str | Sequence[str]] | Sequence[str] = (),
    verbose: bool = False,
    **rules: Unpack[CompareRules],
) -> Comparison:
    """Trains and tests strategies on the same folds and seeds, and writes a report; see docs/compare.md.

    What is finished is not run again. Runs that have failed are rows of the comparison; their reasons are in
    the report. ValueError if something cannot be run or compared, or nothing has finished.

    Args:
        strategies: By name: a strategy, the name of a preset, a configuration of `fit` or the folder of a
            chain, or plain data with class_path and init_args. A list has presets and files.
        data: The corpus, the name of its class, or plain data; None leaves it to the configurations.
        model: Options for all that predict emotion, such as the encoder that presets start from.
        trainer: Options of the trainer, as plain data.
        folds: 2, "1..5", "all" or several numbers; None leaves it to the corpus.
        seeds: How many, or which: 3 is three, "0,7" or [0, 7] are these.
        out: The folder of the comparison.
        epochs: Budget of each fine-tuning, or else `steps` or `seconds`.
        steps: Optimizer steps of each fine-tuning.
        seconds: Seconds of each fine-tuning.
        ensembles: Rows made of others, by name: {"both": ["lora", "partial"], "best of all": "all"}.
        verbose: Show progress on the terminal.
        **rules: patience (validations without a better score after which a fine-tuning stops), deadline
            (minutes after which a run has failed), stall (minutes without a step, likewise), jobs (runs at
            once, else one for each GPU, or one), executor (where runs go, such as RayExecutor(gpus=0.5); else
            this machine), keep_checkpoints (of finished runs), retry (of failed runs), robustness
            (disturbances of the test sounds under which runs are scored too: "all", or some, as in
            "noise-10,telephone"), score (that decides, else the one that chooses epochs), cost (of the first
            picture, else fit_seconds), baseline (that all others are compared with), margin (points that a
            strategy may be worse and still pass for as good, else 2), allow_unfair (compare strategies that
            differ in more, and mark them), and of ensembles ensemble_by (log_loss, f1_macro, ua or ccc) and
            ensemble_class_wise (weights for each class or dimension).
    """
    for name in set(rules) - set(CompareRules.__annotations__):
        msg = f"compare() got an unexpected keyword argument {name!r}"
        raise TypeError(msg)
    with _mistakes_as_value_errors():
        words = (*_data(data), *_options("model", model), *_options("trainer", trainer))
        others: dict[str, Any] = dict(rules)
        rule = WeighingRule(others.pop("ensemble_by", None), others.pop("ensemble_class_wise", False))
        folder, places = Path(out).expanduser(), (_folds(folds), _seeds(seeds))
        asked = CompareArguments(
            *(_named(strategies), folder, (), *places),
            budget=_budget(epochs=epochs, steps=steps, seconds=seconds),
            options=FitOptions(words),
            ensembles=wanted_ensembles(ensembles, rule),
            **others,
        )
        return _compared(asked, verbose=verbose)


def _compared(asked: CompareArguments, *, verbose: bool) -> Comparison:
    result = run_grid(asked, verbose=verbose)
    if result.comparison is None:
        msg = result.failed or f"nothing has finished yet: others are at work in {asked.out}."
        raise ValueError(msg)
    if result.lost:
        msg = f"no ensemble {result.lost[0]}"
        raise ValueError(msg)
    return result.comparison


def run(
    chain: str | Path,
    data: Data = None,
    *,
    model: Options | None = None,
    trainer: Options | None = None,
    stages: Mapping[str, Mapping[str, Options]] | None = None,
    folds: int | str | Iterable[int] | None = None,
    seeds: int | str | Iterable[int] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    verbose: bool = False,
) -> list[Outcome]:
    """Runs a chain over folds and seeds, and gives what was done about each stage; see docs/chains.md.

    Args:
        chain: The folder of its numbered configurations.
        data: The corpus of every stage, the name of its class, or plain data; None leaves it to the files.
        model: Options of the model of every stage.
        trainer: Options of the trainer of every stage, as plain data.
        stages: The same for one stage: {"1-adapt": {"trainer": {"max_epochs": 5}}}.
        folds: 2, "1..5", "all" or several numbers; None leaves it to the files.
        seeds: How many, or which: 3 is three, "0,7" or [0, 7] are these; None leaves it to the files.
        out: Where the stages' folders go; None is runs/ and the chain's name.
        overwrite: Run everything again.
        dry_run: Run nothing, and give what would be done.
        verbose: Tell on the terminal how it goes; else each stage has a log.txt.

    Raises:
        ValueError: Something cannot be run, or a stage has failed.
    """
    folder = Path(chain).expanduser()
    special = {
        name: tuple(word for group, each in options.items() for word in _options(group, each))
        for name, options in (stages or {}).items()
    }
    common = (*_data(data), *_options("model", model), *_options("trainer", trainer))
    with _mistakes_as_value_errors():
        asked = RunArguments(
            folder=folder,
            out=Path(out or Path("runs", folder.resolve().name)).expanduser(),
            folds=_folds(folds),
            seeds=ONE if seeds is None else _seeds(seeds),
            overwrite=overwrite,
            dry_run=dry_run,
            options=FitOptions(common, special),
        )
        return run_chain(asked, verbose=verbose)


@contextmanager
def _mistakes_as_value_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError) as error:
        raise ValueError(str(error)) from error


def _folds(folds: int | str | Iterable[int] | None) -> Folds:
    if folds is None or isinstance(folds, (int, str)):
        return as_folds("folds", None if folds is None else str(folds))
    return _listed("folds", folds)


def _seeds(seeds: int | str | Iterable[int]) -> tuple[int, ...]:
    return as_seeds("seeds", str(seeds)) if isinstance(seeds, (int, str)) else _listed("seeds", seeds)


def _budget(**given: int | None) -> tuple[str, int] | None:
    budgets = [(name, amount) for name, amount in given.items() if amount is not None]
    if len(budgets) > 1:
        msg = f"{budgets[0][0]} and {budgets[1][0]} are two budgets: give one of them."
        raise ValueError(msg)
    return budgets[0] if budgets else None


def _named(
    strategies: Mapping[str, Strategy | str | Path | Options] | Iterable[str | Path],
) -> tuple[tuple[str, str | Path | tuple[str, ...]], ...]:
    named: Mapping[str, Any] = (
        strategies if isinstance(strategies, Mapping) else {called(Path(each)): each for each in strategies}
    )
    if not named:
        msg = f"nothing to compare: name strategies, such as some of {', '.join(PRESETS)}."
        raise ValueError(msg)
    return tuple((name, _source(name, each)) for name, each in named.items())


def _listed(option: str, numbers: Iterable[int]) -> tuple[int, ...]:
    return as_numbers(option, ",".join(map(str, numbers)))


def _source(name: str, given: Strategy | str | Path | Options) -> str | Path | tuple[str, ...]:
    """A strategy as an arm takes it: a preset, a path, or words of `fit`."""
    if isinstance(given, Strategy):
        return _model(name, given)
    if isinstance(given, Mapping):
        return described("model", given)
    return given if isinstance(given, str) and given in PRESETS else Path(given).expanduser()


def _model(name: str, strategy: Strategy) -> tuple[str, ...]:
    kind = type(strategy)
    given = {option: value for option, value in strategy.hparams.items() if option not in OF_CORPUS}
    words = _of_class("model", kind, given, known=STRATEGIES)
    for option, usual in (("optimizer", torch.optim.AdamW), ("scheduler", None)):
        value = getattr(strategy, option)
        if value is not usual:
            if not inspect.isclass(value):
                msg = f"{name}: its {option} is no class: describe the strategy in a configuration to set it."
                raise ValueError(msg)
            words = (*words, f"--model.{option}={_path_of(value)}")
    return words


def _data(data: Data) -> tuple[str, ...]:
    if data is None:
        return ()
    if isinstance(data, Corpus):
        return _of_class("data", type(data), data.arguments, known=CORPORA)
    return described("data", {"class_path": data} if isinstance(data, str) else data)


def _of_class(group: str, kind: type, given: Options, known: Iterable[type]) -> tuple[str, ...]:
    """A class, and those of its arguments that are not what they would be anyway."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    defaults = parser.get_defaults().as_dict()
    chosen = {
        name: value
        for name, value in given.items()
        if name in defaults and (defaults[name] is not value and defaults[name] != value)
    }
    path = kind.__name__ if kind in known else _path_of(kind)
    return described(group, {"class_path": path, "init_args": chosen})


def described(group: str, config: Options) -> tuple[str, ...]:
    """Words of `fit` for plain data with class_path and init_args."""
    if "class_path" not in config or not set(config) <= {"class_path", "init_args"}:
        got = ", ".join(config)
        msg = f"{group}: expected a dictionary with class_path and init_args, got one with {got}."
        raise ValueError(msg)
    return (f"--{group}={config['class_path']}", *_options(group, config.get("init_args")))


def _options(group: str, options: Options | None) -> tuple[str, ...]:
    named = {f"{group}.{name}": value for name, value in (options or {}).items()}
    return tuple(f"--{option}={_text(option, value)}" for option, value in named.items())


def _text(option: str, value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, (str, Path)):
        return str(value)

    def plain(each: Any) -> Any:
        if dataclasses.is_dataclass(each) and not isinstance(each, type):
            return dataclasses.asdict(each)
        if isinstance(each, Path):
            return str(each)
        msg = (
            f"{option} is a {type(each).__name__}, which a process of its own cannot be given: expected "
            "numbers, text, and lists and dictionaries of them."
        )
        raise ValueError(msg)

    return json.dumps(value, default=plain)


def _path_of(kind: type) -> str:
    """The import path by which another process finds a class."""
    local = "<locals>" in kind.__qualname__
    if kind.__module__ == "__main__" or local:
        msg = (
            f"{kind.__name__} is defined in {'a function' if local else '__main__'}, where "
            "a process of its own cannot import it: put it into a module."
        )
        raise ValueError(msg)
    return f"{kind.__module__}.{kind.__qualname__}"
