"""Whatever is wrong with torch or torchaudio, and whichever door is used: one sentence, with the remedy."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from ser_strategies.cli import COMMANDS
from ser_strategies.common import compatibility
from ser_strategies.common.compatibility import NEWEST, check_torch, torchaudio_for

pytestmark = pytest.mark.smoke

SYMBOL = "libtorchaudio.so: undefined symbol: torch_exception_get_what_without_backtrace"
CPU_ONLY = "libc10_cuda.so: cannot open shared object file: No such file or directory"
# Name of the failure: the package, what stands in place of it, and what must be said.
FAILURES = {
    "torch absent": ("torch", "raise ModuleNotFoundError(name='torch')", "torch is not installed"),
    "torch broken": (
        "torch",
        "raise OSError('libtorch_cpu.so: file too short')",
        "but does not load (libtorch",
    ),
    "torch half removed": ("torch", "", "is installed, but does not load"),
    "torchaudio absent": (
        "torchaudio",
        "raise ModuleNotFoundError(name='torchaudio')",
        'torchaudio is not installed: pip install "torchaudio==2.11.',
    ),
    "symbol missing": ("torchaudio", f"raise OSError({SYMBOL!r})", 'pip install "torchaudio==2.11.'),
    "torch for another CUDA": ("torchaudio", f"raise OSError({CPU_ONLY!r})", "both from one place"),
}
EVERY_DOOR = f"""
import sys
from ser_strategies.cli import main
for words in {[[name, "x.wav", "--ckpt_path", "x"] if name == "predict" else [name] for name in COMMANDS]!r}:
    if words == ["compare"]:
        words += ["--strategies", "vanilla", "--data", "Synthetic"]
    try:
        main(words)
    except SystemExit as stop:
        print(words[0], "left with", stop.code, file=sys.stderr)
for module in ("encoder", "data.corpus", "strategies.recognizer", "parts.losses", "cache.store", "batch"):
    try:
        __import__(f"ser_strategies.{{module}}")
    except ImportError as error:
        print(f"error: {{error}}", file=sys.stderr)
