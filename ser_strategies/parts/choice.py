"""Parts chosen by name, or by the import path of anybody's class: poolings, heads, losses, objectives."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ser_strategies.common.class_paths import import_path, path_of
from ser_strategies.common.wording import did_you_mean

# A name, an import path, an import path with options, or from Python the class or function itself.
Part = str | dict[str, Any] | Callable[..., Any]
EXAMPLE = "my_package.MyPart"


def as_plain(option: str, value: Any) -> Any:
    """An option as plain data: a class or a function becomes its import path; all else stays as it is.

    Args:
        option: Name of the option, for the message.
        value: What was given for it.
    """
    if isinstance(value, partial):
        if value.args:
            msg = f"{option}: give a partial its arguments by name, so that a checkpoint can hold them."
            raise ValueError(msg)
        return {"class_path": path_of(value.func), "init_args": dict(value.keywords)}
    if isinstance(value, nn.Module):
        msg = (
            f"{option}: give {type(value).__name__} itself, or a partial of it, which a checkpoint can hold."
        )
        raise ValueError(msg)
    return path_of(value) if callable(value) else value


def build_part(
    option: str, part: Part, named: Mapping[str, Any], kind: type, *arguments: Any, **keywords: Any
) -> Any:
    """The part that was chosen.

    Args:
        option: Name of the option.
        part: What was chosen.
        named: Our own, by name.
        kind: What a stranger's class must derive from.
        arguments: What each is made from.
        keywords: What each is made from, by name.
    """
    plain = as_plain(option, part)
    if isinstance(plain, str) and plain in named:
        return named[plain](*arguments, **keywords)
    path, options = chosen_path(option, plain, named)
    made = import_path(path)
    if not (isinstance(made, type) and issubclass(made, kind)):
        msg = f"{option}: {path} is not the class of one: expected a subclass of {path_of(kind)}."
        raise ValueError(msg)
    try:
        return made(*arguments, **keywords, **options)
    except TypeError as error:
        given = [str(each) for each in arguments] + [f"{name}=..." for name in keywords]
        msg = f"{option}: {path} cannot be made from ({', '.join(given)}) and {options}: {error}."
        raise ValueError(msg) from error


def chosen_path(option: str, plain: Any, named: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The import path in a choice, and the options beside it; ValueError where there is none."""
    if isinstance(plain, Mapping) and isinstance(plain.get("class_path"), str):
        unknown = set(plain) - {"class_path", "init_args"}
        if not unknown:
            return plain["class_path"], dict(plain.get("init_args") or {})
    elif isinstance(plain, str) and "." in plain:
        return plain, {}
    hint = did_you_mean(str(plain), named)
    msg = (
        f"{option} must be one of {', '.join(named)}, or an import path such as {EXAMPLE}, alone or as "
        f"{{class_path: {EXAMPLE}, init_args: {{...}}}}, got {plain!r}{hint}"
    )
    raise ValueError(msg)
