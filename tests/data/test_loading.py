"""From rows to batches: sounds that cannot be read, augmentation, and what worker processes are given."""

import pickle
import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.batching import PlannedBatch
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Batches

SPLITS = ("train", "val", "test")
COUNT = 9
LOADERS = []
AUGMENTATION = Augmentation(noise_snr=(10.0, 20.0), gain=6.0, speed=(0.9, 1.1), probability=0.8)

with_and_without_workers = pytest.mark.parametrize("workers", [0, 2])
# Where several would only take longer to start.
with_and_without_a_worker = pytest.mark.parametrize("workers", [0, 1])
# Each split, with either error, here and from a worker.
every_split_and_error = pytest.mark.parametrize(
    ("split", "error", "workers"),
    [
        ("train", ValueError, 0),
        ("train", OSError, 2),
        ("val", OSError, 0),
        ("val", ValueError, 2),
        ("test", OSError, 0),
        ("test", ValueError, 2),
    ],
)


class Brittle(Corpus):
    """Utterances that grow shorter, of which some cannot be read."""

    labels = ("calm", "wild")

    def __init__(self, *broken, error=ValueError, skips=False, count=COUNT, **options):
        super().__init__(**({"batch_size": 3} | options))
        self.broken, self.error, self.skips_damaged, self.count = broken, error, skips, count

    def table(self):
        rows = [
            {
                "id": f"{split}{number}",
                "split": split,
                "seconds": 0.3 * 0.93**number,
                "label": self.labels[number % 2],
                "speaker": f"{split}-{number % 3}",
                "text": f"text {number}",
            }
            for split in SPLITS
            for number in range(self.count)
        ]
        return pd.DataFrame(rows)

    def waveform(self, utterance):
        name = utterance["id"]
        if name in self.broken:
            raise self.error(f"{name}.wav is damaged")
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return rng.normal(0, 0.1, round(utterance["seconds"] * 16_000)).astype(np.float32)

    def _loader(self, name, *, shuffle):
        LOADERS.append(super()._loader(name, shuffle=shuffle))
        return LOADERS[-1]


@pytest.fixture(autouse=True)
def no_workers_left():
    """Left to the garbage collector, workers of an epoch that an exception ended take five seconds each."""
    yield
    while LOADERS:
        if LOADERS[-1]._iterator is not None:
            LOADERS[-1]._iterator._shutdown_workers()
        LOADERS.pop()


def loader_of(corpus, split, epoch=0):
    loader = getattr(corpus, f"{split}_dataloader")()
    loader.sampler.set_epoch(epoch)
    return loader


def batches(corpus, split, epoch=0):
    return list(loader_of(corpus, split, epoch))


def names(found):
    return [batch.ids for batch in found]


def told(batch):
    """What a batch says of each of its utterances, without what lies behind its sound."""
    return {
        name: (
            batch.waveforms[row, : batch.lengths[row]].numpy().tobytes(),
            batch.labels[row].item(),
            batch.speakers[row],
            batch.genders[row],
            batch.texts[row],
            batch.paths[row],
        )
        for row, name in enumerate(batch.ids)
    }


def sounds(found):
    """The sound of every utterance in some batches, as bytes."""
    return {name: facts[0] for batch in found for name, facts in told(batch).items()}


def read(corpus, name):
    (row,) = corpus.everything().query("id == @name").to_dict("records")
    return corpus.waveform(row)


# Stopping at what cannot be read ----------------------------------------------------------------------------


@every_split_and_error
def test_an_utterance_that_cannot_be_read_stops_the_epoch_with_one_message(split, error, workers):
    corpus = Brittle(f"{split}4", error=error, workers=workers, batch_size=2)
    with pytest.raises(ValueError, match="cannot be used") as caught:
        batches(corpus, split)
    assert type(caught.value) is ValueError
    # Neither a worker's traceback nor anything else around it.
    assert str(caught.value) == (f"utterance '{split}4' of Brittle cannot be used: {split}4.wav is damaged")
    assert corpus.unreadable == {}


@with_and_without_workers
def test_what_comes_before_it_is_handed_out(workers):
    epoch = iter(Brittle("test4", workers=workers, batch_size=2).test_dataloader())
    assert names([next(epoch), next(epoch)]) == [("test0", "test1"), ("test2", "test3")]
    with pytest.raises(ValueError, match="'test4'"):
        next(epoch)


