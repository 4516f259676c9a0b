"""Units of frames: those of centres found anew from clips encoded one by one, whatever happened to the files.

`python -m tests.units.test_source <folder>` makes units by one process and by two, and writes what came
of them to found.json there.
"""

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import save_file
from torch import Tensor
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from ser_strategies.cache import build as building
from ser_strategies.cache.shard import Stored, read_header, write_shard
from ser_strategies.cache.store import ShardStore
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.corpus import Corpus
from ser_strategies.encoder import Encoder, Spectrum, freeze
from ser_strategies.strategies import PTAPT, TAPT, load_strategy
from ser_strategies.units import source as units_module
from ser_strategies.units.kmeans import fit_kmeans
from ser_strategies.units.source import REPORT, STATES, UnitSource, UnitTable
from tests.encoder.conftest import stock
from tests.programs import Program
from tests.strategies.conftest import WARNINGS, noise, trainer

pytestmark = WARNINGS
CLUSTERS = (4, 9)
LAYER = 2
ADAPTED = "random:wav2vec2-tiny"
LABELS = ("calm", "cross", "sad")


# A corpus whose every sound is known ------------------------------------------------------------------------


class Said(Corpus):
    """Clips of noise.

    Args:
        rows: Id, split, label and speaker of each; the last two may be None.
        sounds: The sound of each, by id; a sentence is why it cannot be read.
    """

    labels = LABELS

    def __init__(self, rows: Sequence[tuple[Any, ...]], sounds: dict[str, Any], **options: Any) -> None:
        super().__init__(**({"batch_size": 3} | options))
        self.rows, self.sounds = list(rows), sounds

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows, columns=["id", "split", "label", "speaker"])
        return table.assign(seconds=[len(self.sounds[name]) / 16_000 for name in table["id"]])

    def waveform(self, utterance: Any) -> Any:
        sound = self.sounds[utterance["id"]]
        if isinstance(sound, str):
            raise ValueError(sound)
        return sound.numpy()

    def names(self, *splits: Any) -> list[str]:
        return [name for split in splits for name in self.split(split)["id"]]


def samples(number: int) -> int:
    return 2_000 + 977 * number % 6_500


def corpus(**changes: Any) -> Said:
    """Fourteen clips to train on, five to validate with, two to test; of some nobody knows who spoke how."""
    splits = ["train"] * 14 + ["val"] * 5 + ["test"] * 2
    rows = [
        (
            f"clip{number:02d}",
            split,
            None if number % 7 == 3 else LABELS[number % 5 % 3],
            None if number == 5 else f"{split}-{number % 3}",
        )
        for number, split in enumerate(splits)
    ]
    sounds = {name: coloured(samples(number), number) for number, (name, *_) in enumerate(rows)}
    return Said(rows, sounds, **changes)


def coloured(length: int, seed: int) -> Tensor:
    """Noise of another colour for each clip, so that clips differ by more than chance."""
    kernel = torch.hann_window(3 + seed % 5 * 6)[None, None]
    wave = torch.nn.functional.conv1d(noise(length, seed)[None, None], kernel, padding="same")[0, 0]
    return wave / wave.std() * 0.1


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A HuBERT in transformers' format, with weights that are not as plain as fresh ones."""
    path = tmp_path_factory.mktemp("teacher") / "hubert"
    stock("hubert-tiny").save_pretrained(path)
    (path / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 16000}')
    return path


@pytest.fixture
def alone(monkeypatch):
    """No clip has batch mates, so that its frames are those of a clip encoded by itself to the last bit."""
    monkeypatch.setattr(building, "_batches", lambda shard, *_: [[position] for position in shard])


def prepared(folder: Path, said: Corpus, source: UnitSource, *, seconds: float | None = None) -> UnitTable:
    """What a fit prepares before it trains."""
    made = trainer(default_root_dir=folder)
    made.datamodule = said
    return source.prepare(Encoder(ADAPTED, max_seconds=seconds), made)


def source_of(teacher: Path | str | None, **options: Any) -> UnitSource:
    chosen = {"layer": LAYER, "clusters": CLUSTERS, "passes": 20} | options
    return UnitSource(None if teacher is None else str(teacher), **chosen)


def units_of(table: UnitTable, said: Said, *splits: str, seconds: float | None = None) -> dict[str, Tensor]:
    """Units of every utterance, one for each frame that an encoder makes of it alone."""
    return {
        name: table.units(name, frames_of(len(said.sounds[name]), seconds))
        for name in said.names(*(splits or ("train", "val")))
    }


@cache
def frames_of(length: int, seconds: float | None) -> int:
    """How many frames an encoder makes of so many samples."""
    frames: int = encoder_of(ADAPTED, seconds).lower(*clip(torch.zeros(length)), -1).values.shape[1]
    return frames


