"""The wheel, alone: built from the sdist, installed outside the checkout, and used by its command."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_strategies import Synthetic
from ser_strategies.cli import COMMANDS

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[1]
# In one process, since it is the imports that take long.
EACH = """
import json, sys
from pathlib import Path
from ser_strategies.cli import main
compare, *others = json.loads(sys.argv[1])
main(compare)
Path("runs/report.html").rename("first.html")
(best,) = Path("runs/cells").rglob("best.ckpt")
for words in others:
    main([str(best) if word == "BEST" else word for word in words])
"""
TINY = ["--data", "Synthetic", "--data.speakers", "3", "--data.utterances_per_speaker", "4"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as a release is: the sdist from the checkout, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    uv = ["uv", "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*uv, "--out-dir", str(folder), str(ROOT)], check=True, env=with_tools())
    (built,) = folder.glob("*.whl")
    return built


def with_tools() -> dict[str, str]:
    """The environment with the programs of this interpreter's environment first on the path."""
    return os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with an environment that has the wheel, and everything else from this one."""
    folder = tmp_path_factory.mktemp("user")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # A folder named in a .pth file is searched, and .pth files in it are not read: not that of the checkout.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--python",
        str(python),
        str(wheel),
    ]
    subprocess.run(install, check=True, env=with_tools())
    return folder


def said(folder: Path, *words: str, code: int = 0) -> str:
    """What a command of the installed wheel says."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [str(folder / "env" / "bin" / words[0]), *words[1:]],
        cwd=folder,
        env=without,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_what_is_no_code_travels_too(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    there = [path for path in (ROOT / "ser_strategies").rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in there if "__pycache__" not in path.parts}
    assert wanted <= set(names)
    examples = list((ROOT / "examples").rglob("*.yaml"))
    assert {f"ser_strategies/{path.relative_to(ROOT)}" for path in examples} <= set(names)
    assert {Path(name).suffix for name in wanted} >= {".py", ".json", ".html", ".css", ".typed"}
    assert not [name for name in names if not name.startswith(("ser_strategies/", "ser_strategies-"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_is_not_the_checkout_that_is_used(installed):
    found = said(installed, "python", "-c", "import ser_strategies; print(ser_strategies.__file__)")
    assert Path(found.strip()).is_relative_to(installed / "env")


def test_compare_report_predict_and_doctor(installed):
    helped = said(installed, "ser-strategies", "--help")
    assert all(f"\n  {name} " in helped for name in COMMANDS)
    once = ["--seeds", "1", "--epochs", "1", "--keep_checkpoints"]
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(installed / "clip.wav", sound, 16_000)
    Synthetic(speakers=3, utterances_per_speaker=4, save_to=str(installed / "mine")).prepare_data()
    commands = [
        ["compare", "--strategies", "cached", *TINY, *once, "--out", "runs"],
        ["compare", "--report", "runs"],
        ["predict", "--ckpt_path", "BEST", "clip.wav"],
        ["doctor", "--data", "Manifest", "--data.path", "mine/manifest.csv"],
    ]
    told = said(installed, "python", "-c", EACH, json.dumps(commands))
    assert "[1/1]" in told
    page = (installed / "first.html").read_text(encoding="utf-8")
    assert "<style>" in page
    assert "speakers-6-2-2" in page
    assert told.count("report: runs/report.html") == 2
    assert (installed / "runs" / "report.html").read_text(encoding="utf-8") == page
    assert "1 predictions in predictions.csv" in told
    assert len((installed / "predictions.csv").read_text().splitlines()) == 2
    assert "12 utterances" in told
