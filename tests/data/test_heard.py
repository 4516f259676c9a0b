"""Utterances that a checkpoint has heard, also where the folder they were in has been moved or copied."""

import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data.manifest import Manifest


@pytest.fixture
def folder(tmp_path):
    """A manifest of six speakers, all sounds of one length."""
    home = tmp_path / "home"
    home.mkdir()
    table = pd.DataFrame(
        [
            {"path": f"{speaker}_{number}.wav", "label": "ab"[number % 2], "speaker": f"s{speaker}"}
            for speaker in range(6)
            for number in range(4)
        ]
    )
    for path in table["path"]:
        sound = np.random.default_rng(zlib.crc32(path.encode())).uniform(-0.5, 0.5, 800)
        soundfile.write(home / path, sound, 16_000)
    table.to_csv(home / "mine.csv", index=False)
    return home


def attached(folder, stage="test", **options):
    """A corpus that a trainer is at work on."""
    corpus = Manifest(str(folder / "mine.csv"), folds=3, **options)
    progress = SimpleNamespace(current=SimpleNamespace(ready=0, processed=0))
    loop = SimpleNamespace(epoch_progress=progress, epoch_loop=SimpleNamespace(batch_progress=progress))
    corpus.trainer = SimpleNamespace(state=SimpleNamespace(fn=stage), fit_loop=loop)
    return corpus


def saved(folder):
    return attached(folder, "fit", fold=1).state_dict()


def test_a_copied_folder_is_recognised(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "scratch")
    attached(tmp_path / "scratch", fold=1).load_state_dict(saved(folder))
    with pytest.raises(
        ValueError, match="8 of the 8 test utterances were heard in training by the checkpoint"
    ):
        attached(tmp_path / "scratch", fold=2).load_state_dict(saved(folder))


def test_an_encoder_that_was_trained_in_another_folder_is_recognised(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "scratch")
    with pytest.raises(ValueError, match="8 of the 8 val utterances were heard in training by it"):
        attached(tmp_path / "scratch", "fit", fold=2).note_origins({"it": [saved(folder)]})


def test_other_sounds_of_the_same_names_and_sizes_are_others(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "scratch")
    for path in sorted((tmp_path / "scratch").glob("*.wav")):
        soundfile.write(path, soundfile.read(path)[0][::-1], 16_000)
    attached(tmp_path / "scratch", fold=2).load_state_dict(saved(folder))


def test_a_checkpoint_from_before_keeps_its_guard_where_it_is(folder):
    old = saved(folder)
    del old["content"]
    with pytest.raises(ValueError, match="8 of the 8 test utterances were heard in training"):
        attached(folder, fold=2).load_state_dict(old)


def test_parts_of_one_recording_are_told_apart(folder, tmp_path):
    times = [(start / 100, (start + 1) / 100) for start in range(4)]
    parts = [{"path": f"{n}_0.wav", "label": "ab"[int(s * 100) % 2], "speaker": n, "start": s, "end": e}
             for n in range(3) for s, e in times]  # fmt: skip
    table = pd.DataFrame(parts)
    halves = table["start"] < 0.02
    for name, kept in (("one", table[halves]), ("other", table[~halves])):
        shutil.copytree(folder, tmp_path / name)
        kept.to_csv(tmp_path / name / "mine.csv", index=False)
    attached(tmp_path / "other", fold=2).load_state_dict(saved(tmp_path / "one"))