@with_and_without_workers
def test_of_several_the_first_is_named(workers):
    corpus = Brittle("test3", "test5", workers=workers)
    with pytest.raises(ValueError, match="utterance 'test3' of Brittle cannot be used"):
        batches(corpus, "test")


def test_a_batch_of_which_nothing_can_be_read_stops_as_well():
    for split in SPLITS:
        with pytest.raises(ValueError, match=rf"utterance '{split}4' of Brittle cannot be used"):
            batches(Brittle(f"{split}4", batch_size=1), split)


def test_a_file_that_is_not_there_is_told_as_the_system_tells_it(tmp_path):
    class Absent(Brittle):
        def waveform(self, utterance):
            return np.load(tmp_path / "none.npy")

    with pytest.raises(
        ValueError, match=r"utterance 'test0' of Absent cannot be used: .*No such file.*none\.npy"
    ):
        batches(Absent(), "test")


# Skipping what cannot be read -------------------------------------------------------------------------------


@every_split_and_error
def test_what_cannot_be_read_is_left_out_and_the_rest_of_its_batch_is_unchanged(split, error, workers):
    damaged = {f"{split}0", f"{split}4", f"{split}5"}
    corpus = Brittle(*damaged, error=error, skips=True, workers=workers)
    found, whole = batches(corpus, split, epoch=1), batches(Brittle(), split, epoch=1)
    assert len(found) == len(whole)
    for batch, intact in zip(found, whole, strict=True):
        expected = {name: facts for name, facts in told(intact).items() if name not in damaged}
        assert list(told(batch).items()) == list(expected.items())  # in the same order, too
        assert batch.waveforms.shape == (len(expected), int(batch.lengths.max()))
    assert sum(len(batch.ids) for batch in found) == COUNT - 3


@with_and_without_workers
def test_what_was_left_out_is_counted_once_however_many_epochs_meet_it(workers):
    corpus = Brittle("train2", "train7", "val1", skips=True, workers=workers)
    reasons = {name: f"{name}.wav is damaged" for name in ("train2", "train7")}
    loader = corpus.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        assert sorted(name for batch in loader for name in batch.ids) == [
            f"train{number}" for number in range(COUNT) if number not in {2, 7}
        ]
        assert corpus.unreadable == reasons
        batches(corpus, "val")
        reasons["val1"] = "val1.wav is damaged"
        assert corpus.unreadable == reasons
    assert corpus.facts()["unreadable"] == reasons


@with_and_without_workers
def test_nothing_is_counted_where_everything_can_be_read(workers):
    corpus = Brittle(skips=True, workers=workers)
    for split in SPLITS:
        assert len(batches(corpus, split)) == 3
    assert corpus.unreadable == {}


@with_and_without_workers
def test_a_training_batch_of_which_nothing_can_be_read_takes_the_next_that_can(workers):
    damaged = {f"train{number}" for number in (2, 5, 6, 8)}
    instead = {"train2": "train3", "train5": "train7", "train6": "train7", "train8": "train0"}
    corpus = Brittle(*damaged, skips=True, workers=workers, batch_size=1)
    loader = corpus.train_dataloader()
    for epoch in range(2):
        planned = names(batches(Brittle(batch_size=1), "train", epoch))
        loader.sampler.set_epoch(epoch)
        found = names(loader)
        assert len(found) == len(loader) == len(planned) == COUNT
        assert found == [(instead.get(name, name),) for (name,) in planned]
    assert set(corpus.unreadable) == damaged


def test_what_stands_in_is_whole():
    corpus, intact = Brittle("train2", skips=True, batch_size=1), Brittle()
    for batch in batches(corpus, "train"):
        ((name, facts),) = told(batch).items()
        assert facts[0] == read(intact, name).tobytes()


