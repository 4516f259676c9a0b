"""The arguments of `run` and `compare`, from Python or the command line."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ser_strategies.common.errors import MistypedError, did_you_mean
from ser_strategies.common.quantities import QUANTITIES
from ser_strategies.ensembles.weighing_rules import WantedEnsemble

# Options of `fit` begin with one of these; where a full stop stands behind another word, that is an address.
GROUPS = ("--model", "--data", "--trainer", "--optimizer", "--lr_scheduler")
PLAIN = ("--config", "-c", "--seed_everything", "--weights_only")
# What neither command takes, and why.
REFUSED = {
    "--trainer.default_root_dir": "each run gets a folder of its own: choose where with --out",
    "--ckpt_path": "a run that was stopped goes on from its last.ckpt by itself",
    "--print_config": "show that of a file with `ser-strategies fit --config FILE --print_config`",
}
SPAN = re.compile(r"([0-9]+)(?:\.\.([0-9]+))?")
STAGE_ADDRESS = re.compile(r"--[0-9]+[A-Za-z0-9_-]*\.")
# More folds or seeds than this are a slip of the finger.
MOST = 1_000
BUDGETS = ("epochs", "steps", "seconds")
SCORES = ("ua", "wa", "f1_macro", "f1_weighted", "brier", "ece", "ccc")
SCORES_OF = ("recall/", "ccc_", "pearson_", "rmse_")
LIMITS = ("--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time")

Folds = tuple[int | None, ...] | Literal["all"]
Seeds = tuple[int | None, ...]
ONE: tuple[None] = (None,)  # the fold or seed that the configurations name


@dataclass(frozen=True)
class FitOptions:
    """Words of `fit`: those for all stages or strategies, and those for one, by its name."""

    common: tuple[str, ...] = ()
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def all(self) -> list[str]:
        """Every word."""
        return [*self.common, *(word for words in self.special.values() for word in words)]


@dataclass(frozen=True)
class RunArguments:
    """The arguments of `run`."""

    folder: Path
    out: Path  # for the stages' folders
    folds: Folds = ONE  # None stands for that of the configurations
    seeds: Seeds = ONE  # None stands for those of the configurations
    overwrite: bool = False
    dry_run: bool = False  # only tell what would be run
    options: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True)
class CompareArguments:
    """The arguments of `compare`."""

    # By name: a preset, a configuration or the folder of a chain, or the words of `fit`
    # that describe it.
    strategies: tuple[tuple[str, "str | Path | tuple[str, ...]"], ...]
    out: Path
    words: tuple[str, ...] = ()  # as they were typed; none in Python
    folds: Folds = ONE  # None stands for that of the configurations
    seeds: tuple[int, ...] = (0,)
    jobs: int | None = None  # runs at once; None is one for each GPU, or one
    # Of every strategy: `epochs`, `steps` or `seconds`, and how many; None leaves it to the
    # configurations.
    budget: tuple[str, int] | None = None
    # Validations without a better score after which a run stops; None never stops early.
    patience: int | None = None
    deadline: float | None = None  # minutes after which a run has failed; None waits for ever
    stall: float | None = None  # minutes without a step after which a run has failed
    keep_checkpoints: bool = False
    retry: bool = False
    robustness: str | None = None  # disturbances under which runs are tested too: all, or some names
    dry_run: bool = False  # only tell what would be run
    public: bool = False  # a report to show to strangers
    score: str | None = None
    cost: str = "fit_seconds"  # of the report's first picture
    baseline: str | None = None  # None compares all pairs
    margin: float = 2.0  # points that a strategy may be worse and still pass for as good
    allow_unfair: bool = False  # strategies that differ in more may share a table
    executor: Executor | None = None  # where runs go; None is this machine
    ensembles: tuple[WantedEnsemble, ...] = ()  # rows that are made of the others, from the ledger
    options: FitOptions = field(default_factory=FitOptions)
    # Files that describe corpora, for the cross-corpus matrix: each is trained on, and each is tested on.
    train_on: tuple[Path, ...] = ()
    test_on: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.train_on) != bool(self.test_on):
            msg = "--train-on and --test-on go together, as in --train-on a.yaml --test-on a.yaml,b.yaml."
            raise MistypedError(msg)
        if self.jobs is not None and self.executor is not None:
            msg = "--jobs is of this machine: leave it out, and say what a run needs, as in --ray.cores 2."
            raise MistypedError(msg)
        for name, value in (*filter(None, [self.budget]), ("patience", self.patience), ("jobs", self.jobs)):
            if value is not None and value < 1:
                msg = f"--{name} must be 1 or more, got {value}."
                raise MistypedError(msg)
        for name, minutes in {"deadline": self.deadline, "stall": self.stall}.items():
            if minutes is not None and not minutes > 0:
                msg = f"--{name} must be more than 0 minutes, got {minutes:g}."
                raise MistypedError(msg)
        twice = next((word for word in self.options.common if word.split("=")[0] in LIMITS), None)
        if twice is not None and self.budget is not None:
            msg = f"--{self.budget[0]} is the budget already: leave {twice.split('=')[0]} out."
            raise MistypedError(msg)
        if not 0 <= self.margin <= 100:
            msg = f"--margin must be from 0 to 100 points, got {self.margin:g}."
            raise MistypedError(msg)
        if self.score is not None:
            _check_score(self.score)
        _check_cost(self.cost)


def _check_score(name: str) -> None:
    """Finds a misspelt score before anything is trained; unknown classes and dimensions show later."""
    bare = name.removeprefix("test/").removeprefix("val/")
    if bare not in SCORES and not bare.startswith(SCORES_OF):
        listed = ", ".join((*SCORES, *(f"{each}<name>" for each in SCORES_OF)))
        near = difflib.get_close_matches(bare, SCORES, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        msg = f"--score {name} is not known: expected one of {listed}{hint}"
        raise MistypedError(msg)


def _check_cost(name: str) -> None:
    """Finds a misspelt cost as early."""
    costs = [each.removeprefix("cost/") for each in QUANTITIES]
    bare = name.removeprefix("cost/")
    if bare not in costs:
        msg = f"--cost {name} is not known: expected one of {', '.join(costs)}{did_you_mean(bare, costs)}"
        raise MistypedError(msg)


def as_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers meant by 2, 1,3 or 1..5; a MistypedError names the option."""
    found: list[int] = []
    for part in text.split(","):
        span = SPAN.fullmatch(part.strip())
        if span is None:
            msg = f"{option} takes numbers such as 2, 1,3 or 1..5, got {text!r}."
            raise MistypedError(msg)
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first:
            msg = f"{option} {text} counts down: give the smaller number first, as in {last}..{first}."
            raise MistypedError(msg)
        if last - first >= MOST:
            msg = f"{option} {text} are {last - first + 1:,} numbers: expected {MOST:,} at most."
            raise MistypedError(msg)
        found.extend(range(first, last + 1))
    twice = next((number for number in found if found.count(number) > 1), None)
    if twice is not None:
        msg = f"{option} {text} names {twice} twice: give each number once."
        raise MistypedError(msg)
    return tuple(found)


