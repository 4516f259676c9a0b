"""The words of `compare`: which are its own, which go to every strategy, and which to one."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ser_strategies.common.errors import PROGRAM, MistypedError
from ser_strategies.common.parser import KindParser
from ser_strategies.common.wording import did_you_mean
from ser_strategies.runs.chain_arguments import numbers
from ser_strategies.runs.presets import PRESETS

# Groups of `fit`; any other word before a full stop is the name of a strategy.
OF_FIT = ("--model", "--data", "--trainer", "--optimizer", "--lr_scheduler")
REFUSED = {
    "--config": "give configuration files as they are, as in `compare examples/lora.yaml`",
    "-c": "give configuration files as they are, as in `compare examples/lora.yaml`",
    "--trainer.default_root_dir": "each run gets a folder of its own: choose where with --out",
    "--ckpt_path": "a run that was stopped goes on by itself",
    "--print_config": f"show that of a file with `{PROGRAM} fit --config FILE --print_config`",
    "--overwrite": "finished runs are kept; give another --out to start anew",
    "--seed_everything": "--seeds says it already",
    "--data.order_seed": "--seeds says it already",
    "--data.fold": "--folds says it already",
}
SCORES = ("ua", "wa", "f1_macro", "f1_weighted", "brier", "ece", "ccc")
SCORES_OF = ("recall/", "ccc_", "pearson_", "rmse_")
BUDGETS = ("epochs", "steps", "seconds")
EXAMPLES = f"""more options are those of `{PROGRAM} fit`:
  --data... --trainer... --model...   for every strategy (--model... for what predicts emotion)
  --lora.model.rank 4                 for the strategy lora alone, where it prevails
  --tapt.1-adapt.trainer.max_epochs 5 for one stage of a chain

Runs that are finished are not done again, and one that was stopped goes on: the same command may be given
any number of times, also on several machines that share --out.

examples:
  {PROGRAM} compare --strategies vanilla partial lora --data Synthetic --seeds 3
  {PROGRAM} compare examples/lora.yaml examples/tapt/ --data IEMOCAP --data.root ~/IEMOCAP --folds all
  {PROGRAM} compare --strategies vanilla cached --data CREMAD --data.root ~/CREMA-D \\
      --model.encoder facebook/wav2vec2-base --folds 1..5 --seeds 5 --epochs 20 --out runs/crema
  {PROGRAM} compare --report runs/crema"""


@dataclass(frozen=True)
class Wishes:
    """What a user asks of `compare`.

    Args:
        words: The words as they were typed.
        out: The folder of the comparison.
        report: Whether to run nothing, and write the report of what is there.
        presets: Strategies by name.
        paths: Configurations and folders of chains.
        folds: Folds to run, or all of them; None stands for that of the configurations.
        seeds: Seeds to run.
        jobs: Runs at once; None is one for each GPU, or one.
        budget: What every strategy may spend: `epochs`, `steps` or `seconds`, and how many; None leaves it to
            the configurations.
        patience: Validations without a better score after which a run stops; None never stops early.
        keep_checkpoints: Whether to keep the weights of finished runs.
        retry: Whether to run again what has failed.
        dry_run: Whether to run nothing, and say what would be.
        score: The score that decides; None is the one that chooses epochs.
        baseline: The strategy that all others are compared with; None compares all pairs.
        allow_unfair: Whether strategies that differ in more may stand in one table.
        common: Words for the `fit` of all.
        special: Words for the `fit` of one, by its name.
    """

    words: tuple[str, ...]
    out: Path
    report: bool = False
    presets: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    folds: tuple[int, ...] | Literal["all"] | None = None
    seeds: tuple[int, ...] = (0,)
    jobs: int | None = None
    budget: tuple[str, int] | None = None
    patience: int | None = None
    keep_checkpoints: bool = False
    retry: bool = False
    dry_run: bool = False
    score: str | None = None
    baseline: str | None = None
    allow_unfair: bool = False
    common: tuple[str, ...] = ()
    special: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_words(command: str, words: Sequence[str]) -> Wishes:
    """Understands a command line.

    Args:
        command: compare.
        words: The words after it.
    """
    own, common, special = _share_out(words)
    options = _parser(command).parse_intermixed_args(own)
    _check(options, common, special)
    report = options.report is not None
    out = Path(options.report or options.out).expanduser()
    if out.exists() and not out.is_dir():
        msg = f"{'--report' if report else '--out'} {out} is a file: expected a folder."
        raise MistypedError(msg)
    budgets = [(name, getattr(options, name)) for name in BUDGETS if getattr(options, name) is not None]
    return Wishes(
        words=(command, *words),
        out=out,
        report=report,
        presets=tuple(options.strategies or ()),
        paths=tuple(Path(path).expanduser() for path in options.configurations),
        folds=_folds(options.folds),
        seeds=_seeds(options.seeds),
        jobs=options.jobs,
        budget=budgets[0] if budgets else None,
        patience=options.patience,
        keep_checkpoints=options.keep_checkpoints,
        retry=options.retry,
        dry_run=options.dry_run,
        score=options.score,
        baseline=options.baseline,
        allow_unfair=options.allow_unfair,
        common=tuple(common),
        special={name: tuple(each) for name, each in special.items()},
    )


def _folds(text: str | None) -> tuple[int, ...] | Literal["all"] | None:
    if text is None:
        return None
    return "all" if text == "all" else numbers("--folds", text)


def _seeds(text: str) -> tuple[int, ...]:
    """3 is three seeds; 0,1,2 and 0..2 are these."""
    found = numbers("--seeds", text)
    if not text.strip().isdigit():
        return found
    if found[0] == 0:
        msg = "--seeds 0 is no seed at all: give how many, as in --seeds 3, or which, as in --seeds 0,7."
        raise MistypedError(msg)
    return tuple(range(found[0]))


def _share_out(words: Sequence[str]) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Gives each option, with the values after it, to `compare`, to every strategy or to one."""
    own: list[str] = []
    common: list[str] = []
    special: dict[str, list[str]] = {}
    receiver = own
    for word in words:
        if not re.match(r"--|-[A-Za-z]", word):  # a value, which may be a negative number
            receiver.append(word)
            continue
        group, stop, rest = word.partition(".")
        # Neither for all nor for one strategy.
        plain = [each.split("=")[0].replace(".init_args", "") for each in (word, f"--{rest}")]
        refused = next((name for name in plain if name in REFUSED), None)
        if refused is not None:
            msg = f"compare does not take {word.split('=')[0]}: {REFUSED[refused]}."
            raise MistypedError(msg)
        if group.split("=")[0] in OF_FIT:
            receiver = common
        elif stop and "=" not in group:
            receiver = special.setdefault(group[2:], [])
            word = f"--{rest}"
        else:
            receiver = own
        receiver.append(word)
    return own, common, special


