"""The package can be imported where there is no POSIX; runs/ and cache/ are looked at elsewhere."""

import builtins
import pkgutil
import sys
from importlib import import_module

import ser_strategies
from tests.documented import forget
from tests.programs import Program

ONLY_POSIX = {"fcntl", "resource", "termios", "pwd", "grp"}
ROOMS = {"fit", "estimates", "costs", "cli"}


def look() -> None:
    """Imports the rooms anew where those modules are lacking; says how many, and which asked for one."""
    forget(sys.modules, "ser_strategies")
    real, lacking = builtins.__import__, set()

    def masked(name, globals=None, *rest, **options):
        importer = (globals or {}).get("__name__", "")
        own = importer.startswith("ser_strategies.") and importer.split(".")[1] in ROOMS
        if name in ONLY_POSIX and own:
            lacking.add(importer)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals, *rest, **options)

    builtins.__import__ = masked
    names = [each.name for each in pkgutil.walk_packages(ser_strategies.__path__, "ser_strategies.")]
    seen = 0
    for name in names:
        if name.split(".")[1] in ROOMS:
            seen += 1
            try:
                import_module(name)
            except ModuleNotFoundError as error:
                if error.name not in ONLY_POSIX:
                    raise
    sys.stdout.write(" ".join([str(seen), *sorted(lacking)]))


def test_no_module_needs_posix_to_be_imported(tmp_path):
    ran = Program(look, folder=tmp_path).wait()
    assert ran.code == 0, ran.err
    seen, *lacking = ran.out.split()
    assert int(seen) > 30
    assert lacking == []
