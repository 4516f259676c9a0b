"""What an ensemble and its baselines make of members: weighted, their mean, a vote, the best member alone."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.differences import Difference, difference
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.comparison.stats.sums import sums_of
from ser_strategies.ensembles.members import MemberOutputs
from ser_strategies.ensembles.weighing import Weights, same_for_all, weigh
from ser_strategies.ensembles.weighing_rules import WeighingRule

WEIGHTED, MEAN, VOTE, SINGLE = "weighted", "mean", "vote", "single"
OF_CLASSES = ("ua", "wa", "f1_macro", "f1_weighted")


@dataclass(frozen=True)
class Blends:
    """An ensemble and its baselines: weights from validation, tables of predictions for both splits."""

    members: tuple[str, ...]
    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    weights: Weights
    single: str  # the member with the best score on validation
    val: Mapping[str, pd.DataFrame]  # by what it is: weighted, mean, vote (of classes) and single
    test: Mapping[str, pd.DataFrame]

    def gain(self, split: str, score: str) -> float:
        """The score of the weighted members less that of the best of them."""
        tables = self.val if split == "val" else self.test
        return score_of_rows(tables[WEIGHTED], score) - score_of_rows(tables[SINGLE], score)

    def as_dict(self, score: str) -> dict[str, Any]:
        """Plain data: weights, and the score of each blend on both splits."""
        names = self.members
        weights = {name: self.weights.of_member(k) for k, name in enumerate(names)}
        told: dict[str, Any] = {
            "by": self.weights.by,
            "class_wise": self.weights.class_wise,
            "gap": self.weights.gap,
            "score": score,
            "weights": weights,
            "single": self.single,
        }
        for what, outputs, each in (
            ("classes", self.labels, self.weights.classes),
            ("dimensions", self.dimensions, self.weights.dimensions),
        ):
            told[f"weights_of_{what}"] = {
                output: dict(zip(names, each[:, k].tolist(), strict=True)) for k, output in enumerate(outputs)
            }
        for split, tables in (("val", self.val), ("test", self.test)):
            told[split] = {name: metrics_of(rows, split) for name, rows in tables.items()}
        return told

    def optimism(self, score: str) -> float:
        """How much more the weights gain where they were chosen than where they were not."""
        higher = score_named(score, self.labels, self.dimensions).higher_is_better
        return (self.gain("val", score) - self.gain("test", score)) * (1 if higher else -1)


def blend(val: MemberOutputs, test: MemberOutputs, rule: WeighingRule, score: str) -> Blends:
    """Weighs members on validation, and blends both splits; the best member alone is that of validation, too.

    ValueError if there is nothing that weights could be told from, or no such score.
    """
    higher = score_named(score, val.labels, val.dimensions).higher_is_better
    weights = weigh(val, rule)
    alone = [_of_member(val, index) for index in range(len(val.names))]
    scores = [score_of_rows(rows, score) for rows in alone]
    best = int(np.argmax(scores) if higher else np.argmin(scores))
    outputs = val.names, val.labels, val.dimensions
    return Blends(
        *outputs, weights, val.names[best], _blended(val, weights, best), _blended(test, weights, best)
    )


def score_of_rows(rows: pd.DataFrame, score: str) -> float:
    """The score of a table of predictions."""
    return sums_of(align([(None, 0, rows)], "the ensemble"), score).point


def gain_on_test(blends: Blends, score: str) -> Difference:
    """How much better the weighted members are than the best of them, on the same test utterances."""
    weighted, single = (align([(None, 0, blends.test[kind])], kind) for kind in (WEIGHTED, SINGLE))
    return difference(weighted, single, score)


def metrics_of(rows: pd.DataFrame, split: str) -> dict[str, float | None]:
    """The scores of a table of predictions under the names of `test`; None where one cannot be computed."""
    aligned = align([(None, 0, rows)], "the ensemble")
    names = [*OF_CLASSES, *(f"recall/{label}" for label in aligned.labels)] if aligned.labels else []
    names += ["ccc"] if aligned.dimensions else []
    names += list(aligned.distances)
    names += [f"{kind}_{name}" for name in aligned.dimensions for kind in ("ccc", "pearson", "rmse")]
    found: dict[str, float | None] = {}
    for name in names:
        found[f"{split}/{name}"] = None
        with suppress(ValueError):
            found[f"{split}/{name}"] = sums_of(aligned, name).point
    return found


def blended_rows(outputs: MemberOutputs, weights: Weights) -> pd.DataFrame:
    """The table of the weighted members."""
    blended = weights.blend(outputs.probabilities, outputs.estimates)
    return outputs.rows(*blended, weights.of_members)


def _blended(outputs: MemberOutputs, weights: Weights, best: int) -> dict[str, pd.DataFrame]:
    members = len(outputs.names)
    even = same_for_all(np.full(members, 1 / members), outputs, MEAN)
    mean = even.blend(outputs.probabilities, outputs.estimates)
    found = {WEIGHTED: blended_rows(outputs, weights), MEAN: outputs.rows(*mean, even.of_members)}
    if outputs.labels:
        votes = np.eye(len(outputs.labels))[outputs.probabilities.argmax(axis=2)].sum(axis=0)
        # The mean, which is below one vote, decides between classes with as many votes.
        found[VOTE] = outputs.rows((votes + mean[0]) / (members + 1), mean[1], even.of_members)
    return found | {SINGLE: _of_member(outputs, best)}


def _of_member(outputs: MemberOutputs, index: int) -> pd.DataFrame:
    alone = np.eye(len(outputs.names))[index]
    return outputs.rows(outputs.probabilities[index], outputs.estimates[index], alone)
