"""What the tests of the command line share: a place to run in, a finished run, a corpus that can be wrong."""

import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from ser_strategies.cli import main
from ser_strategies.costs import inference
from ser_strategies.data.corpus import SPLITS, Corpus
from ser_strategies.estimates import stand_ins
from tests.contained import contained
from tests.drawn import parsed_alike

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = EXAMPLES / "demo"  # runs offline
ENCODER = "random:wav2vec2-tiny"
CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
SMALL = ("--data=Synthetic", "--data.speakers=3", "--data.utterances_per_speaker=8", "--trainer.max_epochs=1")
VANILLA = ("--model=VanillaFineTuning", f"--model.encoder={ENCODER}", *CPU)
PARTIAL = ("--model=PartialFineTuning", f"--model.encoder={ENCODER}", *CPU)
MIXED = ("--model=MixedPrecisionFineTuning", f"--model.encoder={ENCODER}", *CPU)
NOISE = ("--data=tests.cli.conftest.Noise", "--trainer.max_epochs=1")
LABELS = ("anger", "happiness", "neutral", "sadness")
# Enough for a model that does not say the same of every utterance, so that its scores mean something.
LEARNING = (
    *VANILLA,
    "--model.pooling=mean+std",
    "--model.encoder_lr=1e-3",
    "--model.head_lr=5e-3",
    "--data=Synthetic",
    "--data.speakers=3",
    "--data.utterances_per_speaker=25",
    "--data.batch_size=4",
    "--trainer.max_epochs=4",
)


class Noise(Corpus):
    """Half a second of noise for each utterance, with the mistakes that a corpus can have.

    Args:
        names: Names of the classes.
        used: How many of them occur.
        counts: Utterances in the train, validation and test splits.
        broken: The utterance that has a sample that is not a number.
    """

    dimensions = ()

    def __init__(
        self,
        *,
        names: tuple[str, ...] = LABELS,
        used: int | None = None,
        counts: tuple[int, int, int] = (8, 4, 4),
        broken: str | None = None,
    ) -> None:
        super().__init__(batch_size=4)
        self.labels, self.counts, self.broken = tuple(names), counts, broken
        self.used = used or len(names)

    def table(self):
        return pd.DataFrame(
            [
                {
                    "id": f"{split}_{index}",
                    "split": split,
                    "seconds": 0.5,
                    "label": self.labels[index % self.used],
                }
                for split, count in zip(SPLITS, self.counts, strict=True)
                for index in range(count)
            ]
        )

    def waveform(self, utterance):
        rng = np.random.default_rng(zlib.crc32(utterance["id"].encode()))
        sound = rng.normal(0, 0.1, 8000).astype(np.float32)
        if utterance["id"] == self.broken:
            sound[4000] = np.nan
        return sound


class Run(NamedTuple):
    """A finished run: the words that describe it, and where it is."""

    words: tuple[str, ...]
    folder: Path

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    def facts(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="package", autouse=True)
def measured_briefly():
    """Speed is measured in two predictions and estimated from three batches: nobody looks here how well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inference, "RUNS", 2)
        patched.setattr(stand_ins, "TIMED", 3)
        yield


@pytest.fixture(scope="module")
def one_parser():
    """For tests whose commands mostly read words, and end there."""
    with parsed_alike():
        yield


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The empty folder in which a test's commands run."""
    monkeypatch.chdir(tmp_path)
    with contained():
        yield tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of VanillaFineTuning that has learned a little, trained and tested; look, do not touch."""
    return _trained(tmp_path_factory.mktemp("finished"), LEARNING)


@pytest.fixture(scope="session")
def finished_partial(tmp_path_factory):
    """A run of PartialFineTuning, whose checkpoint holds only part of the encoder; look, do not touch."""
    return _trained(tmp_path_factory.mktemp("partial"), (*PARTIAL, *SMALL))


@pytest.fixture(scope="session")
def finished_noise(tmp_path_factory):
    """A run of VanillaFineTuning on `Noise`; look, do not touch."""
    return _trained(tmp_path_factory.mktemp("noise"), (*VANILLA, *NOISE))


def _trained(folder: Path, words: tuple[str, ...]) -> Run:
    words = (*words, f"--trainer.default_root_dir={folder}")
    with contained():
        main(["fit", *words])
        main(["test", *words])
    return Run(words, folder)


@pytest.fixture
def refused(here, capsys):
    """Runs a command that must fail with one sentence and leave nothing behind; gives the sentence."""

    def run(*words: str) -> str:
        before = everything_in(here)
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        assert stop.value.code not in {0, None}
        sentence = only_error(capsys.readouterr().err)
        assert everything_in(here) == before
        return sentence

    return run


def only_error(stderr: str) -> str:
    """The one `error:` line; the only other thing that may be said is how to see more."""
    lines = [line for line in stderr.splitlines() if line and not line.startswith("(where it happened")]
    assert "Traceback" not in stderr
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: "), stderr
    return lines[0]


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def changed(path: Path, **changes: object) -> Path:
    """An example's copy in the working directory, with other values at dotted keys."""
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    copy = Path(path.name)
    copy.write_text(yaml.safe_dump(config))
    return copy
