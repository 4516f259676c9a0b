"""Ways to split a manifest: by its own columns, by speakers, by chance, or not at all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NoReturn, get_args

import numpy as np
import pandas as pd

from ser_strategies.data.manifest.sheet import Sheet
from ser_strategies.data.protocol import OWN, Protocol
from ser_strategies.data.rules import FEWEST_FOLDS, SPLITS, ByFold, Drawn, GroupFolds, HeldOut
from ser_strategies.data.table import GENDERS, TEXT

ProtocolName = Literal["own", "own-folds", "speaker-folds", "speaker-folds-v1", "random", "test-only"]
ValName = Literal["share", "next-fold"]
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
# Folds that nobody asked for, if there are as many speakers.
FOLDS = 5
# What each protocol goes by.
COLUMNS = {"own": SPLIT, "own-folds": FOLD} | dict.fromkeys(("speaker-folds", "speaker-folds-v1"), "speaker")
_MARK = "mark the utterances of some speakers as {name} in its column split"
_FOLDS = "give another number of --data.folds, or mark them in a column split"
_OWN_FOLDS = "correct its column fold, or choose another --data.protocol"
# What to do where a split is empty.
EMPTY_ADVICE = {
    "own": f"{_MARK}, or choose --data.protocol speaker-folds",
    "own-val-share": f"{_MARK}, or choose --data.protocol speaker-folds",
    "own-folds": _OWN_FOLDS,
    "own-folds-val-share": _OWN_FOLDS,
    "test-only": "choose another one to train",
    "random": "there are too few to draw from, so mark them in a column split",
    "speaker-folds": _FOLDS,
}


def choose_protocol(
    sheet: Sheet,
    table: pd.DataFrame,
    name: str | None,
    *,
    folds: int | None = None,
    val: str | None = None,
    copies: Callable[[], pd.Series] | None = None,
) -> Protocol:
    """The protocol of a name, or the one that the columns suggest; adds to the table the columns it goes by.

    Without a number of folds, there are five, or as many as there are speakers. `val` says who validates
    where the columns do not. `copies` names, for each utterance, the recording that it shares with others,
    whose speakers stay in one fold.
    """
    if name is None:
        name = _default(sheet, table)
    if name not in get_args(ProtocolName):
        msg = f"protocol must be one of {', '.join(get_args(ProtocolName))}, got {name!r}."
        raise ValueError(msg)
    if val not in {None, *get_args(ValName)}:
        msg = f"--data.val must be one of {', '.join(get_args(ValName))}, got {val!r}."
        raise ValueError(msg)
    if val is not None and not name.startswith("own"):
        msg = f"--data.val goes with the protocols own and own-folds, got {name}: leave it out."
        raise ValueError(msg)
    column = COLUMNS.get(name)
    if column is not None and not sheet.has(column):
        msg = (
            f"{sheet.path} has no column {column}, by which the protocol {name} goes: add it, or choose "
            f"another --data.protocol."
        )
        raise ValueError(msg)
    if column == "speaker":
        return _speaker_folds(sheet, table, folds, version=1 if name.endswith("v1") else 2, copies=copies)
    if copies is not None:
        msg = f"--data.doubled join goes with the protocol speaker-folds, got {name}: choose that, or drop."
        raise ValueError(msg)
    if name == "own-folds":
        return _own_folds(sheet, table, val)
    if name == "own":
        return _own_splits(sheet, table, val)
    if name == "random":
        table[SPLIT] = Drawn(test=0.2, val=0.125).assign(table.rename(columns={"code": "label"}), 1)
        return RANDOM
    table[SPLIT] = "test"
    return TEST_ONLY


def _default(sheet: Sheet, table: pd.DataFrame) -> ProtocolName:
    if sheet.has(SPLIT):
        return "own"
    if sheet.has(FOLD):
        return "own-folds"
    if "speaker" in table and table["speaker"].notna().any():
        return "speaker-folds"
    msg = (
        f"{sheet.path} has neither a column split nor a column speaker, so that nothing keeps a voice from "
        f"being in training and test: add one; or give --data.protocol random to split by chance all the "
        f"same, or test-only to test or predict everything."
    )
    raise ValueError(msg)


def _own_splits(sheet: Sheet, table: pd.DataFrame, val: str | None) -> Protocol:
    table[SPLIT] = sheet.cells[SPLIT].str.strip().str.lower().map(WORDS).astype(TEXT)
    words = f"train, val (or {', '.join(OTHER_WORDS)}) or test"
    sheet.refuse(table[SPLIT].isna(), SPLIT, f"expected {words}; another --data.protocol goes without it.")
    if val is None:
        return OWN
    if val == "next-fold" or (table[SPLIT] == "val").any():
        why = "has no folds" if val == "next-fold" else f"says who validates in its column {SPLIT}"
        msg = f"{sheet.path} {why}, so --data.val {val} cannot be kept: leave it out."
        raise ValueError(msg)
    table[SPLIT] = _with_val(table, table[SPLIT])
    words = "The column split of the table says who tests; of those who train, a fifth validates."
    return replace(OWN, name="own-val-share", words=words)


def _own_folds(sheet: Sheet, table: pd.DataFrame, val: str | None) -> Protocol:
    cells = sheet.cells[FOLD].str.strip()
    sheet.refuse(cells.isna(), FOLD, "expected the fold in which it tests, in every row.")
    found = cells.unique().tolist()
    numbers = pd.to_numeric(pd.Series(found), errors="coerce")
    names = sorted(found) if numbers.isna().any() else [found[each] for each in numbers.argsort()]
    least = FEWEST_FOLDS if val == "next-fold" else 2
    if len(names) < least:
        advice = ", or give --data.val share" if len(names) == 2 else ""
        msg = (
            f"{sheet.path} has {len(names)} fold{'s' * (len(names) > 1)} in its column {sheet.names[FOLD]}, "
            f"expected {least} or more: name another --data.protocol{advice}."
        )
        raise ValueError(msg)
    table[FOLD] = cells
    words = f"The column fold of the table, with {len(names)} folds, says who tests; "
    if len(names) >= FEWEST_FOLDS and val != "share":
        rule = HeldOut(
            FOLD, test=[(each,) for each in names], val=[(each,) for each in names[1:] + names[:1]]
        )
        return Protocol("own-folds", 1, f"{words}the next fold validates.", rule)
    columns = tuple(f"{SPLIT}/{number}" for number in range(1, len(names) + 1))
    for column, name in zip(columns, names, strict=True):
        table[column] = _with_val(table, (cells == name).map({True: "test", False: "train"}).astype(TEXT))
    return Protocol("own-folds-val-share", 1, f"{words}of the others, a fifth validates.", ByFold(columns))


def _with_val(table: pd.DataFrame, splits: pd.Series) -> pd.Series:
    """Splits of which a fifth of train has become val: whole speakers, if three or more are known."""
    train = table[splits == "train"].rename(columns={"code": "label"})
    known = "speaker" in train and bool(train["speaker"].notna().all())
    groups = _groups(train) if known else pd.Series(dtype=TEXT)
    if groups.nunique() >= FEWEST_FOLDS:
        rule = GroupFolds(folds=min(FOLDS, groups.nunique()), steady=True)
        drawn = rule.assign(train.assign(speaker=groups), 1) == "test"
    else:
        drawn = Drawn(test=0, val=0.2).assign(train, 1) == "val"
    return splits.mask(drawn.reindex(splits.index, fill_value=False), "val").astype(TEXT)


def _speaker_folds(
    sheet: Sheet,
    table: pd.DataFrame,
    folds: int | None,
    *,
    version: int,
    copies: Callable[[], pd.Series] | None,
) -> Protocol:
    expected = "expected who speaks, as folds go by speaker: name all, or choose another --data.protocol."
    sheet.refuse(table["speaker"].isna(), "speaker", expected)
    if folds is not None and folds < FEWEST_FOLDS:
        msg = f"--data.folds must be 3 or more (one tests, one validates, the others train), got {folds}."
        raise ValueError(msg)
    groups = _groups(table if copies is None else table.assign(copy=copies()))
    if folds is None:
        folds = min(FOLDS, groups.nunique()) if groups.nunique() >= FEWEST_FOLDS else FOLDS
    if groups.nunique() < folds:
        shared = "session and dialogue" if copies is None else "session, dialogue and recording"
        _refuse_few(sheet, table["speaker"].nunique(), groups.nunique(), folds, shared)
    rule = GroupFolds(folds=folds)
    if version > 1:
        rule = replace(rule, balance="gender", steady=True)
    table[FOLD] = _numbers(table, groups, rule)
    alike = "like classes" if version == 1 else "like classes and genders"
    who = "Speakers" if copies is None else "Speakers, those of one recording together,"
    words = f"{who} in {folds} folds of {alike}: one tests, the next validates, the others train."
    names = [(str(number),) for number in range(1, folds + 1)]
    return Protocol("speaker-folds", version, words, HeldOut(FOLD, test=names, val=[*names[1:], names[0]]))


def _numbers(table: pd.DataFrame, groups: pd.Series, rule: GroupFolds) -> pd.Series:
    """The number of the fold of each utterance."""
    gender = table["gender"].str.lower().map(GENDERS).astype(TEXT) if "gender" in table else pd.NA
    shared = pd.DataFrame({"id": table["id"], "speaker": groups, "label": table["code"], "gender": gender})
    numbers = pd.Series(pd.NA, index=table.index, dtype=TEXT)
    folds = rule.folds
    for fold in range(1, folds + 1, 2):  # each assignment tells two folds: the one that tests and the next
        splits = rule.assign(shared, fold)
        numbers = numbers.mask(splits == "test", str(fold)).mask(splits == "val", str(fold % folds + 1))
    return numbers


def _refuse_few(sheet: Sheet, speakers: int, groups: int, folds: int, shared: str) -> NoReturn:
    who = f"{speakers} speaker{'s' * (speakers > 1)}"
    advice = f"give --data.folds {groups}"
    if groups < FEWEST_FOLDS:
        advice = "mark a column split, or give --data.protocol random with --data.allow_leakage true"
    if groups < speakers:
        who = f"{who} in {groups} group{'s' * (groups > 1)} by {shared}"
        advice = f"{advice}; a number that starts again for each speaker is no session"
    msg = f"{sheet.path} has {who}, too few for {folds} folds, which take 3 or more: {advice}."
    raise ValueError(msg)


def _groups(table: pd.DataFrame) -> pd.Series:
    """For each utterance a name of those who must not be kept apart: who shared a session or recording."""
    codes, names = pd.factorize(table["speaker"], sort=True)
    groups = pd.Series(codes, index=table.index)
    before = None
    while before is None or not groups.equals(before):
        before = groups
        for column in ("session", "dialogue", "copy", "speaker"):
            if column in table:
                lowest = groups.groupby(table[column]).transform("min")
                groups = lowest.fillna(groups).astype(codes.dtype)
    return pd.Series(np.asarray(names)[groups], index=table.index, dtype=TEXT, name="speaker")
