"""Turns jsonargparse's reports into one sentence: what was expected, what was typed, the nearest name."""

import inspect
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import torch
import yaml
from lightning.pytorch import Trainer

from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.common.errors import MistypedError, did_you_mean, listed
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.transcripts import Transcripts
from ser_strategies.fit.hints import annotation, choices, takes
from ser_strategies.fit.safe import check_words
from ser_strategies.fit.shorthand import short_name

# What jsonargparse says, and which part of it matters. The first that matches is reported.
# What others call an option of ours.
ALSO_CALLED = {"conditions": "robustness"}
UNKNOWN_ARGUMENT = re.compile(r"unrecognized arguments: (.+)")
UNKNOWN_KEY = re.compile(r"Subcommand '\w+' does not accept option '([\w.]+)'")
NO_SUCH_CLASS = re.compile(r"Expected a path but (\w+(?:\.\w+)+) either not accessible or invalid")
UNKNOWN_OPTION = re.compile(r"class_path '[\w.]*?(\w+)':\s+Option '([^']+)' is not accepted")
NO_MODULE = re.compile(r"No module named '([\w.]+)'")
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
KEY = re.compile(r"Parser key \"([\w.]+)\"")
WRONG_CHOICE = re.compile(
    r"Parser key \"([\w.]+)\":(?:(?!Parser key).)*?Expected a typing\.Literal\[(.+?)\]"
    r"(?:(?!Parser key).)*?(?:Got|Given) value: ([^\n]+)",
    re.DOTALL,
)
MISSING_OPTION = re.compile(r"class_path '[\w.]*?(\w+)':\s+the following arguments are required: ([\w., ]+)")
MISSING_PARTS = re.compile(r"the following arguments are required: ((?:\w+\.(?:model|data)(?:, )?)+)")
WRONG_TYPE = re.compile(
    r"Parser key \"([\w.]+)\":(?:(?!Parser key).)*?Expected a <class '(int|float|bool|str|tuple)'>"
    r"(?:(?!Parser key).)*?(?:Got|Given) value: (.+)",
    re.DOTALL,
)
# What was given for an option of a class: the innermost class, the option, and all that is said of it.
WRONG_VALUE = re.compile(
    r"given class_path '[\w.]*?(\w+)':\s+Parser key \"(\w+)\":((?:(?!Parser key|given class_path).)*)",
    re.DOTALL,
)
# Of a list, jsonargparse names the element that is wrong; where there are alternatives, then all of it.
GOT = re.compile(r"Got value: ([^\n]*)")
GIVEN = re.compile(r"Given value: ([^\n]*)")
NO_VALUE = re.compile(r"argument (--[\w.]+): expected one argument")
SAME_NAME = re.compile(r"Multiple subclasses with name (\w+)\. Give the full class path.*?: ([\w., ]+)\.\s")
NO_CLASS = re.compile(r"Not a valid subclass of (\w+)\. Got value: ([^\n]*)")
LEFT_OUT = re.compile(
    r"a callable class:\s+the following arguments are required: ([\w, ]+).*?class_path='[\w.]*?(\w+)'",
    re.DOTALL,
)
ABSTRACT = re.compile(r"Parser key \"(\w+)\":.*?is abstract.*?NestedArg\(key='([\w.]+)'", re.DOTALL)
# What a configuration may hold under these names: options, or the name of a class or of a file.
SECTIONS = {"model": (dict, str), "data": (dict, str), "trainer": (dict, str)}
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list in square brackets",
}


@contextmanager
def explained(
    models: Sequence[type], corpora: Sequence[type], arguments: Sequence[str] = ()
) -> Iterator[None]:
    """Raises `MistypedError` with one sentence where the command line or a configuration file is wrong.

    Args:
        models: The strategies that can be named.
        corpora: The corpora that can be named.
        arguments: The words of the command line.
    """
    try:
        yield
    except ArgumentError as error:
        if found := NO_VALUE.search(str(error)):
            option = _without_value(found[1], arguments)
            raise MistypedError(f"{option} has no value: give one behind it, or leave it out.") from error
        classes = {kind.__name__: kind for kind in (*models, *corpora, Augmentation, Transcripts)}
        known: dict[str, Sequence[str]] = {
            "model": [kind.__name__ for kind in models],
            "data": [kind.__name__ for kind in corpora],
            "optimizer": [name for name in torch.optim.__all__ if name[0].isupper()],
            "scheduler": [name for name in torch.optim.lr_scheduler.__all__ if name[0].isupper()],
            "callbacks": lightning.pytorch.callbacks.__all__,
            "logger": lightning.pytorch.loggers.__all__,
        }
        raise MistypedError(explain(str(error), classes, known)) from error