@cache
def encoder_of(source: str, seconds: float | None = None) -> Encoder:
    encoder = Encoder(source, max_seconds=seconds)
    freeze(encoder)
    return encoder


def clip(wave: Tensor) -> tuple[Tensor, Tensor]:
    return wave[None], torch.tensor([len(wave)])


def states_of(teacher: Path | str, wave: Tensor, layer: int, seconds: float | None = None) -> Tensor:
    """Frames of a clip alone, rounded as they are stored."""
    frames = encoder_of(str(teacher), seconds).lower(*clip(wave), layer).values[0]
    return frames.bfloat16().float()


def reference(said: Said, states: dict[str, Tensor], clusters: Sequence[int] = CLUSTERS) -> dict[str, Tensor]:
    """Units by the nearest of centres fitted to the train split, each sound once, in float64 by numpy."""
    once = {said.sounds[name].numpy().tobytes(): states[name] for name in said.names("train")}
    together = torch.cat(list(once.values()))
    fitted = [fit_kmeans(lambda: [(0, together)], count).centres.double().numpy() for count in clusters]
    return {
        name: torch.stack([torch.from_numpy(nearest(values, centres)) for centres in fitted], 1)
        for name, values in states.items()
    }


def nearest(values: Tensor, centres: np.ndarray) -> np.ndarray:
    gaps = values.double().numpy()[:, None] - centres[None]
    return np.square(gaps).sum(2).argmin(1)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, units in expected.items():
        assert found[name].dtype == torch.int64
        assert torch.equal(found[name], units), name


