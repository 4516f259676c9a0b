"""The verdict: what the comparison says, in a few plain sentences that claim no more than the data do."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ser_strategies.comparison.clusters import counted
from ser_strategies.comparison.differences import Difference
from ser_strategies.comparison.ledger import COMPARISON
from ser_strategies.comparison.report.findings import Findings
from ser_strategies.comparison.report.quantities import duration, known
from ser_strategies.comparison.rows import FIT

SHOWN = 6


def verdict(findings: Findings) -> list[str]:
    """The sentences, the most important first.

    Args:
        findings: What was found.
    """
    if not findings.names:
        return ["No strategy has predictions that are whole, so nothing can be compared."]
    return [_leader(findings), *_apart(findings), *_cheapest(findings), *_guessing(findings)]


def warnings(findings: Findings) -> list[str]:
    """What must be known before the verdict is believed.

    Args:
        findings: What was found.
    """
    said = [f"Not alike in {each}." for each in findings.unfair]
    said += [f"{_upper(brand)}." for brand in _brands(findings)]
    said += [
        f"{name}: {row['encoder']}."
        for name, row in findings.rows.items()
        if any(row["encoder"] == mark for mark in row["marks"])
    ]
    said += _missing(findings)
    if findings.others:
        names = _listed(name for other in findings.others for name in other.names)
        said.append(f"Not in this table, since they differ in more than their strategy: {names}.")
    said += [f"Left out: {each}." for each in (*findings.left_out, *_earlier(findings))]
    return said


def _earlier(findings: Findings) -> list[str]:
    """Runs whose strategy has been given other options since."""
    earlier = findings.whole.ledger.earlier
    if not earlier:
        return []
    runs = counted(sum(earlier.values()), "run")
    return [f"{runs} of {_listed(sorted(earlier))}, with other options or data than now"]


def _missing(findings: Findings) -> list[str]:
    """How many runs are not in the table since they are not whole, or not there."""
    whole = findings.whole
    torn = [each for each in whole.ledger.problems if each.cell != COMPARISON]
    states = whole.runs["status"].value_counts()
    broken = int(states.get("finished", 0)) - len(whole.finished)
    there = len(whole.runs) + len(torn)
    wanted = _wanted(whole.ledger.facts)
    counts = {
        "failed": int(states.get("failed", 0)),
        "not finished": int(states.get("running", 0)),
        "not begun": max(wanted - there, 0),
        "cannot be read": len(torn) + broken,
    }
    found = [f"{count:,} {words}" for words, count in counts.items() if count]
    total = max(wanted, there)
    return [f"Of {total:,} runs {', '.join(found)}; see what is not whole, below."] if found else []


def _wanted(facts: Mapping[str, Any]) -> int:
    """How many runs the comparison is to have, if it says so."""
    if isinstance(facts.get("cells"), dict):
        return len(facts["cells"])
    listed = [facts.get(name) for name in ("names", "folds", "seeds")]
    return math.prod(len(each) if isinstance(each, list) else 0 for each in listed)


def _leader(findings: Findings) -> str:
    best, words = findings.names[0], findings.words
    row = findings.rows[best]
    ends = ""
    if known(row["low"]) and known(row["high"]):
        who = f"{counted(int(row['clusters']), row['unit'])} and {counted(int(row['seeds']), 'seed')}"
        ends = f" (95 % interval {words.text(row['low'])} to {words.with_unit(row['high'])}, from {who})"
    score = f"{words.with_unit(row['score'])} {words.title}{ends}"
    guess = "" if findings.chance is None else f"; guessing gives {words.with_unit(findings.chance)}"
    if len(findings.names) == 1:
        return f"{best} is the only strategy here: {score}{guess}."
    return f"{best} scores best: {score}{guess}."


def _apart(findings: Findings) -> list[str]:
    """Whom the best is shown to beat, whom it seems to beat, and from whom it cannot be told."""
    best, pairs = findings.names[0], _with_best(findings)
    if not pairs:
        return []
    beaten = [name for name, pair in pairs.items() if pair.better == best]
    level = [name for name, pair in pairs.items() if name not in beaten and _open(pair)]
    below = [name for name in pairs if name not in beaten and name not in level]
    if len(beaten) == len(pairs):
        return [f"It is shown to be better than every other: {_sizes(findings, pairs, beaten)}."]
    parts = [f"It is shown to be better than {_listed(beaten)}"] if beaten else []
    if below:
        worse = f"{_listed(below)} {'scores' if len(below) == 1 else 'score'} worse"
        count = len(findings.differences)
        parts.append(f"{worse}, which is no proof where {count} pairs are looked at" if count > 1 else worse)
    if level:
        everyone = not beaten and not below and len(level) > 1
        who = "No other can" if everyone else f"{_listed(level)} cannot"
        parts.append(f"{who} be told apart from it with this data{_more(pairs, level)}")
    return ["; ".join(parts) + "."]


def _with_best(findings: Findings) -> dict[str, Difference]:
    best = findings.names[0]
    return {
        pair.b if pair.a == best else pair.a: pair
        for pair in findings.differences
        if best in (pair.a, pair.b)
    }


def _open(pair: Difference) -> bool:
    """Whether the interval leaves open who is better."""
    return pair.low is None or pair.high is None or pair.low <= 0 <= pair.high


def _more(pairs: dict[str, Difference], level: list[str]) -> str:
    """What would tell the only one that is level with the best, if that is known."""
    more = pairs[level[0]].more
    if len(level) > 1 or more is None or (more.clusters is None and more.seeds is None):
        return ", which is not to say that they are equal"
    return f" ({more} would tell a difference of the size found)"


def _sizes(findings: Findings, pairs: dict[str, Difference], names: list[str]) -> str:
    gaps = {name: abs(pairs[name].point) for name in names}
    ends = sorted(gaps, key=gaps.__getitem__)
    unit = " points" if findings.words.share else ""
    near, far = (f"than {name} by {findings.words.change(gaps[name])[1:]}" for name in (ends[0], ends[-1]))
    return f"{near}{unit}" if len(ends) == 1 else f"{near}{unit}, {far}"


def _cheapest(findings: Findings) -> list[str]:
    """The fastest that may be as good as the best; where none may, what less time gives."""
    best, rows = findings.names[0], findings.rows
    time = {name: float(rows[name][FIT]) for name in findings.names if known(rows[name].get(FIT))}
    if best not in time or len(findings.names) == 1:
        return []
    pairs = _with_best(findings)
    level = [name for name, pair in pairs.items() if pair.better is None and _open(pair) and name in time]
    if level:
        fastest = min([best, *level], key=time.__getitem__)
        if fastest == best:
            return [f"{best} is the fastest of those, too, with {duration(time[best])} of training."]
        many = f"Of those that cannot be told from it, {fastest} is the fastest: it"
        return [
            f"{many if len(level) > 1 else fastest} takes {duration(time[fastest])} of training, "
            f"{_part(time, fastest, best)} of what {best} takes ({duration(time[best])}), and its "
            f"score is {_loss(findings, fastest)} worse."
        ]
    front = findings.fronts[FIT].on if FIT in findings.fronts else ()
    faster = [name for name in front if name in time and time[name] < time[best]]
    faster.sort(key=findings.names.index)
    if not faster:
        return [f"It takes {duration(time[best])} of training."]
    second = faster[0]
    return [
        f"It takes {duration(time[best])} of training; {second} takes {_part(time, second, best)} of that, "
        f"and its score is {_loss(findings, second)} worse."
    ]


def _loss(findings: Findings, name: str) -> str:
    """By how much a strategy scores worse than the best."""
    gap = abs(findings.rows[findings.names[0]]["score"] - findings.rows[name]["score"])
    return f"{findings.words.change(gap).lstrip('+')}{' points' if findings.words.share else ''}"


def _part(time: dict[str, float], one: str, other: str) -> str:
    share = time[one] / time[other] if time[other] else math.nan
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def _guessing(findings: Findings) -> list[str]:
    """Strategies that are not shown to be better than a guess."""
    chance = findings.chance
    if chance is None:
        return []
    lowest = {
        name: row["low"] if known(row["low"]) else row["score"]
        for name, row in findings.rows.items()
        if name in findings.names
    }
    names = [name for name, low in lowest.items() if low <= chance]
    return [f"Not shown to be better than guessing: {_listed(names)}."] if names else []


def _brands(findings: Findings) -> list[str]:
    return list(dict.fromkeys(brand for data in findings.data.values() for brand in data.get("brands", ())))


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    if len(every) > SHOWN:
        return f"{', '.join(every[:SHOWN])} and {len(every) - SHOWN} more"
    return " and ".join(filter(None, [", ".join(every[:-1]), *every[-1:]]))


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
