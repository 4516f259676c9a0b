"""Mistakes of a user: one sentence each, the lists and near names in it, checks of options, a parser."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NoReturn, get_args


def listed(words: Iterable[object], last: str = "or", *, at_most: int | None = None) -> str:
    """Words as in "a, b or c"; as in "a, b and 3 more" where there are more than `at_most`."""
    every = [str(word) for word in words]
    if at_most is not None and len(every) > at_most:
        return f"{', '.join(every[:at_most])} and {len(every) - at_most:,} more"
    return f" {last} ".join(filter(None, [", ".join(every[:-1]), *every[-1:]]))


def counted(number: int, unit: str) -> str:
    """A number of things in words: 1 speaker, 2 speakers."""
    return f"{number:,} {unit}{'s' * (number != 1)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its capitals and hyphens; None if none is near."""
    plain = {re.sub(r"\W", "", each).casefold(): each for each in reversed(list(known))}
    typed = re.sub(r"\W", "", name).casefold()
    begin = [each for each in plain if typed and each.startswith(typed)]
    matches = difflib.get_close_matches(typed, begin or plain, n=1, cutoff=0.0 if begin else 0.5)
    return plain[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str], *, before: str = "") -> str:
    """The end of a sentence: "; did you mean <before><name>?" if a known name is near, else a full stop."""
    near = nearest(name, known)
    return f"; did you mean {before}{near}?" if near else "."


PROGRAM = "ser-strategies"
# One sentence is enough for these. Anything else is a bug, and shows where.
MISTAKES = (ValueError, OSError, ImportError, FloatingPointError)


class MistypedError(ValueError):
    """Something is wrong with the words of a command line or of a configuration file."""


@contextmanager
def one_sentence(command: str, *, traceback: bool = False) -> Iterator[None]:
    """Ends the program with one sentence where a user has made a mistake; `traceback` shows that instead.

    The exit code is 2 for a mistake in the words, 1 for any other.
    """
    try:
        yield
    except MISTAKES as error:
        if traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        print(f"(where it happened: {PROGRAM} {command} ... --traceback)", file=sys.stderr)
        sys.exit(2 if isinstance(error, MistypedError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


class CommandParser(argparse.ArgumentParser):
    """Raises `MistypedError` where argparse would print its usage and exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises argparse's message, with the nearest option where one is unknown."""
        unknown, _, words = message.partition("unrecognized arguments: ")
        if not unknown and words:
            word = words.split()[0].split("=")[0]
            options = [name for action in self._actions for name in action.option_strings]
            near = nearest(word, options)
            hint = f"; did you mean {near}?" if near else f": expected some of {', '.join(options)}."
            message = f"{self.prog} has no option {word!r}{hint}"
        raise MistypedError(message)


def check_choice(option: str, value: str, choices: Any) -> None:
    """Raises ValueError with the nearest right word where `value` is none of the words of a Literal.

    Args:
        option: Name of the option.
        value: What was given for it.
        choices: The Literal type that lists the words.
    """
    words = get_args(choices)
    if value not in words:
        hint = did_you_mean(str(value), words)
        msg = f"{option} must be one of {', '.join(words)}, got {value!r}{hint}"
        raise ValueError(msg)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number. True is an int to Python, and would count as one."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_range(option: str, value: float, least: float, below: float = float("inf")) -> None:
    """Raises ValueError where `value` is less than `least`, or not below `below`.

    Args:
        option: Name of the option.
        value: What was given for it.
        least: The smallest value allowed.
        below: What the value must stay below.
    """
    if not least <= value < below:
        upper = "" if below == float("inf") else f" and below {below:g}"
        msg = f"{option} must be at least {least:g}{upper}, got {value}."
        raise ValueError(msg)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