def agreement(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return torch.cat([(found[name] == expected[name]).flatten() for name in found]).double().mean().item()


# Which units ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("layer", [pytest.param(1, marks=pytest.mark.further), None])
def test_units_are_the_nearest_centres_of_frames_of_clips_encoded_alone(layer, teacher, tmp_path):
    """The others of these tests hold it of a layer in between."""
    said = corpus()
    table = prepared(tmp_path, said, source_of(teacher, layer=layer))
    states = {name: states_of(teacher, said.sounds[name], layer or 4) for name in said.names("train", "val")}
    expected = reference(said, states)
    assert_same(units_of(table, said), expected)
    assert all(len(units) == len(states[name]) for name, units in expected.items())
    # Every unit is in use by the train split, so that agreeing means something.
    for column, count in enumerate(CLUSTERS):
        heard = torch.cat([expected[name][:, column] for name in said.names("train")])
        assert heard.unique().tolist() == list(range(count))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", ["mfcc", "mel-pitch"])
def test_units_of_a_spectrum_are_the_nearest_centres_of_its_features(kind, tmp_path):
    said, spectrum = corpus(), Spectrum(kind, encoder_of(ADAPTED))
    table = prepared(tmp_path, said, source_of(None, spectrum=kind))
    names = said.names("train", "val")
    states = {n: spectrum.lower(*clip(said.sounds[n])).values[0].bfloat16().float() for n in names}
    assert_same(units_of(table, said), reference(said, states))
    assert table.report["spectrum"] == kind
    assert "teacher" not in table.report


@pytest.mark.parametrize("layer", [1, 3])
def test_clustered_frames_are_the_hidden_states_of_transformers(layer, teacher):
    model, said = HubertModel.from_pretrained(teacher).eval(), corpus()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(teacher)
    for name in said.names("train")[:4]:
        wave = said.sounds[name]
        heard = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            expected = model(heard, output_hidden_states=True).hidden_states[layer][0]
        found = states_of(teacher, wave, layer)
        assert found.shape == expected.shape
        assert (found - expected).norm() < 0.004 * expected.norm()  # bfloat16 rounds by up to 1 in 256


def test_in_batches_all_but_a_few_frames_get_the_same_units(teacher, tmp_path):
    """The last digits of a frame change with its batch, and may change what bfloat16 rounds it to."""
    said = corpus()
    found = units_of(prepared(tmp_path, said, source_of(teacher)), said)
    states = {name: states_of(teacher, said.sounds[name], LAYER) for name in said.names("train", "val")}
    assert agreement(found, reference(said, states)) > 0.99


@pytest.mark.usefixtures("alone")
def test_without_a_teacher_the_units_are_of_the_encoder_as_it_starts(tmp_path):
    said = corpus()
    found = units_of(prepared(tmp_path, said, source_of(None, layer=3)), said)
    states = {name: states_of(ADAPTED, said.sounds[name], 3) for name in said.names("train", "val")}
    assert_same(found, reference(said, states))


@pytest.mark.usefixtures("alone")
def test_training_meanwhile_does_not_change_what_the_units_are_of(tmp_path):
    said, encoder = corpus(), Encoder(ADAPTED)
    for _ in range(2):
        made = trainer(default_root_dir=tmp_path)
        made.datamodule = said
        table = source_of(None).prepare(encoder, made)
        if encoder.training:
            found = units_of(table, said)
            with torch.no_grad():
                for parameter in encoder.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    assert_same(units_of(table, said), found)
    assert len(stores(tmp_path)) == 1


@pytest.mark.usefixtures("alone")
def test_a_limit_of_seconds_holds_for_the_teacher_too(teacher, tmp_path):
    said = corpus()
    table = prepared(tmp_path, said, source_of(teacher), seconds=0.2)
    found = units_of(table, said, seconds=0.2)
    assert max(map(len, found.values())) == 9
    states = {name: states_of(teacher, said.sounds[name], LAYER, 0.2) for name in said.names("train", "val")}
    assert_same(found, reference(said, states))


def test_seeds_and_passes_are_passed_on(teacher, tmp_path, monkeypatch):
    asked = []
    real = units_module.fit_kmeans

    def spy(chunks: Any, clusters: int, **options: Any) -> Any:
        asked.append((clusters, options["seed"], options["passes"]))
        return real(chunks, clusters, **options)

    monkeypatch.setattr(units_module, "fit_kmeans", spy)
    prepared(tmp_path, corpus(), source_of(teacher, passes=3, seed=8))
    assert asked == [(4, 8, 3), (9, 8, 3)]


# Frames and units match one to one --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(teacher, tmp_path_factory) -> Path:
    """The folder of a run with units; look, do not touch."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_batches", lambda shard, *_: [[position] for position in shard])
        patch.setattr(units_module, "UTTERANCES_A_FILE", 7)
        prepared(folder, corpus(), source_of(teacher))
    return folder


@pytest.fixture
def run(kept, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, whose files hold seven utterances each."""
    monkeypatch.setattr(units_module, "UTTERANCES_A_FILE", 7)
    return Path(shutil.copytree(kept, tmp_path / "run"))


@pytest.fixture(scope="module")
def expected(teacher) -> dict[str, Tensor]:
    """Units of the run, as they should be."""
    said = corpus()
    states = {name: states_of(teacher, said.sounds[name], LAYER) for name in said.names("train", "val")}
    return reference(said, states)


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The keys of sounds that went through the teacher, and `k-means` for each clustering."""
    seen: list[str] = []
    real, real_fit = building._compute, units_module.fit_kmeans

    def compute(encoder: Any, sounds: Any, batch: Sequence[int], trunk: Any) -> Any:
        seen.extend(sounds.keys[position] for position in batch)
        return real(encoder, sounds, batch, trunk)

    def fit(*arguments: Any, **options: Any) -> Any:
        seen.append("k-means")
        return real_fit(*arguments, **options)

    monkeypatch.setattr(building, "_compute", compute)
    monkeypatch.setattr(units_module, "fit_kmeans", fit)
    return seen


def stores(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "units").iterdir() if path.is_dir())


def files(folder: Path) -> list[Path]:
    (store,) = stores(folder)
    return sorted(store.glob("*.safetensors"))


def test_another_run_in_the_folder_reads_what_is_there(run, teacher, expected, computed):
    before = {path: path.stat().st_mtime_ns for path in files(run)}
    assert_same(units_of(prepared(run, corpus(), source_of(teacher)), corpus()), expected)
    assert computed == []
    assert {path: path.stat().st_mtime_ns for path in files(run)} == before
    assert len(before) == 3


def test_any_other_number_of_frames_is_refused(run, teacher):
    table = prepared(run, corpus(), source_of(teacher))
    right = len(units_of(table, corpus())["clip03"])
    for wrong in (right - 1, right + 1):
        with pytest.raises(ValueError, match=f"'clip03' has {right} units but {wrong} frames"):
            table.units("clip03", wrong)


@pytest.mark.parametrize("name", ["clip19", "nobody"])
def test_utterances_of_no_known_split_have_none(run, teacher, name):
    table = prepared(run, corpus(), source_of(teacher))
    with pytest.raises(ValueError, match=f"'{name}' has no units: only those of the train and val splits"):
        table.units(name, 10)


def test_a_teacher_with_other_strides_is_refused_before_it_is_learnt_from(tmp_path):
    torch.manual_seed(0)
    config = stock("wav2vec2-tiny").config
    config.update({"conv_stride": [5, 2, 2, 2, 2, 2, 1]})
    folder = tmp_path / "finer"
    type(stock("wav2vec2-tiny"))(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 16000}')
    table = prepared(tmp_path / "run", corpus(), source_of(folder))
    frames = Encoder(ADAPTED).count_frames(torch.tensor(len(corpus().sounds["clip00"]))).item()
    with pytest.raises(ValueError, match=r"units but \d+ frames: .* give both the same max_seconds and stri"):
        table.units("clip00", frames)


class Batches(Callback):
    """Keeps the batches that are learnt from."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, *_: Any) -> None:
        self.seen.append(("train", batch))

    def on_validation_batch_start(self, trainer: Any, model: Any, batch: Any, *_: Any) -> None:
        self.seen.append(("val", batch))


@pytest.mark.usefixtures("alone")
def test_a_fit_learns_the_units_of_the_frames_it_masks(teacher, tmp_path, computed):
    said, seen = corpus(), Batches()
    model = PTAPT(
        ADAPTED,
        teacher=str(teacher),
        teacher_layer=LAYER,
        clusters=CLUSTERS,
        mask_time_probability=0.5,
        mask_time_length=3,
        mixing=0.5,
    )
    made = trainer(default_root_dir=tmp_path, callbacks=[seen], max_epochs=2)
    made.fit(model, datamodule=said)
    states = {name: states_of(teacher, said.sounds[name], LAYER) for name in said.names("train", "val")}
    units = reference(said, states)
    learnt: dict[str, set[str]] = {"train": set(), "val": set()}
    for split, batch in seen.seen:
        for row, name in enumerate(batch.batch.ids):
            frames = batch.masked[row].nonzero()[:, 0]
            assert torch.equal(batch.units[row, : len(frames)], units[name][frames])
            assert (batch.units[row, len(frames) :] == -100).all()
            learnt[split].add(name)
    assert {split: sorted(names) for split, names in learnt.items()} == {
        split: said.names(split) for split in ("train", "val")
    }
    assert len(computed) == 19 + 2, "once for all epochs and validations"
    assert made.callback_metrics["val/masked_frames"] > 0
    assert model.report()["units"] == json.loads((stores(tmp_path)[0] / REPORT).read_text())


# Damaged, foreign, killed -----------------------------------------------------------------------------------


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position, 2 if position < 0 else 0)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


