"""A learning rate that stays, then falls in a straight line to nothing."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ser_strategies.parts.choices import check_range


class FlatThenDecay(LambdaLR):
    """Keeps the rates for some steps, then lowers them linearly to 0. Use it with scheduler_interval: step.

    Together with a strategy's warmup_steps it is the schedule of Chen and Rudnicky's adaptation: 100 steps of
    warm-up, level for 5 % of all steps, then down.

    Args:
        optimizer: The optimizer.
        total_steps: Step at which the rates reach 0; give the trainer as many.
        flat_steps: Steps before they fall, warm-up included.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, flat_steps: int = 0) -> None:
        check_range("total_steps", total_steps, 1)
        check_range("flat_steps", flat_steps, 0, total_steps)
        falling = total_steps - flat_steps
        super().__init__(optimizer, lambda step: min(1.0, max(0.0, (total_steps - step) / falling)))
