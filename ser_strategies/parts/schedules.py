"""A learning rate that stays, then falls in a straight line to nothing."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ser_strategies.common.errors import check_range


class FlatThenDecay(LambdaLR):
    """Keeps the rates for some steps, then lowers them linearly to 0. Use it with scheduler_interval: step.

    Together with a strategy's warmup_steps it is the schedule of Chen and Rudnicky's adaptation: 100 steps of
    warm-up, level for 5 % of all steps, then down.

    Args:
        optimizer: The optimizer.
        total_steps: Step at which the rates reach 0; null is the last step of the run, and where a run has
            none that is known (one that ends by the clock) the rates stay.
        flat_steps: Steps before they fall, warm-up included.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, flat_steps: int = 0) -> None:
        if total_steps is not None:
            check_range("total_steps", total_steps, 1)
        check_range("flat_steps", flat_steps, 0, math.inf if total_steps is None else total_steps)
        self.total_steps, self.flat_steps = total_steps, flat_steps
        self.follows_run = total_steps is None
        super().__init__(optimizer, self._factor)

    def end_with(self, steps: float) -> None:
        """Tells a schedule that ends with the run how many steps that has; infinity where it is not known."""
        if self.follows_run:
            self.total_steps = int(steps) if math.isfinite(steps) else None

    def _factor(self, step: int) -> float:
        if self.total_steps is None:
            return 1.0
        falling = max(self.total_steps - self.flat_steps, 1)
        return min(1.0, max(0.0, (self.total_steps - step) / falling))
