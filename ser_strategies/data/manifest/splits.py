"""How a manifest may be split: by its own column, by speakers, by chance, or not at all."""

from typing import Literal, NoReturn, get_args

import numpy as np
import pandas as pd

from ser_strategies.data.manifest.sheet import Sheet
from ser_strategies.data.protocol import OWN, Protocol
from ser_strategies.data.rules import FEWEST_FOLDS, SPLITS, Drawn, GroupFolds, HeldOut
from ser_strategies.data.table import TEXT

ProtocolName = Literal["own", "speaker-folds", "random", "test-only"]
# Each protocol writes its decision into a column, going by all rows of the manifest: if it went by those in
# use, a missing file could move others from test to training.
SPLIT, FOLD = "split", "fold"
RANDOM = Protocol(
    "random",
    1,
    "A fifth of each class tests and a tenth validates, drawn by chance, whoever speaks.",
    OWN.rule,
)
TEST_ONLY = Protocol("test-only", 1, "Every utterance tests.", OWN.rule, splits=("test",))
OTHER_WORDS = ("valid", "validation", "dev", "development")
WORDS = {split: split for split in SPLITS} | dict.fromkeys(OTHER_WORDS, "val")


def choose_protocol(sheet: Sheet, table: pd.DataFrame, name: str | None, folds: int) -> Protocol:
    """The protocol of a name, or the one that the columns suggest; adds to the table what it goes by.

    Args:
        sheet: The manifest.
        table: Its utterances, row by row.
        name: What the user asks for.
        folds: How many folds of speakers.
    """
    if name is None:
        name = _default(sheet, table)
    if name not in get_args(ProtocolName):
        msg = f"protocol must be one of {', '.join(get_args(ProtocolName))}, got {name!r}."
        raise ValueError(msg)
    column = {"own": "split", "speaker-folds": "speaker"}.get(name)
    if column is not None and not sheet.has(column):
        msg = (
            f"{sheet.path} has no column {column}, by which the protocol {name} goes: add it, or choose "
            f"another --data.protocol."
        )
        raise ValueError(msg)
    if name == "speaker-folds":
        return _speaker_folds(sheet, table, folds)
    if name == "own":
        table[SPLIT] = _own_splits(sheet)
        return OWN
    if name == "random":
        table[SPLIT] = Drawn(test=0.2, val=0.125).assign(table.rename(columns={"code": "label"}), 1)
        return RANDOM
    table[SPLIT] = "test"
    return TEST_ONLY


def _default(sheet: Sheet, table: pd.DataFrame) -> ProtocolName:
    if sheet.has("split"):
        return "own"
    if "speaker" in table and table["speaker"].notna().any():
        return "speaker-folds"
    msg = (
        f"{sheet.path} has neither a column split nor a column speaker, so that nothing keeps a voice from "
        f"being in training and test: add one; or give --data.protocol random to split by chance all the "
        f"same, or test-only to test or predict everything."
    )
    raise ValueError(msg)


def _own_splits(sheet: Sheet) -> pd.Series:
    splits = sheet.cells["split"].str.strip().str.lower().map(WORDS).astype(TEXT)
    words = f"train, val (or {', '.join(OTHER_WORDS)}) or test"
    sheet.refuse(splits.isna(), "split", f"expected {words}; another --data.protocol goes without it.")
    return splits


def _speaker_folds(sheet: Sheet, table: pd.DataFrame, folds: int) -> Protocol:
    expected = "expected who speaks, as folds go by speaker: name all, or choose another --data.protocol."
    sheet.refuse(table["speaker"].isna(), "speaker", expected)
    if folds < FEWEST_FOLDS:
        msg = f"--data.folds must be 3 or more (one tests, one validates, the others train), got {folds}."
        raise ValueError(msg)
    groups = _groups(table)
    if groups.nunique() < folds:
        _refuse_few(sheet, table["speaker"].nunique(), groups.nunique(), folds)
    table[FOLD] = _numbers(table, groups, folds)
    words = f"Speakers in {folds} folds of like classes: one tests, the next validates, the others train."
    names = [(str(number),) for number in range(1, folds + 1)]
    return Protocol("speaker-folds", 1, words, HeldOut(FOLD, test=names, val=[*names[1:], names[0]]))


def _numbers(table: pd.DataFrame, groups: pd.Series, folds: int) -> pd.Series:
    """The number of the fold of each utterance."""
    shared = pd.DataFrame({"id": table["id"], "speaker": groups, "label": table["code"]})
    numbers = pd.Series(pd.NA, index=table.index, dtype=TEXT)
    for fold in range(1, folds + 1, 2):  # each assignment tells two folds: the one that tests and the next
        splits = GroupFolds(folds=folds).assign(shared, fold)
        numbers = numbers.mask(splits == "test", str(fold)).mask(splits == "val", str(fold % folds + 1))
    return numbers


def _refuse_few(sheet: Sheet, speakers: int, groups: int, folds: int) -> NoReturn:
    who = f"{speakers} speaker{'s' * (speakers > 1)}"
    advice = f"give --data.folds {groups}"
    if groups < FEWEST_FOLDS:
        advice = "mark a column split, or give --data.protocol random with --data.allow_leakage true"
    if groups < speakers:
        who = f"{who} in {groups} group{'s' * (groups > 1)} by session and dialogue"
        advice = f"{advice}; a number that starts again for each speaker is no session"
    msg = f"{sheet.path} has {who}, too few for {folds} folds, which take 3 or more: {advice}."
    raise ValueError(msg)


def _groups(table: pd.DataFrame) -> pd.Series:
    """For each utterance a name of those who must not be kept apart: who shared a session, and with whom."""
    codes, names = pd.factorize(table["speaker"], sort=True)
    groups = pd.Series(codes, index=table.index)
    before = None
    while before is None or not groups.equals(before):
        before = groups
        for column in ("session", "dialogue", "speaker"):
            if column in table:
                lowest = groups.groupby(table[column]).transform("min")
                groups = lowest.fillna(groups).astype(codes.dtype)
    return pd.Series(np.asarray(names)[groups], index=table.index, dtype=TEXT, name="speaker")
