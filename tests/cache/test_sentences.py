"""Vectors of texts: each is computed once, and never one of another encoder or of a damaged file."""

from types import SimpleNamespace

import pytest
import torch

from ser_strategies.cache.sentences import SentenceVectors
from ser_strategies.encoder.sentences import SentenceEncoder

TEXTS = ["no", "I am fine", " no ", "", "yes", "  "]
TRAINER = SimpleNamespace(
    global_rank=0, strategy=SimpleNamespace(root_device=torch.device("cpu"), barrier=lambda name: None)
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path))
    return tmp_path


class Counting(SentenceEncoder):
    """Counts the texts that it is asked for."""

    asked = 0

    def encode(self, texts, device="cpu"):
        self.asked += len(texts)
        return super().encode(texts, device)


def vectors(**options: str) -> SentenceVectors:
    return SentenceVectors(Counting("random:bert-tiny", **options))


def test_stored_vectors_are_those_of_the_encoder_and_are_computed_once(folder):
    first = vectors()
    first.prepare(TEXTS, TRAINER)
    assert first.encoder.asked == 3
    again = vectors()
    again.prepare([*TEXTS[:2], "maybe"], TRAINER)
    found = again.look_up([*TEXTS, "maybe"])
    assert again.encoder.asked == 2, "maybe, and yes, which the second was not told to prepare"
    assert found[[3, 5]].isnan().all()
    expected = SentenceEncoder("random:bert-tiny").encode(["no", "I am fine", "no", "yes", "maybe"])
    torch.testing.assert_close(found[[0, 1, 2, 4, 6]], expected)
    torch.testing.assert_close(first.look_up(["yes"]), vectors().look_up(["yes"]))
    assert len(list((folder / "sentences").iterdir())) == 1


def test_another_pooling_or_encoder_has_a_store_of_its_own(folder, monkeypatch):
    vectors().prepare(TEXTS, TRAINER)
    first = vectors(pooling="first")
    first.prepare(TEXTS, TRAINER)
    assert first.encoder.asked == 3
    other = vectors()
    monkeypatch.setattr(type(other.encoder), "fingerprint", "f" * 64)
    other.prepare(TEXTS, TRAINER)
    assert other.encoder.asked == 3
    assert len(list((folder / "sentences").iterdir())) == 3


def test_a_damaged_file_is_set_aside_and_its_texts_are_computed_anew(folder):
    vectors().prepare(TEXTS, TRAINER)
    (path,) = folder.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    again = vectors()
    (damage,) = again.prepare(TEXTS, TRAINER)
    assert "were changed" in damage.reason
    assert again.encoder.asked == 3
    torch.testing.assert_close(again.look_up(["yes"]), SentenceEncoder("random:bert-tiny").encode(["yes"]))


def test_a_file_that_is_changed_while_it_is_read_ends_the_run():
    kept = vectors()
    kept.prepare(TEXTS, TRAINER)
    kept._stored.views[0].checksum[:] ^= 1
    with pytest.raises(ValueError, match="was changed since the run began"):
        kept.look_up(["yes"])


def test_an_encoder_that_is_not_the_checkpoints_is_refused_once_it_is_needed():
    other = vectors()
    other.expected = "f" * 64
    assert other.look_up(["", " "]).isnan().all()
    for use in (lambda: other.look_up(["yes"]), lambda: other.prepare(["yes"], TRAINER)):
        with pytest.raises(ValueError, match="is not the one that the checkpoint was trained with"):
            use()


def test_a_dry_run_writes_nothing(folder):
    dry = vectors()
    dry.stores = False
    dry.prepare(TEXTS, TRAINER)
    assert dry.look_up(["yes"]).isfinite().all()
    assert not (folder / "sentences").exists()
