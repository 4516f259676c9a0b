"""The protocol in words, and a paragraph that a paper can paste."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.quantities import MISSING, known
from ser_strategies.comparison.stats.clusters import counted
from ser_strategies.comparison.table import FULL

LONG = {
    "epochs": "the same number of epochs",
    "steps": "the same number of steps",
    "seconds": "the same time",
}


def protocol(findings: Findings) -> list[tuple[str, str]]:
    """What was compared on what, each fact with its name.

    Args:
        findings: What was found.
    """
    runs = findings.comparison.finished
    first = next(iter(findings.data.values()), {})
    facts = [
        ("task", _one(runs["task"])),
        ("splits", str(first.get("words") or MISSING)),
        ("classes", ", ".join(findings.labels)),
        ("utterances", _sizes(findings.data)),
        ("folds and seeds", _cells(runs)),
        ("encoder", _encoder(runs)),
        (
            "chosen by",
            f"best {findings.monitor.title} on validation, {_one(runs['monitor'])}; test never chooses",
        ),
        ("budget", LONG.get(_one(runs["mode"]), _one(runs["mode"]))),
        ("machine", _one(runs["hardware"])),
        ("number format", _one(runs["precision"])),
        (
            "memory",
            {"resident": "resident set of the process", "cuda": "allocated on the GPU"}.get(*_kind(runs)),
        ),
        ("protocol digest", ", ".join(_digests(runs))),
        ("shared on purpose", "; ".join(_gathered(findings.data, "brands"))),
        ("not as published", "; ".join(_gathered(findings.data, "differences"))),
        ("not checked", "; ".join(_gathered(findings.data, "unchecked"))),
        ("left out of the corpus", _dropped(first)),
        ("unreadable", _unreadable(findings.data)),
        ("library", f"ser_strategies {version('ser-strategies')}"),
    ]
    return [(name, words) for name, words in facts if words]


def methods(findings: Findings) -> str:
    """A paragraph for the methods of a paper.

    Args:
        findings: What was found.
    """
    runs, words = findings.comparison.finished, findings.words
    names = findings.names
    folds = max(int(runs["fold"].nunique()), 1)
    many = f"{len(names)} strategies" if len(names) != 1 else "one strategy"
    trained = counted(max(int(runs["seed"].nunique()), 1), "seed") + (
        f" on each of {folds} folds" * (folds > 1)
    )
    test = f"The test sets of the {folds} folds count as one; its" if folds > 1 else "The"
    sentences = [
        f"We compared {many} for fine-tuning {_encoder(runs)} on {_one(runs['task'])} ({', '.join(names)}), "
        f"with ser_strategies {version('ser-strategies')}.",
        str(next(iter(findings.data.values()), {}).get("words") or ""),
        f"Each was trained with {trained}; the epoch with the best {findings.monitor.title} on validation "
        "was tested.",
        f"{test} {words.title} is the mean over seeds.",
        *_uncertainty(findings),
        *_costs(findings),
    ]
    return " ".join(filter(None, sentences))


def _uncertainty(findings: Findings) -> list[str]:
    sentences = []
    row = findings.rows[findings.names[0]] if findings.names else {}
    if row.get("method"):
        sentences.append(
            f"Intervals (95 %) hold for other {row['unit']}s and other seeds: {row['method']}, variances "
            "added, Student's t (Cameron et al., 2011)."
        )
    count = len(findings.differences)
    if count:
        tests = " or ".join(dict.fromkeys(pair.test for pair in findings.differences))
        corrected = f", corrected over {count} pairs (Holm, 1979)" if count > 1 else ""
        sentences.append(f"Differences are paired, on the same utterances, and tested by {tests}{corrected}.")
    return sentences


def _costs(findings: Findings) -> list[str]:
    runs = findings.comparison.finished
    sentences = [f"Costs are medians over runs, each in a process of its own ({_one(runs['hardware'])})."]
    if (runs["stages"] > 1).any():
        sentences.append("A chain costs the sum of its stages.")
    if any(known(row.get(FULL)) for row in findings.rows.values()):
        sentences.append("A cache that runs share is charged to each in part.")
    return sentences


def _one(values: "pd.Series[str]") -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values.dropna())) or MISSING


def _kind(runs: pd.DataFrame) -> tuple[str, str]:
    kind = _one(runs["memory_kind"])
    return kind, kind


def _encoder(runs: pd.DataFrame) -> str:
    source, prints = (
        _one(runs["encoder_source"]),
        [str(each)[:12] for each in runs["encoder_fingerprint"].dropna()],
    )
    return f"{source} (fingerprint {', '.join(dict.fromkeys(prints))})" if prints else source


def _digests(runs: pd.DataFrame) -> list[str]:
    pairs = runs[["fold", "digest"]].drop_duplicates().dropna(subset="digest")
    many = pairs["fold"].nunique() > 1
    return [
        f"fold {row.fold}: {row.digest}" if many else str(row.digest) for row in pairs.itertuples(index=False)
    ]


def _cells(runs: pd.DataFrame) -> str:
    folds = sorted({int(fold) for fold in runs["fold"].dropna()})
    seeds = sorted({int(seed) for seed in runs["seed"].dropna()})
    parts = [
        f"folds {', '.join(map(str, folds))}" if len(folds) > 1 else "",
        f"seeds {', '.join(map(str, seeds))}",
    ]
    return "; ".join(filter(None, parts))


def _sizes(data: Mapping[str, Mapping[str, Any]]) -> str:
    """How much each split has; from the smallest fold to the largest."""
    words = []
    for split in ("train", "val", "test"):
        found = [each.get("splits", {}).get(split, {}) for each in data.values()]
        sizes = [each["utterances"] for each in found if each.get("utterances") is not None]
        if not sizes:
            continue
        people = [each["speakers"] for each in found if each.get("speakers")]
        spoken = f" by {_range(people)} speakers" if people else ""
        words.append(f"{split} {_range(sizes)}{spoken}")
    return "; ".join(words)


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _gathered(data: Mapping[str, Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(each) for facts in data.values() for each in facts.get(key) or ()))


def _dropped(facts: Mapping[str, Any]) -> str:
    return "; ".join(f"{count:,}: {reason}" for reason, count in (facts.get("dropped") or {}).items())


def _unreadable(data: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for facts in data.values() for name in facts.get("unreadable") or ()))
    return f"{counted(len(names), 'utterance')}, such as {', '.join(names[:3])}" if names else ""
