"""Where runs go, by the name that is typed: --on ray, with options such as --ray.gpus 0.5."""

import difflib
import inspect
import typing
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module

from ser_strategies.common.errors import MistypedError
from ser_strategies.runs.executors import CellExecutor

HOMES = {
    "local": "ser_strategies.runs.executors.LocalExecutor",
    "ray": "ser_strategies.runs.ray_engine.RayExecutor",
    "slurm": "ser_strategies.runs.slurm_engine.SlurmExecutor",
}


def engine(name: str, words: Sequence[str]) -> CellExecutor:
    """The executor of this name, with the options in `words`, such as --gpus 0.5 or --gpus=0.5."""
    module, _, kind = HOMES[name].rpartition(".")
    made: type[CellExecutor] = getattr(import_module(module), kind)
    options = options_of(made)
    given = {}
    for option, text in _pairs(name, words):
        if option not in options:
            msg = f"--{name}.{option} is not known{_hint(name, option, options)}"
            raise MistypedError(msg)
        try:
            given[option] = options[option](text)
        except ValueError:
            expected = "a whole number" if options[option] is int else "a number"
            msg = f"--{name}.{option} takes {expected}, got {text!r}."
            raise MistypedError(msg) from None
    return made(**given)


def options_of(kind: type[CellExecutor]) -> dict[str, type]:
    """The options of an executor, and what each takes: int, float or str."""
    hints = typing.get_type_hints(kind.__init__)
    found = {}
    for option in inspect.signature(kind).parameters:
        alternatives = [each for each in typing.get_args(hints[option]) if each is not type(None)]
        found[option] = alternatives[0] if alternatives else hints[option]
    return found


def _pairs(name: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and their values."""
    rest = list(words)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if not option.startswith("--"):
            msg = f"{option!r} belongs to no option: give one value after each --{name}.<option>."
            raise MistypedError(msg)
        if not equals:
            if not rest or rest[0].startswith("--"):
                msg = f"--{name}.{option[2:]} needs a value."
                raise MistypedError(msg)
            value = rest.pop(0)
        yield option[2:], value


def _hint(name: str, option: str, options: Collection[str]) -> str:
    near = difflib.get_close_matches(option, options, n=1)
    if near:
        return f"; did you mean --{name}.{near[0]}?"
    return f": expected one of {', '.join(f'--{name}.{each}' for each in options)}."
