"""The package can be imported where there is no POSIX; runs/ and cache/ are looked at elsewhere."""

import subprocess
import sys

SCRIPT = """
import builtins, pkgutil
from importlib import import_module
import ser_strategies

ONLY_POSIX = {"fcntl", "resource", "termios", "pwd", "grp"}
ROOMS = {"fit", "estimates", "costs", "cli"}
real = builtins.__import__
lacking = set()

def masked(name, globals=None, *rest, **options):
    importer = (globals or {}).get("__name__", "")
    if name in ONLY_POSIX and importer.startswith("ser_strategies.") and importer.split(".")[1] in ROOMS:
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
print(seen, *sorted(lacking))
"""


def test_no_module_needs_posix_to_be_imported():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    seen, *lacking = ran.stdout.split()
    assert int(seen) > 30
    assert lacking == []
