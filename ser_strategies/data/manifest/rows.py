"""The meaning of the cells of a manifest: files, parts of recordings, people, labels, votes."""

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_strategies.common.errors import did_you_mean
from ser_strategies.data.manifest.sheet import DIMENSIONS, NUMBERS, WORDS, Sheet
from ser_strategies.data.remote import Remote
from ser_strategies.data.table import NOBODY, TEXT, VOTE

ABSOLUTE = r"^(?:/|[A-Za-z]:/)"
# Paths that must be resolved: absolute ones, and those with a part that is empty, `.` or `..`.
ODD_PATH = rf"{ABSOLUTE}|(?:^|/)\.{{0,2}}(?:/|$)"

# What programs write where they have no label, unless it is among the classes that the user names.
NO_LABEL = frozenset({"nan", "na", "n/a", "<na>", "none", "null"})
# Columns that the table of a corpus has beside those of a manifest.
OURS = ("recording", "code", "fold", "bytes", "official")


@dataclass(frozen=True)
class Rows:
    """The utterances of a manifest, one a row."""

    table: pd.DataFrame  # the columns of `data/table.py`, with `code` in place of `label`
    classes: tuple[str, ...]
    dimensions: tuple[str, ...]
    # Judgements of single raters: id, rater and label, one judgement a row; None without raters
    votes: pd.DataFrame | None


def understand(
    sheet: Sheet,
    root: Path | Remote,
    *,
    classes: tuple[str, ...] | None,
    dimensions: tuple[str, ...] | None,
    rated: tuple[str, ...] = (),
) -> Rows:
    """Makes utterances of the rows of a manifest.

    Without classes, they are those found; an empty tuple goes without. Without dimensions, they are those of
    the usual three that are there; where dimensions are rated elsewhere, there are none here.
    """
    table = _parts(sheet, pd.DataFrame({"path": _paths(sheet, root)}))
    table["id"] = _ids(sheet, table)
    table = _people(sheet, table)
    dimensions = () if rated else _dimensions(sheet, dimensions)
    for name in dimensions:
        table[name] = sheet.cells[name]
    if "label" in sheet.cells:
        said = sheet.cells["label"]
        nothing = said.str.strip().str.lower().isin(NO_LABEL) & ~said.isin(classes or ())
        sheet.cells["label"] = said.mask(nothing)
    votes = None if classes == () else _votes(sheet)
    classes = _classes(sheet, votes, classes, bool(dimensions or rated))
    if votes is not None:
        table = table.join(_shares(votes, classes, len(table)))
        votes = _ratings(votes, table["id"])
    table["code"] = _codes(sheet, table, classes)
    return Rows(table, classes, dimensions, votes)


def _paths(sheet: Sheet, root: Path | Remote) -> pd.Series:
    """Paths relative to the root, with / between their parts, as in every other corpus."""
    given = sheet.cells["path"]
    sheet.refuse(given.isna(), "path", "expected a sound file.")
    if isinstance(root, Remote):
        given = given.str.removeprefix(f"{root}/")
    remote = given.str.contains("://", regex=False)
    sheet.refuse(remote, "path", "expected a path below --data.root, which may be a URL.")
    paths = given.str.replace("\\", "/", regex=False)
    odd = paths[paths.str.contains(ODD_PATH).to_numpy(dtype=bool)]
    if odd.empty:
        return paths
    homes = {f"{home.as_posix().rstrip('/')}/" for home in (root.absolute(), root.resolve())}
    inside = paths.copy()
    inside[odd.index] = pd.array([_inside(path, homes) for path in odd], TEXT)
    outside = odd[inside[odd.index].isna()]
    if len(outside):
        advice = "write paths from a folder that holds every sound, and give it as --data.root"
        absolute = [path for path in outside if re.match(ABSOLUTE, path)]
        if outside.iloc[0] in absolute:
            common = posixpath.commonpath({path[:1] + posixpath.dirname(path)[1:] for path in absolute})
            advice = f"give a folder that holds every sound, such as --data.root {common}"
        sheet.refuse(inside.isna(), "path", f"which is outside of the root {root}: {advice}.")
    return inside


def _inside(path: str, homes: Iterable[str]) -> str | None:
    for home in homes:
        whole = posixpath.normpath(path if re.match(ABSOLUTE, path) else f"{home}{path}")
        if whole.startswith(home):
            return whole.removeprefix(home)
    return None