def test_only_a_batch_without_anything_is_refilled():
    corpus = Brittle("train0", "train1", "train2", "train4", skips=True)
    rows = corpus.split("train")
    made = Batches(corpus, rows, refill=True)
    assert made[PlannedBatch(0, [3, 4, 5])].batch.ids == ("train3", "train5")
    assert made[PlannedBatch(0, [0, 1, 2])].batch.ids == ("train3",)
    assert set(made[PlannedBatch(0, [0, 1, 2])].unreadable) == {"train0", "train1", "train2"}
    assert set(made[PlannedBatch(0, [1, 4])].unreadable) == {"train1", "train4"}


def test_processes_keep_step_in_training_whatever_they_cannot_read():
    counts = []
    for rank in range(3):
        corpus = Brittle("train0", "train1", "train2", "train4", skips=True, batch_size=1)
        corpus.trainer = SimpleNamespace(global_rank=rank, world_size=3, current_epoch=0)
        counts.append(len(batches(corpus, "train")))
    assert counts == [3, 3, 3]


@with_and_without_workers
@pytest.mark.parametrize("split", ["val", "test", "predict"])
def test_evaluation_drops_a_batch_of_which_nothing_can_be_read_and_repeats_nothing(split, workers):
    stem = "test" if split == "predict" else split
    damaged = {f"{stem}{number}" for number in (0, 4, 5, 8)}
    corpus = Brittle(*damaged, skips=True, workers=workers, batch_size=1)
    expected = [(name,) for name in corpus.split(stem)["id"] if name not in damaged]
    assert names(batches(corpus, split)) == expected
    assert set(corpus.unreadable) == damaged


@pytest.mark.parametrize(("split", "workers"), [("train", 2), ("val", 0), ("test", 2)])
def test_a_split_of_which_nothing_can_be_read_is_refused_and_all_of_it_named(split, workers):
    damaged = {f"{split}{number}" for number in range(COUNT)}
    corpus = Brittle(*damaged, skips=True, workers=workers)
    with pytest.raises(
        ValueError, match=r"not one utterance of the split can be read .*; of a corpus, `ser-strategies"
    ):
        batches(corpus, split)
    assert set(corpus.unreadable) == damaged


# Mistakes are no damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skips", "error", "workers"),
    [
        *((True, error, 0) for error in (TypeError, KeyError, RuntimeError, AttributeError, IndexError)),
        (False, KeyError, 0),
        (True, TypeError, 2),
        (False, RuntimeError, 2),
    ],
)
def test_mistakes_of_the_programmer_are_not_taken_for_damage(skips, error, workers):
    corpus = Brittle("train4", error=error, skips=skips, workers=workers)
    with pytest.raises(error, match=r"train4\.wav is damaged") as caught:
        batches(corpus, "train")
    assert "cannot be used" not in str(caught.value)
    assert corpus.unreadable == {}


def test_a_mistake_in_augmentation_is_not_taken_for_damage():
    def wrong(sound, seed):
        raise ValueError("augmentation is wrong")

    with pytest.raises(ValueError, match=r"^augmentation is wrong"):
        batches(Brittle(skips=True, augmentation=wrong), "train")


# Augmentation -----------------------------------------------------------------------------------------------


def augmented(epoch=0, split="train", **options):
    return sounds(batches(Brittle(**({"augmentation": AUGMENTATION} | options)), split, epoch))


def expected_sound(corpus, name, epoch):
    """What training hears of an utterance: a function of seed, epoch and id."""
    return corpus.augmentation(read(corpus, name), (corpus.order_seed, epoch, zlib.crc32(name.encode())))


def test_training_hears_the_augmented_sound_and_its_length():
    corpus = Brittle(augmentation=AUGMENTATION, order_seed=3)
    heard = sounds(batches(corpus, "train", epoch=4))
    assert set(heard) == set(corpus.split("train")["id"])
    for name, sound in heard.items():
        assert sound == expected_sound(corpus, name, 4).tobytes()
    assert any(len(sound) != read(corpus, name).nbytes for name, sound in heard.items())  # speed


def test_augmentation_is_the_same_whatever_the_workers_and_the_batches():
    alone = augmented(epoch=2)
    for options in (
        {"workers": 1},
        {"workers": 2},
        {"batch_size": 1},
        {"batch_size": 9, "workers": 2},
        {"batch_seconds": 0.5},
        {"skips": True},
    ):
        assert augmented(epoch=2, **options) == alone, options


