"""Checks of training: groups that miss a parameter, parameters that never move, losses that are no number."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ser_strategies.common.errors import listed

NAMED_AT_MOST = 5


class DeadParametersError(ValueError):
    """Parameters that are declared trainable get no gradient."""


class GradientGuard:
    """Sees to it that every parameter declared trainable receives a gradient, once it is not frozen.

    A parameter that a module reads around (as transformers' WavLM attention reads around LoRA adapters) gets
    none, and trains nothing, without a word. Nor does one that thaws while several processes train: they
    agreed at the start whose gradients to add up. `patience` is the number of backward passes to wait for
    each: 1, or more where blocks are skipped at random.
    """

    def __init__(
        self,
        strategy: str,
        parameters: Iterable[tuple[str, nn.Parameter]],
        patience: int = 1,
        *,
        alone: bool = True,
    ) -> None:
        self.strategy = strategy
        self.waiting = dict(parameters)
        self.waited: Counter[str] = Counter()
        self.patience = patience
        self.agreed = None if alone else {n for n, each in self.waiting.items() if each.requires_grad}

    def check(self) -> None:
        """Call after a backward pass; raises DeadParametersError naming those that got no gradient."""
        if not self.waiting:
            return
        thawed = [name for name, parameter in self.waiting.items() if parameter.requires_grad]
        if self.agreed is not None and not self.agreed.issuperset(thawed):
            late = [name for name in thawed if name not in self.agreed]
            msg = (
                f"{_listed(late)} began to train after several processes had agreed on what does: thaw "
                "parameters while one process trains (--trainer.devices 1)."
            )
            raise ValueError(msg)
        self.waited.update(thawed)
        for name in thawed:
            if self.waiting[name].grad is not None:
                del self.waiting[name]
        dead = [name for name in thawed if name in self.waiting and self.waited[name] >= self.patience]
        if dead:
            msg = (
                f"{len(dead)} of the {len(self.waited)} parameters that {self.strategy} declares "
                f"trainable got no gradient: {_listed(dead)}. They would never change, so this "
                "run is not what it says: let `forward` use them, or freeze them."
            )
            raise DeadParametersError(msg)


class _Step(NamedTuple):
    where: str
    ids: tuple[str, ...]
    loss: Tensor
    finite: Tensor
    training: bool


class LossWatch:
    """Stops a run whose loss is not a number, and names the step and the utterances.

    On the CPU each step is checked before its backward pass. Reading a value from a GPU would make it wait,
    so there `every` so many steps are checked together.
    """

    def __init__(self, every: int = 16) -> None:
        self.every = every
        self.steps: list[_Step] = []

    def add(
        self, where: str, ids: tuple[str, ...], loss: Tensor, outputs: Tensor, *, training: bool = True
    ) -> None:
        """Takes one step: its name and utterances, for the message, its loss, and outputs (batch, size).

        While the weights are changing (`training`), the remedy lies in how they do.
        """
        finite = outputs.detach().isfinite().flatten(1).all(1)
        self.steps.append(_Step(where, ids, loss.detach(), finite, training))
        if loss.device.type == "cpu" or len(self.steps) >= self.every:
            self.check()

    def check(self) -> None:
        """Looks at the steps taken since the last look; raises FloatingPointError for the first bad one."""
        if not self.steps:
            return
        good = torch.stack([step.loss for step in self.steps]).isfinite().tolist()
        steps, self.steps = self.steps, []
        for step, is_good in zip(steps, good, strict=True):
            if is_good:
                continue
            bad = [name for name, finite in zip(step.ids, step.finite.tolist(), strict=True) if not finite]
            utterances = (
                f"in {_listed(bad)}" if bad else f"though the outputs are finite, for {_listed(step.ids)}"
            )
            what = "the loss is" if step.training else "the outputs are"
            remedy = "look at those utterances"
            if step.training:
                remedy += ", lower the learning rates, or clip gradients with --trainer.gradient_clip_val"
            msg = f"{what} {step.loss.item()} at {step.where}, {utterances}: {remedy}."
            raise FloatingPointError(msg)


def _listed(names: Iterable[str]) -> str:
    return listed(names, "and", at_most=NAMED_AT_MOST)


def checked_groups(
    strategy: str, groups: Sequence[dict[str, Any]], parameters: Mapping[str, nn.Parameter]
) -> list[dict[str, Any]]:
    """Groups that are not empty; ValueError unless each parameter is in one and each has its own name."""
    groups = [{**group, "params": list(group["params"])} for group in groups]
    names = [group.get("name") for group in groups]
    if None in names or len(set(names)) < len(names):
        msg = f"parameter_groups of {strategy} must give each group a name of its own, got {names}."
        raise ValueError(msg)
    times = Counter(id(parameter) for group in groups for parameter in group["params"])
    wrong = [name for name, parameter in parameters.items() if times[id(parameter)] != 1]
    if wrong:
        found = "none" if times[id(parameters[wrong[0]])] == 0 else "several"
        msg = (
            f"parameter_groups of {strategy} must put each parameter that trains into one group, but "
            f"{wrong[0]} is in {found} ({len(wrong)} of {len(parameters)} such parameters)."
        )
        raise ValueError(msg)
    strangers = len(times) - len(parameters)
    if strangers:
        msg = f"parameter_groups of {strategy} has {strangers} parameters that are not among may_train()."
        raise ValueError(msg)
    return [group for group in groups if group["params"]]