def explain(report: str, classes: dict[str, type], known: Mapping[str, Sequence[str]]) -> str:
    """One sentence for a report of jsonargparse.

    Args:
        report: What jsonargparse said.
        classes: The classes that can be named.
        known: Their names, by the option that takes them.
    """
    if found := UNKNOWN_ARGUMENT.search(report):
        return _unknown_argument(found[1].split()[0].split("=")[0], classes, known)
    if found := UNKNOWN_KEY.search(report):
        return _unknown_argument(f"--{found[1]}", classes, known)
    if found := UNKNOWN_OPTION.search(report):
        name, option = found[1], found[2]
        options = _options(classes[name]) if name in classes else ["class_path", "init_args", "dict_kwargs"]
        # A corpus may settle what its base leaves open, and so not take it.
        hint = did_you_mean(option, [each for each in options if each != option])
        group = next((part for part in ("model", "data") if name in known.get(part, ())), None)
        if hint == "." and group:
            hint = f": --{group}.help {name} lists what it has."
        return f"{name} has no option {option!r}{hint}"
    if message := _wrong_value(report, classes):
        return message
    if found := WRONG_CHOICE.search(report):
        known_words = [choice.strip().strip("'\"") for choice in found[2].split(",")]
        option, value = found[1], found[3].strip()
        hint = did_you_mean(value, known_words)
        return f"{option} must be one of {', '.join(known_words)}, got {value!r}{hint}"
    if found := MISSING_PARTS.search(report):
        missing = sorted((part.partition(".")[2] for part in found[1].split(", ")), reverse=True)
        hints = "; ".join(f"--{part}: one of {', '.join(known[part])}" for part in missing)
        return f"{listed((f'--{part}' for part in missing), 'and')} missing ({hints})."
    if found := MISSING_OPTION.search(report):
        key = ".".join(KEY.findall(report[: found.start()])) or "model"
        return f"{found[1]} needs {found[2]}: give --{key}.{found[2]} or put it in the --config file."
    wrong_type = WRONG_TYPE.search(report)
    # An optimizer's rate may be a tensor, for which any word is looked up as if it named a class.
    if (found := UNKNOWN_CLASS.search(report)) and not (
        wrong_type and wrong_type[1] == KEY.findall(report)[-1]
    ):
        # The innermost key names the option: a class may be wanted inside another, as an optimizer is.
        option = KEY.findall(report[: found.start()])[-1].rpartition(".")[2]
        name, names = found[1], known.get(option, [])
        if not names:
            return f"{option}: {name} is not known: check its spelling, or give its full import path."
        return (
            f"--{option} {name} is not known: expected one of {', '.join(names)}"
            f"{did_you_mean(name, [*names, *map(short_name, names)])}"
        )
    if message := _wrong_class(report):
        return message
    if "trainer.precision" in report:
        return _wrong_precision(report)
    if wrong_type:
        value = wrong_type[3].splitlines()[0].partition(". Got value")[0]
        return f"{wrong_type[1]} must be {TYPES.get(wrong_type[2], wrong_type[2])}, got {value!r}."
    return _first_lines(report)


def _wrong_class(report: str) -> str | None:
    """One sentence where what is given for a class is none, or not enough."""
    if found := LEFT_OUT.search(report):
        option = ".".join(KEY.findall(report[: found.start()]))
        return f"{found[2]} needs {found[1]}: give --{option}.{found[1]} behind it."
    if found := SAME_NAME.search(report):
        return f"several classes are called {found[1]}: give one of {found[2]}."
    if found := NO_SUCH_CLASS.search(report):
        option = KEY.findall(report[: found.start()])[-1]
        return f"--{option} {found[1]} cannot be used: {_why_no_class(found[1])}."
    if found := ABSTRACT.search(report):
        return f"--{found[1]} is not chosen yet where {found[2]!r} is given: put --{found[1]} first."
    if found := NO_MODULE.search(report):
        option = ".".join(KEY.findall(report[: found.start()])[-1:]) or "a class"
        return f"{option}: there is no module {found[1]!r}: check its spelling, and that Python finds it."
    if found := NO_CLASS.search(report):
        option = KEY.findall(report[: found.start()])[-1]
        return (
            f"--{option} takes the name of a {found[1]}, or its class_path and init_args; got {found[2]!r}."
        )
    return None


