"""Utterances that cannot be read, with `damaged: skip`: a cached run leaves out what an uncached one does."""

from typing import Any

import numpy as np
import pytest
import torch

from ser_strategies.cache.store import FrameStore
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.strategies import CachedFineTuning, PartialFineTuning
from tests.cache.conftest import KIND, WARNINGS, Clips, fitted, several
from tests.cache.test_runs import RUN, Curve

pytestmark = WARNINGS
SPLITS = "t" * 12 + "v" * 4
# Of the training clips 2, 3 and 7, of those that validate 13.
BROKEN = (2, 3, 7, 13)


class Torn(Clips):
    """Clips of which some cannot be read.

    Args:
        broken: Their numbers.
        skips: Whether they are left out.
    """

    def __init__(self, *broken: int, skips: bool = True, lengths: Any = None, **options: Any) -> None:
        super().__init__(lengths or several(16, longest=6_000), SPLITS, **options)
        self.torn, self.skips_damaged = broken, skips

    def waveform(self, utterance: Any) -> Any:
        if int(utterance["id"].removeprefix("clip")) in self.torn:
            message = f"{utterance['id']}.wav is torn"
            raise ValueError(message)
        return super().waveform(utterance)


def ran(strategy: type, corpus: Clips, *, epochs: int = 1, **options: Any) -> tuple[Curve, Clips]:
    """A run over a corpus, without the look at a few validation batches first, and its losses."""
    curve = Curve()
    torch.manual_seed(5)
    model = strategy(f"random:{KIND}", top_blocks=2, **(RUN | options))
    fitted(model, corpus, callbacks=[curve], max_epochs=epochs, num_sanity_val_steps=0)
    return curve, corpus


def live(corpus: Clips, **options: Any) -> tuple[Curve, Clips]:
    return ran(PartialFineTuning, corpus, **options)


def stored(corpus: Clips, **options: Any) -> tuple[Curve, Clips]:
    return ran(CachedFineTuning, corpus, **({"stored": "float32"} | options))


# One utterance in a batch: in place of one that cannot be read the next one trains, in both alike.
@pytest.mark.parametrize(("batch_size", "workers"), [(4, 2), (1, 0)])
def test_the_same_utterances_train_and_the_same_are_named(batch_size, workers, computed):
    options = {"batch_size": batch_size, "workers": workers}
    curve, corpus = stored(Torn(*BROKEN, **options), epochs=2)
    expected, uncached = live(Torn(*BROKEN, **options), epochs=2)
    assert (curve.samples, expected.samples) == ({False}, {True})
    assert curve.ids == expected.ids
    assert np.abs(np.array(curve.losses) - np.array(expected.losses)).max() <= 1e-5
    assert (
        corpus.unreadable
        == uncached.unreadable
        == {f"clip{n:03d}": f"clip{n:03d}.wav is torn" for n in BROKEN}
    )
    assert corpus.facts()["unreadable"] == uncached.facts()["unreadable"]
    assert corpus.class_counts() == uncached.class_counts()
    assert len(computed) == 12


def test_what_cannot_be_read_is_tried_again_and_stored_once_it_can(computed):
    stored(Torn(*BROKEN))
    assert len(computed) == 12
    curve, corpus = stored(Torn(*BROKEN))
    assert len(computed) == 12
    assert len(corpus.unreadable) == 4
    curve, corpus = stored(Torn(3))
    assert len(computed) == 15
    assert list(corpus.unreadable) == ["clip003"]
    assert {name for batch in curve.ids for name in batch} == {f"clip{n:03d}" for n in range(12)} - {
        "clip003"
    }


def test_files_that_can_be_hashed_but_not_decoded_are_left_out_as_well(monkeypatch, computed):
    """Those of a corpus on a disk: what is wrong shows when they are computed."""
    monkeypatch.setattr(Torn, "sound_keys", lambda corpus, rows: [f"{int(n[4:]):032x}" for n in rows["id"]])
    curve, corpus = stored(Torn(*BROKEN))
    expected, uncached = live(Torn(*BROKEN))
    assert curve.ids == expected.ids
    assert corpus.unreadable == uncached.unreadable
    assert len(set(computed)) == 16  # they were tried
    stored(Torn(*BROKEN))
    assert len(computed) == 20


def test_the_first_one_ends_a_run_that_skips_none():
    with pytest.raises(ValueError, match=r"^utterance 'clip002' cannot be stored: clip002\.wav is torn$"):
        stored(Torn(*BROKEN, skips=False))


def test_where_nothing_can_be_read_the_run_ends_as_it_does_without_a_cache():
    for run in (stored, live):
        with pytest.raises(ValueError, match="not one utterance of the split can be read"):
            run(Torn(*range(12)))


def test_augmented_views_leave_out_the_same():
    louder = Augmentation(gain=6.0)
    curve, corpus = stored(Torn(*BROKEN, augmentation=louder), views=2)
    expected, uncached = live(Torn(*BROKEN, augmentation=louder))
    assert curve.ids == expected.ids
    assert corpus.unreadable == uncached.unreadable


def test_a_sound_that_can_be_read_after_all_is_not_called_unreadable(monkeypatch):
    """What the disk denied while the cache was built, it gives a moment later."""
    corpus = Torn(2)
    places = FrameStore.keys

    def mended(store: FrameStore) -> set[str]:
        found = places(store)
        if found:
            corpus.torn = ()
        return found

    monkeypatch.setattr(FrameStore, "keys", mended)
    with pytest.raises(
        ValueError, match="'clip002' could not be read while the cache was built, but now it can"
    ):
        stored(corpus)
