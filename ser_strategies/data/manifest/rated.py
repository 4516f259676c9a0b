"""The file of single ratings beside a manifest: one rating a row, with id, rater and numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ser_strategies.data.manifest.file import ENDINGS, read_file
from ser_strategies.data.manifest.sheet import DIMENSIONS, Sheet, canonical, numbers_of
from ser_strategies.data.table import TEXT

RATERS = dict.fromkeys(("rater", "raters", "annotator", "evaluator", "worker", "rater_id"), "rater")
WORDS = ("id", "rater")


def read_ratings(path: Path, dimensions: Sequence[str] | None, encoding: str | None) -> Sheet:
    """The cells of a file of ratings: id, rater and the dimensions, or whichever of the usual it has."""
    if not path.is_file() or path.suffix.lower() not in ENDINGS:
        kind = f"ends in {path.suffix or 'nothing'}" if path.is_file() else "does not exist"
        msg = (
            f"--data.ratings {path} {kind}: expected a table ({', '.join(ENDINGS)}) of single ratings, with "
            f"the columns id, rater, activation and valence."
        )
        raise FileNotFoundError(msg)
    known = {*WORDS, *RATERS, *DIMENSIONS}
    raw = read_file(path, known=known, encoding=encoding, example="id, rater, activation and valence")
    found: dict[str, int] = {}
    for index, name in enumerate(raw.header):
        plain = canonical(name)
        found.setdefault(RATERS.get(plain, plain), index)
    wanted = tuple(dimensions) if dimensions else tuple(each for each in DIMENSIONS if each in found)
    for column in (*WORDS, *(wanted or DIMENSIONS[:1])):
        if column not in found:
            got = ", ".join(filter(None, raw.header))
            msg = (
                f"{path} has no column {column}, got {got}: expected id, rater and numbers, one rating a row."
            )
            raise ValueError(msg)
    if not len(raw.places):
        msg = f"{path} has no ratings, only the names of its columns: expected one rating in each row."
        raise ValueError(msg)
    cells = {column: raw.words(found[column]) for column in WORDS}
    cells |= {column: raw.numbers(found[column]) for column in wanted}
    names = {column: raw.header[found[column]] for column in cells}
    sheet = Sheet(path, raw.unit, np.asarray(raw.places), names, pd.DataFrame(cells))
    for column in WORDS:
        said = sheet.cells[column].astype(TEXT).str.strip()
        sheet.cells[column] = said.mask(said == "")
        sheet.refuse(sheet.cells[column].isna(), column, "expected a name in each row.")
    for column in wanted:
        values = sheet.cells[column]
        if values.dtype == TEXT:
            sheet.cells[column] = values.mask((values.str.strip() == "").fillna(False))
        numbers = numbers_of(sheet, column)
        sheet.refuse(numbers.isna(), column, "expected a number: leave out a rating without one.")
        sheet.cells[column] = numbers
    return sheet


def dimensions_of(ratings: pd.DataFrame) -> tuple[str, ...]:
    """The dimensions of a table of ratings."""
    return tuple(str(column) for column in ratings if column not in WORDS)


def check_ratings(sheet: Sheet, ids: pd.Series, scale: tuple[float, float] | None) -> tuple[float, float]:
    """The ends of the scale; ValueError for a rating outside of it, or of an utterance that nobody knows."""
    dimensions = dimensions_of(sheet.cells)
    values = sheet.cells[list(dimensions)]
    if scale is None:
        scale = (float(values.min().min()), float(values.max().max()))
    low, high = check_scale(scale, str(sheet.path))
    for column in dimensions:
        wrong = (values[column] < low) | (values[column] > high)
        sheet.refuse(wrong, column, f"expected {low:g} to {high:g}, the ends of --data.scale.")
    strange = ~sheet.cells["id"].isin(ids)
    sheet.refuse(
        strange, "id", "expected an utterance of the manifest, by its id or its path without ending."
    )
    return scale


def check_scale(scale: tuple[float, float], whose: str) -> tuple[float, float]:
    """The ends of a scale; ValueError where the lower one is not first."""
    low, high = scale
    if not low < high:
        msg = (
            f"the scale of {whose} goes from {low:g} to {high:g}, expected two ends, the lower first: "
            f"give them as in --data.scale '[1, 7]'."
        )
        raise ValueError(msg)
    return low, high
