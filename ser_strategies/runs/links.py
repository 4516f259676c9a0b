"""Hand-offs: what a stage's configuration says of another stage's folder, and where that is really."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_strategies.common.errors import MistypedError
from ser_strategies.runs.stages import Stage

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
