"""Says in one sentence what is wrong when torch and torchaudio do not fit together.

transformers imports torchaudio where it finds it, and then fails on the encoder classes with a message about
something else. Asking first is cheap, since transformers would import it anyway.
"""

import importlib
from importlib import metadata

REMEDY = 'install a pair that works, for example: pip install "torch>=2.11,<2.13" "torchaudio==2.11.*"'


def check_torchaudio() -> None:
    """Raises ImportError naming both versions and a pair that works, if torchaudio does not load."""
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        if error.name != "torchaudio":
            raise
    except (ImportError, OSError, RuntimeError) as error:
        installed = " and ".join(f"{name} {_version(name)}" for name in ("torch", "torchaudio"))
        msg = f"{installed} do not load together ({error}); {REMEDY}."
        raise ImportError(msg) from error


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(version unknown)"
