"""Corpora that one table describes: its rows understood, split by its columns, named by its content."""

import hashlib
import unicodedata
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np
import pandas as pd

from ser_strategies.common.errors import listed
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.audio import read_audio
from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.doubled import check_near
from ser_strategies.data.leakage import Leak
from ser_strategies.data.listing import sizes_of
from ser_strategies.data.loading import Sound
from ser_strategies.data.manifest.assigning import (
    EMPTY_ADVICE,
    FOLD,
    SPLIT,
    TEST_ONLY,
    ProtocolName,
    ValName,
    choose_protocol,
)
from ser_strategies.data.manifest.rated import dimensions_of
from ser_strategies.data.manifest.rows import Rows, understand
from ser_strategies.data.manifest.sheet import Sheet, canonical
from ser_strategies.data.near_copies import copies_in
from ser_strategies.data.protocol import OWN, Card, Protocol
from ser_strategies.data.ratings import RATED
from ser_strategies.data.recorded import NO_CLASSES, RecordedCorpus
from ser_strategies.data.remote import as_remote
from ser_strategies.data.rules import SPLITS
from ser_strategies.data.splits import Numberings, content_numbers
from ser_strategies.data.table import TEXT, VOTE

# Seconds by which a part may end after its recording: annotations are seldom exact to the sample.
SLACK = 0.5


class DescribedOptions(RecordedOptions, total=False):
    """Options of every corpus that a table describes; see `DescribedCorpus`."""

    classes: tuple[str, ...] | None
    dimensions: tuple[str, ...] | None
    protocol: ProtocolName | None
    folds: int | None
    val: ValName | None