def body(path: Path) -> int:
    """Where the units of a file start."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def all_zero(path: Path) -> list[Stored]:
    """The utterances of a file with other units."""
    header = read_header(path, path.parent.name)
    zeros = torch.zeros(header.shape, dtype=header.dtype)
    return [
        Stored(key, zeros[first:last], int(count))
        for key, first, last, count in zip(
            header.keys, header.offsets[:-1], header.offsets[1:], header.samples, strict=True
        )
    ]


def one_short(path: Path) -> None:
    """A file of this store that lacks an utterance, as an older number of processes may have left it."""
    write_shard(path, path.parent.name, all_zero(path)[1:])


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a unit changed": lambda path: flip(path, body(path)),
    "the last unit changed": lambda path: flip(path, -2),
    "header changed": lambda path: flip(path, body(path) // 2),
    "cut in the units": lambda path: os.truncate(path, path.stat().st_size - 10),
    "cut in the header": lambda path: os.truncate(path, body(path) // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "of another store": lambda path: write_shard(path, "0" * 16, all_zero(path)),
    "without an utterance": one_short,
    "somebody's safetensors": lambda path: save_file({"frames": torch.zeros(9, 2)}, path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "no report": lambda path: (path.parent / REPORT).unlink(),
    "half a report": lambda path: os.truncate(path.parent / REPORT, 40),
    "half written": lambda path: path.rename(path.with_name(f".{path.name}.123.partial")),
}


@pytest.fixture(scope="module")
def asked(kept, teacher, tmp_path_factory) -> tuple[ShardStore, set[str], Any]:
    """What a run looks at in the folder of another: the store, the keys that it wants, and its trainer."""
    seen: list[Any] = []
    real = units_module._complete
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units_module, "_complete", lambda *given: seen.append(given) or real(*given))
        prepared(
            Path(shutil.copytree(kept, tmp_path_factory.mktemp("asked") / "run")),
            corpus(),
            source_of(teacher),
        )
    return seen[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_what_was_written_is_never_read(damage, run, asked):
    known, keys, made = asked
    store = ShardStore(run / "units", known.contents, known.advice)
    whole = units_module._complete(store, keys, made)
    assert whole == json.loads((store.folder / REPORT).read_text())
    assert store.keys() == keys
    DAMAGE[damage](files(run)[1])
    assert units_module._complete(store, keys, made) is None
    assert store.keys() == set()
    assert [path for path in files(run) if path.is_file()] == []


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("damage", ["a unit changed", "a folder", "half a report", "half written"])
def test_what_is_not_what_was_written_is_made_anew(damage, run, teacher, expected, computed):
    """Whatever is left of it: a file that was set aside, no more of it, another report, a part of a file."""
    report = json.loads((files(run)[0].parent / REPORT).read_text())
    whole = {path.name: path.read_bytes() for path in files(run)}
    said = corpus()
    DAMAGE[damage](files(run)[1])
    table = prepared(run, said, source_of(teacher))
    assert_same(units_of(table, said), expected)
    assert len(computed) == 19 + 2
    assert table.report == report
    assert {path.name: path.read_bytes() for path in files(run)} == whole
    computed.clear()
    assert_same(units_of(prepared(run, said, source_of(teacher)), said), expected)
    assert computed == []


def test_a_file_that_is_changed_while_units_are_read_ends_the_run(run, teacher, expected):
    table = prepared(run, corpus(), source_of(teacher))
    for path in files(run):
        flip(path, body(path))
    first_ones = {path: read_header(path, path.parent.name).keys[0] for path in files(run)}
    said = corpus()
    keys = dict(zip(said.sound_keys(said.split("train")), said.names("train"), strict=True))
    broken = [keys[key] for key in first_ones.values() if key in keys]
    assert len(broken) >= 2
    for name in broken:
        with pytest.raises(ValueError, match="was changed since the run began"):
            table.units(name, len(expected[name]))


class Killed(BaseException):
    """The end of a process, as far as its files are concerned."""


def die(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Ends the next preparation at a moment, once."""
    left = [True]

    def at(target: Any, name: str, when: Callable[..., bool], *, after: bool = False) -> None:
        real = getattr(target, name)

        def act(*arguments: Any, **options: Any) -> Any:
            hit = left[0] and when(*arguments)
            result = real(*arguments, **options) if after or not hit else None
            if hit:
                left[0] = False
                raise Killed
            return result

        monkeypatch.setattr(target, name, act)

    def units_file(store: ShardStore, name: str, *_: Any) -> bool:
        return "-of-" in name

    match moment:
        case "within the frames":
            monkeypatch.setattr(building, "SHARD_BYTES", 20_000)
            at(ShardStore, "add", lambda store, name, *_: store.folder.parent.name == STATES, after=True)
        case "after the frames":
            at(units_module, "fit_kmeans", lambda *_: True)
        case "between two clusterings":
            at(units_module, "fit_kmeans", lambda _, clusters: clusters == 9)
        case "after k-means":
            at(ShardStore, "add", units_file)
        case "within the units":
            at(ShardStore, "add", units_file, after=True)
        case "before the report":
            at(units_module, "describe_units", lambda *_: True)
        case "within the report":
            at(Path, "replace", lambda path, *_: path.name.startswith(f".{REPORT}."))
        case "after the report":
            at(shutil, "rmtree", lambda path: Path(path).name == STATES)


