"""Several corpora as one: classes by one name, each corpus heard as often as the others, scores by corpus."""

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

from ser_strategies.common.emotion_words import map_words, named_sets, suggested_map
from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.batching import BatchPlan, PlannedBatch
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.corpus_options import CorpusOptions
from ser_strategies.data.loading import Batches, FrameSource, Loader, Sound
from ser_strategies.data.near_copies import look_for_copies
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
    """Several corpora as one, each split by its own protocol; dimensions and votes are left out.

    Args:
        of: The corpora, each with its options, as in [{NEMO: {root: nemo}}, {ASED: {root: ased}}]. The option
            label_map of each gives its classes the names they have in the others.
        classes: common keeps the classes that every corpus has, and counts what is left out; all keeps every
            class of any.
        balance: Let training hear each corpus equally often: utterances of smaller ones come several times in
            an epoch, which is as long as if all were as large as the largest.
    """

    protocol = TOGETHER

    def __init__(
        self,
        of: list[dict[str, Any]],
        *,
        classes: Literal["common", "all"] = "common",
        balance: bool = True,
        **options: Unpack[CorpusOptions],
    ) -> None:
        super().__init__(**options)
        if classes not in {"common", "all"}:
            msg = f"--data.classes must be common or all, got {classes!r}."
            raise ValueError(msg)
        self.members = _members(of)
        self.shared = classes == "common"
        self.balance = balance
        self._copied: list[str] = []
        self.skips_damaged = all(member.skips_damaged for member in self.members.values())
        self.learn_classes(shared_classes(self.members, common=self.shared))

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
            tables.append(_owned(name, member, table[~strange]))
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
        """Those of each corpus."""
        return [f"{name}: {words}" for name, member in self.members.items() for words in member.differences()]

    def brands(self) -> list[str]:
        """Those of each corpus, and recordings that splits share; no two corpora share a speaker by name."""
        told = [f"{name}: {words}" for name, member in self.members.items() for words in member.brands()]
        return [*told, *self._copied, *self._guard.brands]

    def facts(self) -> dict[str, Any]:
        """As for every corpus, with the task and the digest of each."""
        members = {name: member.facts() for name, member in self.members.items()}
        known = ("task", "digest", "label_map", "splits", "unchecked")
        told = {name: {key: facts[key] for key in known} for name, facts in members.items()}
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


def _members(of: list[dict[str, Any]]) -> dict[str, Corpus]:
    kinds = {kind.__name__: kind for kind in _kinds(Corpus) if kind is not Together}
    members: dict[str, Corpus] = {}
    for entry in of:
        name, options = _entry(entry)
        if name not in kinds:
            known = sorted(kinds)
            near = did_you_mean(name, known)
            msg = f"--data.of has the corpus {name!r}, expected one of {', '.join(known)}{near}"
            raise ValueError(msg)
        try:
            member = kinds[name](**options)
        except TypeError as error:
            why = str(error).rpartition("() ")[2]
            msg = f"--data.of, {name}: {why}; see --data.help {name} for its options."
            raise ValueError(msg) from error
        again = sum(known.partition("-")[0] == name for known in members)
        members[f"{name}-{again + 1}" if again else name] = member
    if len(members) < 2:
        msg = (
            f"--data.of names {len(members)} corpora, expected two or more, as in "
            f"'[{{NEMO: {{root: nemo}}}}, {{ASED: {{root: ased}}}}]'."
        )
        raise ValueError(msg)
    return members


def _entry(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, Mapping) and "class_path" in entry:
        return str(entry["class_path"]).rpartition(".")[2], dict(entry.get("init_args") or {})
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, options = next(iter(entry.items()))
        if options is None or isinstance(options, Mapping):
            return str(name), dict(options or {})
    msg = f"--data.of has {entry!r}, expected a corpus with its options, as in {{NEMO: {{root: nemo}}}}."
    raise ValueError(msg)


def _kinds(kind: Any) -> Iterable[type[Corpus]]:
    for each in kind.__subclasses__():
        if not getattr(each, "__abstractmethods__", None):
            yield each
        yield from _kinds(each)


def shared_classes(members: Mapping[str, Corpus], *, common: bool) -> tuple[str, ...]:
    """The classes that all corpora have, or any; ValueError, with a map that may help, for fewer than two."""
    sets = {name: member.labels for name, member in members.items()}
    every = dict.fromkeys(label for labels in sets.values() for label in labels)
    shared = [label for label in every if not common or all(label in labels for labels in sets.values())]
    if len(shared) < 2:
        first = next(iter(sets))
        maps = {name: suggested_map(labels, sets[first]) for name, labels in sets.items() if name != first}
        hints = [f"for {name} label_map: {map_words(each)}" for name, each in maps.items() if each]
        advice = listed(hints, "and") or "a label_map for each corpus, with the names of one of them"
        only = f"share {', '.join(shared)} alone" if shared else "have no class in common"
        msg = f"the corpora {only}: {named_sets(sets)}; expected two or more. Try {advice}."
        raise ValueError(msg)
    return tuple(sorted(shared))


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