def test_augmentation_is_the_same_whatever_the_process():
    alone, together = augmented(epoch=2, batch_size=2), {}
    for rank in range(3):
        corpus = Brittle(augmentation=AUGMENTATION, batch_size=2)
        corpus.trainer = SimpleNamespace(global_rank=rank, world_size=3, current_epoch=2)
        together |= sounds(batches(corpus, "train", epoch=2))
    assert together == alone


def test_augmentation_does_not_depend_on_global_chance():
    np.random.seed(1)
    torch.manual_seed(1)
    first = augmented()
    np.random.seed(2)
    torch.manual_seed(2)
    assert augmented() == first


def test_augmentation_is_drawn_anew_in_each_epoch_and_for_each_seed():
    loud = Augmentation(noise_snr=(10.0, 20.0))  # changes everything it is given
    draws = [augmented(epoch, augmentation=loud) for epoch in range(3)]
    draws.append(augmented(0, augmentation=loud, order_seed=1))
    draws.append(augmented(0, augmentation=None))
    for name in draws[0]:
        assert len({draw[name] for draw in draws}) == len(draws), name


def test_every_utterance_draws_for_itself():
    class Same(Brittle):
        def waveform(self, utterance):
            return np.full(1_600, 0.1, dtype=np.float32)

    heard = sounds(batches(Same(augmentation=Augmentation(gain=6.0)), "train"))
    assert len(set(heard.values())) == COUNT


@pytest.mark.parametrize(
    ("split", "workers"),
    [("val", 2), ("test", 0), pytest.param("test", 2, marks=pytest.mark.further), ("predict", 0)],
)
def test_evaluation_is_never_augmented(split, workers):
    plain = augmented(0, split, augmentation=None)
    for epoch in (0, 3):
        heard = augmented(epoch, split, workers=workers)
        assert heard == plain
        assert len(heard) == COUNT


def test_the_sound_that_a_corpus_keeps_is_not_changed():
    kept = {}

    class Keeping(Brittle):
        def waveform(self, utterance):
            return kept.setdefault(utterance["id"], super().waveform(utterance))

    corpus = Keeping(augmentation=AUGMENTATION)
    for epoch in range(2):
        batches(corpus, "train", epoch)
    for name, sound in kept.items():
        assert np.array_equal(sound, read(Brittle(), name))


def test_what_stands_in_for_the_unreadable_is_augmented_as_itself():
    corpus = Brittle("train2", skips=True, batch_size=1, augmentation=AUGMENTATION)
    for batch in batches(corpus, "train", epoch=5):
        ((name, facts),) = told(batch).items()
        assert facts[0] == expected_sound(corpus, name, 5).tobytes()


# What a worker process is given -----------------------------------------------------------------------------


class Heavy:
    def __reduce__(self):
        raise AssertionError("a worker does not need this")


def test_a_corpus_travels_without_trainer_and_tables_and_can_still_read():
    corpus = Brittle("train2", skips=True, augmentation=AUGMENTATION)
    before = batches(corpus, "train", epoch=1)
    corpus.trainer = Heavy()
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.trainer is None
    assert not vars(copy).keys() & {"splits", "_learned"}
    row = corpus.split("train").to_dict("records")[0]
    assert np.array_equal(copy.waveform(row), corpus.waveform(row))
    assert [told(batch) for batch in batches(copy, "train", epoch=1)] == [told(batch) for batch in before]
    pd.testing.assert_frame_equal(copy.everything(), corpus.everything())
    # The one that was sent keeps what it had.
    assert isinstance(corpus.trainer, Heavy)
    assert "splits" in vars(corpus)


def test_a_copy_of_a_corpus_makes_the_batches_that_the_corpus_makes():
    """What a worker process that is not forked does."""
    corpus = Brittle("train2", skips=True, augmentation=AUGMENTATION)
    corpus.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0)
    dataset = corpus.train_dataloader().dataset
    corpus.trainer = Heavy()
    copy = pickle.loads(pickle.dumps(dataset))
    for planned in (PlannedBatch(0, [0, 1]), PlannedBatch(3, [2, 5]), PlannedBatch(1, [2])):
        (batch, unreadable, _), (again, once_more, _) = dataset[planned], copy[planned]
        assert told(batch) == told(again)
        assert unreadable == once_more


