"""The words of `run`: which are its own, which go to every stage, and which to one."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ser_strategies.common.errors import PROGRAM, MistypedError
from ser_strategies.common.parser import KindParser

OWN = ("--out", "--fold", "--seed", "--overwrite", "--dry_run", "--help", "-h")
# What `fit` takes that has no full stop in it; any other such option is a slip, and near to one of `run`.
OF_FIT = ("--config", "-c", "--model", "--data", "--trainer", "--seed_everything", "--weights_only")
ADDRESSED = re.compile(r"--([0-9]+[A-Za-z0-9_-]*)\.(.+)", re.DOTALL)
SPAN = re.compile(r"([0-9]+)(?:\.\.([0-9]+))?")
# More folds or seeds than this are a slip of the finger.
MOST = 1_000
REFUSED = {
    "--trainer.default_root_dir": "each stage gets a folder of its own: choose where with --out",
    "--ckpt_path": "a stage that was stopped goes on from its last.ckpt by itself",
    "--print_config": f"show that of a stage with `{PROGRAM} fit --config FILE --print_config`",
}
EXAMPLES = f"""each stage is trained by `{PROGRAM} fit`, whose other options may follow:
  --data... --trainer... --model...   for every stage
  --1-adapt.trainer.max_epochs 5      for the stage 1-adapt alone, where it prevails

A stage that is finished is skipped as long as its configuration, its data and what it starts from are the
same; one that was stopped goes on; any other starts anew, and says why. The last stage is tested, too.

examples:
  {PROGRAM} run examples/tapt
  {PROGRAM} run examples/tapt --fold 1..5 --seed 0..4 --dry_run
  {PROGRAM} run examples/tapt --out runs/tapt-crema --data CREMAD --data.root ~/CREMA-D
  {PROGRAM} run examples/tapt --1-adapt.trainer.max_epochs 5"""


@dataclass(frozen=True)
class Wishes:
    """What a user asks of `run`.

    Args:
        folder: The folder of the chain.
        out: Where the stages' folders go.
        folds: Folds to run; None stands for that of the configurations.
        seeds: Seeds to run; None stands for those of the configurations.
        overwrite: Whether to run everything again.
        dry_run: Whether to run nothing, and say what would be.
        common: Words for the `fit` of every stage.
        special: Words for the `fit` of one stage, by its name.
    """

    folder: Path
    out: Path
    folds: tuple[int | None, ...] = (None,)
    seeds: tuple[int | None, ...] = (None,)
    overwrite: bool = False
    dry_run: bool = False
    common: tuple[str, ...] = ()
    special: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_words(command: str, words: Sequence[str]) -> Wishes:
    """Understands a command line.

    Args:
        command: run.
        words: The words after it.
    """
    own, common, special = _share_out(words)
    options = _parser(command).parse_args(own)
    if options.folder is None:
        msg = f"which chain? Give its folder first, as in `{PROGRAM} run examples/tapt --seed 0..4`."
        raise MistypedError(msg)
    _refuse([*common, *(word for each in special.values() for word in each)], options)
    folder = Path(options.folder).expanduser()
    out = Path(options.out or Path("runs", folder.resolve().name)).expanduser()
    if out.exists() and not out.is_dir():
        msg = f"--out {out} is a file: expected a folder, new or not."
        raise MistypedError(msg)
    return Wishes(
        folder=folder,
        out=out,
        folds=(None,) if options.fold is None else numbers("--fold", options.fold),
        seeds=(None,) if options.seed is None else numbers("--seed", options.seed),
        overwrite=options.overwrite,
        dry_run=options.dry_run,
        common=tuple(common),
        special={name: tuple(each) for name, each in special.items()},
    )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers that 2, 1,3 or 1..5 stand for.

    Args:
        option: What a message calls them.
        text: What was typed.
    """
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


def _share_out(words: Sequence[str]) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Gives each option, with the values after it, to `run`, to every stage or to one.

    argparse cannot: it would take the value of an option that it does not know for the folder.
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
        if addressed := ADDRESSED.fullmatch(word):
            receiver = special.setdefault(addressed[1], [])
            receiver.append(f"--{addressed[2]}")
            continue
        unknown = "." not in name and name not in (*OF_FIT, *REFUSED)
        receiver = own if name in OWN or unknown else common
        receiver.append(word)
    return own, common, special


def _refuse(words: Sequence[str], options: argparse.Namespace) -> None:
    reasons = dict(REFUSED)
    if options.fold is not None:
        reasons["--data.fold"] = "--fold says it already"
    if options.seed is not None:
        reasons |= dict.fromkeys(("--seed_everything", "--data.order_seed"), "--seed says it already")
    for word in words:
        name = word.split("=")[0].replace(".init_args", "")
        if name in reasons:
            msg = f"run does not take {name}: {reasons[name]}."
            raise MistypedError(msg)


def _parser(command: str) -> KindParser:
    parser = KindParser(
        prog=f"{PROGRAM} {command}",
        usage=f"{PROGRAM} {command} FOLDER [options] [options of fit]",
        description="Run a chain: a folder of numbered configurations, each trained from what came before.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        help="the chain: 1-<name>.yaml, 2-<name>.yaml and so on",
    )
    parser.add_argument("--out", help="folder for the stages' folders (default: runs/ and the chain's name)")
    parser.add_argument("--fold", metavar="FOLDS", help="folds of the corpus: 2, 1,3 or 1..5")
    parser.add_argument("--seed", metavar="SEEDS", help="seeds of weights and of the order: 0, 0,7 or 0..4")
    parser.add_argument("--overwrite", action="store_true", help="run everything again")
    parser.add_argument(
        "--dry_run", action="store_true", help="say what would be run, resumed and skipped, and why"
    )
    return parser
