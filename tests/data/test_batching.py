"""The plan of an epoch: which utterances make a batch, in which process, in which order."""

from collections import Counter

import numpy as np
import pytest

from ser_strategies.data.batching import BatchPlan, PlannedBatch

SECONDS = np.random.default_rng(0).uniform(0.5, 8.0, 53).tolist()


def plan(seconds=SECONDS, epoch=0, **options):
    made = BatchPlan(seconds, **({"batch_size": 4, "shuffle": True} | options))
    made.set_epoch(epoch)
    return made


def batches_of(made):
    """The positions in each batch."""
    return [batch.positions for batch in made]


def batches(*arguments, **options):
    return batches_of(plan(*arguments, **options))


def shares(processes, **options):
    """The batches of each process."""
    return [batches(rank=rank, processes=processes, **options) for rank in range(processes)]


def padded_seconds(batch):
    return len(batch) * max(SECONDS[index] for index in batch)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_seconds", [None, 12.0])
def test_one_process_sees_every_utterance_exactly_once(shuffle, batch_seconds):
    found = batches(shuffle=shuffle, batch_seconds=batch_seconds, epoch=3)
    assert sorted(index for batch in found for index in batch) == list(range(53))
    assert all(isinstance(index, int) for batch in found for index in batch)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_says_which_epoch_it_is_for(shuffle):
    made = plan(shuffle=shuffle)
    for epoch in (0, 3, 4):
        made.set_epoch(epoch)
        found = list(made)
        assert all(isinstance(batch, PlannedBatch) for batch in found)
        assert [batch.epoch for batch in found] == [epoch] * len(made)


def test_the_epoch_of_a_batch_may_be_told_after_the_iterator_is_made():
    """Lightning does it in this order."""
    made = plan()
    found = iter(made)
    made.set_epoch(6)
    assert list(found) == list(plan(epoch=6))


def test_the_order_is_a_function_of_seed_and_epoch():
    assert batches(seed=3, epoch=5) == batches(seed=3, epoch=5)
    assert batches(seed=3, epoch=5) != batches(seed=3, epoch=6)
    assert batches(seed=3, epoch=5) != batches(seed=4, epoch=5)


def test_no_two_epochs_share_all_their_batches():
    epochs = [{frozenset(batch) for batch in batches(epoch=epoch)} for epoch in range(4)]
    assert all(one != other for one in epochs for other in epochs if one is not other)


def test_the_order_does_not_depend_on_global_chance():
    np.random.seed(1)
    first = batches()
    np.random.seed(2)
    assert batches() == first


def test_training_does_not_go_from_long_to_short():
    longest = [max(SECONDS[index] for index in batch) for batch in batches()]
    assert longest != sorted(longest, reverse=True)
    assert longest != sorted(longest)


def test_evaluation_takes_the_longest_first_in_every_epoch():
    order = [index for batch in batches(shuffle=False) for index in batch]
    assert order == sorted(range(53), key=lambda index: -SECONDS[index])
    assert batches(shuffle=False, epoch=7) == batches(shuffle=False)


def test_utterances_of_one_batch_are_about_as_long():
    padded = sum(padded_seconds(batch) for batch in batches())
    assert padded < 1.2 * sum(SECONDS)


@pytest.mark.parametrize("limit", [9.0, 20.0])
def test_a_batch_keeps_to_its_seconds(limit):
    sizes = Counter()
    for batch in batches(batch_size=100, batch_seconds=limit):
        # Durations are shaken by three percent before they are sorted.
        assert padded_seconds(batch) <= limit * 1.07 or len(batch) == 1
        sizes[len(batch)] += 1
    assert len(sizes) > 2


def test_evaluation_keeps_exactly_to_its_seconds():
    found = batches(shuffle=False, batch_size=9, batch_seconds=9.0)
    assert all(padded_seconds(batch) <= 9.0 for batch in found)


def test_an_utterance_longer_than_the_limit_is_a_batch_of_its_own():
    assert batches([30.0, 1.0, 1.0], shuffle=False, batch_seconds=2.0) == [[0], [1, 2]]


def test_utterances_of_no_duration_are_no_trouble():
    assert sorted(map(len, batches([0.0] * 5, batch_seconds=10.0))) == [1, 4]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_seconds", [None, 12.0])
def test_in_evaluation_the_processes_share_every_utterance_exactly_once(processes, batch_seconds):
    parts = shares(processes, shuffle=False, batch_seconds=batch_seconds)
    everything = sorted(index for part in parts for batch in part for index in batch)
    assert everything == list(range(53))


@pytest.mark.parametrize("processes", [2, 3, 5, 8])
@pytest.mark.parametrize("batch_seconds", [None, 12.0])
def test_in_training_every_process_gets_as_many_batches_and_nothing_is_left_out(processes, batch_seconds):
    parts = shares(processes, batch_seconds=batch_seconds, epoch=2)
    assert len({len(part) for part in parts}) == 1
    assert all(batch for part in parts for batch in part)
    seen = Counter(index for part in parts for batch in part for index in batch)
    assert set(seen) == set(range(53))
    assert sum(seen.values()) - 53 < processes  # repeated


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_of_all_processes_are_one_batch_of_a_single_process_with_as_much_room(processes, shuffle):
    parts = shares(processes, batch_size=2, shuffle=shuffle, epoch=4)
    alone = batches(batch_size=2 * processes, shuffle=shuffle, epoch=4)
    for step, expected in enumerate(alone):
        together = {index for part in parts if step < len(part) for index in part[step]}
        assert together == set(expected)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("batch_seconds", [None, 12.0])
def test_a_plan_knows_how_many_batches_it_has(shuffle, processes, batch_seconds):
    for rank in range(processes):
        for epoch in (0, 1):
            made = plan(
                shuffle=shuffle, rank=rank, processes=processes, batch_seconds=batch_seconds, epoch=epoch
            )
            assert len(made) == len(list(made))


@pytest.mark.parametrize("batch_seconds", [6.0, 9.0, 12.0, 20.0])
def test_every_epoch_has_as_many_batches(batch_seconds):
    """A trainer asks for the number once, and stops every epoch there."""
    counts = {len(batches(batch_size=100, batch_seconds=batch_seconds, epoch=epoch)) for epoch in range(20)}
    assert len(counts) == 1


def test_batches_of_an_interrupted_epoch_are_left_out_once():
    made = plan(epoch=2)
    everything = batches_of(made)
    made.skip(2, 5)
    assert batches_of(made) == everything[5:]
    made.set_epoch(3)
    assert batches_of(made) == batches(epoch=3)


def test_fewer_utterances_than_processes_are_refused():
    with pytest.raises(ValueError, match="2 utterances cannot be shared by 3 processes: use fewer devices"):
        plan([1.0, 2.0], processes=3)
