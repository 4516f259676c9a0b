"""What adds up while a run goes on, and over the parts of a run that was stopped and resumed."""

from dataclasses import dataclass, field
from typing import Any, Self

from ser_strategies.costs.durations import Durations

FORMAT = 1


@dataclass
class Tally:
    """Costs of a run, or of a part of it, by all its processes."""

    seconds: dict[str, float]  # seconds of loading, cache building, training and validation, by name
    samples: int = 0  # samples of sound heard in training
    steps: Durations = field(default_factory=Durations)  # of each step
    waits: Durations = field(default_factory=Durations)  # before each step
    peak: int | None = None  # bytes
    reserved: int | None = None  # bytes that torch has taken from a GPU
    joules: float | None = None
    trace: list[dict[str, Any]] = field(default_factory=list)  # scores of each validation, and when

    @property
    def trained(self) -> float:
        """Seconds since the first step began."""
        return self.seconds["train"] + self.seconds["validation"]

    def after(self, earlier: "Tally | None") -> "Tally":
        """This part together with what came before it, if anything did."""
        if earlier is None:
            return self
        shifted = [row | {"seconds": row["seconds"] + earlier.trained} for row in self.trace]
        return Tally(
            seconds={name: value + earlier.seconds[name] for name, value in self.seconds.items()},
            samples=self.samples + earlier.samples,
            steps=earlier.steps.plus(self.steps),
            waits=earlier.waits.plus(self.waits),
            peak=_larger(self.peak, earlier.peak),
            reserved=_larger(self.reserved, earlier.reserved),
            joules=None if self.joules is None or earlier.joules is None else self.joules + earlier.joules,
            trace=[*earlier.trace, *shifted],
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return vars(self) | {
            "format": FORMAT,
            "steps": dict(self.steps.bins),
            "waits": dict(self.waits.bins),
            "seconds": dict(self.seconds),
            "trace": [dict(row) for row in self.trace],
        }

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Self | None:
        """The tally that `as_dict` made plain data of; None if another version did."""
        facts = dict(facts)
        if facts.pop("format", None) != FORMAT:
            return None
        steps, waits = Durations(facts.pop("steps")), Durations(facts.pop("waits"))
        return cls(steps=steps, waits=waits, **facts)


def _larger(one: int | None, other: int | None) -> int | None:
    """The larger of two; None if one is unknown, since it might have been that."""
    return None if one is None or other is None else max(one, other)