def _parts(sheet: Sheet, table: pd.DataFrame) -> pd.DataFrame:
    """Adds durations and, where rows are parts of longer recordings, when they start and end."""
    if "seconds" in sheet.cells:
        table["seconds"] = sheet.cells["seconds"]
        sheet.refuse(table["seconds"] <= 0, "seconds", "expected more than 0.")
    times = [column for column in ("start", "end") if sheet.has(column)]
    if not times:
        return table
    if len(times) == 1:
        absent = "end" if times == ["start"] else "start"
        msg = f"{sheet.path} has a column {sheet.names[times[0]]} but no {absent}: give both, in seconds."
        raise ValueError(msg)
    start, end = sheet.cells["start"], sheet.cells["end"]
    sheet.refuse(start.isna() & end.notna(), "start", "expected a time, as it has an end: give both or none.")
    sheet.refuse(end.isna() & start.notna(), "end", "expected a time, as it has a start: give both or none.")
    sheet.refuse(start < 0, "start", "expected 0 seconds or more.")
    late = start[end <= start]
    sheet.refuse(end <= start, "end", f"expected more than its start, {late.iloc[0] if len(late) else 0:g}.")
    known = table["seconds"] if "seconds" in table else float("nan")
    recording = table["path"].mask(start.isna())
    return table.assign(start=start, end=end, recording=recording, seconds=(end - start).fillna(known))


def _ids(sheet: Sheet, table: pd.DataFrame) -> pd.Series:
    """The column id, else the path without its ending; distinct."""
    if "id" in sheet.cells:
        ids = sheet.cells["id"]
        sheet.refuse(ids.isna(), "id", "expected a name that no other row has.")
    else:
        ids = table["path"].str.replace(r"\.[^./]+$", "", regex=True)
        if "start" in table:
            times = [f"@{s:.3f}-{e:.3f}" for s, e in zip(table["start"], table["end"], strict=True)]
            ids = ids.where(table["start"].isna(), ids + pd.Series(times, dtype=TEXT))
    repeated = ids[ids.duplicated()]
    if len(repeated):
        first, second = np.flatnonzero((ids == repeated.iloc[0]).to_numpy(dtype=bool))[:2]
        where, name = f"{sheet.path}, {sheet.where(first, second)}", repeated.iloc[0]
        path, other = table["path"].iloc[first], table["path"].iloc[second]
        if "id" in sheet.cells:
            msg = f"{where}: both have the id {name!r}, expected another one in each row."
        elif path == other:
            part = " from the same start to the same end" if "@" in name else ""
            msg = f"{where}: both are {path}{part}, expected it once: take one away."
        else:
            msg = f"{where}: {path} and {other} both get the id {name!r}: take one away, or add a column id."
        raise ValueError(msg)
    return ids


def _people(sheet: Sheet, table: pd.DataFrame) -> pd.DataFrame:
    """Adds who speaks to whom, and what."""
    for column in ("speaker", "gender", "text", "session", "dialogue"):
        if column in sheet.cells:
            # One space more would make another person of a speaker, and hide a leak.
            table[column] = sheet.cells[column].str.strip()
    if "speaker" in table:
        table["speaker"] = table["speaker"].mask(table["speaker"].str.lower().isin(NOBODY))
        advice = "write them alike, or, if they are two people, less alike"
        _check_spelling(sheet, {"speaker": table["speaker"]}, advice)
    if "recording" in table and not sheet.has("session"):
        table["session"] = table["recording"]  # parts of one recording were recorded in one go
    return table


def _dimensions(sheet: Sheet, dimensions: tuple[str, ...] | None) -> tuple[str, ...]:
    if dimensions is None:
        return tuple(name for name in DIMENSIONS if sheet.has(name))
    for name in dimensions:
        if name in {*WORDS, *NUMBERS, *OURS}:
            msg = f"--data.dimensions names {name}, expected a column that means nothing else: rename it."
            raise ValueError(msg)
        if name not in sheet.cells:
            msg = f"{sheet.path} has no column {name}, which --data.dimensions names: add it, with numbers."
            raise ValueError(msg)
    return dimensions


def _votes(sheet: Sheet) -> pd.DataFrame | None:
    """One judgement a row: the row of the manifest, the rater (empty without a name) and what was said."""
    if not sheet.has("raters"):
        return None
    cells = sheet.cells["raters"]
    commas = cells.str.contains(",", regex=False)
    sheet.refuse(commas, "raters", "expected votes with ; or | between them, as in anger;anger;neutral.")
    cells = cells.dropna()
    lists = pc.split_pattern_regex(pa.array(cells, pa.large_string()), "[;|]")
    rows = cells.index.to_numpy()[pc.list_parent_indices(lists).to_numpy()]
    parts = pd.Series(pc.list_flatten(lists).to_pandas(), dtype=TEXT)
    label = parts.str.replace("^.*=", "", regex=True).str.strip()
    rater = parts.str.replace("=?[^=]*$", "", regex=True).str.strip()
    said = (label != "").to_numpy(dtype=bool)
    votes = pd.DataFrame({"row": rows, "rater": rater, "label": label})[said]
    return votes.reset_index(drop=True) if len(votes) else None


