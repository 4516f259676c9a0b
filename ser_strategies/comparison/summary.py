"""A row of the table: one strategy, its score with its uncertainty, and what its runs cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ser_strategies.common.quantities import count, operations
from ser_strategies.comparison import fairness
from ser_strategies.comparison.stats.aligned import Aligned
from ser_strategies.comparison.stats.intervals import Interval, interval
from ser_strategies.comparison.stats.scores import Score

FIT, CACHE = "cost/fit_seconds", "cost/cache_build_seconds"
FULL = "cost/fit_seconds_full"
BYTES = "cost/cache_bytes"
MANIFOLD = 10
OF_MEMBERS = "those of its members"
# A cache is shared where a run has spent less than this part on it of what another one has.
SHARED = 0.5
FACTOR = "cost/short_format_factor"
# From here on a short format is computed in software; a processor that has the arithmetic is far below 1.
IN_SOFTWARE = 1.5


class EncoderFacts(NamedTuple):
    """The movement of the encoder's weights, in words."""

    text: str
    wrong: bool = False  # not as the strategy says


def table_of(
    runs: pd.DataFrame,
    finished: pd.DataFrame,
    aligned: Mapping[str, Aligned],
    score: Score,
    marks: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """One row a strategy, the best first."""
    rows = []
    for name in dict.fromkeys(runs["name"]):
        mine, whole = (each[each["name"] == name] for each in (runs, finished))
        rows.append(_row(name, mine, whole, aligned.get(name), score.name, marks.get(name, ())))
    table = pd.DataFrame(rows).set_index("name")
    return table.sort_values("score", ascending=not score.higher_is_better, kind="stable")


def marks_of(finished: pd.DataFrame, unlike: Sequence[fairness.Mismatch]) -> dict[str, tuple[str, ...]]:
    """Notes on each strategy beside its numbers: what is not fair, costs from elsewhere."""
    found: dict[str, list[str]] = {name: [] for name in fairness.names_of(finished)}
    for difference in unlike:
        for name, value in difference.found.items():
            found[name].append(f"not alike in {difference.what}: {value}")
    for difference in fairness.cost_differences(finished):
        for name, value in difference.found.items():
            if name not in difference.groups[0]:
                found[name].append(f"costs on other {difference.what}: {value}")
    for name, words in found.items():
        words += _oracles(finished[finished["name"] == name])
        encoder = encoder_words(finished[finished["name"] == name])
        words += [encoder.text] if encoder.wrong else []
        words += _in_software(finished[finished["name"] == name])
        words += _of_teacher(finished[finished["name"] == name])
        words += _of_members(finished[finished["name"] == name])
    return {name: tuple(words) for name, words in found.items()}


def _oracles(finished: pd.DataFrame) -> list[str]:
    """What a strategy was told at test that a machine alone would not know."""
    told = finished["oracles"].dropna() if "oracles" in finished else ()
    return list(dict.fromkeys(oracle for oracles in told for oracle in oracles))


def _in_software(finished: pd.DataFrame) -> list[str]:
    """That costs are those of a processor without the arithmetic of the number format."""
    factor = _median(finished[FACTOR]) if FACTOR in finished else math.nan
    if not factor >= IN_SOFTWARE:  # NaN: computed in float32, or by a meter that did not ask
        return []
    formats = {"bf16": "bfloat16", "16": "float16"}
    word = formats.get(str(_words(finished["precision"])).partition("-")[0], "its number format")
    return [
        f"this processor computes {word} in software (a product of matrices takes "
        f"{factor:.1f} times as long as in float32): its times say nothing of one that has the arithmetic"
    ]


def _of_members(finished: pd.DataFrame) -> list[str]:
    """That a row is made of others, with the weights that these have on average."""
    told = [each for each in finished["ensemble"] if isinstance(each, dict)]
    if not told:
        return []
    means = {name: math.fsum(each.get(name, 0.0) for each in told) / len(told) for name in told[0]}
    weights = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    return [f"an ensemble (weights: {weights}); trained and asked one after the other, members cost together"]


def _of_teacher(finished: pd.DataFrame) -> list[str]:
    """What the teacher of a student costs, which is what the student saves."""
    blocks, parameters, work = (
        _median(finished[f"cost/teacher_{what}"]) if f"cost/teacher_{what}" in finished else math.nan
        for what in ("blocks", "parameters", "flops_per_audio_second")
    )
    if math.isnan(blocks):
        return []
    made = "" if finished["stages"].max() > 1 else "; what it took to make the student is in no other column"
    return [
        f"a student: its teacher is an encoder of {blocks:.0f} blocks and {count(parameters)} parameters, "
        f"which takes {operations(work)} for a second of sound{made}"
    ]


def _row(
    name: str,
    runs: pd.DataFrame,
    finished: pd.DataFrame,
    aligned: Aligned | None,
    score: str,
    marks: Sequence[str],
) -> dict[str, Any]:
    found, why = _scored(aligned, score)
    is_made = bool(len(finished)) and bool(finished["ensemble"].notna().all())
    errors = runs.loc[runs["status"] == "failed", "error"].dropna()
    return {
        "name": name,
        "strategy": runs["strategy"].iloc[0],
        **_score_columns(found),
        "runs": len(finished),
        "folds": int(finished["fold"].nunique()) or int(len(finished) > 0),
        "seeds": int(finished["seed"].nunique()),
        "failed": int((runs["status"] == "failed").sum()),
        "validation": _median(finished["val/best"]),
        "encoder": OF_MEMBERS if is_made else encoder_words(finished).text,
        **costs_of(finished),
        "hardware": _words(finished["hardware"]),
        "precision": _words(finished["precision"]),
        "memory_kind": _words(finished["memory_kind"]),
        "marks": (*marks, *(found.notes if found else why)),
        "error": errors.iloc[0] if len(errors) else None,
    }


def costs_of(finished: pd.DataFrame) -> dict[str, float]:
    """The costs of a strategy, medians over its runs; NaN where no run knows.

    A cache that its runs share is built by the first of them alone, so that the others spend little on it.
    Each run is charged its part of it (`cost/fit_seconds`); `cost/fit_seconds_full` is a run that builds it
    itself.
    """
    columns = [column for column in map(str, finished) if column.startswith("cost/")]
    costs = {column: _median(finished[column]) for column in columns}
    if FIT in columns and CACHE in columns and not _stores_nothing(finished):
        both = finished[[FIT, CACHE]].dropna()
        if len(both) and both[CACHE].min() < SHARED * both[CACHE].max():
            alone = _median(both[FIT] - both[CACHE])
            costs[CACHE] = float(both[CACHE].mean())
            costs[FIT] = alone + costs[CACHE]
            costs[FULL] = alone + float(both[CACHE].max())
    return costs


def _stores_nothing(finished: pd.DataFrame) -> bool:
    """Whether what runs prepared is known to lie on no disk, so that no run can share it."""
    return BYTES in finished and bool((finished[BYTES] == 0).all())


def encoder_words(finished: pd.DataFrame) -> EncoderFacts:
    """Whether a frozen encoder stayed as it was, and a tuned one did not."""
    trains, moved, still, broken = (
        pd.to_numeric(finished[column], errors="coerce").dropna()
        if column in finished
        else pd.Series(dtype=float)
        for column in (
            "cost/encoder_trainable_parameters",
            "cost/encoder_moved",
            "cost/encoder_tensors_still",
            "cost/frozen_tensors_moved",
        )
    )
    if trains.empty:
        return EncoderFacts("not measured")
    if len(broken) and broken.max() > 0:
        return EncoderFacts(
            f"{broken.max():.0f} tensors of the encoder moved that should be frozen", wrong=True
        )
    if trains.max() == 0:
        return EncoderFacts("frozen, verified" if len(broken) else "frozen, unverified")
    if moved.empty:
        return EncoderFacts("tuned, unverified")
    if moved.min() == 0:
        return EncoderFacts("not a weight of the encoder moved that should", wrong=True)
    if len(still) and still.max() > 0:
        return EncoderFacts(f"{still.max():.0f} tensors of the encoder never moved that should", wrong=True)
    far = moved.median()
    # From random weights the smallest tensors move by many times what they were.
    if far >= MANIFOLD:
        return EncoderFacts(f"moved {far:,.0f}-fold")
    return EncoderFacts(f"moved by {100 * far:.0f} %" if far >= 0.1 else f"moved by {100 * far:.2g} %")


def _scored(aligned: Aligned | None, score: str) -> tuple[Interval | None, tuple[str, ...]]:
    """The score with its interval, or why there is none."""
    if aligned is None:
        return None, ()
    try:
        return interval(aligned, score), ()
    except ValueError as error:  # it predicts something else than the others
        return None, (str(error),)


def _score_columns(found: Interval | None) -> dict[str, Any]:
    spread = found.spread if found else None
    return {
        "score": found.point if found else math.nan,
        "low": found.low if found and found.low is not None else math.nan,
        "high": found.high if found and found.high is not None else math.nan,
        "fold_lowest": spread.lowest if spread else math.nan,
        "fold_highest": spread.highest if spread else math.nan,
        "fold_deviation": spread.deviation if spread else math.nan,
        "clusters": found.clusters if found else 0,
        "unit": found.unit if found else None,
        "method": found.method if found else None,
    }


def _median(values: "pd.Series[float]") -> float:
    known = pd.to_numeric(values, errors="coerce").dropna()
    return float(np.median(known)) if len(known) else math.nan


def _words(values: "pd.Series[str]") -> str | None:
    return " and ".join(dict.fromkeys(values.dropna())) or None
