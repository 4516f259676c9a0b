"""Corpora as lhotse writes them: recordings and supervisions, or cuts, as JSON lines."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, final

from ser_strategies.common.errors import listed
from ser_strategies.data.corpus_options import expanded
from ser_strategies.data.manifest.assigning import WORDS
from ser_strategies.data.manifest.bridges import home_of
from ser_strategies.data.manifest.described import DescribedCorpus, DescribedOptions
from ser_strategies.data.manifest.file import of_rows
from ser_strategies.data.manifest.sheet import Sheet, as_sheet

SUPERVISIONS, RECORDINGS, CUTS = "supervisions", "recordings", "cuts"
# A supervision that leaves out no more than this of its recording is all of it: durations are rounded.
SLACK = 0.01
# What a supervision says beside its custom fields.
SAID = ("speaker", "gender", "text")
SUPERVISION = ("id", "recording_id", "start", "duration")
RECORDING = ("id", "sources", "duration")
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What one supervision is of: a recording, from a moment on, for some seconds."""

    place: str  # file and line, for messages
    supervision: Entry
    recording: Entry
    start: float
    split: str | None


@final
class Lhotse(DescribedCorpus):
    """A folder of lhotse: recordings.jsonl.gz with supervisions.jsonl.gz, or cuts.jsonl.gz.

    Files may have other words in their names; where one of them is train, dev, val or test, it is the split.

    Args:
        path: The folder.
        root: The folder that the paths of sounds are relative to; null takes the one that holds them all, or
            for relative ones the one that is worked in.
        columns: What the supervisions call a column, as in {label: mood}: one of their own fields or of
            those in custom; names that a manifest knows, such as emotion, need not be given.
    """

    def __init__(
        self,
        path: str,
        *,
        root: str | None = None,
        columns: dict[str, str] | None = None,
        **options: Unpack[DescribedOptions],
    ) -> None:
        self._columns = dict(columns or {})
        place = expanded("path", path)
        self._rows: list[dict[str, Any]] | None = _rows(place)
        home = home_of(row["path"] for row in self._rows) if root is None else expanded("root", root)
        super().__init__(
            place,
            home,
            **options,
        )

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """A row for each supervision."""
        rows = _rows(self.path) if self._rows is None else self._rows
        self._rows = None  # which are as large as the table that comes of them
        raw = of_rows(self.path, rows, range(1, len(rows) + 1), "supervision")
        return as_sheet(self.path, raw, columns=self._columns, dimensions=dimensions)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = [_row(part) for part in _parts(folder)]
    if not rows:
        msg = f"{folder} describes no utterance: its supervisions are empty."
        raise ValueError(msg)
    return rows


def _parts(folder: Path) -> Iterator[Part]:
    """Every supervision of a folder."""
    files = sorted(each for each in folder.glob("*.jsonl*") if each.name.endswith((".jsonl", ".jsonl.gz")))
    supervised = [each for each in files if SUPERVISIONS in each.name]
    chosen = supervised or [each for each in files if CUTS in each.name]
    if not chosen:
        kind = f"has no file *{SUPERVISIONS}*.jsonl.gz or *{CUTS}*" if folder.is_dir() else "is no folder"
        msg = (
            f"{folder} {kind}: expected a folder of lhotse, with recordings.jsonl.gz and "
            f"supervisions.jsonl.gz."
        )
        raise FileNotFoundError(msg)
    splits = {each: _split(each) for each in chosen}
    # A single part is the whole corpus, whatever it is called.
    told = len(set(splits.values())) > 1
    for file in chosen:
        for part in _of_supervisions(file) if supervised else _of_cuts(file):
            yield Part(*part, splits[file] if told else None)


def _split(file: Path) -> str | None:
    return next((WORDS[word] for word in re.split(r"[^a-z]+", file.name.lower()) if word in WORDS), None)


