"""A folder of sounds without any table: folders or file names say what each is."""

import difflib
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Unpack, final

import numpy as np
import pandas as pd

from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.corpus_options import RecordedOptions, expanded
from ser_strategies.data.listing import SUFFIXES, sounds_below
from ser_strategies.data.manifest.assigning import ProtocolName, ValName
from ser_strategies.data.manifest.described import DescribedCorpus
from ser_strategies.data.manifest.sheet import SECOND_NAMES, WORDS, Sheet, canonical
from ser_strategies.data.naming import Named, Naming
from ser_strategies.data.protocol import load_card
from ser_strategies.data.table import TEXT

PARENT, PARENTS = "parent", "{label}/*"
# Groups that mean something; others may have any name.
KNOWN = tuple(word for word in WORDS if word not in {"path", "raters"})


@final
class Folder(DescribedCorpus):
    """A folder of sounds without any table: the folder of each file, or its name, says what it is.

    Args:
        root: The folder; sounds may be in folders of it.
        label: How to read the label: parent (the name of the folder that the file is in), a pattern such as
            '{speaker}_{label}_{take}.wav', or the ready names of a corpus: ased, emo-db, nemo, ravdess,
            savee, subesco or tess. Groups of a pattern that count are label, speaker, gender, text, session,
            dialogue, split, fold and id; {speaker:2} has two characters, {label:ang|sad} is one of some
            words, * is anything. A / stands between folders, as in '{speaker}/{label}/*'.
        unfit: Whether to stop at files that the pattern does not fit, or to skip them, counted.
        classes: Names of the classes, in their order: any other label is a mistake. Null takes those found,
            sorted; [] goes without classes.
        protocol: own (by the group split), own-folds (by the group fold), speaker-folds (nobody is in two
            splits), random (by chance, where no speakers are known) or test-only. Null takes the first of the
            first three whose group is there.
        folds: How many folds speaker-folds makes; null makes five, or as many as there are speakers.
        val: Who validates where the splits name nobody, or with own-folds: share or next-fold.
    """

    def __init__(
        self,
        root: str,
        *,
        label: str = PARENT,
        unfit: Literal["stop", "skip"] = "stop",
        classes: tuple[str, ...] | None = None,
        protocol: ProtocolName | None = None,
        folds: int | None = None,
        val: ValName | None = None,
        **options: Unpack[RecordedOptions],
    ) -> None:
        if unfit not in {"stop", "skip"}:
            msg = f"--data.unfit must be stop or skip, got {unfit!r}."
            raise ValueError(msg)
        self.label, self.unfit = label, unfit
        self._naming = _choose(label)
        self._left: tuple[str, ...] = ()
        folder = expanded("root", root)
        super().__init__(folder, folder, classes=classes, protocol=protocol, folds=folds, val=val, **options)

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """A row for each sound that the pattern fits."""
        if not self.path.is_dir():
            kind = "is a file" if self.path.exists() else "does not exist"
            msg = f"--data.root {self.path} {kind}: expected a folder of sounds."
            raise FileNotFoundError(msg)
        paths = list(sounds_below(self.path))
        if not paths:
            endings = listed(sorted(SUFFIXES))
            msg = f"{self.path} holds no sound: expected files that end in {endings}, in it or below."
            raise FileNotFoundError(msg)
        named = self._naming.read(paths)
        if named.table.empty or (named.unfit and self.unfit == "stop"):
            self._refuse(named, paths)
        self._left = named.unfit
        found = named.table.rename(columns=lambda name: "label" if name == "code" else _column(name))
        cells = found[[column for column in ("path", *KNOWN) if column in found]].copy()
        if ready := _ready().get(self.label):
            cells["label"] = cells["label"].map(dict(ready[1])).astype(TEXT)
        cells = cells.mask(cells == "")
        names = {str(column): str(column) for column in cells}
        return Sheet(self.path, "file", np.arange(1, len(cells) + 1), names, cells)

    def table(self) -> pd.DataFrame:
        """As for every table, with the files that do not fit counted."""
        table = super().table()
        if self._left:
            self.dropped[f"the pattern does not fit, such as {self._left[0]}"] = len(self._left)
        return table

    def _refuse(self, named: Named, paths: list[str]) -> None:
        fits = [name for name, (naming, _) in _ready().items() if not _readings(naming, paths)]
        ready = f"; --data.label {listed(fits)} fits them all" if fits else ""
        if named.table.empty:
            advice = "" if ready else ": groups stand in braces, as in '{speaker}_{label}_{take}.wav'"
            msg = (
                f"--data.label {self.label!r} fits none of the {len(paths):,} sounds below {self.path}, such "
                f"as {paths[0]}{advice}{ready}."
            )
        else:
            msg = (
                f"--data.label {self.label!r} does not fit {len(named.unfit):,} of the {len(paths):,} sounds "
                f"below {self.path}: {named.unfit_words}{ready}: take them out, or give --data.unfit skip to "
                f"go on without them, counted."
            )
        raise ValueError(msg)


def _readings(naming: Naming, paths: list[str]) -> tuple[str, ...]:
    """The files that a ready pattern does not fit; all of them where its codes are others."""
    try:
        return naming.read(paths).unfit
    except ValueError:
        return tuple(paths)


@cache
def _ready() -> dict[str, tuple[Naming, Any]]:
    """The names of the published corpora, and what their codes mean."""
    cards = sorted(files("ser_strategies.data").joinpath("protocols").iterdir(), key=lambda each: each.name)
    loaded = {each.name.removesuffix(".json"): load_card(each.name.removesuffix(".json")) for each in cards}
    return {
        name.replace("_", "-"): (card.names, card.labels)
        for name, card in loaded.items()
        if card.names is not None
    }


def _choose(label: str) -> Naming:
    if label == PARENT:
        return Naming([PARENTS])
    if label in _ready():
        return _ready()[label][0]
    if "{" not in label:
        known = [PARENT, *_ready()]
        hint = did_you_mean(label, known)
        msg = (
            f"--data.label must be a pattern with {{label}} in it or one of {', '.join(known)}, "
            f"got {label!r}{hint}"
        )
        raise ValueError(msg)
    naming = Naming([label])
    meant = {_column(group) for group in naming.compiled[0].groups}
    for group in sorted(meant - {*KNOWN, "folder"}):
        near = difflib.get_close_matches(group, KNOWN, n=1, cutoff=0.75)
        if near:
            msg = f"--data.label has the group {{{group}}}: did you mean {near[0]}? Else rename it."
            raise ValueError(msg)
    if "label" not in meant:
        msg = f"--data.label {label!r} has no group {{label}}: name the part that says what is learned."
        raise ValueError(msg)
    return naming


def _column(group: str) -> str:
    """The column that a group is, by the names that columns of tables may have."""
    name = canonical(group)
    return SECOND_NAMES.get(name, name)
