"""`cache build --on local` and `--on ray`: shards by workers that keep the encoder."""

import importlib.util
import os
import re
import signal
from pathlib import Path

import pytest
import torch

from ser_strategies import Synthetic
from ser_strategies.cache import build as building
from ser_strategies.cache.worker import Recipe
from ser_strategies.cli import cache as command
from ser_strategies.cli import main
from ser_strategies.runs import engines
from ser_strategies.runs.cache_building import build_on, estimate_on, time_of
from ser_strategies.runs.crew import LocalCrew, LostWorkError
from ser_strategies.runs.executors import CellExecutor
from ser_strategies.strategies import CachedFineTuning
from tests.cache.conftest import contents, shards, stamps
from tests.cli.conftest import CPU, ENCODER, SMALL
from tests.contained import contained

MODEL = ("--model=CachedFineTuning", f"--model.encoder={ENCODER}", "--model.cache=frames", *CPU)
RUN = (*MODEL, *SMALL)
SHARD_BYTES = 30_000  # of several


class Here(CellExecutor):
    """An executor of anybody's: its only worker is this process, which may come to an end."""

    def __init__(self, portions=1_000):
        self.portions, self.made = portions, []
        self.count = 1

    def crew(self, make, most):
        assert most >= 1
        self.made.append(make())
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def each(self, call, portions):
        for portion in portions:
            self.portions -= 1
            if self.portions < 0:
                raise LostWorkError("the worker is gone")
            yield call(self.made[-1], portion)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A cache of several shards, built without an engine by one thread; look, do not touch."""
    place, threads = tmp_path_factory.mktemp("plain"), torch.get_num_threads()
    with contained(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "SHARD_BYTES", SHARD_BYTES)
        patch.chdir(place)
        torch.set_num_threads(1)
        main(["cache", "build", *RUN])
        torch.set_num_threads(threads)
    (folder,) = (place / "frames").iterdir()
    assert len(shards(folder)) > 2
    return folder


@pytest.fixture(autouse=True)
def several(monkeypatch):
    monkeypatch.setattr(building, "SHARD_BYTES", SHARD_BYTES)


@pytest.fixture
def alone():
    """One thread, as workers have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def asked():
    """The strategy and the corpus of `RUN`."""
    model = CachedFineTuning(ENCODER, cache="frames", labels=Synthetic.labels)
    return model, Synthetic(speakers=3, utterances_per_speaker=8)


def test_processes_build_the_shards_of_one_and_only_what_is_missing(here, plain, capsys):
    main(["cache", "build", *RUN, "--on", "local", "--jobs", "2"])
    (folder,) = (here / "frames").iterdir()
    assert contents(folder) == contents(plain)
    assert f"cache frames/{plain.name}: 16 sounds, 0.00" in capsys.readouterr().out
    gone, *kept = shards(folder)
    before = stamps(folder)
    gone.unlink()
    main(["cache", "build", *RUN, "--on=local", "--local.jobs=2"])
    assert contents(folder) == contents(plain)
    assert {path.name: stamps(folder)[path.name] for path in kept} == {
        path.name: before[path.name] for path in kept
    }


@pytest.mark.usefixtures("alone")
def test_a_build_whose_workers_are_lost_keeps_what_is_finished_and_goes_on(here, plain):
    with pytest.raises(ValueError, match=r"^the worker is gone; finished shards stay in frames/.*goes on"):
        build_on(Here(portions=2), *asked(), "cpu")
    done = stamps(here)
    assert len(done) == 2
    executor = Here()
    store = build_on(executor, *asked(), "cpu")
    assert contents(store.folder) == contents(plain)
    assert {name: stamps(here)[name] for name in done} == done
    assert len(executor.made) == 1
    build_on(executor, *asked(), "cpu")
    assert len(executor.made) == 1  # nothing is missing, so nobody is asked


@pytest.mark.usefixtures("here")
def test_a_sound_that_cannot_be_read_is_named_from_afar():
    model, corpus = asked()
    corpus.setup("fit")
    name = corpus.split("train")["id"].iloc[3]
    real = corpus.waveform

    def waveform(row):
        if row["id"] == name and executor.made:
            raise ValueError("it is noise")
        return real(row)

    executor = Here()
    corpus.waveform = waveform
    with pytest.raises(ValueError, match=f"^utterance '{name}' cannot be stored: it is noise"):
        build_on(executor, model, corpus, "cpu")


def test_an_estimate_reckons_with_all_workers_and_writes_nothing(here, capsys, monkeypatch):
    executor = Here()
    monkeypatch.setattr(engines, "engine", lambda name, words: executor)
    main(["cache", "estimate", *RUN, "--on", "local", "--local.jobs", "2"])
    said = capsys.readouterr().out
    assert re.search(r"missing: 16 sounds, .*, about [\d.]+ minutes on 1 worker of local \(cpu\)\n", said)
    assert shards(here) == []
    found, workers = estimate_on(executor, *asked(), "cpu")
    assert workers == 1
    assert found.missing.minutes > 0


@pytest.mark.parametrize(
    ("tasks", "workers", "seconds"), [([3.0, 2.0, 2.0], 1, 7.0), ([3.0, 2.0, 2.0], 2, 4.0), ([5.0], 4, 5.0)]
)
def test_the_time_of_a_build_is_that_of_whoever_ends_last(tasks, workers, seconds):
    assert time_of(tasks, workers) == seconds


def test_a_worker_with_another_encoder_is_refused():
    model, corpus = asked()
    other = dict(model.hparams) | {"encoder": "random:wavlm-tiny"}
    digest = model.caching.store(model.encoder).digest
    with pytest.raises(ValueError, match=r"makes other frames of random:wavlm-tiny .* must be the same"):
        Recipe(CachedFineTuning, other, corpus, digest, "cpu")()


def dies(kept, portion):
    del kept
    os.kill(os.getpid(), signal.SIGKILL if portion else 0)
    return portion


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes")
def test_a_process_that_dies_is_told_and_leaves_none_behind():
    with LocalCrew(str, [{}, {}], 1) as crew:
        assert list(crew.each(dies, [0, 0])) == [0, 0]
        numbers = list(crew._pool._processes)
        with pytest.raises(LostWorkError, match="ended by itself"):
            list(crew.each(dies, [1]))
    assert [number for number in numbers if Path(f"/proc/{number}").exists()] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--jobs=2",), command.JOBS_ARE_LOCAL),
        (("--on=ray", "--jobs=2"), command.JOBS_ARE_LOCAL),
        (("--ray.gpus=1",), "--ray.gpus=1 is for --on ray: give that too."),
        (("--on=slurm",), "invalid choice: 'slurm'"),
        (("--on=local", "--local.cores=2"), "--local.cores is not known"),
        (("--on=local", "--jobs=0"), "jobs must be 1 or more, got 0"),
    ],
)
def test_words_that_do_not_fit_are_refused(words, said, refused):
    assert said in refused("cache", "build", *RUN, *words)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_is_asked_for_where_it_is_missing(refused):
    assert 'pip install "ser-strategies[ray]"' in refused("cache", "build", *RUN, "--on=ray")
