"""What every corpus shares: splits, batches, and what it tells a strategy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ser_strategies.batch import Batch
from ser_strategies.data.base import Corpus, Utterance

nan = math.nan


class Handmade(Corpus):
    """Utterances that a test lists; the sound of one is its duration, over and over."""

    labels = ("calm", "wild")
    dimensions = ("valence",)

    def __init__(self, *utterances, **options):
        super().__init__(**({"batch_size": 3} | options))
        self.listed = utterances

    def utterances(self):
        return self.listed

    def waveform(self, utterance):
        return np.full(round(utterance.seconds * 1_000), utterance.seconds, dtype=np.float32)


def said(name, split="train", seconds=1.0, **facts):
    return Utterance(id=name, split=split, seconds=seconds, **facts)


def many(count, split="train", seed=0):
    seconds = np.random.default_rng(seed).uniform(0.1, 1.0, count)
    return [said(f"{split}{index}", split, second, label="calm") for index, second in enumerate(seconds)]


def only(loader):
    (batch,) = loader
    return batch


# Batches ----------------------------------------------------------------------------------------------------


def test_a_batch_holds_all_that_is_known():
    first = said(
        "a",
        seconds=0.2,
        label="wild",
        votes=(0.25, 0.75),
        dimensions={"valence": 3.5, "arousal": 1.0},
        speaker="s1",
        gender="female",
        text="hello",
        path="a.wav",
    )
    second = said("b", seconds=0.1)
    batch = only(Handmade(first, second).train_dataloader())
    row = list(batch.ids).index("a")
    other = 1 - row
    assert isinstance(batch, Batch)
    assert batch.lengths[[row, other]].tolist() == [200, 100]
    assert torch.equal(batch.waveforms[row], torch.full((200,), 0.2))
    assert torch.equal(batch.waveforms[other], torch.cat([torch.full((100,), 0.1), torch.zeros(100)]))
    assert batch.labels[[row, other]].tolist() == [1, -1]
    assert batch.soft_labels[row].tolist() == [0.25, 0.75]
    assert batch.soft_labels[other].isnan().all()
    assert batch.dimensions[row].tolist() == [3.5]
    assert batch.dimensions[other].isnan().all()
    for field, expected in (
        ("speakers", ("s1", "unknown")),
        ("genders", ("female", "unknown")),
        ("texts", ("hello", "")),
        ("paths", ("a.wav", "")),
    ):
        assert (getattr(batch, field)[row], getattr(batch, field)[other]) == expected


def test_the_fields_of_a_batch_have_the_types_they_declare():
    batch = only(Handmade(said("a", votes=(0.5, 0.5))).train_dataloader())
    for field in ("ids", "speakers", "genders", "texts", "paths"):
        assert isinstance(getattr(batch, field), tuple), field
    formats = {
        "waveforms": torch.float32,
        "lengths": torch.int64,
        "labels": torch.int64,
        "soft_labels": torch.float32,
        "dimensions": torch.float32,
    }
    assert {field: getattr(batch, field).dtype for field in formats} == formats


def test_a_corpus_without_votes_or_dimensions_has_none():
    corpus = Handmade(said("a"))
    corpus.dimensions = ()
    batch = only(corpus.train_dataloader())
    assert batch.soft_labels is None
    assert batch.dimensions is None


def test_a_batch_without_votes_in_a_corpus_that_has_some_says_unknown():
    corpus = Handmade(said("a", votes=(0.5, 0.5)), said("b", seconds=0.5), batch_size=1)
    found = {batch.ids[0]: batch.soft_labels for batch in corpus.train_dataloader()}
    assert found["a"].tolist() == [[0.5, 0.5]]
    assert found["b"].isnan().all()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        Handmade(batch_size=batch_size)


@pytest.mark.parametrize("batch_seconds", [0.0, -3.0])
def test_a_batch_of_no_seconds_is_refused(batch_seconds):
    with pytest.raises(ValueError, match=f"batch_seconds must be more than 0, got {batch_seconds}"):
        Handmade(batch_seconds=batch_seconds)


# Splits -----------------------------------------------------------------------------------------------------


def test_each_loader_gives_its_own_split():
    corpus = Handmade(said("a"), said("b", "val"), said("c", "test"), said("d", "test"))
    loaders = {
        "train": corpus.train_dataloader(),
        "val": corpus.val_dataloader(),
        "test": corpus.test_dataloader(),
        "predict": corpus.predict_dataloader(),
    }
    found = {name: sorted(only(loader).ids) for name, loader in loaders.items()}
    assert found == {"train": ["a"], "val": ["b"], "test": ["c", "d"], "predict": ["c", "d"]}
    assert [utterance.id for utterance in corpus.split("test")] == ["c", "d"]


def test_class_counts_are_those_of_the_train_split_in_the_order_of_the_labels():
    corpus = Handmade(
        said("a", label="wild"),
        said("b", label="wild"),
        said("c", label="calm"),
        said("d"),
        said("e", "val", label="calm"),
    )
    assert corpus.class_counts() == (1, 2)


@pytest.mark.parametrize(
    ("stage", "split"),
    [("fit", "train"), ("fit", "val"), ("validate", "val"), ("test", "test"), ("predict", "test")],
)
def test_an_empty_split_is_refused_where_it_is_needed(stage, split):
    present = [said(name, name) for name in ("train", "val", "test") if name != split]
    with pytest.raises(
        ValueError, match=rf"the {split} split of Handmade is empty \(train \d, .* choose other"
    ):
        Handmade(*present).setup(stage)


@pytest.mark.parametrize(("stage", "needed"), [("fit", "train val"), ("validate", "val"), ("test", "test")])
def test_a_split_that_is_not_needed_may_be_empty(stage, needed):
    Handmade(*[said(name, name) for name in needed.split()]).setup(stage)


def test_utterances_are_asked_for_once(monkeypatch):
    corpus, asked = Handmade(said("a"), said("b", "val")), []
    monkeypatch.setattr(corpus, "utterances", lambda: asked.append(1) or corpus.listed)
    corpus.setup("fit")
    corpus.split("train")
    corpus.class_counts()
    assert asked == [1]


# Loading ----------------------------------------------------------------------------------------------------


def test_workers_give_the_same_batches():
    plain, read_ahead = (Handmade(*many(10), order_seed=3, workers=workers) for workers in (0, 2))
    for one, other in zip(plain.train_dataloader(), read_ahead.train_dataloader(), strict=True):
        assert list(one.ids) == list(other.ids)
        assert torch.equal(one.waveforms, other.waveforms)


def test_training_is_shuffled_by_its_own_seed():
    orders = [
        [tuple(batch.ids) for batch in Handmade(*many(20), order_seed=seed).train_dataloader()]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_processes_share_a_split(split):
    seen = []
    for rank in range(3):
        corpus = Handmade(*many(12, split))
        corpus.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        loader = getattr(corpus, f"{split}_dataloader")()
        seen.extend(name for batch in loader for name in batch.ids)
    assert sorted(seen) == sorted(f"{split}{index}" for index in range(12))


class Watcher(LightningModule):
    """Trains nothing, and keeps which utterances each epoch had, and when it was validated."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: dict[int, list[str]] = {}
        self.validated: list[int] = []

    def training_step(self, batch, index):
        self.epochs.setdefault(self.current_epoch, []).extend(batch.ids)
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.validated.append(self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch_seconds", [None, 1.5, 2.5, 4.0])
def test_a_trainer_sees_every_utterance_in_every_epoch_and_validates_after_each(batch_seconds):
    corpus = Handmade(*many(40), said("v", "val"), batch_size=16, batch_seconds=batch_seconds)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    watcher = Watcher()
    Trainer(accelerator="cpu", max_epochs=8, num_sanity_val_steps=0, **quiet).fit(watcher, datamodule=corpus)
    for epoch, seen in watcher.epochs.items():
        assert sorted(seen) == sorted(f"train{index}" for index in range(40)), f"epoch {epoch}"
    assert watcher.validated == list(range(8))
