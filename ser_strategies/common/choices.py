"""Options that must be one of a few words, or lie in a range, for callers whom no type checker has seen."""

from numbers import Integral
from typing import Any, get_args

from ser_strategies.common.wording import did_you_mean


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
