"""The tables of a report as text, which the page and the markdown both write out."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from ser_strategies.common.quantities import (
    MINUS,
    MISSING,
    QUANTITIES,
    ScoreWords,
    chance,
    count,
    duration,
    known,
    percent,
    quantity,
    rate,
)
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.otherwise import AS_TESTED
from ser_strategies.comparison.robustness import CLEAN
from ser_strategies.comparison.stats.differences import Difference
from ser_strategies.comparison.stats.groups import Gap, Groups
from ser_strategies.comparison.stats.intervals import Interval
from ser_strategies.comparison.summary import FIT, FULL

ABREAST = 8  # strategies beside each other
NOTHING_SAID = 0.5  # an interval of a group wider than this part of the scale fills a table and tells nothing
WIDE_NOTE = f"[{MISSING}]: the interval is wider than half of the scale"
BATCHES = ("single", "inference")  # how columns of speeds begin
TEACHER = "cost/teacher_"  # how those of a student's teacher do
COUNTS = {"short": "too short, padded", "capped": "too long, cut", "skipped": "unreadable"}

LATEX = {each: f"\\{each}" for each in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MINUS: "$-$",
    MISSING: "---",
}


class TextTable(NamedTuple):
    """A table as text, which page, markdown and LaTeX write out."""

    headings: tuple[str, ...]  # of the columns; the first names the rows
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()  # lines below it
    words: bool = False  # whether most cells are words rather than numbers


def overview(table: pd.DataFrame, words: ScoreWords) -> TextTable:
    """One row a strategy: score, spread over folds, what trains, what it costs."""
    letters: dict[str, str] = {}
    unit = f" {words.unit}" if words.unit else ""
    with_folds = bool(table["fold_lowest"].notna().any())
    with_full = FULL in table and bool(table[FULL].notna().any())
    headings = [
        "strategy",
        f"{words.short}{unit} [95 %]",
        *["folds"] * with_folds,
        "runs",
        "trains",
        "training time",
    ]
    headings += ["peak memory", "training FLOP", "encoder"]
    rows = []
    for name, row in table.iterrows():
        marks = dict.fromkeys(row["marks"])
        if with_full and known(row.get(FULL)):
            marks[f"its runs share a cache; one that builds it alone takes {duration(row[FULL])}"] = None
        notes = [letters.setdefault(mark, _letter(len(letters))) for mark in marks]
        runs = f"{row['runs']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
        cells = [
            f"{name}" + (f" [{', '.join(notes)}]" if notes else ""),
            words.interval(row["score"], row["low"], row["high"]),
            *([_folds(row, words)] if with_folds else []),
            runs,
            count(row.get("cost/trainable_parameters")),
            duration(row.get(FIT)),
            quantity("cost/peak_memory_bytes").text(row.get("cost/peak_memory_bytes")),
            quantity("cost/train_flops").text(row.get("cost/train_flops")),
            row["encoder"],
        ]
        rows.append(tuple(cells))
    return TextTable(
        tuple(headings), tuple(rows), tuple(f"[{letter}] {mark}" for mark, letter in letters.items())
    )


def inference(table: pd.DataFrame) -> TextTable:
    """One row a strategy: what its model costs whoever uses it, adapters merged."""
    headings = ("as shipped", "parameters", "size", "FLOP / audio s", "audio s / s", "in batches", "memory")
    rows = []
    for name, row in table.iterrows():
        told = {
            column: quantity(f"cost/{column}").text(row.get(f"cost/{column}"))
            for column in (
                *("inference_parameters", "inference_bytes", "inference_flops_per_audio_second"),
                "inference_peak_memory_bytes",
            )
        }
        *first, memory = told.values()
        alone, together = (_speed(row, f"cost/{batch}_audio_seconds_per_second") for batch in BATCHES)
        rows.append((f"{name}", *first, alone, together, memory))
    notes = (
        "audio s / s: seconds of sound answered in a second on this machine, one clip at a time and in the "
        "test's largest batch; ± is half of the middle half of the runs",
    )
    return TextTable(headings, tuple(rows), notes)


def _speed(row: "pd.Series[Any]", column: str) -> str:
    speed, spread = row.get(column), row.get(f"{column}_iqr")
    around = f" ± {rate(spread / 2)}" if known(speed) and known(spread) else ""
    return f"{rate(speed)}{around}"


def title_of(pair: Difference) -> str:
    """Whose score less whose."""
    return f"{pair.a} {MINUS} {pair.b}"


def pairs(findings: Findings) -> TextTable:
    """One row a pair: the difference, how often it would come by chance, and the verdict."""
    words = findings.words
    rows = []
    for pair in findings.differences:
        told = f"{pair.better} is better" if pair.better else "cannot be told apart"
        more = f"{pair.more}" if pair.more and not pair.better and str(pair.more) != MISSING else ""
        rows.append(
            (
                title_of(pair),
                words.difference(pair.point, pair.low, pair.high),
                chance(pair.p_holm),
                told,
                more or MISSING,
            )
        )
    notes = dict.fromkeys(note for pair in findings.differences for note in pair.notes)
    headings = ("pair", "difference [95 %]", "p (Holm)", "verdict", "what would tell")
    return TextTable(headings, tuple(rows), tuple(notes), words=True)


def recall(findings: Findings) -> TextTable:
    """Recall of each class under each strategy, with intervals."""
    rows = []
    for name, found in findings.recalls.items():
        rows.append((name, *(_interval(found.get(label)) for label in findings.labels)))
    return TextTable(("recall, % [95 %]", *findings.labels), tuple(rows), _notes(rows))


def calibration(findings: Findings) -> TextTable:
    """Whether probabilities are to be believed."""
    rows = [
        (
            name,
            percent(each.ece),
            percent(each.ece_by_chance),
            ScoreWords("brier").interval(each.brier.point, each.brier.low, each.brier.high),
        )
        for name, each in findings.calibration.items()
    ]
    return TextTable(("strategy", "ECE, %", "of it by chance", "Brier score [95 %]"), tuple(rows))


def groups(findings: Findings, by: str) -> TextTable:
    """The worst group of each strategy, and the gap to the best."""
    words, found = findings.words, findings.groups[by]
    named = by == "gender"
    every = (
        list(dict.fromkeys(group.name for each in found.values() for group in each.groups)) if named else []
    )
    rows = []
    for name, each in found.items():
        scores = {group.name: group.interval for group in each.groups}
        cells = [_interval(scores.get(group), words) for group in sorted(every)]
        worst = each.worst
        lowest = f"{worst.name}: {_interval(worst.interval, words)}" if worst else MISSING
        rows.append(
            (
                name,
                *cells,
                *([] if named else [lowest]),
                _gap(each, words),
                chance(each.gap.p if each.gap else None),
            )
        )
    unit = f", {words.unit}" if words.unit else ""
    heads = [f"{group}{unit}" for group in sorted(every)] if named else [f"worst {by}{unit}"]
    return TextTable(
        (f"{words.short} by {by}", *heads, "gap", "p (all alike)"),
        tuple(rows),
        (*_small(found.values()), *_notes(rows)),
    )


def otherwise(findings: Findings) -> TextTable:
    """The same models told otherwise at test, such as without a condition: their score, and its change."""
    words = findings.words
    rows = []
    for name, scores in findings.otherwise.items():
        for row, score in scores.items():
            change = MISSING if row == AS_TESTED else words.change(score - scores[AS_TESTED])
            rows.append((f"{name}, {row}", words.text(score), change))
    return TextTable(
        (f"told at test ({words.short} {words.unit})".replace(" )", ")"), "mean", "change"), tuple(rows)
    )


def robustness(findings: Findings) -> TextTable:
    """One row a disturbance of the test sounds, one column a strategy: its score, and the change."""
    words, told = findings.words, findings.robustness
    rows = []
    for disturbance, said in told.words.items():
        cells = []
        for each in told.found.values():
            one = each.get(disturbance)
            if one is None:
                cells.append(MISSING)
                continue
            change = words.difference(one.change, one.change_low, one.change_high)
            score = words.interval(one.score, one.low, one.high)
            cells.append(score if disturbance == CLEAN else f"{score} ({change})")
        rows.append((said, *cells))
    fewer = [
        f"{name}: {min(one.runs for one in each.values())} of its {told.runs[name]} runs were tested so"
        for name, each in told.found.items()
        if min(one.runs for one in each.values()) < told.runs[name]
    ]
    without = [name for name in told.runs if name not in told.found]
    notes = [
        "in parentheses the change, on the same utterances; intervals are over speakers and seeds",
        *fewer,
    ]
    endless = [name for name, each in told.found.items() if all(one.low is None for one in each.values())]
    if endless:
        notes.append(
            f"{', '.join(endless)}: means over runs, which kept no predictions to tell intervals from"
        )
    notes += [f"not tested so: {', '.join(without)}"] if without else []
    unit = f" {words.unit}" if words.unit else ""
    return TextTable((f"test sounds ({words.short}{unit})", *told.found), tuple(rows), tuple(notes))


def costs(findings: Findings) -> list[TextTable]:
    """One row a cost, one column a strategy: medians over the runs; as many tables as fit a page's width."""
    table = findings.table
    parts = -(-len(table) // ABREAST)
    size = -(-len(table) // parts)
    return [_costs(table.iloc[first : first + size]) for first in range(0, len(table), size)]


def _costs(table: pd.DataFrame) -> TextTable:
    rows = []
    for column, kind in QUANTITIES.items():
        if column in table and not (column.startswith(TEACHER) and table[column].isna().all()):
            rows.append((kind.title, *(kind.text(value) for value in table[column])))
            if column == FIT and FULL in table:
                rows.append(("with the cache built anew", *(duration(value) for value in table[FULL])))
    for name, words in COUNTS.items():
        if f"cost/{name}" in table:
            rows.append((f"utterances {words}", *(count(value) for value in table[f"cost/{name}"])))
    hardware, precision = table["hardware"], table["precision"]
    if hardware.nunique() > 1:
        rows.append(("machine", *(value or MISSING for value in hardware)))
    if precision.nunique() > 1:
        rows.append(("number format", *(value or MISSING for value in precision)))
    return TextTable(("median of runs", *map(str, table.index)), tuple(rows))


def failures(findings: Findings) -> TextTable:
    """Runs that failed or cannot be read, and why."""
    runs = findings.runs
    rows = []
    for row in runs[runs["status"] != "finished"].to_dict("records"):
        where = ", ".join(f"{k} {row[k]}" for k in ("fold", "seed") if not pd.isna(row[k]))
        rows.append((f"{row['name']}", where or MISSING, row["status"], str(row["error"] or MISSING)))
    for problem in findings.problems:
        known_as = runs[runs["hash"] == problem.cell]
        name = str(known_as["name"].iloc[0]) if len(known_as) else problem.cell
        where = ", ".join(f"{k} {known_as[k].iloc[0]}" for k in ("fold", "seed") if len(known_as))
        rows.append((name, where or MISSING, "not whole", problem.reason))
    return TextTable(("what", "where", "state", "why"), tuple(rows), words=True)


def _folds(row: "pd.Series[Any]", words: ScoreWords) -> str:
    low, high = row["fold_lowest"], row["fold_highest"]
    return f"{words.text(low)} to {words.text(high)}" if known(low) else MISSING


def _interval(found: Interval | None, words: ScoreWords | None = None) -> str:
    if found is None:
        return MISSING
    return _told(words or ScoreWords("ua"), found)


def _told(words: ScoreWords, found: Interval | Gap) -> str:
    if words.share and known(found.low) and known(found.high) and found.high - found.low > NOTHING_SAID:
        return f"{words.text(found.point)} [{MISSING}]"
    return words.interval(found.point, found.low, found.high)


def _notes(rows: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return (WIDE_NOTE,) if any(f"[{MISSING}]" in cell for row in rows for cell in row) else ()


def _gap(found: Groups, words: ScoreWords) -> str:
    if found.gap is None:
        return MISSING
    return _told(words, found.gap)


def _small(found: Iterable[Groups]) -> tuple[str, ...]:
    small: Mapping[str, Any] = {name: size for each in found for name, size in each.small}
    if not small:
        return ()
    names = ", ".join(f"{name} ({size:,})" for name, size in list(small.items())[:6])
    more = f" and {len(small) - 6} more" if len(small) > 6 else ""
    return (f"too few utterances to score: {names}{more}",)


def _letter(position: int) -> str:
    return chr(ord("a") + position) if position < 26 else f"a{position}"


def latex(table: TextTable) -> str:
    """The table for a paper, with the rules of booktabs."""
    side = "l" if table.words else "r"
    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{side * (len(table.headings) - 1)}}}",
        r"\toprule",
    ]
    for row in (table.headings, *table.rows):
        lines.append(" & ".join(map(_latex, row)) + r" \\")
        lines += [r"\midrule"] if row is table.headings else []
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {' '.join(note.split())}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _latex(words: str) -> str:
    return "".join(LATEX.get(each, each) for each in " ".join(words.split()))
