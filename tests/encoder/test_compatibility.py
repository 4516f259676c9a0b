import os
import subprocess
import sys

import pytest

from ser_strategies.encoder.compatibility import check_torchaudio

BROKEN = "raise OSError('libcudart.so.13: cannot open shared object file')\n"


def test_a_torchaudio_that_does_not_load_is_explained_on_import(tmp_path):
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text(BROKEN)
    done = subprocess.run(
        [sys.executable, "-c", "import ser_strategies.encoder"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert last.startswith("ImportError: torch 2.")
    assert "torchaudio 2." in last
    assert "do not load together (libcudart.so.13: cannot open shared object file)" in last
    assert 'pip install "torch>=2.11,<2.13" "torchaudio==2.11.*"' in last


@pytest.fixture
def fake_torchaudio(tmp_path, monkeypatch):
    def write(source: str) -> None:
        (tmp_path / "torchaudio.py").write_text(source)
        monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    yield write
    sys.modules.pop("torchaudio", None)


@pytest.mark.parametrize("kind", ["OSError", "RuntimeError", "ImportError"])
def test_whatever_a_mismatched_torchaudio_raises_is_explained(fake_torchaudio, kind):
    fake_torchaudio(f"raise {kind}('symbol not found')")
    with pytest.raises(
        ImportError, match=r"do not load together \(symbol not found\); install a pair that works"
    ):
        check_torchaudio()


def test_a_torchaudio_that_loads_is_left_alone(fake_torchaudio):
    fake_torchaudio("")
    check_torchaudio()


def test_no_torchaudio_at_all_is_fine(fake_torchaudio):
    fake_torchaudio("raise ModuleNotFoundError(name='torchaudio')")
    check_torchaudio()


def test_something_else_missing_is_said_as_it_is(fake_torchaudio):
    fake_torchaudio("import a_module_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        check_torchaudio()
