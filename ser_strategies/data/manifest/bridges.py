"""Corpora in the files of other programs: EmoBox' metadata and Kaldi's data folders."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack, final

import numpy as np
import pandas as pd

from ser_strategies.data.corpus_options import RecordedOptions, expanded
from ser_strategies.data.manifest.assigning import ProtocolName, ValName
from ser_strategies.data.manifest.described import DescribedCorpus
from ser_strategies.data.manifest.sheet import Sheet
from ser_strategies.data.table import TEXT


@final
class EmoBox(DescribedCorpus):
    """A corpus by EmoBox' metadata: jsonl files with its folds, in a folder of EmoBox' `data`.

    EmoBox' train files name nobody to validate: where there are three folds or more, the next one does, else
    a fifth of those who train.

    Args:
        path: The folder of the corpus, such as EmoBox/data/ravdess, with fold_1, fold_2 and so on in it.
        root: The folder that the paths of its sounds are relative to, such as the one with downloads in it.
        protocol: own-folds, or own for a corpus of one fold; random or test-only leave the folds alone.
        val: share or next-fold; null takes next-fold where there are three folds.
    """

    def __init__(
        self,
        path: str,
        root: str,
        *,
        protocol: ProtocolName | None = None,
        val: ValName | None = None,
        **options: Unpack[RecordedOptions],
    ) -> None:
        place = expanded("path", path)
        if val is None and protocol in {None, "own"} and len(_tests(place)) == 1:
            val = "share"
        super().__init__(place, expanded("root", root), protocol=protocol, val=val, **options)

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """A row for each utterance of any fold, by the fold that it tests in."""
        tests = _tests(self.path)
        if not tests:
            msg = (
                f"{self.path} has no fold_1/<corpus>_test_fold_1.jsonl: expected the folder of a corpus in "
                f"EmoBox' data, such as EmoBox/data/ravdess."
            )
            raise FileNotFoundError(msg)
        renamed = _label_map(self.path / "label_map.json")
        rows: dict[str, dict[str, Any]] = {}
        for test in tests:
            fold = {"fold": str(_number(test.parent.name))} if len(tests) > 1 else {"split": "test"}
            for entry in _entries(test):
                rows[entry["key"]] = _row(entry, renamed) | fold
            # With one fold most utterances never test.
            for train in test.parent.glob("*_train_fold_*.jsonl") if len(tests) == 1 else ():
                for entry in _entries(train):
                    rows[entry["key"]] = _row(entry, renamed) | {"split": "train"}
        return _sheet(self.path, list(rows.values()))


@final
class Kaldi(DescribedCorpus):
    """A data folder of Kaldi: wav.scp, utt2spk, and utt2emo with the emotion of each utterance.

    Args:
        path: The folder, with wav.scp in it; text, spk2gender and segments are read if they are there.
        root: The folder that paths in wav.scp are relative to; null takes the one that is worked in, or, if
            none is relative, the one that holds them all.
        labels: The file with an utterance and its label in each line.
        protocol: As for a manifest: speaker-folds, random or test-only.
        folds: How many folds speaker-folds makes.
    """

    def __init__(
        self,
        path: str,
        *,
        root: str | None = None,
        labels: str = "utt2emo",
        protocol: ProtocolName | None = None,
        folds: int | None = None,
        **options: Unpack[RecordedOptions],
    ) -> None:
        self.labels_in = labels
        place = expanded("path", path)
        home = home_of(_pairs(place / "wav.scp").values()) if root is None else expanded("root", root)
        super().__init__(place, home, protocol=protocol, folds=folds, **options)

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """A row for each utterance: of segments if there are any, else of wav.scp."""
        sounds = _pairs(self.path / "wav.scp")
        piped = next((name for name, place in sounds.items() if place.endswith("|")), None)
        if piped is not None:
            msg = f"{self.path / 'wav.scp'}: {piped!r} is the output of a command: write its sound to a file."
            raise ValueError(msg)
        parts = {name: text.split() for name, text in _pairs(self.path / "segments", missing=True).items()}
        table = pd.DataFrame({"id": list(parts or sounds)})
        if parts:
            table["path"] = [sounds.get(parts[name][0]) for name in table["id"]]
            table["start"], table["end"] = ([float(parts[name][at]) for name in table["id"]] for at in (1, 2))
        else:
            table["path"] = table["id"].map(sounds)
        speakers = _pairs(self.path / "utt2spk", missing=True)
        genders = _pairs(self.path / "spk2gender", missing=True)
        table["label"] = table["id"].map(_pairs(self.path / self.labels_in))
        table["speaker"] = table["id"].map(speakers)
        table["gender"] = table["speaker"].map(genders)
        table["text"] = table["id"].map(_pairs(self.path / "text", missing=True))
        return _sheet(self.path, table.to_dict("records"))


def home_of(paths: Iterable[str]) -> Path:
    """The folder that holds every path, or the one that is worked in where they are relative."""
    folders = {Path(path).parent for path in paths}
    if not folders or not all(folder.is_absolute() for folder in folders):
        return Path.cwd()
    return Path(os.path.commonpath(folders))


def _tests(path: Path) -> list[Path]:
    found = path.glob("fold_*/*_test_fold_*.jsonl")
    return sorted(found, key=lambda each: _number(each.parent.name))


def _row(entry: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    emotion = entry.get("emo")
    row = {"id": entry["key"], "path": entry["wav"], "label": renamed.get(str(emotion), emotion)}
    speaker = entry.get("spk")
    return row | ({"speaker": str(speaker)} if speaker is not None else {})


def _sheet(path: Path, rows: Sequence[Any]) -> Sheet:
    cells = pd.DataFrame(rows)
    for column in cells:
        if column not in {"start", "end"}:
            cells[column] = cells[column].astype(TEXT)
    cells = cells[[column for column in cells if cells[column].notna().any()]]
    return Sheet(path, "utterance", np.arange(1, len(cells) + 1), {str(c): str(c) for c in cells}, cells)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            complete = {"key", "wav"} <= entry.keys()
        except (ValueError, AttributeError):
            complete = False
        if not complete:
            msg = f"{path}, line {number}: expected an object with key, wav and emo, as EmoBox writes them."
            raise ValueError(msg)
        yield entry


def _label_map(path: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _number(folder: str) -> int:
    digits = folder.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _pairs(path: Path, *, missing: bool = False) -> dict[str, str]:
    """The first word of each line, and the rest of it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if missing:
            return {}
        msg = f"{path} does not exist: expected a line for each utterance, its name first."
        raise FileNotFoundError(msg) from None
    return {name: rest.strip() for line in lines if line.strip() for name, _, rest in [line.partition(" ")]}