def _ratings(votes: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    names = pd.Series(ids.to_numpy()[votes["row"].to_numpy()], dtype=TEXT)
    numbers = votes.groupby("row").cumcount().astype(str)
    raters = votes["rater"].mask(votes["rater"] == "", names + "/" + numbers.astype(TEXT))
    return pd.DataFrame({"id": names, "rater": raters, "label": votes["label"]})


def _classes(
    sheet: Sheet, votes: pd.DataFrame | None, wanted: tuple[str, ...] | None, has_dimensions: bool
) -> tuple[str, ...]:
    """The classes; raises ValueError where a label or a vote is none of them."""
    if wanted == ():
        return ()
    said = {"label": sheet.cells["label"]} if sheet.has("label") else {}
    if votes is not None:
        said["raters"] = votes.set_index("row")["label"]
    if wanted is None and not said:
        if not has_dimensions:
            _refuse_nothing(sheet)
        return ()
    _check_spelling(sheet, said, "write them alike")
    classes = wanted or tuple(sorted(next(iter(said.values())).dropna().unique()))
    if "label" in said:
        labels = said["label"]
        sheet.refuse(labels != labels.str.strip(), "label", "expected it without space around it.")
        strange = labels[labels.notna() & ~labels.isin(classes)]
        sheet.refuse(labels.index.to_series().isin(strange.index), "label", _expected(classes, strange))
    if "raters" in said:
        strange = said["raters"][~said["raters"].isin(classes)]
        hint = "" if wanted else " Name all with --data.classes to have more than the labels use."
        rows = sheet.cells.index.to_series().isin(strange.index)
        sheet.refuse(rows, "raters", f"{_expected(classes, strange)}{hint}")
    if len(classes) < 2:
        what = "--data.classes names" if wanted else f"{sheet.path} has"
        msg = (
            f"{what} only one class, {classes[0]}, expected two or more: name all of them, as in "
            f"--data.classes '[anger, neutral]', or give '[]' to go without classes."
        )
        raise ValueError(msg)
    return classes


def _refuse_nothing(sheet: Sheet) -> NoReturn:
    known = ", ".join(sheet.names.values())
    msg = (
        f"{sheet.path} has nothing to learn, only {known}: add a column label, raters, activation, valence "
        f"or dominance. To try what was trained before, name its classes, as in --data.classes "
        f"'[anger, neutral]'; to go without, give '[]'."
    )
    raise ValueError(msg)


def _expected(classes: Sequence[str], strange: pd.Series) -> str:
    value = "" if strange.empty else str(strange.iloc[0])
    return f"expected one of {', '.join(classes)}{did_you_mean(value, classes)}"


def _check_spelling(sheet: Sheet, said: Mapping[str, pd.Series], advice: str) -> None:
    """Raises ValueError where two names look like one: only the user knows whether they are."""
    seen: dict[str, tuple[str, int]] = {}
    for column, names in said.items():
        firsts = names.dropna().drop_duplicates()
        for row, name in zip(firsts.index.to_numpy().tolist(), firsts, strict=True):
            plain = unicodedata.normalize("NFKC", name)
            other, place = seen.setdefault(" ".join(plain.casefold().split()), (name, row))
            if other == name:
                continue
            same = unicodedata.normalize("NFKC", other) == plain
            how = "how their letters are encoded" if same else "case or spaces"
            both = f"{other!r} ({sheet.where(place)}) and {name!r} ({sheet.where(row)})"
            msg = f"{sheet.path}: {both} as {sheet.names[column]} differ only in {how}: {advice}."
            raise ValueError(msg)


def _shares(votes: pd.DataFrame, classes: tuple[str, ...], rows: int) -> pd.DataFrame:
    """Of the votes for each utterance, the share of each class; NaN where nobody voted."""
    counts = np.zeros((rows, len(classes)))
    numbers = pd.Index(classes).get_indexer(pd.Index(votes["label"]))
    np.add.at(counts, (votes["row"].to_numpy(), numbers), 1)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    return pd.DataFrame(shares, columns=[f"{VOTE}{name}" for name in classes])


def _codes(sheet: Sheet, table: pd.DataFrame, classes: tuple[str, ...]) -> pd.Series:
    """The column label; without one, what most raters say, empty where several have as many votes."""
    if classes and sheet.has("label"):
        return sheet.cells["label"]
    columns = [f"{VOTE}{name}" for name in classes]
    if not classes or columns[0] not in table:
        return pd.Series(pd.NA, index=table.index, dtype=TEXT)
    shares = table[columns].to_numpy()
    most = shares.max(axis=1, keepdims=True)
    winners = np.array(classes, dtype=object)[np.nan_to_num(shares).argmax(axis=1)]
    return pd.Series(winners, dtype=TEXT).mask((shares == most).sum(axis=1) != 1)
