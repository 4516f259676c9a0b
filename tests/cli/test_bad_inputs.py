"""Every option of every command, given what its type does not take: one sentence, and nothing left behind.

The inputs are made from the annotations and parsers, so that an option added tomorrow is tried as well.
"""

from collections.abc import Iterator
from itertools import cycle
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from lightning.pytorch import Trainer

from ser_strategies.cli import COMMANDS, compare, predict, run
from ser_strategies.data.corpora import CORPORA
from ser_strategies.strategies import STRATEGIES
from tests.cli.conftest import ENCODER

pytestmark = pytest.mark.usefixtures("one_parser")

# A value of no option of this type; the first type that an annotation has decides.
WRONG = {bool: ("perhaps",), int: ("three", "1.5"), float: ("fast",), tuple: ("{a: 1}",), dict: ("[1, 2]",)}
CONFIGURED = ("fit", "validate", "test", "predict")


def plain(hint: Any) -> set[Any]:
    """The types that an annotation lists, at its top."""
    if get_origin(hint) in {Union, UnionType}:
        return {kind for part in get_args(hint) for kind in plain(part)}
    return {get_origin(hint) or hint} - {NoneType}


def wrong(hint: Any) -> tuple[str, ...]:
    """Values that an annotation does not take; none where it takes any text, or what it takes is a class."""
    kinds = plain(hint)
    if kinds == {Literal}:
        return ("zzz",)
    if not kinds or not kinds <= set(WRONG):
        return ()
    values = [value for kind in WRONG if kind in kinds for value in WRONG[kind]]
    return tuple(value for value in values if not (value == "1.5" and float in kinds))


