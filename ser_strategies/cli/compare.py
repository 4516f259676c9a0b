"""`compare`: strategies on the same folds with the same seeds, and a report of accuracy against cost."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ser_strategies.cli.run import add_folds_and_seeds, chosen_seeds
from ser_strategies.common.compatibility import check_torch
from ser_strategies.common.errors import PROGRAM, CommandParser, MistypedError
from ser_strategies.ensembles.weighing_rules import By, WeighingRule, wanted_ensembles
from ser_strategies.runs.arguments import (
    BUDGETS,
    GROUPS,
    REFUSED,
    CompareArguments,
    as_folds,
    refuse,
    share_out,
)
from ser_strategies.runs.presets import PRESETS

# Where runs go, and with which options.
Engine = tuple[str, list[str]]
ENGINES = ("local", "ray", "slurm")
AS_THEY_ARE = "give configuration files as they are, as in `compare examples/lora.yaml`"
REASONS = REFUSED | {
    "--config": AS_THEY_ARE,
    "-c": AS_THEY_ARE,
    "--overwrite": "finished runs are kept; give another --out to start anew",
    "--seed_everything": "--seeds says it already",
    "--data.order_seed": "--seeds says it already",
    "--data.fold": "--folds says it already",
}
EXAMPLES = f"""more options are those of `{PROGRAM} fit`:
  --data... --trainer... --model...   for every strategy (--model... for what predicts emotion)
  --lora.model.rank 4                 for the strategy lora alone, where it prevails
  --tapt.1-adapt.trainer.max_epochs 5 for one stage of a chain

  --local.memory 8                    gigabytes that a run may take here; one that takes more has failed
  --on ray                            --ray.cores, --ray.gpus (0.5 lets two runs share one), --ray.memory,
                                      --ray.retries (of runs whose node was lost), --ray.address
  --on slurm                          --slurm.partition, --slurm.time (minutes), --slurm.cores, --slurm.gpus,
                                      --slurm.memory, --slurm.at_once, --slurm.requeues, --slurm.account,
                                      --slurm.qos

Runs that are finished are not done again, and one that was stopped goes on: the same command may be given
any number of times, also on several machines that share --out.

