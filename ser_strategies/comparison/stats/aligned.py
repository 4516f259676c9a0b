"""Predictions lined up, each utterance once a seed, in clusters: the independent units of a test set.

Utterances of one speaker resemble each other, and those of one dialogue answer each other. Uncertainty is
therefore counted in speakers; in sessions, dialogues or utterances where nothing better is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_strategies.common.errors import counted
from ser_strategies.comparison.stats.distributions import Distributions, distributions_of
from ser_strategies.comparison.stats.scores import DISTANCES, Array

Codes = npt.NDArray[np.intp]

UNITS = ("speaker", "session", "dialogue")
UTTERANCE = "utterance"


@dataclass(frozen=True)
class Clusters:
    """Groups of utterances that belong together."""

    codes: Codes  # for each utterance the number of its cluster
    names: tuple[str, ...]
    unit: str  # speaker, session, dialogue or utterance
    notes: tuple[str, ...] = ()  # for the reader


def clusters_of(table: pd.DataFrame) -> Clusters:
    """Clusters of utterances: by speaker; those without one by session, else by dialogue, else each alone."""
    count = len(table)
    owner = np.array([f"{UTTERANCE} {each}" for each in table["id"]], dtype=object)
    left = np.ones(count, dtype=bool)
    shares: dict[str, int] = {}
    for unit in UNITS:
        names = _words(table, unit)
        here = left & (names != "")
        owner[here] = [f"{unit} {name}" for name in names[here]]
        left &= ~here
        shares[unit] = int(here.sum())
    shares[UTTERANCE] = int(left.sum())
    names, codes = np.unique(owner.astype(str), return_inverse=True)
    unit = max(shares, key=lambda each: shares[each])
    return Clusters(codes, tuple(map(str, names)), unit, _notes(shares, count))


def each_utterance(count: int) -> Clusters:
    """Every utterance a cluster of its own, as within one speaker."""
    return Clusters(np.arange(count), tuple(map(str, range(count))), UTTERANCE)


def _words(table: pd.DataFrame, column: str) -> npt.NDArray[np.object_]:
    if column not in table:
        return np.full(len(table), "", dtype=object)
    values = table[column].astype(object)
    return values.where(values.notna(), "").astype(str).str.strip().to_numpy(object)


def _notes(shares: dict[str, int], count: int) -> tuple[str, ...]:
    used = [unit for unit, share in shares.items() if share]
    if used == [UTTERANCE]:
        return (
            "no speaker, session or dialogue is known: every utterance counts as independent, and intervals "
            "are narrower than they should be",
        )
    if used == [UNITS[0]]:
        return ()
    if len(used) == 1:
        return (f"no speaker is known: uncertainty is counted in {used[0]}s",)
    return tuple(
        f"{shares[unit]:,} of {counted(count, UTTERANCE)} have no speaker and "
        + ("stand alone" if unit == UTTERANCE else f"go by {unit}")
        for unit in used
        if unit != UNITS[0]
    )


PROBABILITY, TRUE = "probability/", "true/"
KEPT = ("speaker", "gender", "session", "dialogue")

Run = tuple[object, int, pd.DataFrame]
"""Fold (None where the corpus has none), seed, and the rows of its test.parquet."""


@dataclass(frozen=True)
class Aligned:
    """The predictions of one strategy for every utterance, with each of its seeds."""

    name: str
    seeds: tuple[int, ...]  # each has a run for every fold
    table: pd.DataFrame  # one row an utterance, by id: id, fold, speaker, gender, session, dialogue
    labels: tuple[str, ...]  # classes, if it predicts any
    truth: npt.NDArray[np.int64]  # the true class of each utterance, -1 unknown
    probabilities: Array  # (seeds, utterances, classes)
    dimensions: tuple[str, ...]  # those that it predicts
    targets: Array  # (utterances, dimensions), NaN unknown
    estimates: Array  # (seeds, utterances, dimensions)
    notes: tuple[str, ...] = ()  # on what was left out, and why
    # How far each distribution is from the rated one, by name: (seeds, utterances)
    distances: Mapping[str, Array] = field(default_factory=dict)
    distributions: Distributions | None = None  # those that are predicted, if any, beside the rated ones

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The most probable class, (seeds, utterances)."""
        return np.asarray(self.probabilities.argmax(axis=-1), dtype=np.int64)

    @cached_property
    def clusters(self) -> Clusters:
        """Which utterances belong together."""
        return clusters_of(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Aligned":
        """These predictions for some of the utterances."""
        return replace(
            self,
            table=self.table[chosen].reset_index(drop=True),
            truth=self.truth[chosen],
            probabilities=self.probabilities[:, chosen],
            targets=self.targets[chosen],
            estimates=self.estimates[:, chosen],
            distances={name: each[:, chosen] for name, each in self.distances.items()},
            distributions=self.distributions.where(chosen) if self.distributions else None,
        )

    def of_seeds(self, seeds: Sequence[int]) -> "Aligned":
        """These predictions for some of the seeds."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return replace(
            self,
            seeds=tuple(seeds),
            probabilities=self.probabilities[rows],
            estimates=self.estimates[rows],
            distances={name: each[rows] for name, each in self.distances.items()},
            distributions=self.distributions.of_seeds(rows) if self.distributions else None,
        )


def align(runs: Iterable[Run], name: str = "the strategy") -> Aligned:
    """Lines up the runs of one strategy.

    The test splits of its folds together are one test set, which each seed goes through once. A seed that
    lacks a fold, or utterances, is left out and named in `notes`.

    Args:
        runs: Fold, seed and predictions of each finished run. A frame has one row an utterance: id, label
            (none if unknown) and `probability/<label>`, or `<dimension>` and `true/<dimension>`; speaker,
            gender, session and dialogue where known.
        name: What the strategy is called.

    Raises:
        ValueError: The runs do not fit together, or have predictions that are no numbers.
    """
    cells = _cells(runs, name)
    folds = sorted({fold for fold, _ in cells}, key=lambda fold: (len(fold), fold))
    table = _table(cells, folds, name)
    whole, notes = _whole(cells, folds, table, name)
    seeds, first = tuple(whole), next(iter(whole.values()))
    columns = list(map(str, first))
    labels = tuple(each.removeprefix(PROBABILITY) for each in columns if each.startswith(PROBABILITY))
    dimensions = tuple(each.removeprefix(TRUE) for each in columns if each.startswith(TRUE))
    if not labels and not dimensions:
        msg = f"{name}: expected columns {PROBABILITY}<label> or {TRUE}<dimension>, got {', '.join(columns)}."
        raise ValueError(msg)
    wanted = [PROBABILITY + label for label in labels]
    truths, targets, probabilities, estimates = [], [], [], []
    distances: dict[str, list[Array]] = {each: [] for each in DISTANCES if each in columns}
    for seed, rows in whole.items():
        who = f"{name}, seed {seed}"
        _check_columns(rows, first, who)
        truths.append(_classes(rows, labels, who) if labels else np.full(len(rows), -1, dtype=np.int64))
        targets.append(_numbers(rows, [TRUE + each for each in dimensions], who, known=False))
        probabilities.append(_numbers(rows, wanted, who))
        estimates.append(_numbers(rows, list(dimensions), who))
        for each, values in distances.items():
            values.append(_numbers(rows, [each], who)[:, 0])
    for seed, truth, target in zip(seeds, truths, targets, strict=True):
        if (truth != truths[0]).any() or not np.array_equal(target, targets[0], equal_nan=True):
            msg = (
                f"{name}: expected the same true labels for every seed, got others for seed {seed} than for "
                f"seed {seeds[0]}: compare runs with one source of labels."
            )
            raise ValueError(msg)
    return Aligned(
        name=name,
        seeds=seeds,
        table=table,
        labels=labels,
        truth=truths[0],
        probabilities=np.stack(probabilities),
        dimensions=dimensions,
        targets=targets[0],
        estimates=np.stack(estimates),
        notes=notes,
        distances={each: np.stack(values) for each, values in distances.items()},
        distributions=distributions_of(list(whole.values()), dimensions),
    )


def _cells(runs: Iterable[Run], name: str) -> dict[tuple[str, int], pd.DataFrame]:
    cells: dict[tuple[str, int], pd.DataFrame] = {}
    for fold, seed, frame in runs:
        place = ("" if fold is None or pd.isna(fold) else str(fold), int(seed))  # type: ignore[call-overload]
        where = f"{name}, fold {place[0] or '—'}, seed {seed}"
        if place in cells:
            msg = f"{where}: expected one run, got two: leave one out, or give it another name."
            raise ValueError(msg)
        if frame.empty or "id" not in frame:
            msg = f"{where}: expected a row for each utterance with its id, got {len(frame)} rows."
            raise ValueError(msg)
        if frame["id"].duplicated().any():
            twice = frame["id"][frame["id"].duplicated()].iloc[0]
            msg = f"{where}: expected each utterance once, got {twice!r} twice."
            raise ValueError(msg)
        cells[place] = frame
    if not cells:
        msg = f"{name}: expected finished runs, got none: let at least one finish."
        raise ValueError(msg)
    return cells


def _table(cells: dict[tuple[str, int], pd.DataFrame], folds: list[str], name: str) -> pd.DataFrame:
    """All utterances of all folds, from the fullest run of each."""
    parts = []
    for fold in folds:
        fullest = max((frame for (own, _), frame in cells.items() if own == fold), key=len)
        part = pd.DataFrame({"id": fullest["id"].astype(str).to_numpy(object), "fold": fold})
        for column in KEPT:
            part[column] = fullest[column].to_numpy(object) if column in fullest else None
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).sort_values("id", ignore_index=True)
    twice = table["id"].duplicated(keep=False)
    if twice.any():
        some = table[twice].iloc[:2]
        msg = (
            f"{name}: expected folds that test each utterance once, got {some['id'].iloc[0]!r} in the folds "
            f"{' and '.join(some['fold'])}: compare the folds of one partition."
        )
        raise ValueError(msg)
    return table


def _whole(
    cells: dict[tuple[str, int], pd.DataFrame], folds: list[str], table: pd.DataFrame, name: str
) -> tuple[dict[int, pd.DataFrame], tuple[str, ...]]:
    """Rows of each seed that tested every utterance, in the table's order; what is wrong with the others."""
    ids = pd.Index(table["id"])
    whole, notes = {}, []
    for seed in sorted({seed for _, seed in cells}):
        rows = pd.concat([cells[fold, seed] for fold in folds if (fold, seed) in cells], ignore_index=True)
        places = pd.Index(rows["id"].astype(str).to_numpy(object)).get_indexer(ids)
        if len(rows) == len(ids) and (places >= 0).all():
            whole[seed] = rows.iloc[places]
            continue
        absent = [fold for fold in folds if (fold, seed) not in cells]
        reason = f"lacks fold {', '.join(absent)}" if absent else "has other utterances than the fullest run"
        tested = f"{(places >= 0).sum():,} of {counted(len(ids), UTTERANCE)}"
        notes.append(f"seed {seed} is left out: it {reason} ({tested})")
    if not whole:
        msg = f"{name}: expected a seed with every fold, got none ({'; '.join(notes)}): finish its runs."
        raise ValueError(msg)
    return whole, tuple(notes)


def _check_columns(rows: pd.DataFrame, first: pd.DataFrame, who: str) -> None:
    differing = set(map(str, rows)) ^ set(map(str, first))
    odd = [each for each in differing if each.startswith((PROBABILITY, TRUE))]
    if odd:
        msg = f"{who}: expected the classes and dimensions of the other runs, got a difference: {min(odd)}."
        raise ValueError(msg)


def _classes(rows: pd.DataFrame, labels: tuple[str, ...], who: str) -> npt.NDArray[np.int64]:
    names = rows["label"].astype(object).to_numpy() if "label" in rows else np.full(len(rows), None)
    truth = pd.Index(labels).get_indexer(pd.Index(names, dtype=object)).astype(np.int64)
    odd = (truth < 0) & pd.notna(names)
    if odd.any():
        msg = f"{who}: expected the labels {', '.join(labels)}, got {names[odd][0]!r}: use one label set."
        raise ValueError(msg)
    return truth


def _numbers(rows: pd.DataFrame, columns: list[str], who: str, *, known: bool = True) -> Array:
    absent = [column for column in columns if column not in rows]
    if absent:
        msg = f"{who}: expected the columns {', '.join(columns)}; {', '.join(absent)} is missing."
        raise ValueError(msg)
    values = rows[columns].to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(values).all(axis=1) if known else np.isinf(values).any(axis=1)
    if bad.any():
        msg = (
            f"{who}: expected a number for every utterance, got none for {bad.sum():,} of {len(rows):,}, "
            f"such as {rows['id'][bad].iloc[0]!r}: leave the run out, or test it again."
        )
        raise ValueError(msg)
    return values
