"""Mistakes of a user: one sentence for each, from any command, and a parser that raises them."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ser_strategies.common.wording import nearest

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
