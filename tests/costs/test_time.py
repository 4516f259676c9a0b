"""Where time goes, how long steps take, how much sound was heard, and what adds up."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ser_strategies.costs.amounts import Tally
from ser_strategies.costs.meter import KEPT, SoundHeard
from ser_strategies.costs.timing import EVERY, Durations, HostMarks, Marks, PhaseClock, StepTimer, marks_for
from ser_strategies.parts.adaptation import UNKNOWN
from ser_strategies.strategies.pretraining import MaskedBatch
from tests.strategies.conftest import batch


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1001])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_quantiles_are_those_of_numpy_to_a_thousandth(count, share):
    seconds = np.random.default_rng(count).lognormal(-3, 2, count)
    durations = Durations()
    for each in seconds:
        durations.add(each)
    assert len(durations) == count
    assert durations.quantile(share) == pytest.approx(np.quantile(seconds, share), rel=6e-4)


def test_a_million_steps_take_little_room():
    durations = Durations()
    for each in np.random.default_rng(0).normal(0.1, 0.01, 100_000).clip(0.05):
        durations.add(each)
    assert len(durations.bins) < 1000


def test_nothing_has_no_quantiles_and_no_time_is_very_short():
    durations = Durations()
    assert durations.quantile(0.5) is None
    durations.add(0.0)
    assert durations.quantile(0.5) == pytest.approx(1e-9, rel=1e-3)


def test_two_histograms_make_one():
    one, other = Durations(), Durations()
    one.add(1.0)
    other.add(1.0)
    other.add(3.0)
    both = one.plus(other)
    assert (len(one), len(other), len(both)) == (1, 2, 3)
    assert both.quantile(1.0) == pytest.approx(3.0, rel=1e-3)


class Time:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_every_second_counts_for_exactly_one_phase():
    time = Time()
    clock = PhaseClock(started=97.0, now=time)
    for phase, until in (("train", 104.0), ("validation", 110.0), ("train", 111.0), (None, 131.0)):
        time.now = until
        clock.enter(phase)
    time.now = 999.0
    assert clock.read() == {"load": 7.0, "train": 26.0, "validation": 1.0}


def test_a_running_phase_is_read_without_ending_it():
    time = Time()
    clock = PhaseClock(now=time)
    time.now = 101.0
    assert clock.read()["load"] == 1.0
    time.now = 103.0
    assert clock.read()["load"] == 3.0


class Device(Marks):
    """A device that lags behind the host: marks are passed only once it was waited for, or it caught up."""

    def __init__(self):
        self.time, self.done, self.waited = 0.0, -1.0, 0

    def make(self):
        return self.time

    def passed(self, mark):
        return mark <= self.done

    def wait(self, mark):
        self.waited += 1
        self.done = max(self.done, mark)

    def between(self, first, second):
        assert second <= self.done, "a mark was read before the device had passed it"
        return second - first


def stepped(timer, device, *, step, wait=0.0):
    device.time += wait
    timer.begin()
    device.time += step
    timer.end()


def test_steps_and_waits_are_told_apart():
    device = Device()
    timer = StepTimer(device)
    for wait in (5.0, 1.0, 2.0, 3.0):
        stepped(timer, device, step=10.0, wait=wait)
    timer.collect()
    assert len(timer.steps) == 4
    assert timer.steps.quantile(0.5) == pytest.approx(10.0, rel=1e-3)
    # Of what was before the first step nobody knows what it was.
    assert [timer.waits.quantile(share) for share in (0, 0.5, 1)] == pytest.approx([1, 2, 3], rel=1e-3)


def test_validation_is_no_waiting_and_the_start_of_an_epoch_is():
    device = Device()
    timer = StepTimer(device)
    stepped(timer, device, step=1.0)
    timer.interrupt()
    stepped(timer, device, step=1.0, wait=50.0)
    timer.idle()
    stepped(timer, device, step=1.0, wait=4.0)
    timer.collect()
    assert len(timer.waits) == 1
    assert timer.waits.quantile(0.5) == pytest.approx(4.0, rel=1e-3)


def test_a_device_that_lags_is_waited_for_once_an_epoch():
    device = Device()
    timer = StepTimer(device)
    for _ in range(10 * EVERY):
        stepped(timer, device, step=1.0, wait=0.5)
    assert device.waited == 0
    assert len(timer.steps) == 0
    timer.collect()
    assert device.waited == 1
    assert len(timer.steps) == 10 * EVERY


def test_what_a_device_has_done_is_read_along_the_way():
    device = Device()
    timer = StepTimer(device)
    for _ in range(3 * EVERY):
        stepped(timer, device, step=1.0)
        device.done = device.time
    assert len(timer.steps) >= 2 * EVERY
    assert device.waited == 0


def test_a_step_that_was_left_out_ends_nothing():
    timer = StepTimer(Device())
    timer.end()
    timer.collect()
    assert len(timer.steps) == 0


def test_the_cpu_is_timed_by_the_host():
    marks = marks_for(torch.device("cpu"))
    assert isinstance(marks, HostMarks)
    timer = StepTimer(marks)
    for _ in range(3):
        timer.begin()
        timer.end()
    timer.collect()
    assert 0 < timer.steps.quantile(0.5) < 1


def test_sound_is_counted_by_true_lengths_and_where_clips_are_cut():
    made = batch(16_000, 8_000, 3)
    whole, cut = SoundHeard(None), SoundHeard(10_000)
    for _ in range(KEPT + 1):
        whole.add(made)
        cut.add(made)
    assert whole.samples() == (KEPT + 1) * 24_003
    assert cut.samples() == (KEPT + 1) * 18_003
    assert whole.samples() == (KEPT + 1) * 24_003, "reading must not count twice"


def test_the_sound_of_a_masked_batch_is_that_of_its_batch():
    made = batch(100, 50)
    masked = MaskedBatch(made, torch.zeros(2, 1), torch.full((2, 1), UNKNOWN), None, None)
    heard = SoundHeard(None)
    heard.add(masked)
    heard.add(SimpleNamespace(text="no sound at all"))
    assert heard.samples() == 150


def tally(*, seconds, step, trace, samples=10, peak=5, joules=1.0):
    steps = Durations()
    steps.add(step)
    names = ("load", "cache", "train", "validation")
    return Tally(
        dict(zip(names, seconds, strict=True)), samples, steps, Durations(), peak, None, joules, trace
    )


def test_parts_of_a_run_add_up():
    first = tally(seconds=(1, 2, 3, 4), step=1.0, trace=[{"epoch": 0, "seconds": 7.0}])
    second = tally(seconds=(5, 0, 10, 1), step=3.0, trace=[{"epoch": 1, "seconds": 11.0}], peak=9)
    both = second.after(first)
    assert both.seconds == {"load": 6, "cache": 2, "train": 13, "validation": 5}
    assert (both.samples, both.peak, both.joules, both.reserved) == (20, 9, 2.0, None)
    assert len(both.steps) == 2
    assert both.trace == [{"epoch": 0, "seconds": 7.0}, {"epoch": 1, "seconds": 18.0}]
    assert second.after(None) is second


def test_what_one_part_does_not_know_the_whole_does_not_know():
    known, unknown = (tally(seconds=(0,) * 4, step=1, trace=[], joules=joules) for joules in (1.0, None))
    assert known.after(unknown).joules is None
    assert unknown.after(known).joules is None


def test_a_tally_survives_a_checkpoint(tmp_path):
    before = tally(seconds=(1.5, 2, 3, 4), step=1.0, trace=[{"epoch": 0, "seconds": 7.0, "val/ua": None}])
    torch.save(before.as_dict(), tmp_path / "tally")
    read = Tally.from_dict(torch.load(tmp_path / "tally", weights_only=True))
    assert read.as_dict() == before.as_dict()


def test_a_tally_of_another_version_is_none():
    facts = tally(seconds=(0,) * 4, step=1, trace=[]).as_dict()
    assert Tally.from_dict(facts | {"format": 99}) is None
    assert Tally.from_dict({}) is None
