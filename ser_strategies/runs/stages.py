"""Stages: the numbered files of a chain, what `fit` would make of one, and what one hands on to another."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
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
        config = self.config[self.subcommand]
        text = self._parser(self.subcommand).dump(config, skip_none=False, skip_validation=True)
        plain: dict[str, Any] = yaml.safe_load(text)
        return plain

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


CHECKPOINTS = ("best.ckpt", "last.ckpt")


@dataclass(frozen=True)
class Link:
    """Something in an earlier stage's folder that a stage starts from."""

    option: str
    stage: str
    path: str


def find_links(stages: Sequence[Stage]) -> dict[str, list[Link]]:
    """The files that each stage takes from earlier stages.

    MistypedError if a stage refers to its own or a later folder, or two stages share a folder.
    """
    places = {stage.name: real(stage.said) for stage in stages}
    _check_places(stages, places)
    links: dict[str, list[Link]] = {stage.name: [] for stage in stages}
    earlier: dict[str, Stage] = {}
    for stage in stages:
        for option, text in texts(stage.config):
            for name, place in places.items():
                inner = inside(text, place)
                if inner is None or (name == stage.name and option.startswith("trainer.")):
                    continue
                if name not in earlier:
                    own = (
                        "its own folder" if name == stage.name else f"the folder of {name}, which comes later"
                    )
                    msg = f"{stage.name}: {option} {text} is in {own}: a stage starts from earlier ones only."
                    raise MistypedError(msg)
                if not option.startswith("trainer."):  # what loggers and callbacks name is written, not read
                    _check_checkpoint(stage.name, option, text, inner, earlier[name])
                    links[stage.name].append(Link(option, name, inner))
        earlier[stage.name] = stage
    return links


def texts(value: Any, option: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a configuration, with the option that holds it, as it is typed."""
    if isinstance(value, str):
        yield option, value
    elif isinstance(value, dict):
        for key, each in value.items():
            name = option if key == "init_args" else f"{option}.{key}".lstrip(".")
            yield from texts(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, option)


def moved(value: Any, places: Mapping[Path, str]) -> Any:
    """A configuration in which every text that names something in one of the places names it elsewhere."""
    if isinstance(value, dict):
        return {key: moved(each, places) for key, each in value.items()}
    if isinstance(value, list):
        return [moved(each, places) for each in value]
    if isinstance(value, str):
        for place, new in places.items():
            inner = inside(value, place)
            if inner is not None:
                return new if inner == "." else f"{new}/{inner}"
    return value


def inside(text: str, place: Path) -> str | None:
    """The path of something within a place, `.` for the place itself; None if it is outside."""
    if not text or len(text) > 4096 or "\n" in text or "\0" in text or "://" in text:
        return None
    try:
        path = real(Path(text))
    except (OSError, RuntimeError):  # a home that nobody has, a link to itself
        return None
    return path.relative_to(place).as_posix() if path.is_relative_to(place) else None


def real(path: Path) -> Path:
    """A path without links, relative parts and the home's sign."""
    return path.expanduser().resolve()


def _check_places(stages: Sequence[Stage], places: Mapping[str, Path]) -> None:
    here = Path.cwd().resolve()
    for stage in stages:
        place = places[stage.name]
        if here.is_relative_to(place):
            msg = (
                f"{stage.name}: trainer.default_root_dir {stage.said} holds everything else, too: give the "
                f"stage a folder of its own, such as runs/tapt/{stage.name}."
            )
            raise MistypedError(msg)
        for other in stages:
            if other.name != stage.name and places[other.name].is_relative_to(place):
                msg = (
                    f"{stage.name} and {other.name} share a folder ({stage.said}, {other.said}): give each "
                    f"its own trainer.default_root_dir, such as runs/tapt/{other.name}."
                )
                raise MistypedError(msg)


def _check_checkpoint(stage: str, option: str, text: str, inner: str, source: Stage) -> None:
    """Notices a slip in a name before hours of training lead up to it."""
    written = not source.config["trainer"].get("callbacks")  # callbacks may write others
    if written and "/" not in inner and inner.endswith(".ckpt") and inner not in CHECKPOINTS:
        near = difflib.get_close_matches(inner, CHECKPOINTS, n=1, cutoff=0.0)[0]
        msg = (
            f"{stage}: {option} {text} is no checkpoint that {source.name} writes: expected "
            f"{' or '.join(CHECKPOINTS)}; did you mean {near}?"
        )
        raise MistypedError(msg)
