"""Recordings that are in several files: found whatever was done to them, and nothing else is."""

import io
import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from ser_strategies.data import near_copies
from ser_strategies.data.audio import read_audio
from ser_strategies.data.corpora import NEMO, Together
from ser_strategies.data.doubled import AT_ODDS, ONCE
from ser_strategies.data.examination import examine
from ser_strategies.data.manifest import Manifest
from ser_strategies.data.near_copies import alike, candidates, find_copies, look
from ser_strategies.data.synthetic import Synthetic
from tests.data.real import real_data


@pytest.fixture(scope="module")
def voices():
    corpus = Synthetic(speakers=4, utterances_per_speaker=6)
    return [corpus.waveform({"id": name}) for name in corpus.table()["id"]]


def mp3(sound):
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.9)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


CHANGES = {
    "mp3": mp3,
    "quieter": lambda sound: sound * np.float32(0.2),
    "inverted": lambda sound: -sound,
    "trimmed": lambda sound: sound[500:-300],
    "telephone": lambda sound: resample_poly(resample_poly(sound, 1, 2), 2, 1).astype(np.float32),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_recordings_are_found_and_no_others(change, voices):
    sounds = [*voices, change(voices[3]), change(voices[17])]
    found = find_copies(len(sounds), sounds.__getitem__)
    assert found == [(3, len(voices)), (17, len(voices) + 1)]


def test_candidates_are_those_that_comparing_every_pair_finds(voices, monkeypatch):
    monkeypatch.setattr(near_copies, "BLOCK", 5)
    monkeypatch.setattr(near_copies, "ALIKE", 0.6)
    looks = [look(sound) for sound in voices]
    expected = {
        (one, other)
        for one, other in combinations(range(len(looks)), 2)
        if looks[one].shape @ looks[other].shape >= 0.6
        and abs(looks[one].seconds - looks[other].seconds) <= near_copies.SECONDS_APART
    }
    assert set(candidates(looks)) == expected
    assert len(expected) > 3


def test_likeness_is_the_largest_correlation_over_shifts():
    rng = np.random.default_rng(0)
    low = np.cumsum(rng.standard_normal(4_000)).astype(np.float32)
    wave = np.convolve(low, [1, -2, 1], "same").astype(np.float32)
    assert alike(wave, np.roll(wave, 0)) == pytest.approx(1, abs=1e-6)
    assert alike(wave, wave[300:]) > 0.9
    assert alike(wave, rng.standard_normal(4_000).astype(np.float32)) < 0.2
    assert alike(wave, np.zeros(100, np.float32)) == 0


@pytest.fixture
def manifest(tmp_path, voices):
    """Five speakers in splits by a column; one recording of train is in test too, coded again."""
    names = []
    for number, sound in enumerate(voices):
        name = f"v{number}.wav"
        soundfile.write(tmp_path / name, sound, 16_000)
        names.append((name, ("train", "val", "test")[number % 3], ("a", "b")[number % 2]))
    soundfile.write(tmp_path / "again.mp3", voices[0][200:] * 0.5, 16_000)
    names.append(("again.mp3", "test", "a"))
    pd.DataFrame(names, columns=["path", "split", "label"]).to_csv(tmp_path / "m.csv", index=False)
    return tmp_path / "m.csv"


class Main:
    """As much of a trainer as a corpus looks at."""

    is_global_zero = True
    state = None


def test_a_first_training_brands_what_splits_share_and_remembers_it(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "cache" / "frames"))
    words = (
        "train and test share 1 recording in several files (11.1% of the test utterances), such as v0 = again"
    )
    for corpus in (Manifest(str(manifest)), Manifest(str(manifest))):
        corpus.trainer = Main()
        corpus.setup("fit")
        assert words in corpus.brands()
        monkeypatch.setattr(near_copies, "find_copies", None)  # what is remembered is not looked for
    (kept,) = (tmp_path / "cache" / "near-copies").iterdir()
    assert json.loads(kept.read_text())["pairs"] == [["v0", "again"]]
    silent = Manifest(str(manifest), near_copies=False)
    silent.trainer = Main()
    silent.setup("fit")
    assert silent.brands() == []


def test_doctor_names_them_on_request(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "cache" / "frames"))
    found = {each.check: each for each in examine(Manifest(str(manifest)), near_copies=True).findings}
    assert found["near-copy"].examples == ("v0 = again",)
    assert "train and test share 1 recording in several files" in found["near-copy"].advice
    assert "near-copy" not in {each.check for each in examine(Manifest(str(manifest))).findings}


