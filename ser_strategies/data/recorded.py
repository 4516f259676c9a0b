"""The common part of all corpora on a disk: their files, the chosen classes, missing sounds."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import pandas as pd

from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.audio import RuleName, read_audio, reading_version
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.corpus_options import CorpusOptions, expanded
from ser_strategies.data.doubled import KEEP, Doubled, check_doubled, check_near, surplus
from ser_strategies.data.leakage import Leak
from ser_strategies.data.listing import MOST_OPENED, audio_keys, estimate_seconds, header_seconds, sizes_of
from ser_strategies.data.loading import Sound
from ser_strategies.data.near_copies import copies_in, look_for_copies
from ser_strategies.data.protocol import Card
from ser_strategies.data.remote import as_remote
from ser_strategies.data.table import TEXT, VOTE, check_ids, complete

# A set of classes that keeps every utterance, for its dimensions.
NO_CLASSES = "none"


class RecordedCorpus(Corpus):
    """A corpus on a disk. A concrete one says what its label files say.

    Args:
        root: The folder of the corpus.
        labels: Which of the corpus' sets of labels to learn.
        protocol: How to split it; null takes the corpus' default.
        fold: Which of the protocol's folds tests, from 1.
        damaged: Whether to stop at an utterance whose sound is missing or cannot be read, or to skip it,
            counted in the result.
        near_copies: Listen, before the first training on the sounds, for recordings that splits share in
            other files (coding, rate, level, ends), which brands the result; the answer is kept.
        doubled: What to do with recordings that are there in several files: keep leaves them, and brands
            splits that share one; drop leaves out all but one of each, and all that name different speakers
            or classes, counted in the result; join, where folds are made of speakers, keeps in one fold those
            that one recording is told of. The last two listen to every sound, once.
    """

    card: Card
    # For each set of labels, what each code of the corpus means; codes that it lacks are not in the set.
    label_sets: Mapping[str, Mapping[str, str]]
    # What makes mono of a recording with several channels.
    channels: ClassVar[RuleName] = "average"
    # Whether an utterance is the part of its file from `start` to `end`.
    reads_parts: ClassVar[bool] = False
    # Whether sounds may be behind a URL: those that are found by listing folders may not.
    reads_urls: ClassVar[bool] = False
    # Whether what label files say of durations is that of annotations, which the files seldom last exactly.
    rough_seconds: ClassVar[bool] = False
    # Whether folds are made of its speakers, rather than listed.
    joins_speakers: ClassVar[bool] = False

    def __init__(
        self,
        root: str,
        *,
        labels: str,
        protocol: str | None = None,
        fold: int = 1,
        damaged: Literal["stop", "skip"] = "stop",
        near_copies: bool = True,
        doubled: Doubled = KEEP,
        **options: Unpack[CorpusOptions],
    ) -> None:
        super().__init__(**options)
        self.root = expanded("root", root)
        if as_remote(self.root) and not self.reads_urls:
            msg = (
                f"--data.root {root}: {type(self).__name__} is read from a folder; sounds behind a URL are "
                "described by a table, with --data Manifest."
            )
            raise ValueError(msg)
        self.label_set = _choose(labels, self.label_sets)
        self.learn_classes(tuple(sorted(set(self.label_sets[labels].values()))))
        self.protocol = self.card.choose(protocol)
        self.protocol.check_fold(fold)
        self.fold = fold
        if damaged not in {"stop", "skip"}:
            msg = f"damaged must be stop or skip, got {damaged!r}."
            raise ValueError(msg)
        self.skips_damaged = damaged == "skip"
        check_doubled(doubled, type(self).__name__, joins=self.joins_speakers)
        self.near_copies, self.doubled = near_copies, doubled
        self._copied: list[str] = []
        self._annotated: pd.DataFrame | None = None
        self._assigned: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The state that a worker process needs."""
        return super().__getstate__() | {"_annotated": None, "_assigned": {}}

    @abstractmethod
    def annotations(self) -> pd.DataFrame:
        """Everything the label files say, one utterance a row.

        The columns are those of `data/table.py`, with `code` in place of `label`: the class in the corpus'
        own words, empty where the raters do not agree. `path` is relative to the root; `seconds` may be
        absent.
        """

    @abstractmethod
    def codes(self) -> frozenset[str]:
        """Every code that the label files may use."""

    def label_files(self) -> list[Path]:
        """The files that say what the utterances are, as far as their encoding is not the user's choice."""
        return []

    def chosen_dimensions(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """Some of the corpus' dimensions, or all of them; ValueError for others."""
        known = type(self).dimensions
        for name in names or ():
            if name not in known:
                msg = (
                    f"dimensions must be some of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"
                )
                raise ValueError(msg)
        return known if names is None else tuple(dict.fromkeys(names))

    def annotated(self) -> pd.DataFrame:
        """The annotations, read once, with the size of each file: `bytes`, empty if it is missing."""
        if self._annotated is None:
            self.check_root()
            table = self.annotations()
            sizes = sizes_of(self.root, table["path"])
            self._annotated = table.assign(bytes=sizes)
        return self._annotated

    def check_root(self) -> None:
        """Raises FileNotFoundError where the root is no folder."""
        if not self.root.is_dir():
            kind = "is a file" if self.root.exists() else "does not exist"
            msg = (
                f"--data.root {self.root} {kind}: expected the folder of {self.card.name} "
                f"({self.card.request})."
            )
            raise FileNotFoundError(msg)

    def find(self, *names: str) -> Path:
        """The first of several files, folders or patterns, such as */labels.csv, found below the root."""
        for name in names:
            found = sorted(path for path in self.root.glob(name) if not path.name.startswith("._"))
            if found:
                return found[0]
        msg = (
            f"{self.root} is not the folder of {self.card.name}, or half of it: it has no "
            f"{listed(names)}. "
            f"Give the right --data.root; to get the corpus: {self.card.request}."
        )
        raise FileNotFoundError(msg)

    def table(self) -> pd.DataFrame:
        """The utterances of the chosen classes whose sound is there; the others are counted."""
        everything = self.annotated()
        check_ids(everything, type(self).__name__)
        self._check_codes(everything)
        table = everything.copy()
        keep = pd.Series(True, index=table.index)
        self.dropped = {}

        def drop(reason: str, hopeless: pd.Series) -> None:
            nonlocal keep
            hopeless = hopeless.fillna(False).astype(bool)
            count = int((hopeless & keep).sum())
            if count:
                self.dropped[reason] = count
            keep &= ~hopeless

        for name, reason in self.card.damaged.items():
            if name not in self.protocol.uses_damaged:
                drop(f"{name}: {reason}", table["id"] == name)
        for name, reason in self.card.absent.items():
            drop(f"{name}: {reason}", (table["id"] == name) & table["bytes"].isna())
        self._drop_other_parts(table, drop)
        if self.label_set == NO_CLASSES:
            table["label"] = pd.array([pd.NA] * len(table), TEXT)
        else:
            table["label"] = table["code"].map(dict(self.label_sets[self.label_set or ""])).astype(TEXT)
            self._drop_unlabelled(table, drop)
        # Before what is missing is dropped: who is in a fold must not depend on what is on the disk.
        named = complete(table[keep].assign(seconds=0.0), type(self).__name__)
        self._assigned = dict(zip(named["id"], self.protocol.assign(named, self.fold), strict=True))
        absent = keep & table["bytes"].isna()
        if absent.any() and not self.skips_damaged:
            self._refuse_absent(table[absent], int(keep.sum()))
        drop("the sound is missing", table["bytes"].isna())
        if self.doubled == "drop":
            check_near(self.root)
            there = complete(table[keep].assign(seconds=0.0), type(self).__name__).set_axis(table.index[keep])
            for reason, hopeless in surplus(there, copies_in(there, self.root, self.waveform)):
                drop(reason, hopeless.reindex(table.index, fill_value=False))
        table = table[keep].reset_index(drop=True)
        if self.rough_seconds and len(table) <= MOST_OPENED:
            table["seconds"] = header_seconds(self.root, table["path"]).fillna(table["seconds"])
        if "seconds" not in table or table["seconds"].isna().any():
            known = table["seconds"] if "seconds" in table else pd.Series(float("nan"), index=table.index)
            table["seconds"] = known.fillna(estimate_seconds(self.root, table["path"], table["bytes"]))
        return table.drop(columns=["code"])

    def assign(self, table: pd.DataFrame) -> pd.Series:
        """The split of each utterance, as if no sound were missing."""
        return table["id"].map(self._assigned).astype(TEXT)

    def _drop_other_parts(self, table: pd.DataFrame, drop: Any) -> None:
        """Takes away what belongs to no part of the corpus that was asked for."""

    def _drop_unlabelled(self, table: pd.DataFrame, drop: Any) -> None:
        """Takes away what has no class; a corpus that knows better overrides it."""
        drop("the raters do not agree", table["code"].isna())
        drop(f"the class is not in {self.label_set}", table["label"].isna())

    def vote_shares(self, said: pd.DataFrame) -> pd.DataFrame:
        """For each id, the share of each class in the votes for any class; judgements have id and label."""
        counts = said.groupby(["id", "label"]).size().unstack(fill_value=0)
        counts = counts.reindex(columns=list(self.classes), fill_value=0)
        return counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0).add_prefix(VOTE)

    def _check_codes(self, table: pd.DataFrame) -> None:
        strange = table[table["code"].notna() & ~table["code"].isin(list(self.codes()))]
        if len(strange):
            first = strange.iloc[0]
            msg = (
                f"{len(strange)} utterances such as {first['id']!r} have the label {first['code']!r}, which "
                f"{self.card.name} does not know: expected one of {', '.join(sorted(self.codes()))}."
            )
            raise ValueError(msg)

    def _refuse_absent(self, absent: pd.DataFrame, total: int) -> None:
        name = type(self).__name__
        msg = (
            f"{len(absent):,} of the {total:,} sounds that {name} needs are missing, such as "
            f"{self.root / absent.iloc[0]['path']}: see `ser-strategies doctor --data {name} --data.root "
            f"{quote(str(self.root))}`, or give --data.damaged skip to go on without them, counted in the "
            f"result."
        )
        raise FileNotFoundError(msg)

    def clips_to_prepare(self) -> list[Path]:
        """Films whose sound must be extracted before it can be read."""
        return []

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of an utterance."""
        return read_audio(self.root / utterance["path"], channels=self.channels)

    def read_ahead(self, utterances: Sequence[Mapping[str, Any]]) -> None:
        """Fetches the files of a batch at once; of longer recordings each part is read by itself."""
        behind = as_remote(self.root)
        if behind is not None:
            whole = [each for each in utterances if not self.reads_parts or np.isnan(each["start"])]
            behind.read_ahead(each["path"] for each in whole)

    def audio_keys(self, table: pd.DataFrame) -> pd.Series | None:
        """Sounds of equal size in different splits are compared by their content."""
        keys = audio_keys(self.root, table)
        if keys is None:
            self.unchecked = ["whether splits share identical sounds (too many; `doctor` compares all)"]
        return keys

    def id_of_clip(self, film: Path) -> str:
        """The utterance that a film is of."""
        return film.stem

    def sound_keys(self, rows: pd.DataFrame) -> list[str]:
        """For each row a hash of its file's content and of everything that makes samples of it."""
        files = rows["path"].unique()
        with ThreadPoolExecutor() as pool:
            hashes = dict(zip(files, pool.map(self._content, files), strict=True))
        shared = [self.channels, reading_version()]
        keys = []
        for path, start, end in zip(rows["path"], rows["start"], rows["end"], strict=True):
            part = [start, end] if self.reads_parts else []
            facts = json.dumps([hashes[path], *shared, *part])
            keys.append(hashlib.blake2b(facts.encode(), digest_size=16).hexdigest())
        return keys

    def _content(self, path: str) -> str:
        with (self.root / path).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()

    def setup(self, stage: str) -> None:
        """Looks, before the first training on these sounds, for recordings that are in several splits.

        What was found then brands whatever is scored later.
        """
        super().setup(stage)
        if not self.near_copies or self.doubled != KEEP:  # those that are dropped or joined share none
            return
        if self.trainer is None or not self.trainer.is_global_zero:
            return
        if as_remote(self.root):
            words = "whether splits share recordings in several files (sounds behind a URL)"
            self.unchecked = [*self.unchecked, words]
            return
        self._copied, unchecked = look_for_copies(
            self.everything(), self.root, self.waveform, listens=stage == "fit"
        )
        self.unchecked = [*self.unchecked, *unchecked]

    def brands(self) -> list[str]:
        """As for every corpus, and recordings that splits share in several files."""
        return [*super().brands(), *self._copied]

    def differences(self) -> list[str]:
        """Differences of the label files from the published ones."""
        return [phrase for count in self.card.counts for phrase in count.differences(self.annotated())]

    def alternatives(self, leaks: Sequence[Leak]) -> str:
        """The protocols that share nothing, as the start of a sentence."""
        clean = [each.name for each in self.card.protocols if not each.shares and not each.trains_blindly]
        clean = [name for name in clean if name != self.protocol.name]
        return f"Choose --data.protocol {listed(clean)}" if clean else super().alternatives(leaks)


def _choose(labels: str, known: Mapping[str, Any]) -> str:
    if labels not in known:
        hint = did_you_mean(labels, known)
        msg = f"labels must be one of {', '.join(known)}, got {labels!r}{hint}"
        raise ValueError(msg)
    return labels