def _check(options: argparse.Namespace, common: Sequence[str], special: dict[str, list[str]]) -> None:
    said = [*common, *(word for words in special.values() for word in words)]
    if options.report is not None:
        if options.configurations or options.strategies or said:
            msg = "--report runs nothing: leave strategies, configurations and their options out."
            raise MistypedError(msg)
        defaults = _parser("compare").parse_args([])
        allowed = ("report", "score", "baseline", "allow_unfair")
        extra = [name for name in vars(defaults) if getattr(options, name) != getattr(defaults, name)]
        extra = [name for name in extra if name not in allowed]
        if extra:
            msg = f"--report runs nothing: leave --{extra[0]} out."
            raise MistypedError(msg)
        return
    if not options.configurations and not options.strategies:
        msg = (
            f"nothing to compare: give configurations, as in `{PROGRAM} compare examples/lora.yaml "
            f"examples/vanilla.yaml`, or --strategies and some of {', '.join(PRESETS)}."
        )
        raise MistypedError(msg)
    given = [name for name in BUDGETS if getattr(options, name) is not None]
    if len(given) > 1:
        msg = f"--{given[0]} and --{given[1]} are two budgets: give one of them."
        raise MistypedError(msg)
    if options.score is not None:
        _check_score(options.score)
    for name in (*given, "patience", "jobs"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            msg = f"--{name} must be 1 or more, got {getattr(options, name)}."
            raise MistypedError(msg)
    limits = ("--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time")
    twice = next((word for word in common if word.split("=")[0] in limits), None) if given else None
    if twice is not None:
        msg = f"--{given[0]} is the budget already: leave {twice.split('=')[0]} out."
        raise MistypedError(msg)


def _check_score(name: str) -> None:
    """Notices a slip before anything is trained; whether there is such a class or dimension shows later."""
    bare = name.removeprefix("test/").removeprefix("val/")
    if bare not in SCORES and not bare.startswith(SCORES_OF):
        listed = ", ".join((*SCORES, *(f"{each}<name>" for each in SCORES_OF)))
        msg = f"--score {name} is not known: expected one of {listed}{did_you_mean(bare, SCORES)}"
        raise MistypedError(msg)


def _parser(command: str) -> KindParser:
    parser = KindParser(
        prog=f"{PROGRAM} {command}",
        usage=f"{PROGRAM} {command} [CONFIGURATION ...] [--strategies NAME ...] [options] [options of fit]",
        description="Train and test strategies on the same folds with the same seeds, and report which is "
        "better, by how much, at what cost, and what the data do not tell.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "configurations",
        metavar="CONFIGURATION",
        nargs="*",
        help="a configuration of `fit`, or the folder of a chain of `run`",
    )
    add("--strategies", nargs="+", metavar="NAME", help=f"some of {', '.join(PRESETS)}")
    add("--folds", help="folds of the corpus: all, 2, 1,3 or 1..5 (default: that of the configurations)")
    add("--seeds", default="3", help="how many seeds, 3, or which: 0,7 or 3..5 (default: 3)")
    add("--out", default="runs/compare", help="folder of the comparison (default: runs/compare)")
    add("--epochs", type=int, help="budget: epochs of each fine-tuning")
    add("--steps", type=int, help="budget: optimizer steps of each fine-tuning")
    add("--seconds", type=int, help="budget: seconds of each fine-tuning, its start-up and cache left out")
    add("--patience", type=int, help="stop a fine-tuning after so many validations without a better score")
    add("--jobs", type=int, help="runs at once (default: one for each GPU, or one)")
    add("--retry", action="store_true", help="run again what has failed")
    add("--keep_checkpoints", action="store_true", help="keep the weights of finished runs")
    add("--dry_run", action="store_true", help="say what would be run")
    add("--report", metavar="FOLDER", help="run nothing: write the report of this folder again")
    add("--score", help="the score that decides, such as f1_macro (default: the one that chooses epochs)")
    add("--baseline", metavar="NAME", help="compare all with this one, not every pair")
    add(
        "--allow_unfair",
        action="store_true",
        help="put strategies in one table that differ in more, and mark them",
    )
    return parser
