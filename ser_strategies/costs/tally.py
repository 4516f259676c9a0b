"""What adds up while a run goes on, and over the parts of a run that was stopped and resumed."""

from dataclasses import dataclass, field
from typing import Any, Self

from ser_strategies.costs.durations import Durations

FORMAT = 1


@dataclass
class Tally:
    """Costs of a run, or of a part of it, by all its processes.

    Args:
        seconds: Seconds of loading, cache building, training and validation, by name.
        samples: Samples of sound heard in training.
        steps: Seconds of each step.
        waits: Seconds waited for each step.
        peak: Bytes of memory held at most.
        reserved: Bytes that torch has taken from a GPU at most.
        joules: Energy drawn.
        trace: What validation said, when.
    """

    seconds: dict[str, float]
    samples: int = 0
    steps: Durations = field(default_factory=Durations)
    waits: Durations = field(default_factory=Durations)
    peak: int | None = None
    reserved: int | None = None
    joules: float | None = None
    trace: list[dict[str, Any]] = field(default_factory=list)

    @property
    def trained(self) -> float:
        """Seconds since the first step began."""
        return self.seconds["train"] + self.seconds["validation"]

    def after(self, earlier: "Tally | None") -> "Tally":
        """Of this part and what came before it.

        Args:
            earlier: What came before; None if nothing did.
        """
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
        """What `as_dict` gave; None if another version did.

        Args:
            facts: The plain data.
        """
        facts = dict(facts)
        if facts.pop("format", None) != FORMAT:
            return None
        steps, waits = Durations(facts.pop("steps")), Durations(facts.pop("waits"))
        return cls(steps=steps, waits=waits, **facts)


def _larger(one: int | None, other: int | None) -> int | None:
    """The larger of two; None if one is unknown, since it might have been that."""
    return None if one is None or other is None else max(one, other)
