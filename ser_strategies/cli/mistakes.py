"""Turns jsonargparse's reports into one sentence: what was expected, what was typed, the nearest name."""

import difflib
import inspect
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args, get_type_hints

import torch
from lightning.pytorch import Trainer

# What jsonargparse says, and which part of it matters. The first that matches is reported.
UNKNOWN_ARGUMENT = re.compile(r"unrecognized arguments: (.+)")
UNKNOWN_KEY = re.compile(r"Subcommand '\w+' does not accept option '([\w.]+)'")
UNKNOWN_OPTION = re.compile(r"class_path '[\w.]*?(\w+)':\s+Option '([\w.]+)' is not accepted")
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
KEY = re.compile(r"Parser key \"([\w.]+)\"")
WRONG_CHOICE = re.compile(r"Parser key \"([\w.]+)\":\s+Expected a typing\.Literal\[(.+?)\]\. Got value: (.+)")
MISSING_OPTION = re.compile(r"class_path '[\w.]*?(\w+)':\s+the following arguments are required: ([\w., ]+)")
WRONG_TYPE = re.compile(r"Parser key \"([\w.]+)\":\s+Expected a <class '(\w+)'>\. Got value: (.+)")
MISSING_FILE = re.compile(r"File does not exist: '(.+)'")
TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


@contextmanager
def explained(models: Sequence[type], corpora: Sequence[type]) -> Iterator[None]:
    """Exits with 2 and one sentence where the command line or a configuration file is wrong.

    Args:
        models: The strategies that can be named.
        corpora: The corpora that can be named.
    """
    try:
        yield
    except ArgumentError as error:
        classes = {kind.__name__: kind for kind in (*models, *corpora)}
        known = {
            "model": [kind.__name__ for kind in models],
            "data": [kind.__name__ for kind in corpora],
            "optimizer": [name for name in torch.optim.__all__ if name[0].isupper()],
            "scheduler": [name for name in torch.optim.lr_scheduler.__all__ if name[0].isupper()],
        }
        print(f"error: {explain(str(error), classes, known)}", file=sys.stderr)
        sys.exit(2)


def explain(report: str, classes: dict[str, type], known: dict[str, list[str]]) -> str:
    """One sentence for a report of jsonargparse.

    Args:
        report: What jsonargparse said.
        classes: The classes that can be named.
        known: Their names, by the option that takes them.
    """
    if found := UNKNOWN_ARGUMENT.search(report):
        return _unknown_argument(found[1].split()[0].split("=")[0], classes)
    if found := UNKNOWN_KEY.search(report):
        return _unknown_argument(f"--{found[1]}", classes)
    if found := UNKNOWN_OPTION.search(report):
        name, option = found[1], found[2]
        options = _options(classes[name]) if name in classes else []
        return f"{name} has no option {option!r}{nearest(option, options)}"
    if found := WRONG_CHOICE.search(report):
        choices = [choice.strip().strip("'\"") for choice in found[2].split(",")]
        option, value = found[1], found[3].strip()
        return f"{option} must be one of {', '.join(choices)}, got {value!r}{nearest(value, choices)}"
    if found := MISSING_OPTION.search(report):
        return f"{found[1]} needs {found[2]}: give --model.{found[2]} or put it in the --config file."
    if found := WRONG_TYPE.search(report):
        return f"{found[1]} must be {TYPES.get(found[2], found[2])}, got {found[3].strip()!r}."
    if found := MISSING_FILE.search(report):
        return f"no file at {found[1]}: --config expects a YAML file, such as those in examples/."
    if found := UNKNOWN_CLASS.search(report):
        # The innermost key names the option: a class may be wanted inside another, as an optimizer is.
        option, name = KEY.findall(report[: found.start()])[-1], found[1]
        names = known.get(option, [])
        return f"--{option} {name} is not known: expected one of {', '.join(names)}{nearest(name, names)}"
    if "trainer.precision" in report:
        return _wrong_precision(report)
    return _first_lines(report)


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence: `; did you mean ...?` where a known name is near, else a full stop."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else "."


def _unknown_argument(argument: str, classes: dict[str, type]) -> str:
    key = argument.lstrip("-")
    group, _, option = key.partition(".")
    if group == "trainer" and option:
        options = list(inspect.signature(Trainer.__init__).parameters)
        return f"the trainer has no option {option!r}{nearest(option, options)}"
    top = ["config", "seed_everything", "trainer", "model", "data", "ckpt_path", "overwrite", "output"]
    if group not in top:
        return f"{group!r} is no option here{nearest(group, top)}"
    everything = sorted({f"{group}.{name}" for kind in classes.values() for name in _options(kind)})
    return f"{key!r} is no option here{nearest(key, everything)}"


def _options(kind: type) -> list[str]:
    """Names a constructor takes, those behind `**options` included."""
    names: list[str] = []
    for base in kind.__mro__:
        if base.__module__.startswith("ser_strategies") and "__init__" in vars(base):
            names.extend(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    return [name for name in dict.fromkeys(names) if name not in {"self", "options"}]


def _wrong_precision(report: str) -> str:
    hint = get_type_hints(Trainer.__init__)["precision"]
    literals = [literal for part in get_args(hint) for literal in (part, *get_args(part))]
    choices = [str(value) for literal in literals for value in get_args(literal)]
    choices = [choice for choice in dict.fromkeys(choices) if "-" in choice]
    typed = re.search(r"Given value: (.+)", report)
    value = typed[1].strip() if typed else "something else"
    return f"trainer.precision must be one of {', '.join(choices)}, got {value!r}{nearest(value, choices)}"


def _first_lines(report: str) -> str:
    """What is left of a report without its type-system vocabulary."""
    noise = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "Given value type",
        "- Expected a <class 'NoneType'>",
    )
    lines = [line.strip() for line in report.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(noise))