class DescribedCorpus(RecordedCorpus):
    """A corpus that one table describes; a concrete one says where the table comes from.

    Args:
        path: What the table is read from, by which messages and the task name it.
        root: The folder that paths are relative to.
        classes: Names of the classes, in their order: any other label is a mistake. Null takes those found,
            sorted; [] goes without classes.
        dimensions: Columns of numbers to learn, in their order; null takes activation, valence and dominance,
            as far as they are there.
        protocol: own (by the column split), own-folds (by the column fold), speaker-folds (nobody is in two
            splits, classes and genders are balanced), speaker-folds-v1 (as it was before it looked at
            gender), random (by chance, where no speakers are known) or test-only. Null takes own if there is
            a column split, else own-folds if there is a column fold, else speaker-folds if there are
            speakers.
        folds: How many folds speaker-folds makes: one tests, the next validates, the others train. Null makes
            five, or as many as there are speakers.
        val: Who validates where the splits name nobody, or with own-folds: share (a fifth of those who train,
            by speaker if known), or next-fold. Null takes next-fold where there are three folds.
    """

    reads_parts = True
    joins_speakers = True

    def __init__(
        self,
        path: Path,
        root: Path,
        *,
        classes: tuple[str, ...] | None = None,
        dimensions: tuple[str, ...] | None = None,
        protocol: ProtocolName | None = None,
        folds: int | None = None,
        val: ValName | None = None,
        **options: Unpack[RecordedOptions],
    ) -> None:
        self.path, self.root = path, root
        self._how: dict[str, Any] = {
            "root": root,
            "classes": _names("classes", classes),
            "dimensions": _names("dimensions", dimensions and tuple(map(canonical, dimensions))),
            "protocol": protocol,
            "folds": folds,
            "val": val,
            "joins": options.get("doubled") == "join",
        }
        self._read: tuple[Rows, Protocol] | None = None
        rows, chosen = self._contents()
        # A manifest that is called none.csv has classes all the same.
        named = path.stem if path.stem != NO_CLASSES else path.name
        # Elsewhere these two belong to the class; here the user brings them.
        self.card = Card(name=str(path), request="the files that it names", protocols=(chosen,))
        self.label_sets = {named: {name: name for name in rows.classes}, NO_CLASSES: {}}
        super().__init__(str(root), labels=named if rows.classes else NO_CLASSES, protocol=None, **options)
        self.learn_classes(rows.classes)
        self.dimensions = rows.dimensions

    @abstractmethod
    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """The cells of the table; `dimensions` are columns of numbers beside those that are always read."""

    def rated(self) -> pd.DataFrame | None:
        """Ratings of single raters that are kept elsewhere: id, rater and dimensions, one rating a row."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """The state that a worker process needs: not the contents of the table."""
        return super().__getstate__() | {"_read": None}

    def _contents(self) -> tuple[Rows, Protocol]:
        """The rows of the table, read once in each process that asks, and the protocol it is split by."""
        if self._read is None:
            self._read = self._understand(**self._how)
        return self._read

    def _understand(
        self,
        *,
        root: Path,
        classes: tuple[str, ...] | None,
        dimensions: tuple[str, ...] | None,
        protocol: str | None,
        folds: int | None,
        val: str | None,
        joins: bool,
    ) -> tuple[Rows, Protocol]:
        rated = self.rated()
        sheet = self.sheet((dimensions or ()) if rated is None else ())
        names = () if rated is None else dimensions_of(rated)
        rows = understand(sheet, root, classes=classes, dimensions=dimensions, rated=names)
        if rated is not None:
            means = rated.groupby("id")[list(names)].mean()
            rows = replace(rows, table=rows.table.join(means, on="id"), dimensions=names)
        copies = partial(self._copies, rows.table) if joins else None
        chosen = choose_protocol(sheet, rows.table, protocol, folds=folds, val=val, copies=copies)
        # From here on the index tells where an utterance stands, for messages.
        rows.table.index = pd.Index(sheet.places, name=sheet.unit)
        return rows, chosen

    def _copies(self, table: pd.DataFrame) -> pd.Series:
        """For each row a name that all rows of one recording share: every sound is listened to."""
        check_near(self.root)
        missing = table["path"][sizes_of(self.root, table["path"]).isna()]
        if len(missing):
            msg = (
                f"--data.doubled join goes by every sound, so that folds stay as they are, but "
                f"{len(missing):,} of {len(table):,} are missing, such as {self.root / missing.iloc[0]}: "
                f"fetch them, or give --data.doubled drop."
            )
            raise FileNotFoundError(msg)
        return copies_in(table.reindex(columns=["id", "path", "start", "end"]), self.root, self.waveform)

    def annotations(self) -> pd.DataFrame:
        """Every row of the table."""
        return self._contents()[0].table

    def scope(self) -> str:
        """Elsewhere ids are the corpus' own; here other tables may well have the same."""
        return f"{type(self).__name__} {self.root.resolve()}"

    def numberings(self) -> Numberings:
        """By content too: the folder may be moved, or copied to another machine."""
        return {**super().numberings(), "content": partial(content_numbers, self.root)}

    def codes(self) -> frozenset[str]:
        """The classes themselves."""
        return frozenset(self.classes)

    def ratings(self) -> pd.DataFrame | None:
        """The judgements of single raters, where they are kept, or in a column raters."""
        rated = self.rated()
        return self._contents()[0].votes if rated is None else rated

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of an utterance; of a longer recording only its part is read."""
        start, end = utterance["start"], utterance["end"]
        if np.isnan(start):
            return super().waveform(utterance)
        path = self.root / utterance["path"]
        sound = read_audio(path, channels=self.channels, start=start, end=end)
        heard = start + len(sound) / SAMPLE_RATE
        if heard < end - SLACK:
            msg = f"{path} ends at {heard:.2f} s, but the part to {end:g} s: start and end must be seconds."
            raise ValueError(msg)
        return sound

    def audio_keys(self, table: pd.DataFrame) -> pd.Series | None:
        """As for every corpus; parts of one recording are alike only where they overlap."""
        self.unchecked = []
        keys = super().audio_keys(table)
        unknown = int((table["speaker"].isna() & table["split"].notna()).sum())
        if unknown and self.protocol is not TEST_ONLY:
            self.unchecked.append(f"whether splits share speakers ({unknown:,} utterances name none)")
        if keys is None or table["start"].isna().all():
            return keys
        parts = pd.DataFrame({"file": keys, "start": table["start"], "end": table["end"]})
        parts = parts[keys.notna() & table["split"].notna()].fillna({"start": 0.0, "end": np.inf})
        parts = parts.sort_values(["file", "start"])
        reached = parts.groupby("file")["end"].cummax().groupby(parts["file"]).shift()
        fresh = reached.isna() | (parts["start"] >= reached)
        apart = parts["file"] + " " + fresh.cumsum().astype(str)
        return apart.reindex(table.index).astype(TEXT)

    def setup(self, stage: str) -> None:
        """Refuses to go on with an empty split, or with one of which nothing is known."""
        for name in self.needed(stage):
            rows = self.split(name)
            if rows.empty:
                self._refuse_empty(name)
            if stage != "predict" and (self.labels or self.dimensions) and not self._known(rows).any():
                column = "label" if self.labels else listed(self.dimensions)
                msg = (
                    f"no utterance of the {name} split of {self.path} has a {column}: fill it in, or only "
                    f"`predict`, which needs none."
                )
                raise ValueError(msg)
        super().setup(stage)

    def alternatives(self, leaks: Sequence[Leak]) -> str:
        """Advice on the leaks that were found, as the start of a sentence."""
        if {leak.relation for leak in leaks} & {"audio", "span"}:
            return f"Leave one row of each such group in {self.path}, or put them in one split"
        if self.protocol.name.startswith("speaker-folds") or "speaker" not in self.annotations():
            return f"Correct {self.path}"
        column = {OWN.name: SPLIT, "own-folds": FOLD}.get(self.protocol.name.removesuffix("-val-share"))
        own = f"Correct the column {column} of {self.path}, or choose"
        return f"{own if column else 'Choose'} --data.protocol speaker-folds"

    @property
    def task(self) -> str:
        """The whole name of what is learned and scored; it names the manifest, with classes or without."""
        classes = (self.label_map.name if self.label_map else "") if self.labels else NO_CLASSES
        rated = RATED if self.single_ratings else ""
        parts = (type(self).__name__, self.path.stem, classes, rated, self.split_name)
        return "/".join(filter(None, parts))

    @property
    def split_name(self) -> str:
        """The protocol, a hash of what it makes of this table, and the fold."""
        fold = f"/fold-{self.fold}-of-{self.protocol.rule.folds}" if self.protocol.rule.folds > 1 else ""
        return f"{self.protocol.name}-v{self.protocol.version}/{self._hash}{fold}"

    @cached_property
    def _hash(self) -> str:
        """Elsewhere a version is enough; a user's own table may say something else tomorrow."""
        table = self.annotations()
        lines = table["id"] + "\t" + table[FOLD if FOLD in table else SPLIT]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:8]

    def _known(self, table: pd.DataFrame) -> pd.Series:
        """For each utterance whether anything is known that could be learned."""
        said = [name for name in table if name in {"label", *self.dimensions} or str(name).startswith(VOTE)]
        known: pd.Series = table[said].notna().any(axis=1)
        return known

    def _drop_unlabelled(self, table: pd.DataFrame, drop: Any) -> None:
        known = self._known(table)
        # Where no label is known at all, the manifest is there to be predicted.
        if known.any():
            drop("the label is empty", ~known)

    def _refuse_absent(self, absent: pd.DataFrame, total: int) -> None:
        path = self.root / absent["path"].iloc[0]
        near = _alike(path)
        hint = f"; there is {near}" if near else ""
        first = f"{path} ({absent.index.name} {absent.index[0]}{hint})"
        if len(absent) == total:
            msg = (
                f"none of the {total:,} sounds of {self.path} is there, not even {first}: give the folder "
                f"that its paths are relative to as --data.root."
            )
        else:
            msg = (
                f"{len(absent):,} of {total:,} sounds of {self.path} are missing, such as {first}: correct "
                f"the paths, or give --data.damaged skip to go on without them, counted in the result."
            )
        raise FileNotFoundError(msg)

    def _refuse_empty(self, name: str) -> None:
        sizes = ", ".join(f"{split} {len(self.split(split)):,}" for split in SPLITS)
        lost = self.dropped.get("the sound is missing")
        advice = EMPTY_ADVICE[self.protocol.name].format(name=name)
        if self.protocol is OWN and name == "val":
            advice = f"{advice}, or give --data.val share to take a fifth of train"
        what = f"{lost:,} sounds are missing, so see to them" if lost else advice
        msg = f"{self.path} has no {name} under the protocol {self.protocol.name} ({sizes}): {what}."
        raise ValueError(msg)


def _names(option: str, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """An option that lists names; in Python it is easily given as one text."""
    if names is None:
        return None
    listed = (names,) if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or len(set(listed)) < len(listed):
        got = ", ".join(listed)
        msg = f"--data.{option} must be a list of different names, as in '[one, two]', got {got}."
        raise ValueError(msg)
    return listed


def _alike(path: Path) -> Path | None:
    """A file beside a missing one whose name differs only in case, ending or encoding."""

    def key(name: str) -> str:
        return unicodedata.normalize("NFC", PurePosixPath(name).stem).casefold()

    if as_remote(path) or not path.parent.is_dir():
        return None
    return next((file for file in path.parent.iterdir() if key(file.name) == key(path.name)), None)
