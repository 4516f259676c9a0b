"""The values that an option takes, in a user's words, from the annotation of a constructor's argument."""

from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ser_strategies.common.errors import listed

PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# For a list: what is in it, and what one looks like.
LISTED = {
    int: ("whole numbers", "1, 2"),
    float: ("numbers", "0.9, 1.1"),
    str: ("names", "one, two"),
}
COUNTS = {2: "two", 3: "three"}


def takes(kind: type, option: str) -> str | None:
    """The values that a constructor's argument takes, to end "must be ..."; None if that takes many words."""
    hint = annotation(kind, option)
    return None if hint is None else _words(hint)


def annotation(kind: type, option: str) -> Any:
    """The annotation of a constructor's argument, its own or a base's; None if it has none."""
    for base in kind.__mro__:
        if "__init__" in vars(base):
            hints = get_type_hints(base.__init__)  # type: ignore[misc]
            if option in hints:
                return hints[option]
    return None


def choices(hint: Any) -> list[str]:
    """Every word that an annotation lists, wherever in it."""
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    return [word for part in get_args(hint) for word in choices(part)]


def _words(hint: Any) -> str | None:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if origin is Literal:
        return f"one of {', '.join(choices(hint))}" if len(parts) > 1 else str(parts[0])
    if origin in {Union, UnionType}:
        several = [_words(part) for part in parts if part is not NoneType]
        return None if None in several else listed(several)
    if origin is tuple:
        return _list(parts)
    if origin is dict and parts == (str, str | None):
        return "names with the name or null that each becomes, as in '{excitement: happiness, fear: null}'"
    if origin is dict and parts == (str, tuple[float, float]):
        return "names with two numbers each, as in '{Manifest: [0, 100]}'"
    if origin is dict and parts == (str, str):
        return "pairs of names in braces, as in '{label: mood}'"
    if origin is list and parts == (dict[str, Any],):
        return "a list of sections with class_path and init_args"
    if is_dataclass(hint):
        return f"null, or given by its options ({', '.join(each.name for each in fields(hint))})"
    return None


def _list(parts: tuple[Any, ...]) -> str | None:
    first = parts[0]
    if get_origin(first) is Literal:
        words = choices(first)
        return f"a list of some of {', '.join(words)}, as in '[{words[0]}]'"
    if first not in LISTED:
        return None
    what, example = LISTED[first]
    if parts[-1] is Ellipsis:
        return f"a list of {what}, as in '[{example}]'"
    return f"{COUNTS.get(len(parts), len(parts))} {what} in square brackets" + (
        f", as in '[{example}]'" if len(parts) == 2 else ""
    )