def _why_no_class(path: str) -> str:
    """Why a class path leads nowhere."""
    module, _, name = path.rpartition(".")
    try:
        there = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            return f"{module} needs {error.name}, which is not installed"
        return f"there is no module {module}, neither installed nor in the current folder {Path.cwd()}"
    except Exception as error:  # whatever stands in a user's module
        return f"importing {module} failed ({type(error).__name__}: {error})"
    if not hasattr(there, name):
        names = [each for each, value in vars(there).items() if isinstance(value, type)]
        return f"{module} ({there.__file__}) has no class {name}{did_you_mean(name, names).rstrip('.')}"
    return f"{name} is not a class of the kind that is wanted"


def _wrong_value(report: str, classes: dict[str, type]) -> str | None:
    """One sentence where a class of ours was given a value that its option does not take."""
    found = list(WRONG_VALUE.finditer(report))
    keys = KEY.findall(report)
    if not found or found[-1][1] not in classes or found[-1][2] != keys[-1]:
        return None
    kind, option, said = classes[found[-1][1]], found[-1][2], found[-1][3]
    single = said.lstrip().startswith("Expected")
    expected, value = takes(kind, option), (GOT if single else GIVEN).search(said)
    if expected is None or value is None:
        return None
    got = value[1]
    words = choices(annotation(kind, option))
    # What cannot be taken for a word of the sentence needs no quotation marks.
    shown = got if (got[:1], got[-1:]) in {("[", "]"), ("{", "}")} else repr(got)
    hint = did_you_mean(got, words) if words else "."
    return f"--{'.'.join(keys)} must be {expected}, got {shown}{hint}"


def _without_value(option: str, arguments: Sequence[str]) -> str:
    """The option as it was typed: jsonargparse names only the group that it belongs to."""
    pairs = pairwise([*arguments, "--"])
    typed = [word for word, after in pairs if word.startswith(option) and after.startswith("--")]
    return next((word for word in typed if "=" not in word), option)


def _unknown_argument(argument: str, classes: dict[str, type], known: Mapping[str, Sequence[str]]) -> str:
    key = argument.lstrip("-")
    group, _, option = key.partition(".")
    if group == "trainer" and option:
        options = list(inspect.signature(Trainer.__init__).parameters)
        return f"the trainer has no option {option!r}{did_you_mean(option, options)}"
    top = ["config", "seed_everything", "trainer", "model", "data", "ckpt_path", "overwrite", "output"]
    everything = {
        part: sorted({f"{part}.{name}" for kind in known.get(part, ()) for name in _options(classes[kind])})
        for part in ("model", "data")
    }
    if group not in top:
        whole = [each for names in everything.values() for each in names if each.endswith(f".{key}")]
        near = [*(ALSO_CALLED[each] for each in [key] if each in ALSO_CALLED), *whole[:1]]
        hint = f"; did you mean {listed(near)}?" if near else did_you_mean(group, top)
        return f"{group!r} is no option here{hint}"
    return f"{key!r} is no option here{did_you_mean(key, everything.get(group, []))}"


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
    return (
        f"trainer.precision must be one of {', '.join(choices)}, got {value!r}{did_you_mean(value, choices)}"
    )


@contextmanager
def unwrapped() -> Iterator[None]:
    """Takes a constructor's own sentence out of what jsonargparse makes of it."""
    try:
        yield
    except ValueError as error:
        # A union within a union reports its alternatives as a list in a list: the constructor's is innermost.
        listed = re.findall(r"\n\s+- ((?:(?!\n\s+- |\n\s*Given value).)+)", str(error), re.DOTALL)
        reasons = [" ".join(each.split()) for each in listed]
        told = [each for each in reasons if not each.startswith(("Does not validate", "Expected a"))]
        if not told:
            raise
        raise ValueError(told[0]) from error


def check_configs(arguments: Sequence[str]) -> None:
    """Raises `MistypedError` naming a configuration file that is missing, no YAML mapping, or not safe.

    Args:
        arguments: The words of the command line.
    """
    pairs = pairwise([*arguments, ""])
    named = [after for word, after in pairs if word in {"--config", "-c"}]
    named += [word.partition("=")[2] for word in arguments if word.startswith(("--config=", "-c="))]
    for path in map(Path, named):
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            msg = f"--config {path} {kind}: expected a YAML file, such as those in examples/."
            raise MistypedError(msg)
        try:
            content = read_yaml(path)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            msg = f"--config {path} is not valid YAML: {' '.join(str(error).split())}."
            raise MistypedError(msg) from error
        if not isinstance(content, dict):
            got = type(content).__name__
            msg = f"--config {path} holds no options: expected `name: value` lines, got {got}."
            raise MistypedError(msg)
        for section, taken in SECTIONS.items():
            if not isinstance(content.get(section), (*taken, type(None))):
                got = repr(content[section])
                msg = f"--config {path}: {section} is {got}, expected `name: value` lines below it."
                raise MistypedError(msg)
    check_words(arguments)


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
