"""Classes and functions by their import paths: in options, in configurations, and in checkpoints.

Importing a module runs its code. A path that the user typed is imported. One that stands in a file is not,
unless it leads into this library, into what is imported already, or where the user says so (`trust`).
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

OURS = "ser_strategies"


def path_of(thing: Any) -> str:
    """The import path of a class or a function; ValueError where it has none, as a lambda has."""
    path = f"{thing.__module__}.{thing.__qualname__}"
    if "<" in path:
        msg = f"{path} cannot be found by its path: define it at the top level of a module."
        raise ValueError(msg)
    return path


def import_path(path: str) -> Any:
    """What stands at an import path; its module is imported if need be."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            # The rest may be a class within a class. What the module itself lacks is another matter.
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
        else:
            found = _within(module, parts[end:])
            if found is None:
                msg = f"{module} has no {'.'.join(parts[end:])!r}: check the spelling of {path}."
                raise ValueError(msg)
            return found
    msg = f"cannot import {path!r}: check its spelling, and that Python finds the module {parts[0]!r}."
    raise ValueError(msg)


def find_path(path: str) -> Any:
    """What stands at an import path whose module is imported already; our own are imported."""
    parts = path.split(".")
    if parts[0] == OURS and ".".join(parts[:-1]) not in sys.modules:
        return import_path(path)
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        if module in sys.modules and (found := _within(module, parts[end:])) is not None:
            return found
    msg = f"cannot find {path!r}: import its module first, and check its spelling."
    raise ValueError(msg)


def import_trusted(paths: Iterable[str], trust: str | Iterable[str], source: object) -> None:
    """Imports the paths in a file that the user trusts; refuses others that would have to be imported.

    `trust` names packages, modules or import paths whose code may run.
    """
    trusted = (trust,) if isinstance(trust, str) else tuple(trust)
    for path in paths:
        if any(path == each or path.startswith(f"{each}.") for each in trusted):
            import_path(path)
        elif not _is_there(path):
            package = path.partition(".")[0]
            msg = (
                f"{source} needs {path}, which is not part of this library, and importing it runs its code: "
                f"import it first, or give trust={package!r} (`predict` takes --trust {package})."
            )
            raise ValueError(msg)


def _within(module: str, names: Iterable[str]) -> Any:
    found: Any = sys.modules[module]
    for name in names:
        found = getattr(found, name, None)
    return found


def _is_there(path: str) -> bool:
    if path.split(".")[0] == OURS:
        return True
    try:
        find_path(path)
    except ValueError:
        return False
    return True