def as_folds(option: str, text: str | None) -> Folds:
    """The folds meant by all, 2, 1,3 or 1..5; None is the fold of the configurations."""
    if text is None:
        return ONE
    return "all" if text == "all" else as_numbers(option, text)


def as_seeds(option: str, text: str) -> tuple[int, ...]:
    """The seeds meant by a text: 3 is three seeds, 0,7 and 3..5 are these."""
    found = as_numbers(option, text)
    if not text.strip().isdigit():
        return found
    if found[0] == 0:
        msg = f"{option} 0 is no seed at all: give how many, as in {option} 3, or which, as in {option} 0,7."
        raise MistypedError(msg)
    return as_numbers(option, f"0..{found[0] - 1}")


def share_out(words: Sequence[str], is_address: Callable[[str], bool]) -> tuple[list[str], FitOptions]:
    """Words of a command: its own, and those of `fit`, each option with the values after it.

    argparse cannot: it would take the value of an option that it does not know for a folder. `is_address`
    tells whether options that begin with `--<this>.` are for one stage or strategy.
    """
    own: list[str] = []
    common: list[str] = []
    special: dict[str, list[str]] = {}
    receiver = own
    for word in words:
        if not re.match(r"--|-[A-Za-z]", word):  # a value, which may be a negative number
            receiver.append(word)
            continue
        name = word.split("=")[0]
        group, stop, rest = name.partition(".")
        if stop and rest and is_address(group):
            receiver = special.setdefault(group[2:], [])
            word = f"--{word.partition('.')[2]}"
        else:
            receiver = common if stop or name in (*GROUPS, *PLAIN) else own
        receiver.append(word)
    return own, FitOptions(tuple(common), {name: tuple(each) for name, each in special.items()})


def refuse(command: str, words: Sequence[str], reasons: Mapping[str, str]) -> None:
    """Raises MistypedError where an option is among those that a command decides itself."""
    for word in words:
        name = STAGE_ADDRESS.sub("--", word.split("=")[0].replace(".init_args", ""))
        if name in reasons:
            msg = f"{command} does not take {word.split('=')[0]}: {reasons[name]}."
            raise MistypedError(msg)
