"""Several corpora as one: one name a class, one scale a dimension, each heard as often as the others."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack, final

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ser_strategies.data.batching import BatchPlan, PlannedBatch
from ser_strategies.data.corpora.members import members_of, shared_classes
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.corpus_options import CorpusOptions
from ser_strategies.data.loading import Batches, FrameSource, Loader, Sound
from ser_strategies.data.near_copies import look_for_copies
from ser_strategies.data.one_scale import ENDS, on_one_scale, scales_of, shared_dimensions
from ser_strategies.data.protocol import OWN, Protocol
from ser_strategies.data.remote import as_remote
from ser_strategies.data.rules import Split
from ser_strategies.data.splits import Numberings, utterance_numbers
from ser_strategies.data.table import TEXT, TIMES, WORDS

# What is told apart by the corpus it belongs to.
OWNED = ("id", "speaker", "session", "dialogue", "recording")
TOGETHER = Protocol("together", 1, "Each corpus is split by its own protocol.", OWN.rule)


@final
class Together(Corpus):
    """Several corpora as one, each split by its own protocol, with dimensions on one scale; without votes.

    Args:
        of: The corpora, each with its options, as in [{NEMO: {root: nemo}}, {ASED: {root: ased}}]. The option
            label_map of each gives its classes the names they have in the others.
        classes: common keeps the classes that every corpus has, and counts what is left out; all keeps every
            class of any.
        dimensions: Dimensions to learn, from -1 to 1, the ends of each corpus' own scale; what a corpus does
            not tell is missing there, and counted. Null takes those that every corpus has; [] takes none.
        scales: The lowest and the highest value of corpora that do not know theirs, as in
            {Audformat: [0, 1]}.
        balance: Let training hear each corpus equally often: utterances of smaller ones come several times in
            an epoch, which is as long as if all were as large as the largest.
    """

    protocol = TOGETHER

    def __init__(
        self,
        of: list[dict[str, Any]],
        *,
        classes: Literal["common", "all"] = "common",
        dimensions: tuple[str, ...] | None = None,
        scales: dict[str, tuple[float, float]] | None = None,
        balance: bool = True,
        **options: Unpack[CorpusOptions],
    ) -> None:
        super().__init__(**options)
        if classes not in {"common", "all"}:
            msg = f"--data.classes must be common or all, got {classes!r}."
            raise ValueError(msg)
        self.members = members_of(of)
        self.shared = classes == "common"
        self.balance = balance
        self._copied: list[str] = []
        self.skips_damaged = all(member.skips_damaged for member in self.members.values())
        self.scales = scales_of(self.members, scales)
        self.dimensions = shared_dimensions(self.members, dimensions, self.scales)
        self.scale = ENDS if self.dimensions else None
        self._beyond: dict[str, dict[str, int]] = {}
        # For dimensions alone, corpora without any class will do.
        classless = self.dimensions and not any(member.labels for member in self.members.values())
        self.learn_classes(() if classless else shared_classes(self.members, common=self.shared))

    def setup(self, stage: str) -> None:
        """Looks, before the first training on these sounds, for recordings that splits share.

        They may be of different corpora. Those whose near_copies is false are left out.
        """
        super().setup(stage)
        if self.trainer is None or not self.trainer.is_global_zero:
            return
        heard = [
            name
            for name, member in self.members.items()
            if getattr(member, "near_copies", False) and not as_remote(getattr(member, "root", None))
        ]
        rows = self.everything()
        self._copied, unchecked = look_for_copies(
            rows[rows["corpus"].isin(heard)], Path("/"), self.waveform, listens=stage == "fit"
        )
        self.unchecked = [*self.unchecked, *unchecked]

    def table(self) -> pd.DataFrame:
        """The utterances of all corpora with classes of the same names."""
        tables, self.dropped = [], {}
        for name, member in self.members.items():
            table = member.everything()
            reasons = member.dropped | member.splits.dropped
            self.dropped |= {f"{name}: {reason}": count for reason, count in reasons.items()}
            strange = table["label"].notna() & ~table["label"].isin(list(self.classes))
            if strange.any():
                counts = table["label"][strange].value_counts()
                for label, count in counts.items():
                    self.dropped[f"{name}: not every corpus has the class {label}"] = int(count)
            table = table[~strange]
            columns, self._beyond[name] = on_one_scale(name, table, self.dimensions, self.scales.get(name))
            tables.append(_owned(name, member, table).assign(**columns))
        return pd.concat(tables, ignore_index=True)

    def assign(self, table: pd.DataFrame) -> pd.Series:
        """What the protocol of each corpus says."""
        split: pd.Series = table["split"]
        return split

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of an utterance, as its corpus reads it."""
        return self.members[utterance["corpus"]].waveform({**utterance, "id": _own_id(utterance["id"])})

    def sound_keys(self, rows: pd.DataFrame) -> list[str]:
        """As each corpus names its sounds, so that a cache of one serves all."""
        keys: dict[int, str] = {}
        for member, places, own in self._parts(rows):
            keys |= dict(zip(places, member.sound_keys(own), strict=True))
        return [keys[place] for place in range(len(rows))]

    def numberings(self) -> Numberings:
        """As each corpus numbers its utterances, so that a score on one of them knows what was heard here."""
        kinds = dict.fromkeys(kind for member in self.members.values() for kind in member.numberings())
        return {kind: self._numbering(kind) for kind in kinds}

    def _numbering(self, kind: str) -> Callable[[pd.DataFrame], Tensor]:
        def numbers(rows: pd.DataFrame) -> Tensor:
            found = torch.zeros(len(rows), dtype=torch.int64)
            for member, places, own in self._parts(rows):
                known = member.numberings().get(kind)
                missing = utterance_numbers(f"{kind} {member.scope()}", own["id"])
                found[places] = missing if known is None else known(own)
            return found

        return numbers

    def _parts(self, rows: pd.DataFrame) -> Iterable[tuple[Corpus, list[int], pd.DataFrame]]:
        """For each corpus in some rows, where they are and how it knows them itself."""
        corpora = rows["corpus"].to_numpy(dtype=object)
        for name, member in self.members.items():
            places = [place for place, corpus in enumerate(corpora) if corpus == name]
            if places:
                own = rows.iloc[places].reset_index(drop=True)
                yield member, places, own.assign(id=own["id"].map(_own_id))

    # Balance --------------------------------------------------------------------------------------------

    @cached_property
    def heard_order(self) -> list[int]:
        """The rows of train that an epoch hears, those of smaller corpora several times."""
        rows = self.split("train")
        if not self.balance or rows.empty:
            return list(range(len(rows)))
        places = {name: [*group.index] for name, group in rows.groupby("corpus", sort=False)}
        most = max(map(len, places.values()))
        heard: list[int] = []
        for group in places.values():
            whole, rest = divmod(most, len(group))
            # Who comes once more is drawn by a hash, whatever the order of the table.
            drawn = sorted(group, key=lambda row: _draw(self.order_seed, rows["id"].iloc[row]))
            heard += group * whole + drawn[:rest]
        return heard

    def class_counts(self) -> tuple[int, ...]:
        """Utterances of each class that an epoch of training hears."""
        counts = Counter(self.split("train")["label"].iloc[self.heard_order])
        return tuple(counts[label] for label in self.labels)

    def plan_batches(self, name: Split, *, shuffle: bool, rank: int = 0, processes: int = 1) -> BatchPlan:
        """As for every corpus, of the rows that an epoch hears."""
        if not shuffle or name != "train":
            return super().plan_batches(name, shuffle=shuffle, rank=rank, processes=processes)
        return BatchPlan(
            self.split(name)["seconds"].iloc[self.heard_order].tolist(),
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            shuffle=True,
            seed=self.order_seed,
            rank=rank,
            processes=processes,
        )

    def load_batches(self, name: Split, batches: Iterable[PlannedBatch], *, shuffle: bool) -> DataLoader[Any]:
        """As for every corpus, of the rows that an epoch hears."""
        if not shuffle or name != "train":
            return super().load_batches(name, batches, shuffle=shuffle)
        frames = self._frames.get(name)
        contents = Batches(
            self,
            self.split(name).iloc[self.heard_order].reset_index(drop=True),
            augmentation=self.augmentation,
            seed=self.order_seed,
            frames=None if frames is None else RepeatedFrames(frames, self.heard_order),
            refill=True,
        )
        return Loader.over(contents, batches, workers=self.workers)

    # What a result says of its data ---------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The corpora, what becomes of their classes, and their splits."""
        names = "+".join(self.members)
        parts = (type(self).__name__, names, self.label_map.name if self.label_map else None)
        return "/".join(filter(None, (*parts, self.split_name)))

    @property
    def split_name(self) -> str:
        """A hash of how each corpus is split."""
        how = "\n".join(f"{name}\t{member.split_name}" for name, member in self.members.items())
        return f"{TOGETHER.name}-v{TOGETHER.version}/{hashlib.sha256(how.encode()).hexdigest()[:8]}"

    def differences(self) -> list[str]:
        """Those of each corpus, and values outside of its scale."""
        found = []
        for name, member in self.members.items():
            found += [f"{name}: {words}" for words in member.differences()]
            outside = self._beyond.get(name, {}).items()
            found += [
                f"{name}: {count:,} values of {each} lie outside of its scale" for each, count in outside
            ]
        return found

    def brands(self) -> list[str]:
        """Those of each corpus, and recordings that splits share; no two corpora share a speaker by name."""
        told = [f"{name}: {words}" for name, member in self.members.items() for words in member.brands()]
        return [*told, *self._copied, *self._guard.brands]

    def facts(self) -> dict[str, Any]:
        """As for every corpus, with the task and the digest of each, and how many utterances tell what."""
        members = {name: member.facts() for name, member in self.members.items()}
        known = ("task", "digest", "label_map", "splits", "unchecked")
        told = {name: {key: facts[key] for key in known} for name, facts in members.items()}
        used = self.everything().dropna(subset=["split"])
        for name, rows in used.groupby("corpus", sort=False) if self.dimensions else ():
            counts = rows[list(self.dimensions)].notna().sum()
            told[str(name)] |= {
                "utterances": len(rows),
                "dimensions": {each: int(counts[each]) for each in self.dimensions},
                "scale": self.scales.get(str(name)),
            }
        return {**super().facts(), "corpora": told, "balanced": self.balance}


class RepeatedFrames:
    """Stored frames of rows that an epoch hears several times."""

    def __init__(self, frames: FrameSource, order: Sequence[int]) -> None:
        self._frames, self._order = frames, order

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Positions without frames, and why."""
        known = self._frames.unreadable
        return {place: known[row] for place, row in enumerate(self._order) if row in known}

    def read(self, position: int, epoch: int) -> tuple[Tensor, int]:
        """Frames of a row, and how many samples they were made of."""
        return self._frames.read(self._order[position], epoch)


def _owned(name: str, member: Corpus, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a corpus, by names that no other corpus has."""
    table = table.copy()
    for column in OWNED:
        table[column] = (f"{name}/" + table[column]).astype(TEXT)
    root = getattr(member, "root", None)
    if root is not None:
        table["path"] = (f"{root.absolute().as_posix()}/" + table["path"]).astype(TEXT)
    return table[["id", *WORDS, "seconds", *TIMES]].assign(corpus=pd.array([name] * len(table), TEXT))


def _own_id(name: str) -> str:
    return name.partition("/")[2]


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