def of_class(group: str, kind: type, before: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Words with a wrong value for each option of a constructor, its bases' included."""
    hints: dict[str, Any] = {}
    for base in kind.__mro__:
        if base.__module__.startswith(("ser_strategies", "lightning.pytorch.trainer")) and "__init__" in vars(
            base
        ):
            hints = get_type_hints(base.__init__) | hints
    for option, hint in hints.items():
        for value in wrong(hint):
            yield (*before, f"--{group}.{option}={value}")


def every_class() -> Iterator[tuple[str, ...]]:
    """Each option of strategies, corpora and the trainer once, by turns of commands; corpora from nowhere."""
    commands, tried = cycle(CONFIGURED), set()
    for group, kinds in (("model", STRATEGIES), ("data", CORPORA), ("trainer", [Trainer])):
        for kind in kinds:
            # `predict` without a corpus would take files, and ask for them before it reads any other word.
            chosen = ("--data=Synthetic",) if kind is Trainer else (f"--{group}={kind.__name__}",)
            for words in of_class(group, kind, chosen):
                if words[-1] not in tried:
                    tried.add(words[-1])
                    yield (next(commands), *words)
    for kind in CORPORA:
        if kind.__name__ not in {"Synthetic", "Manifest"}:
            yield ("fit", "--model=vanilla", f"--model.encoder={ENCODER}", f"--data={kind.__name__}")


def every_parser() -> Iterator[tuple[str, ...]]:
    """Each option of the commands with a parser of their own that is a number, or one of several words."""
    parsers = {"compare": compare._parser("compare"), "run": run._parser("run"), "predict": predict._parser()}
    for command, parser in parsers.items():
        for action in parser._actions:
            if action.option_strings and (action.type in {int, float} or action.choices):
                yield (command, f"{action.option_strings[0]}=zzz")
            if action.option_strings and action.nargs is None:
                yield (command, action.option_strings[0])


def every_command() -> Iterator[tuple[str, ...]]:
    """What no command takes."""
    for command in COMMANDS:
        yield (command, "--zzz=1")
        yield (command, "--zzz", "1")
        if command not in {"compare", "cache", "predict"}:
            yield (command, "--config=nowhere.yaml")
    for action in ("estimate", "build", "list", "verify", "prune", "zzz"):
        yield ("cache", action, "--zzz=1")
    for command in ("doctor", "prepare"):
        yield (command,)
        yield (command, "--data=Zzz")
    for words in (
        ("--seeds=zzz",),
        ("--folds=zzz",),
        ("--seeds=-1",),
        ("--stall=0", "--strategies", "frozen", "--data=Synthetic"),
        ("--strategies", "zzz"),
        ("zzz.yaml",),
    ):
        yield ("compare", *words)
    for words in (("nowhere",), ("nowhere", "--seeds=zzz"), ("--fold=1",), (".",), ("nowhere", "--seed=-1")):
        yield ("run", *words)
    for words in (("a.wav",), ("a.wav", "--ckpt_path=nowhere.ckpt"), ("--ckpt_path=nowhere.ckpt",)):
        yield ("predict", *words)
    fit = ("fit", "--model=vanilla", f"--model.encoder={ENCODER}", "--data=Synthetic")
    for option, values in {
        "--seed_everything": ("zzz", "1.5", "true", "-1", "99999999999"),
        "--trainer.default_root_dir": ("", "/dev/null", "/dev/null/x"),
        "--trainer.log_every_n_steps": ("-1",),
        "--patience": ("zzz", "0", "1.5"),
        "--output": ("a.csv",),
        "--trainer.devices": ("0", "-2", "zzz", "[]", "999"),
        "--trainer.accelerator": ("zzz",),
        "--trainer.strategy": ("zzz", "ddp_spawn", "fsdp"),
        "--trainer.precision": ("8", "16-true", "zzz"),
        "--trainer.max_time": ("zzz", "00:00:00:00", "5"),
        "--trainer.max_epochs": ("0", "-2", "inf"),
        "--trainer.max_steps": ("0", "-2"),
        "--trainer.gradient_clip_val": ("-1", "nan"),
        "--trainer.val_check_interval": ("0", "-1", "1.5", "zzz"),
        "--trainer.limit_train_batches": ("0", "-1", "1.5"),
        "--trainer.limit_val_batches": ("-1", "1.5"),
        "--trainer.logger": ("zzz",),
        "--trainer.callbacks": ("zzz", "[1]"),
        "--trainer.profiler": ("zzz",),
        "--model.encoder_lr": ("-1", "nan", "inf"),
        "--model.layerdrop": ("-1", "2", "nan"),
        "--model.warmup_steps": ("-1",),
        "--model.label_smoothing": ("-1", "2"),
        "--model.head_dropout": ("-1", "2"),
        "--data.batch_size": ("0", "-1"),
        "--data.workers": ("-1",),
    }.items():
        for value in values:
            yield (*fit, f"{option}={value}")


def by_class(words: tuple[str, ...]) -> str:
    """What the options of one class share."""
    return "--trainer" if words[-1].startswith("--trainer.") else words[1]


OF_CLASSES = list(every_class())
OTHERS = [*every_parser(), *every_command()]


def test_there_are_as_many_bad_inputs_as_we_say():
    assert len({*OF_CLASSES, *OTHERS}) == len(OF_CLASSES) + len(OTHERS) >= 200


def check(words, refused):
    """The sentence, which is in the words of a user."""
    message = refused(*words)
    for jargon in ("<class", "Namespace(", "Parser key", "NestedArg", "typing."):
        assert jargon not in message, (words, message)
    return message


@pytest.mark.parametrize("words", OTHERS, ids=lambda words: f"{words[0]} {words[-1]}")
def test_a_bad_input_is_one_sentence(words, refused):
    check(words, refused)


@pytest.mark.parametrize("chosen", sorted({by_class(words) for words in OF_CLASSES}))
def test_a_bad_value_for_any_option_of_a_class_is_one_sentence(chosen, refused):
    for words in OF_CLASSES:
        if by_class(words) == chosen:
            option, _, value = words[-1].partition("=")
            named = option.rpartition(".")[2] if "." in option else value
            assert named in check(words, refused), f"{words} were refused for something else"
