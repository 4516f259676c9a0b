"""Ensembles in words and tables: what they are made of, what they gain, and what of that was optimism."""

from collections.abc import Mapping

from ser_strategies.common.errors import counted, listed
from ser_strategies.common.quantities import MISSING, ScoreWords, known
from ser_strategies.comparison.ensemble_findings import SINGLE, WEIGHTED, EnsembleFinding
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.tables import TextTable

BY = {"log_loss": "log loss", "f1_macro": "macro F1", "ua": "UA", "ccc": "CCC"}
SHOWN = 6
KINDS = {WEIGHTED: "weighted", "mean": "mean", "vote": "vote", SINGLE: "best member on validation"}


def ensemble_sentences(findings: Findings) -> list[str]:
    """A sentence or two for each ensemble, which claim no more than was found on test."""
    return [_sentence(each, findings.words) for each in findings.ensembles.values()]


def strategies_in_words(findings: Findings) -> str:
    """How many strategies there are, and how many ensembles of them."""
    ensembles = sum(name in findings.ensembles for name in findings.names)
    alone = len(findings.names) - ensembles
    strategies = f"{alone} strategies" if alone != 1 else "1 strategy"
    return f"{strategies} and {counted(ensembles, 'ensemble')}" if ensembles else strategies


def ensemble_table(findings: Findings) -> TextTable:
    """Four rows an ensemble: weighted, and the baselines that it must beat to be worth its cost."""
    words = findings.words
    unit = f" {words.unit}" if words.unit else ""
    rows = []
    for name, each in findings.ensembles.items():
        for kind, title in KINDS.items():
            found = each.scores.get(kind)
            if found is None:
                continue
            weighted = kind == WEIGHTED
            gain = each.gain
            rows.append(
                (
                    f"{name}: {title}",
                    words.interval(found.point, found.low, found.high),
                    words.text(each.validation[kind]),
                    words.difference(gain.point, gain.low, gain.high) if weighted else MISSING,
                    words.change(each.gain_on_validation) if weighted else MISSING,
                    words.change(each.optimism) if weighted else MISSING,
                )
            )
    headings = ("ensemble", f"{words.short}{unit} [95 %]", "on validation", "gain [95 %]")
    return TextTable(
        (*headings, "gain on validation", "optimism"),
        tuple(rows),
        (
            "gain: over the best member on validation, on the same utterances by the same speakers",
            "optimism: how much larger the gain is on validation, where the weights were chosen",
        ),
    )


def weight_table(findings: Findings) -> TextTable:
    """One row a member of each ensemble: its weight, and how often it was the best of them."""
    rows = []
    for name, each in findings.ensembles.items():
        runs = sum(each.singles.values())
        for member, (mean, lowest, highest) in each.members.items():
            spread = f" [{lowest:.2f} to {highest:.2f}]" if runs > 1 else ""
            best = f"{each.singles.get(member, 0)} of {runs}"
            rows.append((f"{name}: {member}", f"{mean:.2f}{spread}", best, _by(each)))
    return TextTable(
        ("member", "weight", "best on validation", "weighed by"),
        tuple(rows),
        ("weight: the mean over the runs, and from the lowest to the highest of them",),
    )


def ensemble_methods(ensembles: Mapping[str, EnsembleFinding]) -> list[str]:
    """How ensembles were made, for the methods of a paper."""
    said = []
    for name, each in ensembles.items():
        said.append(
            f"{name} is a weighted mean of the predictions of {listed(each.members, 'and')}, for each fold "
            f"and seed; its weights (at least 0, together 1{', for each output' * each.class_wise}) are "
            f"those of the best {BY.get(each.by, each.by)} on validation."
        )
    return said


def _sentence(found: EnsembleFinding, words: ScoreWords) -> str:
    weights = listed((f"{mean:.2f}" for mean, *_ in found.members.values()), "and", at_most=SHOWN)
    members = listed(found.members, "and", at_most=SHOWN)
    gain, unit = found.gain, " points" if words.share else ""
    size = f"{words.change(gain.point)}{unit}"
    if known(gain.low) and known(gain.high):
        size += f" (95 % interval {words.change(gain.low)} to {words.change(gain.high)})"
    shown = "is shown to be better" if gain.better == gain.a else "is not shown to be better"
    if gain.better == gain.b:
        shown = "is shown to be worse"
    return (
        f"{found.name} is an ensemble of {members} (weights {weights}, by {_by(found)} on validation) and "
        f"costs what they cost together; it {shown} than the best of them: {size}, and on validation, where "
        f"the weights were chosen, {words.change(found.gain_on_validation)}."
    )


def _by(found: EnsembleFinding) -> str:
    return BY.get(found.by, found.by) + " of each output" * found.class_wise
