"""Stages: the numbered files of a chain, and what `fit` would make of one, without building the model."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ser_strategies.common.errors import MistypedError
from ser_strategies.data.corpora import CORPORA
from ser_strategies.fit.lightning_cli import StrategyCLI
from ser_strategies.fit.mistakes import check_configs, explained
from ser_strategies.fit.shorthand import with_full_names
from ser_strategies.strategies import STRATEGIES, Recognizer

ENDINGS = (".yaml", ".yml")
# A name becomes a folder and a part of an option, so that it has neither spaces nor full stops.
NAME = re.compile(r"([0-9]+)-[A-Za-z0-9_-]+")
EXPECTED = "numbered configurations of `fit`, such as 1-adapt.yaml and 2-finetune.yaml"

# What says how to start a run, not what it is; `run` decides it for each start.
OF_A_START = ("config", "overwrite", "output", "ckpt_path")


@dataclass(frozen=True)
class StageFile:
    """The configuration of a stage."""

    number: int
    path: Path

    @property
    def name(self) -> str:
        """The name of the stage and of its folder."""
        return self.path.stem


def find_stages(folder: Path) -> list[StageFile]:
    """The numbered YAML files of a chain, in order; MistypedError if they are not numbered from 1."""
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


@dataclass(frozen=True)
class Stage:
    """A stage as its file and the command line describe it."""

    name: str
    config: dict[str, Any]
    said: Path
    recognizes: bool


class _ReadOnlyCLI(StrategyCLI):
    """Reads a configuration like `fit`; nothing is seeded, built or run."""

    def __init__(self, words: Sequence[str]) -> None:
        self.said: str | None = None
        super().__init__(["fit", *words])

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data, as a run writes it down."""
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        config: dict[str, Any] = yaml.safe_load(text)
        return config

    def before_instantiate_classes(self) -> None:
        """Remembers the folder that was given, before a default stands in its place."""
        config = self.config[self.subcommand]
        self.said = config.trainer.default_root_dir
        if config.ckpt_path is not None:
            msg = f"leave out ckpt_path ({config.ckpt_path}): a stage that was stopped goes on by itself."
            raise MistypedError(msg)
        config.overwrite = True  # no run is started, so a finished one in the same folder is not in the way
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Nothing: what an encoder starts from may not have been trained yet."""

    def _set_seed(self) -> None:
        """Nothing: each stage seeds its own process."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: each stage runs in its own process."""


def resolve(name: str, words: Sequence[str], default: Path) -> Stage:
    """A stage, as `fit` would understand its words; `default` is its folder if they name none."""
    words = with_full_names(words)
    check_configs(words)
    with about(name), explained(STRATEGIES, CORPORA, words):
        resolved = _ReadOnlyCLI(words)
    config = {name: value for name, value in resolved.plain().items() if name not in OF_A_START}
    if config["trainer"]["fast_dev_run"] or config["trainer"]["enable_checkpointing"] is False:
        msg = (
            f"{name}: a stage of a chain must keep its checkpoints: leave out fast_dev_run and "
            f"enable_checkpointing; to try a chain out, give --trainer.limit_train_batches 2."
        )
        raise MistypedError(msg)
    module, _, kind_name = config["model"]["class_path"].rpartition(".")
    kind = getattr(import_module(module), kind_name)
    recognizes = isinstance(kind, type) and issubclass(kind, Recognizer)
    return Stage(name, config, Path(resolved.said or default), recognizes)


@contextmanager
def about(stage: str) -> Iterator[None]:
    """Says of a mistake in which stage it is."""
    try:
        yield
    except MistypedError as error:
        msg = f"{stage}: {error}"
        raise MistypedError(msg) from error
    except (ValueError, OSError, ImportError) as error:
        msg = f"{stage}: {error}"
        raise ValueError(msg) from error
