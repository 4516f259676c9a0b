"""`ser-strategies --help` answers at once: nothing heavy is imported before a command needs it."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "torchaudio",
    "lightning",
    "transformers",
    "peft",
    "numpy",
    "pandas",
    "jsonargparse",
    "rich",
}


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running `code`."""
    report = (
        "import json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import ser_strategies",
        "import ser_strategies; ser_strategies.__version__; dir(ser_strategies)",
        "from ser_strategies.cli import main; main(['--help'])",
        "from ser_strategies.cli import main; main(['--version'])",
        "from ser_strategies.cli import main\ntry: main(['fitt'])\nexcept SystemExit: pass",
    ],
    ids=["import", "version and names", "help", "version", "unknown command"],
)
def test_nothing_heavy_is_imported(code):
    found = imported_by(code)
    assert "ser_strategies" in found
    assert found & HEAVY == set()