def test_a_large_table_is_sent_once():
    """The split itself, not the table it comes from."""
    small, large = Brittle(count=100), Brittle(count=4_000)
    sizes = []
    for corpus in (small, large):
        corpus.split("train")
        corpus.split("val")
        sizes.append(len(pickle.dumps(corpus)))
    assert sizes[1] < sizes[0] + 100


# Within a trainer -------------------------------------------------------------------------------------------


class Listener(LightningModule):
    """Trains nothing, and keeps what each epoch heard."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.heard = {}
        self.evaluated = []

    def training_step(self, batch, index):
        self.heard.setdefault(self.current_epoch, []).append(batch)
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.evaluated.append(batch)

    def test_step(self, batch, index):
        self.evaluated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
    }
    return Trainer(**(quiet | options))


within_a_trainer = pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")


def assert_heard(listener, corpus, epochs):
    """Every epoch heard every utterance, with the augmentation of that epoch."""
    assert list(listener.heard) == list(epochs)
    for epoch, found in listener.heard.items():
        heard = sounds(found)
        assert len(heard) == sum(len(batch.ids) for batch in found) == COUNT
        for name, sound in heard.items():
            assert sound == expected_sound(corpus, name, epoch).tobytes(), (epoch, name)


@within_a_trainer
@with_and_without_a_worker
def test_every_epoch_of_a_trainer_is_augmented_anew(workers):
    """The epoch reaches workers that live on from one epoch to the next."""
    corpus = Brittle(augmentation=Augmentation(noise_snr=(10.0, 20.0)), workers=workers, order_seed=6)
    assert corpus.train_dataloader().persistent_workers == (workers > 0)
    listener = Listener()
    trainer(max_epochs=2).fit(listener, datamodule=corpus)
    assert_heard(listener, corpus, range(2))
    for name in corpus.split("train")["id"]:
        assert len({sounds(listener.heard[epoch])[name] for epoch in range(2)}) == 2
    plain = sounds(batches(Brittle(), "val"))
    assert len(listener.evaluated) == 2 * 3
    assert all(
        plain[name] == sound for batch in listener.evaluated for name, sound in sounds([batch]).items()
    )


@within_a_trainer
@with_and_without_a_worker
def test_a_resumed_run_is_augmented_as_an_unbroken_one(workers, tmp_path):
    options = {"augmentation": AUGMENTATION, "workers": workers}
    first, second = Listener(), Listener()
    begun = trainer(max_epochs=1)
    begun.fit(first, datamodule=Brittle(**options))
    begun.save_checkpoint(tmp_path / "last.ckpt")
    corpus = Brittle(**options)
    trainer(max_epochs=2).fit(second, datamodule=corpus, ckpt_path=tmp_path / "last.ckpt")
    assert_heard(first, corpus, range(1))
    assert_heard(second, corpus, range(1, 2))


@within_a_trainer
@with_and_without_workers
def test_a_trainer_goes_on_without_what_cannot_be_read(workers):
    damaged = ("train2", "train5", "val3", "test0", "test8")
    corpus = Brittle(*damaged, skips=True, workers=workers, batch_size=1)
    listener = Listener()
    made = trainer(max_epochs=2)
    made.fit(listener, datamodule=corpus)
    assert [len(found) for found in listener.heard.values()] == [COUNT, COUNT]
    assert made.global_step == 2 * COUNT
    assert len(listener.evaluated) == 2 * (COUNT - 1)
    assert set(corpus.unreadable) == set(damaged[:3])
    listener.evaluated.clear()
    made.test(listener, datamodule=corpus, verbose=False)
    assert [batch.ids for batch in listener.evaluated] == [(f"test{number}",) for number in range(1, 8)]
    assert set(corpus.unreadable) == set(damaged)


@within_a_trainer
@with_and_without_a_worker
def test_a_trainer_stops_with_the_message_at_what_cannot_be_read(workers):
    with pytest.raises(
        ValueError, match=r"^utterance 'train4' of Brittle cannot be used: train4\.wav is damaged$"
    ):
        trainer(max_epochs=1).fit(Listener(), datamodule=Brittle("train4", workers=workers))
