"""Parts chosen by name, or by the import path of anybody's class: poolings, heads, losses, objectives."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ser_strategies.common.class_paths import OURS, import_path, path_of
from ser_strategies.common.errors import nearest

# A name, an import path, an import path with options, or from Python the class or function itself.
Part = str | dict[str, Any] | Callable[..., Any]
EXAMPLE = "my_package.MyPart"


def as_plain(option: str, value: Any) -> Any:
    """An option as plain data: a class or a function becomes its import path; all else stays as it is."""
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
    """The chosen part, made from the arguments: one of ours by name, or a stranger's class of this kind."""
    plain = as_plain(option, part)
    if isinstance(plain, str) and plain in named:
        return named[plain](*arguments, **keywords)
    path, options = chosen_path(option, plain, named)
    made = imported(option, path)
    if not (isinstance(made, type) and issubclass(made, kind)):
        msg = f"{option}: {path} is not the class of one: expected a subclass of {path_of(kind)}."
        raise ValueError(msg)
    try:
        return made(*arguments, **keywords, **options)
    except TypeError as error:
        given = [str(each) for each in arguments] + [f"{name}=..." for name in keywords]
        msg = f"{option}: {path} cannot be made from ({', '.join(given)}) and {options}: {error}."
        raise ValueError(msg) from error


def imported(option: str, path: str) -> Any:
    """The object at the import path that an option was given."""
    try:
        return import_path(path)
    except (ValueError, ImportError) as error:
        msg = f"{option}: {error}"
        raise ValueError(msg) from error


def chosen_path(option: str, plain: Any, named: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The import path in a choice, and the options beside it; ValueError where there is none."""
    if isinstance(plain, Mapping) and isinstance(plain.get("class_path"), str):
        unknown = set(plain) - {"class_path", "init_args"}
        if not unknown:
            return plain["class_path"], dict(plain.get("init_args") or {})
    elif isinstance(plain, str) and "." in plain:
        return plain, {}
    near = nearest(str(plain), named)
    hint = f" (did you mean {near}?)" if near else ""
    msg = (
        f"{option} must be one of {', '.join(named)}, got {plain!r}{hint}; or the import path of your "
        f"own, such as {EXAMPLE}, alone or as {{class_path: {EXAMPLE}, init_args: {{...}}}}."
    )
    raise ValueError(msg)


def check_output(option: str, part: nn.Module, inputs: Sequence[Any], shape: tuple[int, ...]) -> None:
    """Refuses a stranger's part that makes something else of these inputs; draws no random number."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            found = part.eval()(*inputs)
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            given = ", ".join(_shape(each) for each in inputs)
            msg = f"{option}: {path_of(type(part))} cannot take tensors of shape {given}: {error}."
            raise ValueError(msg) from error
    part.train()
    if not isinstance(found, Tensor) or found.shape != shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        msg = f"{option}: {path_of(type(part))} must return a tensor of shape {shape}, got {got}."
        raise ValueError(msg)


def _shape(given: Any) -> str:
    """The shape of a tensor, or of each of several alike."""
    if isinstance(given, Tensor):
        return str(tuple(given.shape))
    return f"{len(given)} times {_shape(given[0])}"


def is_own(part: object) -> bool:
    """Whether a part is of this library, whose tests have looked at it."""
    return type(part).__module__.partition(".")[0] in {OURS, "torch"}