examples:
  {PROGRAM} compare --strategies vanilla partial lora --data Synthetic --seeds 3
  {PROGRAM} compare examples/lora.yaml examples/tapt/ --data IEMOCAP --data.root ~/IEMOCAP --folds all
  {PROGRAM} compare --strategies vanilla cached --data CREMAD --data.root ~/CREMA-D \\
      --model.encoder facebook/wav2vec2-base --folds 1..5 --seeds 5 --epochs 20 --out runs/crema
  {PROGRAM} compare --strategies partial --train-on a.yaml,b.yaml --test-on a.yaml,b.yaml,c.yaml
  {PROGRAM} compare --report runs/crema
  {PROGRAM} compare --report runs/crema --ensembles 'best of all: all'"""
# What the engine takes as it is.
PASSED = (
    *("jobs", "patience", "deadline", "stall", "keep_checkpoints", "retry", "robustness", "dry_run"),
    *("score", "cost", "baseline", "margin", "allow_unfair", "public"),
)
OF_REPORT = (
    *("report", "public", "score", "cost", "baseline", "margin", "allow_unfair"),
    *("ensembles", "ensemble_by", "ensemble_class_wise"),
)


def run(command: str, arguments: list[str]) -> None:
    """Runs a grid and reports it; exits with 1 where a run has failed."""
    report, asked, place = parse(command, arguments)
    # A report needs neither torch nor Lightning, which take seconds and much memory to import.
    if report:
        from ser_strategies.runs.reporting import refresh, write_report

        lost = refresh(asked, verbose=True)
        write_report(asked, verbose=True)
        if lost:
            msg = f"no ensemble {lost[0]}"
            raise ValueError(msg)
        return
    print(f"planning the comparison in {asked.out} (loading torch takes some seconds) ...", flush=True)
    check_torch()
    from ser_strategies.runs.engines import engine

    asked = replace(asked, executor=engine(*place)) if place else asked
    if asked.train_on:
        from ser_strategies.runs.matrix import run_matrix

        run_matrix(asked, verbose=True)
        return
    from ser_strategies.runs.grid import run_grid

    failed = run_grid(asked, verbose=True).failed
    if failed:
        raise ValueError(failed)


def parse(command: str, words: Sequence[str]) -> tuple[bool, CompareArguments, Engine | None]:
    """Understands the words of the command: whether they ask for a report alone, for what, and where.

    The last is None where nothing is said about it.
    """
    own, options_of_fit = share_out(words, lambda group: group not in GROUPS)
    engines = {name: options_of_fit.special.get(name, ()) for name in ENGINES}
    special = {name: each for name, each in options_of_fit.special.items() if name not in ENGINES}
    options_of_fit = replace(options_of_fit, special=special)
    refuse(command, [*own, *options_of_fit.all()], REASONS)
    parser = _parser(command)
    options = parser.parse_intermixed_args(own)
    _check(options, parser.parse_args([]), options_of_fit.all())
    place = _engine(options, engines)
    report = options.report is not None
    out = Path(options.report or options.out).expanduser()
    if out.exists() and not out.is_dir():
        msg = f"{'--report' if report else '--out'} {out} is a file: expected a folder."
        raise MistypedError(msg)
    paths = [Path(path).expanduser() for path in options.configurations]
    budgets = [(name, getattr(options, name)) for name in BUDGETS if getattr(options, name) is not None]
    asked = CompareArguments(
        strategies=(*((name, name) for name in options.strategies or ()), *(("", path) for path in paths)),
        out=out,
        words=(command, *words),
        folds=as_folds("--folds", options.folds),
        seeds=chosen_seeds(options) or (0, 1, 2),
        budget=budgets[0] if budgets else None,
        options=options_of_fit,
        ensembles=wanted_ensembles(
            options.ensembles or (), WeighingRule(options.ensemble_by, options.ensemble_class_wise)
        ),
        train_on=_files(options.train_on),
        test_on=_files(options.test_on),
        **{name: getattr(options, name) for name in PASSED},
    )
    return report, asked, place


def _engine(options: argparse.Namespace, engines: Mapping[str, Sequence[str]]) -> Engine | None:
    """Where runs go, and the options of that place; MistypedError for those of another."""
    on = options.on
    other = next((name for name, words in engines.items() if words and name != on), None)
    if other is not None:
        word = f"--{other}.{engines[other][0].removeprefix('--').partition('=')[0]}"
        msg = f"{word} is for --on {other}, and this is --on {on}: leave it out, or give --on {other}."
        raise MistypedError(msg)
    if options.jobs is not None and on != "local":
        msg = f"--jobs is for --on local: leave it out, and say what a run needs, as in --{on}.cores 2."
        raise MistypedError(msg)
    words = list(engines[on])
    if words and options.jobs is not None:
        words.append(f"--jobs={options.jobs}")
        options.jobs = None
    return (on, words) if words or on != "local" else None


def _files(text: str | None) -> tuple[Path, ...]:
    return tuple(Path(part.strip()).expanduser() for part in (text or "").split(",") if part.strip())


def _check(options: argparse.Namespace, defaults: argparse.Namespace, of_fit: Sequence[str]) -> None:
    if options.report is not None:
        if options.configurations or options.strategies or of_fit:
            msg = "--report runs nothing: leave strategies, configurations and their options out."
            raise MistypedError(msg)
        extra = [name for name in vars(defaults) if getattr(options, name) != getattr(defaults, name)]
        extra = [name for name in extra if name not in OF_REPORT]
        if extra:
            msg = f"--report runs nothing: leave --{extra[0]} out."
            raise MistypedError(msg)
        return
    if options.public:
        msg = "--public writes a report to show to strangers: give it with --report FOLDER."
        raise MistypedError(msg)
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


def _parser(command: str) -> CommandParser:
    parser = CommandParser(
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
        help="a configuration of `fit`, the folder of a run, or that of a chain of `run`",
    )
    add("--strategies", nargs="+", metavar="NAME", help=f"some of {', '.join(PRESETS)}")
    add_folds_and_seeds(parser, " (default: that of the configurations)", " (default: 3)")
    add("--train-on", metavar="FILES", help="corpora to train on, each by itself: files with a section data")
    add("--test-on", metavar="FILES", help="corpora to test each of these on: the cross-corpus matrix")
    add("--out", default="runs/compare", help="folder of the comparison (default: runs/compare)")
    add("--epochs", type=int, help="budget: epochs of each fine-tuning")
    add("--steps", type=int, help="budget: optimizer steps of each fine-tuning")
    add("--seconds", type=int, help="budget: seconds of each fine-tuning, its start-up and cache left out")
    add("--patience", type=int, help="stop a fine-tuning after so many validations without a better score")
    add("--deadline", type=float, metavar="MINUTES", help="end a run that takes longer; it has failed then")
    add("--stall", type=float, metavar="MINUTES", help="end a run that takes no step for so long")
    add("--on", choices=ENGINES, default="local", help="where runs go (default: local, this machine)")
    add("--jobs", type=int, help="runs at once on this machine (default: one for each GPU, or one)")
    add("--retry", action="store_true", help="run again what has failed")
    add("--keep_checkpoints", action="store_true", help="keep the weights of finished runs")
    add(
        "--robustness",
        metavar="NAMES",
        help="test runs under disturbances, too: all, or some, as in noise-10,telephone",
    )
    add("--dry_run", action="store_true", help="say what would be run")
    _add_options_of_report(add)
    return parser


def _add_options_of_report(add: Callable[..., object]) -> None:
    """Adds the options that choose what the report says."""
    add("--report", metavar="FOLDER", help="run nothing: write the report of this folder again")
    add(
        "--public",
        action="store_true",
        help="with --report: write it to FOLDER/public, without home folders, users, hosts and tokens",
    )
    add("--score", help="the score that decides, such as f1_macro (default: the one that chooses epochs)")
    add(
        "--cost",
        default="fit_seconds",
        help="the cost in the first picture, such as inference_bytes (default: fit_seconds)",
    )
    add(
        "--ensembles",
        nargs="+",
        metavar='"NAME: MEMBER, ..."',
        help='rows made of others, from the ledger, as in "both: lora, partial" "best of all: all"',
    )
    add(
        "--ensemble_by",
        choices=get_args(By),
        help="what their weights are the best by, on validation (default: log_loss; of dimensions ccc)",
    )
    add("--ensemble_class_wise", action="store_true", help="weigh members for each class or dimension alone")
    add("--baseline", metavar="NAME", help="compare all with this one, not every pair")
    add("--margin", type=float, default=2.0, help="points that what is as good may be worse (default: 2)")
    add(
        "--allow_unfair",
        action="store_true",
        help="put strategies in one table that differ in more, and mark them",
    )