# What is there to go on with: some frames; all of them, and nothing else; some units; all but the report. The
# others are one step before or after.
MOMENTS = [
    "within the frames",
    pytest.param("after the frames", marks=pytest.mark.further),
    "between two clusterings",
    pytest.param("after k-means", marks=pytest.mark.further),
    "within the units",
    pytest.param("before the report", marks=pytest.mark.further),
    "within the report",
]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_preparation_goes_on_and_ends_as_an_undisturbed_one(
    moment, teacher, tmp_path, expected, computed, monkeypatch, kept
):
    monkeypatch.setattr(units_module, "UTTERANCES_A_FILE", 7)
    die(monkeypatch, moment)
    with pytest.raises(Killed):
        prepared(tmp_path, corpus(), source_of(teacher))
    first = [key for key in computed if key != "k-means"]
    computed.clear()
    table = prepared(tmp_path, corpus(), source_of(teacher))
    again = [key for key in computed if key != "k-means"]
    assert sorted(first + again) == sorted(set(first + again)), (
        "frames that were stored are not computed anew"
    )
    assert len(first + again) == 19
    assert bool(again) == (moment == "within the frames")
    assert_same(units_of(table, corpus()), expected)
    (store,), (whole,) = stores(tmp_path), stores(kept)
    assert {path.name: path.read_bytes() for path in files(tmp_path)} == {
        path.name: path.read_bytes() for path in files(kept)
    }
    assert sorted(path.name for path in store.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_the_frames_are_gone_once_their_units_are_there(kept):
    (store,) = stores(kept)
    assert not (store / STATES).exists()
    assert {path.name for path in store.iterdir() if path.suffix != ".safetensors"} == {
        "cache.json",
        ".lock",
        REPORT,
    }


def test_the_frames_of_a_run_killed_just_before_they_went_are_gone_after_the_next(
    teacher, tmp_path, monkeypatch
):
    die(monkeypatch, "after the report")
    with pytest.raises(Killed):
        prepared(tmp_path, corpus(), source_of(teacher))
    prepared(tmp_path, corpus(), source_of(teacher))
    assert not (stores(tmp_path)[0] / STATES).exists()


@pytest.mark.usefixtures("alone")
def test_clusterings_in_one_folder_do_not_mix(run, teacher, expected, computed):
    said = corpus()
    states = {name: states_of(teacher, said.sounds[name], LAYER) for name in said.names("train", "val")}
    for clusters in ((4,), (9, 4)):
        found = units_of(prepared(run, said, source_of(teacher, clusters=clusters)), said)
        assert_same(found, reference(said, states, clusters))
    deeper = units_of(prepared(run, said, source_of(teacher, layer=3)), said)
    few = prepared(run, said, source_of(teacher, passes=1))
    other = prepared(run, said, source_of(teacher, seed=1))
    assert agreement(deeper, expected) < 0.9
    assert len(stores(run)) == 6
    assert few.report["clusterings"]["9"]["passes"] == 1
    assert other.report["clusterings"]["9"]["inertia"] != few.report["clusterings"]["9"]["inertia"]
    computed.clear()
    assert_same(units_of(prepared(run, said, source_of(teacher)), said), expected)
    assert computed == []
    assert not list((run / "units").rglob(STATES))


# What took part ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_other_sounds_of_validation_change_no_unit_of_training(run, teacher, expected):
    said = corpus()
    for number, name in enumerate(said.names("val")):
        said.sounds[name] = coloured(4_000 + 500 * number, 70 + number)
    found = units_of(prepared(run, said, source_of(teacher)), said)
    for name in said.names("train"):
        assert torch.equal(found[name], expected[name])
    states = {name: states_of(teacher, said.sounds[name], LAYER) for name in said.names("train", "val")}
    assert_same(found, reference(said, states))
    # And back again, in the same folder.
    assert_same(units_of(prepared(run, corpus(), source_of(teacher)), corpus()), expected)


def test_other_sounds_of_validation_change_no_unit_of_training_in_batches_either(teacher, tmp_path):
    """As long as they are as long: else the last digits of a frame change with its batch mates."""
    found = []
    for number in range(2):
        said = corpus()
        for name in said.names("val"):
            if number:
                said.sounds[name] = coloured(len(said.sounds[name]), 90)
        table = prepared(tmp_path / str(number), said, source_of(teacher))
        found.append((units_of(table, said, "train"), table.report["clusterings"]))
    assert_same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@pytest.mark.usefixtures("alone")
def test_sounds_of_testing_are_not_even_read(teacher, tmp_path, computed):
    said = corpus()
    for name in said.names("test"):
        said.sounds[name] = "nobody may hear this"
    table = prepared(tmp_path, said, source_of(teacher))
    assert len(units_of(table, said)) == 19
    assert len(computed) == 19 + 2


@pytest.mark.usefixtures("alone")
def test_a_sound_that_occurs_twice_is_clustered_once_and_has_the_same_units_everywhere(teacher, tmp_path):
    said = corpus()
    said.rows.insert(3, ("copy a", "train", "calm", "train-1"))
    said.rows += [("copy b", "train", "cross", "train-2"), ("copy c", "val", "sad", "val-1")]
    # Of a train clip: once more in front of it, once behind it, once in validation; and of a validation clip.
    said.rows.insert(1, ("copy d", "val", None, None))
    for name, of in {"copy a": 9, "copy b": 9, "copy c": 9, "copy d": 16}.items():
        said.sounds[name] = said.sounds[f"clip{of:02d}"].clone()
    found = units_of(prepared(tmp_path / "twice", said, source_of(teacher)), said)
    assert len(found) == 19 + 4
    for name in ("copy a", "copy b", "copy c"):
        assert torch.equal(found[name], found["clip09"])
    assert torch.equal(found["copy d"], found["clip16"])
    states = {name: states_of(teacher, said.sounds[name], LAYER) for name in said.names("train", "val")}
    assert_same(found, reference(said, states))


@pytest.mark.usefixtures("alone")
def test_what_a_clip_sounds_like_in_training_is_not_what_its_units_are_of(run, teacher, expected):
    said = corpus(augmentation=Augmentation(noise_snr=(5.0, 10.0)))
    assert_same(units_of(prepared(run, said, source_of(teacher)), said), expected)
    assert said.augmentation is not None


def test_a_changed_speed_is_refused(teacher, tmp_path):
    said = corpus(augmentation=Augmentation(speed=(0.9, 1.1)))
    with pytest.raises(ValueError, match=r"leave out --data\.augmentation\.speed"):
        prepared(tmp_path, said, source_of(teacher))


def test_too_few_frames_are_refused_before_anything_is_computed(teacher, tmp_path, computed):
    with pytest.raises(ValueError, match=r"has about \d+ frames, too few for 4,096 clusters: ask for fewer"):
        prepared(tmp_path, corpus(), source_of(teacher, clusters=(4, 4_096)))
    assert computed == []


@pytest.mark.parametrize("clusters", [(), (4, 4), (1,), (0, 8)])
def test_impossible_clusters_are_refused(clusters, teacher):
    with pytest.raises(ValueError, match="clusters must be different numbers of 2 or more"):
        PTAPT(ADAPTED, teacher=str(teacher), clusters=clusters)


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_a_layer_that_is_not_there_is_refused(layer, teacher, tmp_path):
    with pytest.raises(ValueError, match=f"^teacher_layer must be between 1 and 4, got {layer}"):
        prepared(tmp_path, corpus(), source_of(teacher, layer=layer))
    assert not (tmp_path / "units").exists()
    with pytest.raises(ValueError, match=f"^units_layer must be between 1 and 4, got {layer}"):
        TAPT(ADAPTED, objective="units", units_layer=layer)


def test_a_sound_that_cannot_be_read_is_named(teacher, tmp_path):
    said = corpus()
    said.sounds["clip02"] = "half a file"
    with pytest.raises(ValueError, match="'clip02' cannot be stored: half a file"):
        prepared(tmp_path, said, source_of(teacher))


# What is said of them ---------------------------------------------------------------------------------------


def entropy_of(counts: list[int]) -> float:
    return -sum(count / sum(counts) * np.log(count / sum(counts)) for count in counts if count)


def by_hand(units: list[int], classes: list[str | None]) -> tuple[float, float]:
    """Share of frames that are of the commonest class of their unit, and of the commonest class of all."""
    known = [(unit, kind) for unit, kind in zip(units, classes, strict=True) if kind is not None]
    kinds = sorted({kind for _, kind in known})
    pure = sum(max(known.count((unit, kind)) for kind in kinds) for unit in set(units))
    return pure / len(known), max(sum(k == kind for _, k in known) for kind in kinds) / len(known)


def facts_by_hand(said: Said, found: dict[str, Tensor], column: int, count: int) -> dict[str, float]:
    rows = said.split("train")
    units, labels, speakers = [], [], []
    for name, label, speaker in zip(rows["id"], rows["label"], rows["speaker"], strict=True):
        own = found[name][:, column].tolist()
        units += own
        labels += [None if pd.isna(label) else label] * len(own)
        speakers += [None if pd.isna(speaker) else speaker] * len(own)
    facts = {"perplexity": float(np.exp(entropy_of([units.count(unit) for unit in range(count)])))}
    for what, classes in (("label", labels), ("speaker", speakers)):
        pure, chance = by_hand(units, classes)
        facts |= {f"{what}_purity": pure, f"{what}_purity_by_chance": chance}
    return facts


def test_the_report_says_how_many_units_are_in_use_and_how_pure_they_are(run, teacher, expected):
    said = corpus()
    report = prepared(run, said, source_of(teacher)).report
    heard = torch.cat([states_of(teacher, said.sounds[name], LAYER) for name in said.names("train")])
    assert report["utterances"] == 14
    assert report["frames"] == len(heard)
    assert report["layer"] == LAYER
    assert report["teacher"]["source"] == str(teacher)
    assert list(report["clusterings"]) == ["4", "9"]
    for column, count in enumerate(CLUSTERS):
        facts = dict(report["clusterings"][str(count)])
        centres = fit_kmeans(lambda: [(0, heard)], count).centres.double().numpy()
        gaps = heard.double().numpy()[:, None] - centres[None]
        assert facts.pop("inertia") == pytest.approx(np.square(gaps).sum(2).min(1).sum(), rel=1e-6)
        assert 1 <= facts.pop("passes") <= 20
        assert facts == pytest.approx(facts_by_hand(said, expected, column, count), rel=1e-9)
        assert facts["label_purity"] > facts["label_purity_by_chance"]
    assert report == json.loads((stores(run)[0] / REPORT).read_text())


@pytest.mark.usefixtures("alone")
def test_the_report_counts_a_sound_as_often_as_it_is_trained_on(teacher, tmp_path):
    said = corpus()
    said.rows.append(("copy", "train", "sad", "train-0"))
    said.sounds["copy"] = said.sounds["clip09"].clone()
    table = prepared(tmp_path, said, source_of(teacher))
    found = units_of(table, said)
    for column, count in enumerate(CLUSTERS):
        facts = table.report["clusterings"][str(count)]
        wanted = facts_by_hand(said, found, column, count)
        assert {name: facts[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)


def test_without_labels_and_speakers_nothing_is_said_of_them(teacher, tmp_path):
    said = corpus()
    said.rows = [(name, split, None, None) for name, split, _, _ in said.rows]
    facts = prepared(tmp_path, said, source_of(teacher, clusters=(4,))).report["clusterings"]["4"]
    assert facts.keys() == {"inertia", "passes", "perplexity"}


# What is not as it should be --------------------------------------------------------------------------------


def test_sounds_that_are_to_be_skipped_have_no_units_and_the_others_do(teacher, tmp_path):
    said = corpus()
    said.everything()
    said.skips_damaged = True
    said.sounds["clip02"] = said.sounds["clip15"] = "half a file"
    table = prepared(tmp_path, said, source_of(teacher))
    for name in said.names("train", "val"):
        if not isinstance(said.sounds[name], str):
            table.units(name, int(Encoder(ADAPTED).count_frames(torch.tensor(len(said.sounds[name])))))


def test_a_loaded_checkpoint_is_validated_on_the_units_it_learnt(tmp_path):
    said = corpus()
    model = TAPT("random:hubert-tiny", clusters=(4,), mask_time_length=3, encoder_lr=1e-2)
    made = trainer(default_root_dir=tmp_path)
    made.fit(model, datamodule=said)
    made.save_checkpoint(tmp_path / "best.ckpt")
    again = trainer(default_root_dir=tmp_path)
    again.validate(load_strategy(tmp_path / "best.ckpt"), datamodule=corpus(), verbose=False)
    assert len(stores(tmp_path)) == 1


# Several processes ------------------------------------------------------------------------------------------


def take_part(rank: int, world: int, folder: Path, store: Path) -> dict[str, Any]:
    """What a process of a fit does, without the trainer."""

    def broadcast(value: Any) -> Any:
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    if world > 1:
        torch.distributed.init_process_group(
            "gloo", f"file://{store}", timedelta(seconds=60), rank=rank, world_size=world
        )
    strategy = SimpleNamespace(
        barrier=lambda name: torch.distributed.barrier() if world > 1 else None,
        broadcast=broadcast if world > 1 else lambda value: value,
        root_device=torch.device("cpu"),
    )
    said = corpus()
    made: Any = SimpleNamespace(
        datamodule=said,
        default_root_dir=str(folder),
        global_rank=rank,
        world_size=world,
        progress_bar_callback=None,
        strategy=strategy,
    )
    rounds = []
    for _ in range(2):  # the second reads what the first has written
        table = source_of("random:hubert-tiny").prepare(Encoder(ADAPTED), made)
        units = {name: found.tolist() for name, found in units_of(table, said).items()}
        rounds.append({"units": units, "report": table.report})
    if world > 1:
        torch.distributed.destroy_process_group()
    return {"rounds": rounds, "files": [path.name for path in files(folder)]}


def work_together(folder: Path) -> None:
    """One process, two in a folder of their own, and two where a file of the one broke."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    building.SHARD_BYTES = 10_000  # so that each process has some to compute
    found: dict[str, list[Any]] = {"one": [take_part(0, 1, folder / "one", folder)]}
    shutil.copytree(folder / "one", folder / "broken")
    flip(files(folder / "broken")[0], -2)
    for name in ("two", "broken"):
        children = []
        for rank in range(2):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    came = take_part(rank, 2, folder / name, folder / f"store of {name}")
                    (folder / f"{name}{rank}.json").write_text(json.dumps(came))
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(ended):
            raise SystemExit(f"{name}: processes ended with {ended}")
        found[name] = [json.loads((folder / f"{name}{rank}.json").read_text()) for rank in range(2)]
    (folder / "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("together")
    ended = Program(work_together, folder, folder=folder).wait()
    assert ended.code == 0, ended
    return json.loads((folder / "found.json").read_text())


def test_two_processes_make_the_units_and_the_report_of_one_also_where_a_file_of_it_is_broken(together):
    (one,) = together["one"]
    for name in ("two", "broken"):
        assert len(together[name]) == 2
        for each in together[name]:
            for number in range(2):
                assert each["rounds"][number]["units"] == one["rounds"][0]["units"], name
                assert each["rounds"][number]["report"] == one["rounds"][0]["report"], name
            assert each["files"] == ["000-of-002-00000000.safetensors", "001-of-002-00000000.safetensors"], (
                name
            )
    assert one["files"] == ["000-of-001-00000000.safetensors"]