from ser_strategies import LoRAFineTuning
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts something in the place of a package: its source, and the version that pip would tell."""

    def install(package: str, source: str, version: str) -> None:
        (tmp_path / f"{package}.py").write_text(source)
        facts = tmp_path / f"{package}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        monkeypatch.delitem(sys.modules, package, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(compatibility, "_passed", False)

    before = sys.modules.get("torchaudio")
    yield install
    sys.modules.pop("torchaudio", None)
    if before is not None:
        sys.modules["torchaudio"] = before


# What is said of torchaudio is tried below without a process, which takes long where it loads torch first.
FURTHER = ("symbol missing", "torch for another CUDA")


@pytest.mark.parametrize(
    "failure",
    [pytest.param(each, marks=pytest.mark.further) if each in FURTHER else each for each in FAILURES],
)
def test_every_door_says_the_same_sentence_and_nothing_else(installed, tmp_path, failure):
    package, source, expected = FAILURES[failure]
    # Of the version that fits where it is the build that does not.
    fitting = torchaudio_for(version("torch")) or "none"
    installed(package, source, fitting if failure == "torch for another CUDA" else "2.10.0")
    done = subprocess.run(
        [sys.executable, "-c", EVERY_DOOR],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.findall(r"^(?:error|ImportError): (.*)$", done.stderr, re.MULTILINE)
    assert len(told) == len(COMMANDS) + 6 + 1
    assert len(set(told)) == 1
    assert expected in told[0]
    assert "pip install" in told[0]
    assert done.stderr.count("left with 1") == len(COMMANDS)
    # The only traceback is that of the last import, which nobody caught.
    assert done.stderr.count('File "<string>", line') == 1


def test_a_report_and_help_need_no_torch(installed, tmp_path):
    installed("torch", "raise OSError('broken')", "2.15.0")
    code = "from ser_strategies.cli import main\nmain(['--help'])\nmain(['compare', '--report', 'nothing'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "usage: ser-strategies" in done.stdout
    assert "error: nothing" in done.stderr
    assert "torch" not in done.stderr


# What is said of each pair ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("torch", "fitting"),
    [
        ("2.10.0", None),
        ("2.11.0", "2.11.0"),
        ("2.12.1+cu130", "2.11.0"),
        ("2.13.0", "2.11.1"),
        ("2.15.0a0+git1", "2.11.1"),
        ("3.0.0", "2.11.1"),
    ],
)
def test_each_torch_has_its_torchaudio(torch, fitting):
    assert torchaudio_for(torch) == fitting


def said_of(monkeypatch, torch: str, cuda: str | None, error: Exception, torchaudio: str) -> str:
    found = SimpleNamespace(__version__=torch, version=SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(compatibility, "_installed", {"torchaudio": torchaudio}.__getitem__)
    return compatibility._explained(found, error)


def wrapped(reason: str) -> OSError:
    """As torch wraps what the loader says."""
    error = OSError("Could not load this library: /somewhere/libtorchaudio.so")
    error.__cause__ = OSError(f"/somewhere/libtorchaudio.so: {reason}")
    return error


def test_a_torchaudio_for_another_torch_is_named_with_the_one_that_fits(monkeypatch):
    said = said_of(monkeypatch, "2.12.1+cu130", "13.0", wrapped("undefined symbol: f"), "2.11.1")
    assert said == (
        "torch 2.12.1+cu130 and torchaudio 2.11.1 do not load together, since torchaudio 2.11.0 is the one "
        'for this torch (/somewhere/libtorchaudio.so: undefined symbol: f): pip install "torchaudio==2.11.0"'
    )


def test_a_torch_without_cuda_beside_a_torchaudio_with_it_is_told_apart(monkeypatch):
    said = said_of(monkeypatch, "2.13.0+cpu", None, wrapped(CPU_ONLY), "2.11.1")
    assert "this torch is built for the CPU alone and torchaudio for another" in said
    assert said.endswith(f"{NEWEST} --force-reinstall")


def test_a_torchaudio_of_another_version_is_replaced_first_whatever_it_was_built_for(monkeypatch):
    error = RuntimeError("PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0. Please do.")
    said = said_of(monkeypatch, "2.15.0+cu132", "13.2", error, "2.11.0")
    assert said.endswith('whereas TorchAudio has CUDA version 13.0): pip install "torchaudio==2.11.1"')


def test_builds_for_two_versions_of_cuda_are_told_apart(monkeypatch):
    error = RuntimeError("Detected that PyTorch and TorchAudio were compiled with different CUDA versions.")
    said = said_of(monkeypatch, "2.13.0", "12.8", error, "2.11.1")
    assert "this torch is built for CUDA 12.8 and torchaudio for another" in said


def test_a_pair_that_should_fit_is_to_be_installed_again(monkeypatch):
    said = said_of(monkeypatch, "2.15.0", "13.2", wrapped("file too short"), "2.11.1+cu132")
    assert said == (
        "torch 2.15.0 and torchaudio 2.11.1+cu132 do not load together (/somewhere/libtorchaudio.so: file "
        f"too short): install them again: {NEWEST} --force-reinstall"
    )


def test_a_torch_that_is_too_old_is_to_be_replaced(monkeypatch):
    said = said_of(monkeypatch, "2.8.0", None, wrapped("undefined symbol"), "2.8.0")
    assert said == f"torch 2.8.0 is too old: expected 2.11 or newer: {NEWEST}"


@pytest.mark.parametrize("kind", ["OSError", "RuntimeError", "ImportError", "AttributeError"])
def test_whatever_a_torchaudio_that_does_not_fit_raises_is_explained(installed, kind):
    installed("torchaudio", f"raise {kind}('symbol not found')", "2.10.0")
    with pytest.raises(
        ImportError, match=r"and torchaudio 2\.10\.0 do not load together.*\(symbol not found\)"
    ):
        check_torch()


def test_something_else_missing_is_said_as_it_is(installed):
    installed("torchaudio", "import a_module_that_is_not_there", "2.10.0")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        check_torch()


def test_a_pair_that_loads_is_left_alone(installed):
    installed("torchaudio", "", "2.10.0")
    check_torch()
