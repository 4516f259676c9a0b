"""One sentence where torch or torchaudio is missing, is broken, or does not fit the other.

Both are compiled, and a pair that does not fit fails deep inside some other library, with a message about
something else. Whatever of this library needs torch asks here first; the imports would come anyway.
"""

import importlib
import re
from importlib import metadata
from types import ModuleType
from typing import NamedTuple


class Pair(NamedTuple):
    """A torchaudio, and the first torch that it loads with; the first of the next pair is too new for it."""

    torch: tuple[int, int]
    torchaudio: str


# Tried one by one: 2.11.0 loads with torch 2.11 and 2.12, 2.11.1 with 2.13, 2.14 and 2.15.
PAIRS = (Pair((2, 11), "2.11.0"), Pair((2, 13), "2.11.1"))
NEWEST = 'pip install --upgrade "torch>=2.14" "torchaudio>=2.11.1"'
OF_CUDA = re.compile(r"lib(c10_cuda|torch_cuda|cudart|cuda|nvrtc|cublas|cudnn)\b|CUDA version", re.IGNORECASE)
LOAD_ERRORS = (ImportError, OSError, RuntimeError, AttributeError)

_passed = False


def check_torch() -> None:
    """Raises ImportError that says what was found of torch and torchaudio, what is wrong and what to do."""
    global _passed
    if not _passed:
        _check_torchaudio(_load_torch())
        _passed = True


def _load_torch() -> ModuleType:
    try:
        torch = importlib.import_module("torch")
        torch.__version__  # noqa: B018 - what is left of a torch that was half removed has none
    except LOAD_ERRORS as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            msg = f"torch is not installed: {NEWEST}"
        else:
            msg = (
                f"torch {_installed('torch')} is installed, but does not load ({_reason(error)}): install it "
                f"again: {NEWEST} --force-reinstall"
            )
        raise ImportError(msg) from error
    return torch


def _check_torchaudio(torch: ModuleType) -> None:
    try:
        importlib.import_module("torchaudio")
    except LOAD_ERRORS as error:
        if isinstance(error, ModuleNotFoundError) and error.name not in {"torchaudio", None}:
            raise
        raise ImportError(_explained(torch, error)) from error


def _explained(torch: ModuleType, error: BaseException) -> str:
    version = str(torch.__version__)
    fitting = torchaudio_for(version)
    if fitting is None:
        return f"torch {version} is too old: expected 2.11 or newer: {NEWEST}"
    if isinstance(error, ModuleNotFoundError):
        return (
            f'torchaudio is not installed: pip install "torchaudio=={fitting}" is the one for torch {version}'
        )
    reason, found = _reason(error), _installed("torchaudio")
    both = f"torch {version} and torchaudio {found} do not load together"
    built = torch.version.cuda
    names_cuda = OF_CUDA.search(reason) is not None
    # A CPU-only torch is named before its version, since another torchaudio would not load with it, either.
    if found.partition("+")[0] != fitting and not (names_cuda and built is None):
        return (
            f"{both}, since torchaudio {fitting} is the one for this torch ({reason}): "
            f'pip install "torchaudio=={fitting}"'
        )
    if names_cuda:
        kind = f"CUDA {built}" if built else "the CPU alone"
        return (
            f"{both}, since this torch is built for {kind} and torchaudio for another ({reason}): install "
            f"both from one place; builds for CUDA run without a GPU, too: {NEWEST} --force-reinstall"
        )
    return f"{both} ({reason}): install them again: {NEWEST} --force-reinstall"


def torchaudio_for(torch_version: str) -> str | None:
    """The torchaudio that loads with a torch, such as "2.12.1+cu130"; None if that is too old for any."""
    major, minor = (int(number) for number in re.findall(r"\d+", torch_version)[:2])
    fitting = [pair.torchaudio for pair in PAIRS if pair.torch <= (major, minor)]
    return fitting[-1] if fitting else None


def _reason(error: BaseException) -> str:
    """The first sentence of what was at the bottom of it: libraries wrap what the loader said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.split(r"\n|\. ", str(error).strip())[0].rstrip(".") or type(error).__name__


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(version unknown)"
