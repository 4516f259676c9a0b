"""Two processes train, adapt, score and predict like one."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies.launchers import subprocess_script
from safetensors import safe_open

import ser_strategies.__main__ as front
from ser_strategies import Synthetic, VanillaFineTuning, Vesper
from ser_strategies.cli import main
from ser_strategies.data.batching import BatchPlan
from ser_strategies.data.corpora.crema_d import CREMAD
from tests.cli.conftest import CPU, ENCODER, VANILLA, only_error
from tests.contained import contained
from tests.data import test_crema_d
from tests.programs import Ended, Program, end_after, is_there

# 8 speakers train, 3 validate and 3 test: 24 utterances are 3 steps of 8, and 9 cannot be halved.
SPEAKERS, EACH = 14, 3
WORDS = (
    *VANILLA,
    "--model.encoder_dropout=0",
    "--model.mask_time_probability=0",
    "--model.optimizer=SGD",
    "--model.encoder_lr=1e-2",
    "--model.head_lr=1e-2",
    "--model.conditions=[gender,text]",
    "--model.conditions_withheld=0",
    "--model.text_encoder=random:bert-tiny",
    "--data=Synthetic",
    f"--data.speakers={SPEAKERS}",
    f"--data.utterances_per_speaker={EACH}",
    "--trainer.max_epochs=2",
)
ONE = ("--data.batch_size=8", "--trainer.devices=1")
TWO = ("--data.batch_size=4", "--trainer.devices=2")
# What adapts an encoder, from units and by contrast.
DATA = ("--data=Synthetic", f"--data.speakers={SPEAKERS}", f"--data.utterances_per_speaker={EACH}")
MASKED = (
    f"--model.encoder={ENCODER}",
    "--model.mask_time_probability=0.3",
    "--trainer.max_epochs=1",
    "--trainer.num_sanity_val_steps=0",
    *CPU,
    *DATA,
)
UNITS = ("--model=PTAPT", "--model.clusters=[4,8]", "--model.kmeans_passes=3", *MASKED)
CONTRAST = ("--model=TAPT", "--model.fresh_quantiser=true", "--model.negatives=20", *MASKED)
# A student; masks of a clip are its own whatever its batch is, so that two processes train what one does.
TARGETS = (
    *("--model=Vesper", "--model.large_length=12", "--model.cache=stored", "--model.stored=float32"),
    *("--model.encoder_dropout=0", "--model.optimizer=SGD", "--model.encoder_lr=1e-2", *MASKED),
)
# What learns single raters.
RATERS = (
    *("--model=AnnotatorFineTuning", f"--model.encoder={ENCODER}", "--model.width=8", "--model.head_lr=1e-2"),
    *(*DATA, "--data.dimensions=[activation,valence]", "--data.rater_pool=6"),
    *("--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0", *CPU),
)
# A corpus on the disk, of which sounds can be spoilt.
SOUNDS = (
    *("--model=PartialFineTuning", f"--model.encoder={ENCODER}", *CPU),
    *("--data=CREMAD", "--data.root=crema", "--data.fold=3", "--data.batch_size=4", "--trainer.devices=2"),
    *("--trainer.max_epochs=2", "--trainer.num_sanity_val_steps=0"),
)
CACHED = ("--model=CachedFineTuning", *SOUNDS[1:], "--data.damaged=skip", "--model.cache=frames")


Command = Callable[[Any], None]
LIGHTNING = ("PL_", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_")


class Fork:
    """The second process of Lightning's launcher: a fork of the first, which spares it the imports.

    One test, of clips that are corrupt, lets Lightning start it from nothing.
    """

    def __init__(self, act: Command, words: Sequence[Any], environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(environment)
            end_after(act, words)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def two_forks(words: Sequence[Any], act: Command = main) -> None:
    """A command, or what else takes its words, whose second process is a fork."""
    start = SimpleNamespace(Popen=lambda command, env, cwd: Fork(act, words, env))
    subprocess_script.subprocess = start
    act(words)


def by_two_forks(folder: Path, words: Sequence[Any], act: Command = main) -> Ended:
    """What became of two processes of which the second is a fork."""
    return Program(two_forks, list(words), act, folder=folder, environment=unset()).wait()


def by_two(folder: Path, words: Sequence[str]) -> Ended:
    """What became of two processes of which Lightning starts the second from nothing."""
    return Program(front.main, list(words), folder=folder, environment=unset()).wait()


def unset() -> dict[str, None]:
    return {name: None for name in os.environ if name.startswith(LIGHTNING)}


def refused_by_two(folder: Path, *words: str, forks: bool = True) -> str:
    """The one sentence of a command of two processes that ends with a mistake, and all of them with it."""
    ended = (by_two_forks if forks else by_two)(folder, words)
    assert ended.code == 1, ended
    deadline = time.monotonic() + 30
    while is_there(ended.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_there(ended.pid)
    return only_error(ended.err)


class Ran(NamedTuple):
    """What was done by two processes, and the same by one; look, do not touch.

    Args:
        two: The folder in which two processes trained, tested and predicted.
        one: The folder in which one process did so.
        said: What the two said on stderr.
        spoilt: Sounds of the corpus in `two` that cannot be read, each met by another process.
    """

    two: Path
    one: Path
    said: str
    spoilt: set[Path]


def kinds(folder: Path) -> dict[str, tuple[str, ...]]:
    """The words of what adapts an encoder, once there is a teacher in a folder."""
    teacher = f"--model.teacher={folder / 'plain/best.ckpt'}"
    return {"units": (*UNITS, teacher), "contrast": CONTRAST, "targets": TARGETS}


def fit_by_two(folder: Path, kind: str) -> list[str]:
    return ["fit", *kinds(folder)[kind], *TWO, f"--trainer.default_root_dir={kind}"]


def each(commands: list[list[str]]) -> None:
    for words in commands:
        main(words)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Everything that two processes finish, in one pair of them."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    root = test_crema_d.write(two / "crema")
    spoilt = {heard_by(rank, root) for rank in (0, 1)}
    for path in spoilt:
        spoil(path)
    commands = [
        ["fit", *WORDS, *TWO, "--trainer.default_root_dir=plain"],
        ["test", *WORDS, *TWO, "--trainer.default_root_dir=plain"],
        ["predict", *WORDS, *TWO, "--trainer.default_root_dir=plain", "--output=said.csv"],
        *(fit_by_two(two, kind) for kind in EACH_TIME),
        ["validate", *kinds(two)["units"], *TWO, "--trainer.default_root_dir=units"],
        *([command, *RATERS, *TWO, "--trainer.default_root_dir=raters"] for command in ("fit", "test")),
        ["fit", *CACHED, "--trainer.default_root_dir=cached"],
    ]
    ended = by_two_forks(two, commands, each)
    assert ended.code == 0, ended
    with contained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(one)
        main(["fit", *WORDS, *ONE, "--trainer.default_root_dir=plain"])
        shutil.copy(two / "plain/best.ckpt", one / "best.ckpt")
        main(["test", *WORDS, *ONE, "--ckpt_path=best.ckpt"])
    return Ran(two, one, ended.err, spoilt)


def score_of(path: Path) -> dict:
    return json.loads(path.read_text())


def test_two_processes_score_a_checkpoint_like_one(ran):
    two, one = score_of(ran.two / "plain/test.json"), score_of(ran.one / "test.json")
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    assert two["confusion"] == one["confusion"]
    utterances = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH).split("test")
    assert len(utterances) % 2 == 1
    assert sum(map(sum, two["confusion"])) == len(utterances)


def test_two_processes_predict_every_utterance_once_and_in_order(ran):
    """Beside what one process scored, which is what one predicts."""
    two, one = pd.read_csv(ran.two / "said.csv"), pd.read_parquet(ran.one / "test.parquet")
    utterances = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH).split("test")
    assert list(two["id"]) == list(utterances["id"])
    likely = [name for name in one if name.startswith("probability/")]
    assert list(two) == ["id", "path", *likely, "label"]
    pd.testing.assert_frame_equal(two[likely], one[likely], atol=1e-6, check_dtype=False)
    assert list("probability/" + two["label"]) == list(one[likely].idxmax(axis=1))


def test_two_processes_train_the_weights_of_one_with_twice_the_batch(ran):
    one, two = (torch.load(path / "plain/last.ckpt", weights_only=True) for path in (ran.one, ran.two))
    assert one["global_step"] == two["global_step"] > 0
    start = VanillaFineTuning(ENCODER, num_classes=4)
    assert same_weights(one["state_dict"], two["state_dict"], start) > 1e-4


def same_weights(one: dict, two: dict, start: LightningModule) -> float:
    """How far the encoder of both is from its start: weights that never move are the same for any two."""
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-6, rtol=1e-4, msg=name)
    before = {name: weight for name, weight in start.state_dict().items() if name.startswith("encoder.")}
    return max((one[name] - weight).abs().max().item() for name, weight in before.items())


def test_two_processes_log_what_one_logs(ran):
    one, two = (score_of(path / "plain/fit.json") for path in (ran.one, ran.two))
    assert two["best"] == pytest.approx(one["best"], abs=1e-6)
    epoch = {
        name: value for name, value in one["metrics"].items() if name not in {"train/loss", "train/loss_step"}
    }
    assert {name: two["metrics"][name] for name in epoch} == pytest.approx(epoch, abs=1e-5)


def test_two_processes_cost_what_both_of_them_do(ran):
    costs = score_of(ran.two / "plain/costs.json")
    corpus = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH)
    heard = sum(len(corpus.waveform(row)) for row in corpus.split("train").to_dict("records"))
    assert costs["audio_seconds"] == 2 * heard / 16_000  # in two epochs
    assert (costs["processes"], costs["steps"], costs["skipped"]) == (2, 6, 0)
    assert [row["step"] for row in costs["trace"]] == [3, 6]
    assert costs["train_flops_per_audio_second"] > costs["inference_flops_per_audio_second"] > 0


def test_two_processes_leave_one_table_of_what_they_scored(ran):
    one, two = (pd.read_parquet(path / "test.parquet") for path in (ran.one, ran.two / "plain"))
    utterances = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH).split("test")
    assert list(two["id"]) == list(utterances["id"])
    pd.testing.assert_frame_equal(two, one, atol=1e-6)


def test_two_processes_learn_the_raters_of_one_and_score_every_rating_like_one(ran, here):
    """Distances, recalls and concordances, of all raters and of known ones, over the whole set."""
    path = shutil.copy(ran.two / "raters/best.ckpt", here / "best.ckpt")
    main(["test", *RATERS, *ONE, "--ckpt_path=best.ckpt"])
    one, two = score_of(here / "test.json"), score_of(ran.two / "raters/test.json")
    assert two["metrics"] == pytest.approx(
        one["metrics"] | {"test/loss": two["metrics"]["test/loss"]}, abs=1e-6
    )
    assert {"test/tvd", "test/jsd_known", "test/ccc_individual", "test/uar_cell"} <= set(one["metrics"])
    assert two["data"]["ratings"] == one["data"]["ratings"]
    tables = [pd.read_parquet(each) for each in (ran.two / "raters/test.parquet", here / "test.parquet")]
    pd.testing.assert_frame_equal(*tables, atol=1e-6)
    assert tables[0]["tvd"].mean() == pytest.approx(one["metrics"]["test/tvd"], abs=1e-6)
    corpus = Synthetic(
        speakers=SPEAKERS,
        utterances_per_speaker=EACH,
        rater_pool=6,
        single_ratings=True,
        dimensions=("activation", "valence"),
    )
    learned = torch.load(path, weights_only=True)
    assert tuple(learned["hyper_parameters"]["raters"]) == corpus.raters
    units = learned["state_dict"]["objective.model.units.weight"]
    assert len(units) == len(corpus.raters) == 6
    assert all(not torch.equal(units[0], each) for each in units[1:]), (
        "all raters begin alike, and learn apart"
    )


def test_one_configuration_and_one_log_are_written(ran):
    assert len(list((ran.two / "plain/logs").glob("*/metrics.csv"))) == 2  # one of fit, one of test
    assert sorted(path.name for path in (ran.two / "plain").glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_two_processes_warn_of_nothing(ran):
    strange = ("Warning", "recommended", "aware")
    assert [line for line in ran.said.splitlines() if any(word in line for word in strange)] == []


def test_two_processes_leave_out_of_a_cache_what_either_cannot_read(ran):
    unreadable = score_of(ran.two / "cached/fit.json")["data"]["unreadable"]
    assert set(unreadable) == {path.stem for path in ran.spoilt}
    assert len(unreadable) == 2


# Adapting an encoder ----------------------------------------------------------------------------------------

# What a loss by contrast shares is held in parts/test_sharing.py, too.
EACH_TIME = ("units", "targets")
KINDS = (*EACH_TIME, pytest.param("contrast", marks=pytest.mark.further))


@pytest.fixture(scope="module")
def adapted(ran) -> Callable[[str], Path]:
    """The folder in which two processes have adapted an encoder; look, do not touch."""

    def folder(kind: str) -> Path:
        if not (ran.two / kind).exists():
            ended = by_two_forks(ran.two, [fit_by_two(ran.two, kind)], each)
            assert ended.code == 0, ended
        return ran.two / kind

    return folder


def stored(folder: Path) -> tuple[str, dict[str, list[list[int]]], dict]:
    """Name of the store of a run, the units of every sound by its key, and the report."""
    (store,) = (folder / "units").iterdir()
    units: dict[str, list[list[int]]] = {}
    for path in store.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            facts = json.loads(shard.metadata()["utterances"])
            parts = shard.get_tensor("frames").split(facts["lengths"])
        assert not set(units) & set(facts["keys"]), "no sound is stored twice"
        units |= {key: part.tolist() for key, part in zip(facts["keys"], parts, strict=True)}
    return store.name, units, score_of(store / "units.json")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_validate_like_one_and_on_the_same_units(kind, ran, adapted, here):
    shutil.copy(adapted(kind) / "best.ckpt", here / "best.ckpt")
    words = [*kinds(ran.two)[kind], *ONE, "--ckpt_path=best.ckpt", "--trainer.default_root_dir=one"]
    main(["validate", *words])
    one, fitted = score_of(here / "val.json")["metrics"], score_of(adapted(kind) / "fit.json")
    assert {name: fitted["metrics"][name] for name in one} == pytest.approx(one, abs=1e-5)
    assert one["val/masked_frames"] > 100
    assert fitted["best"]["score"] == pytest.approx(one["val/loss"], abs=1e-5)
    if kind == "units":
        assert score_of(ran.two / kind / "val.json")["metrics"] == pytest.approx(one, abs=1e-5)
        assert stored(ran.two / kind) == stored(here / "one")
        assert len(list((ran.two / kind).rglob("*-of-002-*.safetensors"))) == 2
        assert fitted["units"] == stored(here / "one")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_on_every_masked_frame_together(kind, adapted):
    """What is logged of training adds up over both, and the loss is that of all frames, not of one half."""
    found = score_of(adapted(kind) / "fit.json")
    assert found["steps"] == 3
    assert found["metrics"]["train/masked_frames"] > 500  # a half has less
    assert 0 < found["metrics"]["train/loss"] < 10


def test_two_processes_train_the_student_of_one_with_twice_the_batch(ran, here):
    main(["fit", *TARGETS, *ONE, "--trainer.default_root_dir=one"])
    one, two = (
        torch.load(path / "last.ckpt", weights_only=True)["state_dict"]
        for path in (here / "one", ran.two / "targets")
    )
    assert same_weights(one, two, Vesper(ENCODER)) > 1e-3
    keys, alone = ([path.name for path in (folder / "stored").iterdir()] for folder in (ran.two, here))
    assert keys == alone


# What goes wrong --------------------------------------------------------------------------------------------


def heard_by(rank: int, root: Path) -> Path:
    """A sound that a process meets in the middle of the first epoch, and the other does not."""
    corpus = CREMAD(str(root), fold=3)
    rows = corpus.split("train")
    plan = BatchPlan(rows["seconds"].tolist(), batch_size=4, shuffle=True, rank=rank, processes=2)
    assert len(plan) > 3
    return root / rows["path"].iloc[list(plan)[2].positions[0]]


def spoil(path: Path) -> None:
    """As many bytes as before, so that it is taken for as long."""
    size = path.stat().st_size
    path.write_bytes((b"no sound " * size)[:size])


@pytest.mark.parametrize(("rank", "forks"), [(0, True), (1, False)])
def test_a_corrupt_clip_ends_all_processes_with_one_message_whoever_meets_it(rank, forks, tmp_path):
    """The second process that meets it is the one that is started from nothing, as users have it."""
    root = test_crema_d.write(tmp_path / "crema")
    path = heard_by(rank, root)
    spoil(path)
    said = refused_by_two(tmp_path, "fit", *SOUNDS, forks=forks)
    assert f"utterance {path.stem!r} of CREMAD cannot be used" in said
    assert not (tmp_path / "runs").exists()


def test_a_mistake_that_all_processes_make_is_told_once(tmp_path):
    root = test_crema_d.write(tmp_path / "crema")
    next((root / "AudioWAV").glob("*.wav")).unlink()
    said = refused_by_two(tmp_path, "fit", *SOUNDS)
    assert "1 of the 59 sounds that CREMAD needs are missing" in said
