"""Weights of members, at least zero and together one, from predictions of a validation split alone."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ser_strategies.common.errors import check_choice
from ser_strategies.comparison.stats.scores import Array
from ser_strategies.ensembles.log_loss import least_log_loss
from ser_strategies.ensembles.members import MemberOutputs
from ser_strategies.ensembles.search import (
    AgreementScorer,
    ChanceScorer,
    HitScorer,
    Scorer,
    best_of_each,
    best_shared,
)
from ser_strategies.ensembles.weighing_rules import By, WeighingRule


@dataclass(frozen=True)
class Weights:
    """A weight of each member for each output; each output's are at least zero, and together one."""

    by: str
    class_wise: bool
    classes: Array  # (members, classes)
    dimensions: Array  # (members, dimensions)
    gap: float | None = field(default=None)  # how far the log loss can be from the least, in nats, if told

    def of_member(self, index: int) -> float:
        """The weight of a member: the mean over its outputs where each has one of its own."""
        return float((self.classes if self.classes.shape[1] else self.dimensions)[index].mean())

    @property
    def of_members(self) -> Array:
        """The weight of each member, (members,)."""
        return np.array([self.of_member(index) for index in range(len(self.classes))])

    def blend(self, probabilities: Array, estimates: Array) -> tuple[Array, Array]:
        """Weighted probabilities and dimensions of members, (members, utterances, ...) each."""
        chances = (self.classes[:, None, :] * probabilities).sum(axis=0)
        if self.class_wise and chances.shape[1]:
            chances = chances / np.maximum(chances.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return chances, (self.dimensions[:, None, :] * estimates).sum(axis=0)


def same_for_all(weights: Array, outputs: MemberOutputs, by: str) -> Weights:
    """The same weights (members,) for every class and dimension."""
    each = np.asarray(weights, dtype=np.float64)[:, None]
    classes, dimensions = (np.repeat(each, len(n), axis=1) for n in (outputs.labels, outputs.dimensions))
    return Weights(by=by, class_wise=False, classes=classes, dimensions=dimensions)


def weigh(outputs: MemberOutputs, rule: WeighingRule) -> Weights:
    """The best weights by the rule, on these predictions; classes and dimensions have weights of their own.

    ValueError if there is nothing that weights could be told from.
    """
    by = rule.by or ("log_loss" if outputs.labels else "ccc")
    check_choice("by", by, By)
    if (by == "ccc") == bool(outputs.labels):
        what, fitting = ("classes", "log_loss, f1_macro or ua") if outputs.labels else ("dimensions", "ccc")
        msg = f"the members predict {what}, which are not weighed by {by}: choose {fitting}."
        raise ValueError(msg)
    classes, gap = np.zeros((len(outputs.names), 0)), None
    if outputs.labels:
        classes, gap = _of_classes(outputs, by, rule)
    return Weights(by, rule.class_wise, classes, _of_dimensions(outputs, rule), gap)


def _of_classes(outputs: MemberOutputs, by: str, rule: WeighingRule) -> tuple[Array, float | None]:
    known = outputs.truth >= 0
    occurring = pd.unique(outputs.truth[known])
    if len(occurring) < 2:
        only = outputs.labels[occurring[0]] if len(occurring) else "none that is known"
        msg = (
            f"the validation split has utterances of one class only ({only}): weights that suit one class "
            "say nothing of the others; choose another split."
        )
        raise ValueError(msg)
    truth, chances = outputs.truth[known], outputs.probabilities[:, known]
    optimum = least_log_loss(np.take_along_axis(chances, truth[None, :, None], axis=2)[..., 0])
    shared, scorer = optimum.weights, _scorer(by, truth, chances)
    if by != "log_loss":
        chances, scorer = _unsettled(by, truth, chances)
        shared = best_shared(chances, scorer, seed=rule.seed, starts=[optimum.weights])
    if not rule.class_wise:
        shared = _never_worse(chances, scorer, shared)
        return np.repeat(shared[:, None], len(outputs.labels), axis=1), (
            optimum.gap if by == "log_loss" else None
        )
    # What is settled with one weight for all classes is not with several.
    chances, scorer = outputs.probabilities[:, known], _scorer(by, truth, outputs.probabilities[:, known])
    return best_of_each(chances, scorer, _never_worse(chances, scorer, shared)), None


def _scorer(by: str, truth: np.ndarray, chances: Array) -> Scorer:
    classes = chances.shape[2]
    if by == "log_loss":
        return ChanceScorer(truth)
    return HitScorer(by, truth, classes, np.zeros((classes, classes), dtype=np.int64))


def _unsettled(by: str, truth: np.ndarray, chances: Array) -> tuple[Array, HitScorer]:
    """The utterances that weights can turn: where all members agree, any mean of them does, too."""
    classes = chances.shape[2]
    said = chances.argmax(axis=2)
    agreed = (said == said[0]).all(axis=0)
    settled = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(settled, (truth[agreed], said[0, agreed]), 1)
    return chances[:, ~agreed], HitScorer(by, truth[~agreed], classes, settled)


def _of_dimensions(outputs: MemberOutputs, rule: WeighingRule) -> Array:
    if not outputs.dimensions:
        return np.zeros((len(outputs.names), 0))
    if not np.isfinite(outputs.targets).any():
        msg = "the validation split has no utterance whose dimensions are known: choose another split."
        raise ValueError(msg)
    scorer = AgreementScorer(outputs.targets)
    shared = best_shared(outputs.estimates, scorer, seed=rule.seed)
    shared = _never_worse(outputs.estimates, scorer, shared)
    if rule.class_wise:
        return best_of_each(outputs.estimates, scorer, shared)
    return np.repeat(shared[:, None], len(outputs.dimensions), axis=1)


def _never_worse(outputs: Array, score: Scorer, found: Array) -> Array:
    """The weights found, unless a member alone or the mean does better, as by rounding."""
    members = len(outputs)
    tried = [found, np.full(members, 1 / members), *np.eye(members)]
    scores = [float(score((each[:, None, None] * outputs).sum(axis=0)[None])[0]) for each in tried]
    best: Array = tried[int(np.argmax(scores))]
    return best
