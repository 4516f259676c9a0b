"""What a user can cause, and what the program is called in messages about it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
