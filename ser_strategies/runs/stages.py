"""The stages of a chain: the numbered YAML files of a folder, in the order of their numbers."""

import re
from dataclasses import dataclass
from pathlib import Path

from ser_strategies.common.errors import MistypedError

ENDINGS = (".yaml", ".yml")
# A name becomes a folder and a part of an option, so that it has neither spaces nor full stops.
NAME = re.compile(r"([0-9]+)-[A-Za-z0-9_-]+")
EXPECTED = "numbered configurations of `fit`, such as 1-adapt.yaml and 2-finetune.yaml"


@dataclass(frozen=True)
class StageFile:
    """The configuration of a stage.

    Args:
        number: Its place in the chain, from 1.
        path: Where it is.
    """

    number: int
    path: Path

    @property
    def name(self) -> str:
        """What the stage is called, and its folder."""
        return self.path.stem


def find_stages(folder: Path) -> list[StageFile]:
    """The stages of a chain, first to last; YAML files without a number are none.

    Args:
        folder: The folder of the chain.

    Raises:
        MistypedError: It is no folder, has no stages, or their numbers do not count from 1.
    """
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        msg = f"{folder} {kind}: expected a folder with {EXPECTED}."
        raise MistypedError(msg)
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in ENDINGS and path.name[0].isdigit() and path.is_file()
    ]
    if not files:
        msg = f"{folder} holds no stages: expected {EXPECTED}."
        raise MistypedError(msg)
    stages = sorted(map(_numbered, files), key=lambda stage: stage.number)
    for expected, stage in enumerate(stages, 1):
        if stage.number == expected:
            continue
        others = [each.path.name for each in stages if each.number == stage.number]
        if len(others) > 1:
            msg = f"{folder} has the number {stage.number} more than once ({', '.join(others)}): renumber."
        else:
            msg = (
                f"{folder} has no stage {expected}, but {stage.path.name}: number them from 1, without a gap."
            )
        raise MistypedError(msg)
    return stages


def _numbered(path: Path) -> StageFile:
    found = NAME.fullmatch(path.stem)
    if found is None:
        msg = (
            f"{path} starts with a number but is not named like a stage: expected a number, a hyphen, and a "
            f"name of letters, digits, - and _, such as 1-adapt.yaml."
        )
        raise MistypedError(msg)
    return StageFile(int(found[1]), path)