def _of_supervisions(file: Path) -> Iterator[tuple[str, Entry, Entry, float]]:
    beside = file.with_name(file.name.replace(SUPERVISIONS, RECORDINGS))
    if not beside.exists():  # one may be compressed where the other is not
        other = beside.name.removesuffix(".gz") if beside.suffix == ".gz" else f"{beside.name}.gz"
        beside = beside.with_name(other)
    if not beside.exists():
        msg = f"{file} is there without {beside.name}, which says where the sounds are: put it beside."
        raise FileNotFoundError(msg)
    recordings = {entry["id"]: entry for _, entry in _entries(beside, RECORDING)}
    for place, said in _entries(file, SUPERVISION):
        recording = recordings.get(said["recording_id"])
        if recording is None:
            msg = f"{place}: the recording {said['recording_id']!r} does not stand in {beside.name}."
            raise ValueError(msg)
        yield place, said, recording, float(said["start"])


def _of_cuts(file: Path) -> Iterator[tuple[str, Entry, Entry, float]]:
    for place, cut in _entries(file, ("id", "type", "start")):
        said = cut.get("supervisions") or []
        if "recording" not in cut or len(said) != 1:
            what = f"a {cut['type']}" if "recording" not in cut else f"of {len(said)} supervisions"
            msg = f"{place}: the cut {cut['id']!r} is {what}: expected one recording and one supervision."
            raise ValueError(msg)
        supervision = _checked(place, said[0], SUPERVISION)
        recording = _checked(place, cut["recording"], RECORDING)
        yield place, supervision, recording, float(cut["start"]) + float(supervision["start"])


def _row(part: Part) -> dict[str, Any]:
    """The cells of one utterance."""
    said, recording = part.supervision, part.recording
    custom = said.get("custom") or {}
    row = {name: value for name, value in custom.items() if isinstance(value, (str, int, float))}
    row |= {name: said[name] for name in SAID if said.get(name) is not None}
    row |= {"id": said["id"], "path": _source(part), "seconds": float(said["duration"])}
    if part.split is not None:
        row["split"] = part.split
    end = part.start + float(row["seconds"])
    if part.start > SLACK or end < float(recording["duration"]) - SLACK:
        row |= {"start": part.start, "end": end}
    return row


def _source(part: Part) -> str:
    """The file that a supervision is in."""
    recording, where = part.recording, f"{part.place}: the recording {part.recording['id']!r}"
    if recording.get("transforms"):
        msg = f"{where} is changed when it is read: write its sound to a file, as by lhotse's save_audios."
        raise ValueError(msg)
    spoken = _channels(part.supervision.get("channel", 0))
    found = [each for each in recording["sources"] if spoken <= _channels(each.get("channels", 0))]
    source = found[0] if found else recording["sources"][0]
    if source.get("type") != "file":
        msg = f"{where} is a {source.get('type')}: expected a file, so write its sound to one."
        raise ValueError(msg)
    if not found or spoken != _channels(source.get("channels", 0)):
        which = f"{part.supervision['id']!r}, of channel {listed(sorted(spoken), 'and')}"
        msg = f"{where} has other channels than the supervision {which}: write each channel to a file."
        raise ValueError(msg)
    return str(source["source"])


def _channels(value: Any) -> set[int]:
    return set(value) if isinstance(value, list) else {int(value)}


def _entries(file: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, Entry]]:
    """Each line of a file, as an object, with the place where it stands."""
    number = 0
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8") as lines
        ):
            written = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        msg = f"{file} cannot be read ({error}): copy it again."
        raise ValueError(msg) from error
    for number, line in written:
        place = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            msg = f"{place}: expected JSON, an object in each line, as lhotse writes it."
            raise ValueError(msg) from error
        yield place, _checked(place, entry, needed)


def _checked(place: str, entry: Any, needed: tuple[str, ...]) -> Entry:
    missing = [name for name in needed if not isinstance(entry, dict) or name not in entry]
    if missing:
        msg = f"{place}: expected an object with {listed(missing, 'and')}, as lhotse writes it."
        raise ValueError(msg)
    return dict(entry)