def test_too_many_clips_are_not_listened_to_in_passing(manifest, monkeypatch):
    monkeypatch.setattr("ser_strategies.data.near_copies.MOST_CLIPS", 5)
    corpus = Manifest(str(manifest))
    corpus.trainer = Main()
    corpus.setup("fit")
    assert any("recordings in several files (25 clips" in words for words in corpus.facts()["unchecked"])


def test_recordings_that_two_corpora_share_are_found_where_they_are_together(
    manifest, voices, tmp_path, monkeypatch
):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "cache" / "frames"))
    other = tmp_path / "other"
    other.mkdir()
    for number in range(6):  # of which one is what tests in the first
        sound = mp3(voices[2]) if number == 0 else voices[number] * 0 + np.float32(0.1) * voices[number][::-1]
        soundfile.write(other / f"w{number}.wav", sound, 16_000)
    rows = [(f"w{n}.wav", ("train", "val", "test")[n % 3], ("a", "b")[n // 3]) for n in range(6)]
    pd.DataFrame(rows, columns=["path", "split", "label"]).to_csv(other / "m.csv", index=False)
    members = [{"Manifest": {"path": str(manifest)}}, {"Manifest": {"path": str(other / "m.csv")}}]
    corpus = Together(of=members)
    corpus.trainer = Main()
    corpus.setup("fit")
    (brand,) = [words for words in corpus.brands() if "in several files" in words]
    assert "train and test share 2 recordings in several files" in brand
    assert "Manifest/v2 = Manifest-2/w0" in brand


def test_real_clips_of_one_sentence_are_not_taken_for_one_recording():
    root = real_data("nemo")
    paths = sorted((root / "audio").glob("EB0_*"))[:60]
    sounds = [read_audio(path) for path in paths]
    sounds.append(mp3(sounds[7])[160:])
    assert find_copies(len(sounds), sounds.__getitem__) == [(7, 60)]


# What is done with them -------------------------------------------------------------------------------------


@pytest.fixture
def doubled(tmp_path, voices, monkeypatch):
    """Six speakers of four clips; a0 is there twice, and b0 as e's too."""
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "cache" / "frames"))
    rows = [(f"{who}{take}", who, "xy"[take % 2]) for who in "abcdef" for take in range(4)]
    sounds = dict(zip([name for name, *_ in rows], voices, strict=True))
    sounds |= {"a9": sounds["a0"] * np.float32(0.5), "e9": sounds["b0"][300:]}
    rows += [("a9", "a", "x"), ("e9", "e", "x")]
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, 16_000)
    table = pd.DataFrame(rows, columns=["id", "speaker", "label"])
    table.assign(path=table["id"] + ".wav").to_csv(tmp_path / "m.csv", index=False)

    def make(**options):
        return Manifest(str(tmp_path / "m.csv"), folds=3, **options)

    return make


def folds_of(make, **options):
    """The fold in which each utterance tests."""
    return {
        name: fold for fold in (1, 2, 3) for name in make(fold=fold, **options).split("test")["id"].tolist()
    }


def test_of_doubled_recordings_one_is_kept_and_none_where_speakers_are_at_odds(doubled):
    corpus = doubled(doubled="drop")
    before = folds_of(doubled)
    assert set(before) - set(corpus.everything()["id"]) == {"a9", "b0", "e9"}
    assert corpus.dropped == {ONCE: 1, AT_ODDS: 2}
    told = [each.words for each in examine(corpus).findings if each.check == "doubled"]
    assert told == [f"left out: {ONCE}", f"left out: {AT_ODDS}"]
    assert folds_of(doubled, doubled="drop").items() <= before.items()  # nobody else moves


def test_speakers_of_one_recording_are_joined(doubled):
    apart = {name[0]: fold for name, fold in folds_of(doubled).items()}
    assert apart["b"] != apart["e"]
    joined = folds_of(doubled, doubled="join")
    assert len(joined) == 26
    assert {fold for name, fold in joined.items() if name[0] in "be"} == {joined["e9"]}
    assert set(joined.values()) == {1, 2, 3}
    corpus = doubled(doubled="join")
    assert "those of one recording together" in corpus.protocol.words
    assert corpus.facts()["digest"] != doubled().facts()["digest"]


def test_joining_says_what_it_cannot_do(doubled, tmp_path):
    with pytest.raises(ValueError, match="join goes with the protocol speaker-folds, got test-only: choose"):
        doubled(doubled="join", protocol="test-only")
    with pytest.raises(ValueError, match="must be one of keep, drop, join, got 'once'"):
        doubled(doubled="once")
    with pytest.raises(ValueError, match="those of NEMO are lists: give drop, or read"):
        NEMO(str(tmp_path), doubled="join")
    (tmp_path / "d3.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 26 are missing, such as .*d3\.wav: fetch them"):
        doubled(doubled="join")
