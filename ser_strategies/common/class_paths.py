"""Classes and functions by their import paths: in options, in configurations, and in checkpoints.

Importing a module runs its code. A path that the user typed is imported. One that stands in a file is not,
unless it leads into this library, into what is imported already, or where the user says so (`trust`).
With `--safe`, not even what was typed is imported, unless it is a class of this library, torch or Lightning.
"""

import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

OURS = "ser_strategies"
# Set by --safe, so that processes of a run inherit it.
SAFE = "SER_STRATEGIES_SAFE"
# Where classes only do what they are for; elsewhere torch has functions that run whatever they are given.
ROOMS = ("accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies")
SAFE_PLACES = (f"{OURS}.", "torch.nn.", "torch.optim.", *(f"lightning.pytorch.{room}." for room in ROOMS))
SAFE_FUNCTIONS = f"{OURS}.parts."


@contextmanager
def safely(wanted: bool) -> Iterator[None]:
    """Refuses the code of others in here, and in processes that are started here, if that is wanted."""
    before = os.environ.get(SAFE)
    if wanted:
        os.environ[SAFE] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ[SAFE]


def is_safe() -> bool:
    """Whether the code of others is refused."""
    return os.environ.get(SAFE, "") not in {"", "0"}


def check_safe(path: str) -> None:
    """Raises ValueError unless an import path leads to a class that --safe accepts."""
    found = _import(path) if path.startswith(SAFE_PLACES) else None
    if inspect.isclass(found):
        accepted = f"{found.__module__}.".startswith(SAFE_PLACES)
    else:
        accepted = inspect.isfunction(found) and f"{found.__module__}.".startswith(SAFE_FUNCTIONS)
    if not accepted:
        msg = (
            f"--safe refuses {path}, which can run code: expected a class of {OURS}, torch.nn, torch.optim "
            "or lightning.pytorch; leave --safe out if you trust where it comes from."
        )
        raise ValueError(msg)


def path_of(thing: Any) -> str:
    """The import path of a class or a function; ValueError where it has none, as a lambda has."""
    path = f"{thing.__module__}.{thing.__qualname__}"
    if "<" in path:
        msg = f"{path} cannot be found by its path: define it at the top level of a module."
        raise ValueError(msg)
    return path


def import_path(path: str) -> Any:
    """The object at an import path; its module is imported if need be."""
    if is_safe():
        check_safe(path)
    return _import(path)


def _import(path: str) -> Any:
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
    """The object at an import path whose module is imported already; our own are imported."""
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
