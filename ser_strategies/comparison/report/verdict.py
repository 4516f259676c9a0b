"""The verdict: what the comparison says, in a few plain sentences that claim no more than the data do."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ser_strategies.common.errors import counted, listed
from ser_strategies.common.quantities import duration, known
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.ledger import COMPARISON
from ser_strategies.comparison.report.blends_told import ensemble_sentences
from ser_strategies.comparison.stats.differences import NO_TEST, Difference
from ser_strategies.comparison.summary import FIT

SHOWN = 6


def verdict(findings: Findings) -> list[str]:
    """The sentences, the most important first."""
    if not findings.names:
        return ["No strategy has predictions that are whole, so nothing can be compared."]
    sentences = (_apart, ensemble_sentences, _single_trainings, _cheaper, _guessing)
    return [_leader(findings), *(each for sentence in sentences for each in sentence(findings))]


def warnings(findings: Findings) -> list[str]:
    """What must be known before the verdict is believed."""
    said = [f"Not alike in {each}." for each in findings.unfair]
    said += [f"{_upper(brand)}." for brand in _brands(findings)]
    said += _oracles(findings)
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


def _oracles(findings: Findings) -> list[str]:
    """Who was told at test what a machine alone would not know."""
    told: dict[str, list[str]] = {}
    runs = findings.finished
    for name, oracles in zip(runs["name"], runs["oracles"], strict=True) if "oracles" in runs else ():
        for oracle in oracles if isinstance(oracles, tuple) else ():
            told.setdefault(oracle, []).append(name)
    return [f"{_listed(dict.fromkeys(names))}: {oracle}." for oracle, names in told.items()]


def _earlier(findings: Findings) -> list[str]:
    """Runs whose strategy has been given other options since."""
    earlier = findings.ledger.earlier
    if not earlier:
        return []
    runs = counted(sum(earlier.values()), "run")
    return [f"{runs} of {_listed(sorted(earlier))}, with other options or data than now"]


def _missing(findings: Findings) -> list[str]:
    """How many runs are not in the table since they are not whole, or not there."""
    torn = [each for each in findings.ledger.problems if each.cell != COMPARISON]
    states = findings.runs["status"].value_counts()
    there = len(findings.runs) + len(torn)
    wanted = _wanted(findings.ledger.facts)
    counts = {
        "failed": int(states.get("failed", 0)),
        "not finished": int(states.get("running", 0)),
        "not begun": max(wanted - there, 0),
        "cannot be read": len(torn) + findings.broken,
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
    score = f"{words.with_unit(row['score'])} {words.title}"
    guess = "" if findings.chance is None else f"; guessing gives {words.with_unit(findings.chance)}"
    if tied := _tied(findings):
        everyone = f"All {len(tied)} strategies score the same"
        who = everyone if len(tied) == len(findings.names) else f"{_listed(tied)} share the best score"
        return f"{who}, {score}{guess}."
    if known(row["low"]) and known(row["high"]):
        source = f"{counted(int(row['clusters']), row['unit'])} and {counted(int(row['seeds']), 'seed')}"
        score += f" (95 % interval {words.text(row['low'])} to {words.with_unit(row['high'])}, from {source})"
    if len(findings.names) == 1:
        return f"{best} is the only strategy here: {score}{guess}."
    alone = next((name for name in findings.names if name not in findings.ensembles), best)
    if alone != best:
        best = f"{best}, which is made of others,"
        guess += f"; of single strategies {alone} does, with {words.with_unit(findings.rows[alone]['score'])}"
    return f"{best} scores best: {score}{guess}."


def _tied(findings: Findings) -> list[str]:
    """The strategies that share the best score as it is written; none where one alone has it."""
    written = {name: findings.words.text(findings.rows[name]["score"]) for name in findings.names}
    tied = [name for name in findings.names if written[name] == written[findings.names[0]]]
    return tied if len(tied) > 1 else []


def _reference(findings: Findings) -> str:
    """The strategy that all others are compared with: the baseline, if there is one; else the best."""
    baseline = findings.baseline
    return baseline if baseline in findings.names else findings.names[0]


def _is_best(findings: Findings) -> bool:
    """Whether the reference is the strategy that the first sentence names."""
    return _reference(findings) == findings.names[0] and not _tied(findings)


def _apart(findings: Findings) -> list[str]:
    """Strategies shown to be better or worse than the reference, seemingly so, and level with it."""
    reference, pairs = _reference(findings), _with_reference(findings)
    if not pairs:
        return []
    is_best = _is_best(findings)
    worse = [name for name, pair in pairs.items() if pair.better == reference]
    better = [name for name, pair in pairs.items() if pair.better == name]
    level = [name for name, pair in pairs.items() if pair.better is None and _open(pair)]
    seeming = [name for name in pairs if name not in (*worse, *better, *level)]
    if is_best and len(worse) == len(pairs):
        sizes = _sizes(findings, pairs, worse)
        return [f"It is shown to be better than every other{_family(findings)}: {sizes}."]
    parts = [f"{_listed(better)} {_is(better)} shown to be better than {reference}"] if better else []
    if worse:
        parts.append(f"{'It' if is_best else reference} is shown to be better than {_listed(worse)}")
    if parts:
        parts[-1] += _family(findings)
    for words, names in _directions(findings, reference, seeming).items():
        verb = "scores" if len(names) == 1 else "score"
        count = len(findings.differences)
        proof = f", which is no proof where {count} pairs are looked at" if count > 1 else ""
        parts.append(f"{_listed(names)} {verb} {words}{'' if is_best else f' than {reference}'}{proof}")
    if level:
        everyone = not worse and not better and not seeming and len(level) > 1
        who = "No other can" if everyone else f"{_listed(level)} cannot"
        whom = "it" if is_best else reference
        parts.append(f"{who} be told apart from {whom} with this data{_more(pairs, level)}")
    return ["; ".join(parts) + "."]


def _family(findings: Findings) -> str:
    """How often a table like this one has an error."""
    count, level = len(findings.differences), findings.differences[0].level
    where = f" anywhere among the {count} pairs" if count > 1 else ""
    alone = ", other seeds left out of account" if _single(findings) else ""
    return f" (an error{where}: {100 * (1 - level):.0f} % at most{alone})"


def _single(findings: Findings) -> bool:
    """Whether every strategy has one seed, which no correction makes up for."""
    return bool(findings.differences) and all(pair.seeds == 1 for pair in findings.differences)


def _single_trainings(findings: Findings) -> list[str]:
    said = "With one seed each, this is about these trainings: other seeds may turn it round."
    return [said] if _single(findings) else []


def _with_reference(findings: Findings) -> dict[str, Difference]:
    reference = _reference(findings)
    return {
        pair.b if pair.a == reference else pair.a: pair
        for pair in findings.differences
        if reference in (pair.a, pair.b)
    }


def _directions(findings: Findings, reference: str, names: list[str]) -> dict[str, list[str]]:
    """Strategies by which side of the reference they are on, whose table has the best first."""
    found: dict[str, list[str]] = {}
    for name in names:
        ahead = findings.names.index(name) < findings.names.index(reference)
        found.setdefault("better" if ahead else "worse", []).append(name)
    return found


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


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


def _cheaper(findings: Findings) -> list[str]:
    """The fastest that is shown to be as good as the reference; where none is, what less time gives."""
    reference, rows = _reference(findings), findings.rows
    time = {name: float(rows[name][FIT]) for name in findings.names if known(rows[name].get(FIT))}
    if reference not in time or len(findings.names) == 1:
        return []
    subject, whole = "It" if _is_best(findings) else reference, duration(time[reference])
    faster = sorted((name for name in time if time[name] < time[reference]), key=time.__getitem__)
    if not faster:
        fastest = " and is the fastest" if len(time) == len(findings.names) else ""
        return [f"{subject} takes {whole} of training{fastest}."]
    margin, unit = findings.margin, " points" if findings.words.share else ""
    within = f"to within {margin if unit else margin / 100:g}{unit}"
    above = [name for name in faster if name not in _like_a_guess(findings)]
    as_good = [name for name in above if _as_good(findings, name)]
    if as_good:
        found = as_good[0]
        return [
            f"{found} is shown to be as good as {reference} {within}, and takes {duration(time[found])} of "
            f"training, {_part(time, found, reference)} of what {reference} takes ({whole}); its score is "
            f"{_gap(findings, found)}{_ends(findings, found)}."
        ]
    said = f"{subject} takes {whole} of training, and nothing that takes less is shown to be as good {within}"
    front = findings.fronts[FIT].on if FIT in findings.fronts else ()
    second = next((name for name in findings.names if name in above and name in front), None)
    if second is None:
        return [f"{said}."]
    part = _part(time, second, reference)
    return [f"{said}: {second} takes {part} of that, and its score is {_gap(findings, second)}."]


def _as_good(findings: Findings, name: str) -> bool:
    """Whether a strategy is worse than the reference by less than the margin, wherever in the interval."""
    pair = _with_reference(findings).get(name)
    if pair is None or pair.test == NO_TEST:
        return False
    ends = (pair.point, pair.point) if pair.low is None or pair.high is None else (pair.low, pair.high)
    higher = findings.higher_is_better
    lowest = ends[0] if (pair.a == name) == higher else -ends[1]
    return lowest > -findings.margin / 100


def _ends(findings: Findings, name: str) -> str:
    """The interval of what a strategy has more than the reference."""
    pair = _with_reference(findings)[name]
    if pair.low is None or pair.high is None:
        return ""
    low, high = (pair.low, pair.high) if pair.a == name else (-pair.high, -pair.low)
    words = findings.words
    return f" (95 % interval of the difference {words.change(low)} to {words.change(high)})"


def _gap(findings: Findings, name: str) -> str:
    """By how much a strategy scores worse or better than the reference."""
    reference = _reference(findings)
    gap = abs(findings.rows[name]["score"] - findings.rows[reference]["score"])
    size = findings.words.change(gap).lstrip("+")
    if not float(size):
        return "the same"
    ahead = findings.names.index(name) < findings.names.index(reference)
    return f"{size}{' points' if findings.words.share else ''} {'better' if ahead else 'worse'}"


def _part(time: dict[str, float], one: str, other: str) -> str:
    share = time[one] / time[other] if time[other] else math.nan
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def _guessing(findings: Findings) -> list[str]:
    names = _like_a_guess(findings)
    return [f"Not shown to be better than guessing: {_listed(names)}."] if names else []


def _like_a_guess(findings: Findings) -> list[str]:
    """Strategies that are not shown to be better than a guess."""
    if findings.chance is None:
        return []
    rows = {name: findings.rows[name] for name in findings.names}
    lowest = {name: row["low"] if known(row["low"]) else row["score"] for name, row in rows.items()}
    return [name for name, low in lowest.items() if low <= findings.chance]


def _brands(findings: Findings) -> list[str]:
    return list(dict.fromkeys(brand for data in findings.data.values() for brand in data.get("brands", ())))


def _listed(names: Iterable[str]) -> str:
    return listed(names, "and", at_most=SHOWN)


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
