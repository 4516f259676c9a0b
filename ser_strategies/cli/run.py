"""`run`: a chain of stages, over folds and seeds, each trained from what came before it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ser_strategies.common.errors import PROGRAM, CommandParser, MistypedError
from ser_strategies.runs.arguments import (
    REFUSED,
    RunArguments,
    as_folds,
    as_numbers,
    as_seeds,
    refuse,
    share_out,
)

EXAMPLES = f"""each stage is trained by `{PROGRAM} fit`, whose other options may follow:
  --data... --trainer... --model...   for every stage
  --1-adapt.trainer.max_epochs 5      for the stage 1-adapt alone, where it prevails

A stage that is finished is skipped as long as its configuration, its data and what it starts from are the
same; one that was stopped goes on; any other starts anew, and says why. The last stage is tested, too.

examples:
  {PROGRAM} run examples/tapt
  {PROGRAM} run examples/tapt --folds 1..5 --seeds 5 --dry_run
  {PROGRAM} run examples/tapt --out runs/tapt-crema --data CREMAD --data.root ~/CREMA-D
  {PROGRAM} run examples/tapt --1-adapt.trainer.max_epochs 5"""


def run(command: str, arguments: list[str]) -> None:
    """Runs a chain; exits with a stage's exit code where one fails."""
    asked = parse(command, arguments)
    # Here, since `compare` shares this file, and its report needs no torch.
    from ser_strategies.runs.chain import run_chain
    from ser_strategies.runs.stage_run import StageError

    try:
        run_chain(asked, verbose=True)
    except StageError as error:
        print(f"stopped at {error}; the same command goes on from there.", file=sys.stderr)
        sys.exit(error.code if error.code > 0 else 1)


def parse(command: str, words: Sequence[str]) -> RunArguments:
    """Understands the words of the command."""
    own, options_of_fit = share_out(words, lambda group: group[2:3].isdigit())
    reasons = dict(REFUSED)
    for word in own:
        name = word.split("=")[0]
        if name in {"--fold", "--folds"}:
            reasons["--data.fold"] = f"{name} says it already"
        if name in {"--seed", "--seeds"}:
            reasons |= dict.fromkeys(("--seed_everything", "--data.order_seed"), f"{name} says it already")
    refuse(command, [*own, *options_of_fit.all()], reasons)
    options = _parser(command).parse_args(own)
    if options.folder is None:
        msg = f"the chain is missing: give its folder first, as in `{PROGRAM} run examples/tapt --seeds 5`."
        raise MistypedError(msg)
    folder = Path(options.folder).expanduser()
    out = Path(options.out or Path("runs", folder.resolve().name)).expanduser()
    if out.exists() and not out.is_dir():
        msg = f"--out {out} is a file: expected a folder, new or not."
        raise MistypedError(msg)
    return RunArguments(
        folder=folder,
        out=out,
        folds=as_folds("--fold", options.folds),
        seeds=chosen_seeds(options) or (None,),
        overwrite=options.overwrite,
        dry_run=options.dry_run,
        options=options_of_fit,
    )


def add_folds_and_seeds(parser: argparse.ArgumentParser, folds: str, seeds: str) -> None:
    """Adds --folds and --seeds, which mean the same in every command."""
    parser.add_argument("--folds", "--fold", help=f"folds of the corpus: all, 2, 1,3 or 1..5{folds}")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--seeds", help=f"how many seeds, 3, or which: 0,7 or 3..5{seeds}")
    either.add_argument("--seed", metavar="SEEDS", help="which seeds: 3 is seed 3; also 0,7 or 3..5")


def chosen_seeds(options: argparse.Namespace) -> tuple[int, ...] | None:
    """The seeds that were asked for; None if none were."""
    if options.seed is not None:
        return as_numbers("--seed", options.seed)
    return None if options.seeds is None else as_seeds("--seeds", options.seeds)


def _parser(command: str) -> CommandParser:
    parser = CommandParser(
        prog=f"{PROGRAM} {command}",
        usage=f"{PROGRAM} {command} FOLDER [options] [options of fit]",
        description="Run a chain: a folder of numbered configurations, each trained from what came before.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", nargs="?", help="the chain: 1-<name>.yaml, 2-<name>.yaml and so on")
    add("--out", help="folder for the stages' folders (default: runs/ and the chain's name)")
    default = " (default: that of the configurations)"
    add_folds_and_seeds(parser, default, default)
    add("--overwrite", action="store_true", help="run everything again")
    add("--dry_run", action="store_true", help="say what would be run, resumed and skipped, and why")
    return parser
