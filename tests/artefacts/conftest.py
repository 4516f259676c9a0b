"""What the tests of artefacts share: a copy of what an earlier version has written, to work in."""

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contained import contained
from tests.processor import roundings

HERE = Path(__file__).parent
VERSIONS = sorted(path.parent.name for path in HERE.glob("v*/expected.json"))
EXPECTED = {name: json.loads((HERE / name / "expected.json").read_text("utf-8")) for name in VERSIONS}


class Artefacts(NamedTuple):
    """What a version has written, copied into the working directory, and what it said of it."""

    version: str
    expected: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Versions of packages it was written with."""
        facts = json.loads(Path("runs/vanilla/environment.json").read_text("utf-8"))
        return {name: number.split("+")[0] for name, number in facts["packages"].items()}

    @property
    def same_libraries(self) -> bool:
        """Whether torch and transformers are the ones that it was written with."""
        names = ("torch", "transformers")
        return all(self.environment[name] == version(name).split("+")[0] for name in names)

    @property
    def same_processor(self) -> bool:
        """Whether numbers come out the same here, to the last bit."""
        return self.expected["processor"] == roundings()

    @property
    def same_draws(self) -> bool:
        """Whether `random:<size>` is the same encoder here, to the last bit."""
        return self.expected["processor"]["normal draws"] == roundings()["normal draws"]

    @property
    def tolerance(self) -> float:
        """How closely scores of a training are to come out again."""
        return 1e-5 if self.same_libraries and self.same_processor else 1e-3


@pytest.fixture(params=VERSIONS)
def artefacts(request, tmp_path, monkeypatch) -> Iterator[Artefacts]:
    copy = tmp_path / "work"
    shutil.copytree(HERE / request.param, copy)
    monkeypatch.chdir(copy)
    with contained():
        yield Artefacts(request.param, EXPECTED[request.param])
