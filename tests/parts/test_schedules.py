"""A schedule that stays and then falls: by itself, and in a fit from a configuration file."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from ser_strategies.cli import main
from ser_strategies.parts.schedules import FlatThenDecay
from tests.contained import contained


def optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates(scheduler: LRScheduler, steps: int) -> list[list[float]]:
    """The rates that each step takes, and those that are left after the last."""
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return [*seen, [group["lr"] for group in scheduler.optimizer.param_groups]]


def test_rates_stay_flat_and_then_fall_in_a_straight_line_to_nothing():
    found = rates(FlatThenDecay(optimizer(0.8, 0.1), total_steps=20, flat_steps=4), 20)
    factors = [1.0] * 5 + [(20 - step) / 16 for step in range(5, 21)]
    assert found == [pytest.approx([0.8 * factor, 0.1 * factor]) for factor in factors]
    assert found[0] == found[4] == [0.8, 0.1]
    assert found[12] == pytest.approx([0.4, 0.05])  # in the middle of the fall
    assert found[20] == [0, 0]


def test_without_flat_steps_they_fall_from_the_first():
    found = rates(FlatThenDecay(optimizer(1.0), total_steps=4), 4)
    assert found == [pytest.approx([rate]) for rate in (1, 0.75, 0.5, 0.25, 0)]


def test_after_the_last_step_they_stay_at_nothing():
    assert rates(FlatThenDecay(optimizer(1.0), total_steps=3, flat_steps=2), 8)[3:] == [[0.0]] * 6


def test_the_authors_schedule_of_twenty_thousand_steps():
    """Warm-up 100 and 5 % level, then down: their multiplier is (T - step) / (T - warm-up - level)."""
    scheduler = FlatThenDecay(optimizer(1e-4), total_steps=20_000, flat_steps=100 + 1_000)
    factor = scheduler.lr_lambdas[0]
    assert [factor(step) for step in (0, 100, 1_099, 1_100)] == [1, 1, 1, 1]
    for step in (1_101, 5_000, 10_550, 19_999, 20_000):
        assert factor(step) == pytest.approx((20_000 - step) / 18_900)


def test_a_schedule_goes_on_from_its_state():
    whole = rates(FlatThenDecay(optimizer(1.0), total_steps=10, flat_steps=3), 10)
    first = FlatThenDecay(optimizer(1.0), total_steps=10, flat_steps=3)
    begun = rates(first, 6)
    second = FlatThenDecay(optimizer(1.0), total_steps=10, flat_steps=3)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert begun[:-1] + rates(second, 4) == whole


@pytest.mark.parametrize(("total", "flat"), [(0, 0), (5, -1), (5, 5), (5, 9)])
def test_impossible_steps_are_refused(total, flat):
    with pytest.raises(ValueError, match="_steps must be at least"):
        FlatThenDecay(optimizer(1.0), total_steps=total, flat_steps=flat)


class Taken(Callback):
    """Keeps the rate of each group at each step of the optimizer."""

    rates: list[tuple[float, ...]]

    def on_fit_start(self, *_) -> None:
        Taken.rates = []

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        Taken.rates.append(tuple(group["lr"] for group in optimizer.param_groups))


CONFIG = """
seed_everything: 0
model:
  class_path: VanillaFineTuning
  init_args:
    encoder: random:wav2vec2-tiny
    encoder_lr: 1.0e-3
    head_lr: 2.0e-2
    warmup_steps: 3
    scheduler:
      class_path: ser_strategies.parts.schedules.FlatThenDecay
      init_args:
        total_steps: 12
        flat_steps: 5
    scheduler_interval: step
data:
  class_path: tests.cli.conftest.Noise
  init_args:
    counts: [16, 4, 4]
trainer:
  max_epochs: 3
  accelerator: cpu
  enable_progress_bar: false
  default_root_dir: run
  callbacks:
    - class_path: tests.parts.test_schedules.Taken
"""


def test_a_configuration_file_schedules_each_step_of_a_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_text(CONFIG)
    with contained():
        main(["fit", "--config", "fit.yaml"])
    # Steps 0, 1, ... of twelve: rising over three, flat until the fifth, then down to the last but one.
    warm = [min(1, (step + 1) / 4) for step in range(12)]
    falls = [1.0] * 6 + [(12 - step) / 7 for step in range(6, 12)]
    expected = [scale * factor for scale, factor in zip(warm, falls, strict=True)]
    assert len(Taken.rates) == 12
    assert Taken.rates == [pytest.approx((1e-3 * factor, 2e-2 * factor)) for factor in expected]
    kept = yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]
    assert kept["scheduler"]["class_path"].endswith("FlatThenDecay")
    assert kept["scheduler"]["init_args"] == {"total_steps": 12, "flat_steps": 5}


def test_without_a_number_rates_fall_to_the_end_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_text(CONFIG.replace("        total_steps: 12\n", ""))
    with contained():
        main(["fit", "--config", "fit.yaml", "--model.warmup_steps", "0", "--trainer.max_epochs", "4"])
    falls = [1.0] * 6 + [(16 - step) / 11 for step in range(6, 16)]
    assert Taken.rates == [pytest.approx((1e-3 * factor, 2e-2 * factor)) for factor in falls]


def test_rates_stay_in_a_run_whose_number_of_steps_nobody_knows():
    scheduler = FlatThenDecay(optimizer(1.0))
    scheduler.end_with(math.inf)
    assert rates(scheduler, 5) == [[1.0]] * 6


def test_a_number_that_was_given_holds_whatever_the_run(tmp_path):
    scheduler = FlatThenDecay(optimizer(1.0), total_steps=4)
    scheduler.end_with(100)
    assert rates(scheduler, 4)[-1] == [0.0]
