"""Two processes train, score and predict like one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from ser_strategies import Synthetic
from ser_strategies.cli import main
from ser_strategies.data.batching import BatchPlan
from ser_strategies.data.corpora.crema_d import CREMAD
from tests.cli.conftest import CPU, VANILLA, only_error
from tests.contained import contained
from tests.data import test_crema_d

# 8 speakers train, 3 validate and 3 test: 24 utterances are 3 steps of 8, and 9 cannot be halved.
SPEAKERS, EACH = 14, 3
WORDS = (
    *VANILLA,
    "--model.encoder_dropout=0",
    "--model.mask_time_probability=0",
    "--model.optimizer=SGD",
    "--model.encoder_lr=1e-2",
    "--model.head_lr=1e-2",
    "--data=Synthetic",
    f"--data.speakers={SPEAKERS}",
    f"--data.utterances_per_speaker={EACH}",
    "--trainer.max_epochs=2",
)
ONE = ("--data.batch_size=8", "--trainer.devices=1")
TWO = ("--data.batch_size=4", "--trainer.devices=2")
# Lightning starts the second process with the words of the first, so that they must be the process' own.
SCORE = """
import sys
from ser_strategies.cli import main
main(["test", *sys.argv[1:]])
main(["predict", *sys.argv[1:], "--output=two.csv"])
"""


def launched(folder: Path, *command: str, code: int = 0) -> str:
    """What a command says on stderr, run by a fresh interpreter, all of whose processes must end."""
    lightning = ("PL_", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(lightning)}
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    return ran.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the run `two`, trained, tested and predicted by two processes, and what they said."""
    folder = tmp_path_factory.mktemp("ddp")
    words = [*WORDS, *TWO, "--trainer.default_root_dir=two"]
    said = launched(folder, "-m", "ser_strategies", "fit", *words)
    (folder / "score.py").write_text(SCORE)
    said += launched(folder, "score.py", *words)
    return folder, said


def score_of(path: Path) -> dict:
    return json.loads(path.read_text())


def test_two_processes_score_a_checkpoint_like_one(trained, here):
    folder, _ = trained
    two = score_of(folder / "two/test.json")
    best = here / "best.ckpt"
    best.write_bytes((folder / "two/best.ckpt").read_bytes())
    main(["test", *WORDS, *ONE, f"--ckpt_path={best}"])
    one = score_of(here / "test.json")
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    assert two["confusion"] == one["confusion"]
    utterances = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH).split("test")
    assert len(utterances) % 2 == 1
    assert sum(map(sum, two["confusion"])) == len(utterances)


def test_two_processes_predict_every_utterance_once_and_in_order(trained, here):
    folder, _ = trained
    two = pd.read_csv(folder / "two.csv")
    utterances = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH).split("test")
    assert list(two["id"]) == list(utterances["id"])
    main(["predict", *WORDS, *ONE, f"--ckpt_path={folder / 'two/best.ckpt'}", "--output=one.csv"])
    pd.testing.assert_frame_equal(two, pd.read_csv("one.csv"), atol=1e-6)


def test_two_processes_train_the_weights_of_one_with_twice_the_batch(trained, here):
    folder, _ = trained
    main(["fit", *WORDS, *ONE, "--trainer.default_root_dir=one"])
    one, two = (torch.load(path / "last.ckpt", weights_only=True) for path in (here / "one", folder / "two"))
    assert one["global_step"] == two["global_step"] > 0
    moved = 0.0
    with contained():
        main(
            [
                "fit",
                *WORDS,
                *ONE,
                "--trainer.default_root_dir=start",
                "--trainer.max_epochs=1",
                "--model.encoder_lr=0",
            ]
        )
    start = torch.load(here / "start/last.ckpt", weights_only=True)["state_dict"]
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, atol=2e-6, rtol=1e-4, msg=name)
        if name.startswith("encoder."):
            moved = max(moved, (weight - start[name]).abs().max().item())
    assert moved > 1e-4, "weights that never move are the same in any number of processes"


def test_two_processes_log_what_one_logs(trained, here):
    folder, _ = trained
    main(["fit", *WORDS, *ONE, "--trainer.default_root_dir=one"])
    one, two = score_of(here / "one/fit.json"), score_of(folder / "two/fit.json")
    assert two["best"] == pytest.approx(one["best"], abs=1e-6)
    epoch = {
        name: value for name, value in one["metrics"].items() if name not in {"train/loss", "train/loss_step"}
    }
    assert {name: two["metrics"][name] for name in epoch} == pytest.approx(epoch, abs=1e-5)


def test_two_processes_cost_what_both_of_them_do(trained):
    folder, _ = trained
    costs = score_of(folder / "two/costs.json")
    corpus = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH)
    heard = sum(len(corpus.waveform(row)) for row in corpus.split("train").to_dict("records"))
    assert costs["audio_seconds"] == 2 * heard / 16_000  # in two epochs
    assert (costs["processes"], costs["steps"], costs["skipped"]) == (2, 6, 0)
    assert [row["step"] for row in costs["trace"]] == [3, 6]
    assert costs["train_flops_per_audio_second"] > costs["inference_flops_per_audio_second"] > 0


def test_two_processes_leave_one_table_of_what_they_scored(trained, here):
    folder, _ = trained
    best = here / "best.ckpt"
    best.write_bytes((folder / "two/best.ckpt").read_bytes())
    main(["test", *WORDS, *ONE, f"--ckpt_path={best}"])
    one, two = (pd.read_parquet(path / "test.parquet") for path in (here, folder / "two"))
    utterances = Synthetic(speakers=SPEAKERS, utterances_per_speaker=EACH).split("test")
    assert list(two["id"]) == list(utterances["id"])
    pd.testing.assert_frame_equal(two, one, atol=1e-6)


def test_one_configuration_and_one_log_are_written(trained):
    folder, _ = trained
    assert len(list((folder / "two/logs").glob("*/metrics.csv"))) == 2  # one of fit, one of test
    assert sorted(path.name for path in (folder / "two").glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_two_processes_warn_of_nothing(trained):
    _, said = trained
    assert [
        line for line in said.splitlines() if "Warning" in line or "recommended" in line or "aware" in line
    ] == []


# What goes wrong --------------------------------------------------------------------------------------------

SOUNDS = (
    *("--model=PartialFineTuning", "--model.encoder=random:wav2vec2-tiny", *CPU),
    *("--data=CREMAD", "--data.root=crema", "--data.fold=3", "--data.batch_size=4", "--trainer.devices=2"),
    *("--trainer.max_epochs=2", "--trainer.num_sanity_val_steps=0"),
)


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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_corrupt_clip_ends_all_processes_with_one_message_whoever_meets_it(rank, tmp_path):
    root = test_crema_d.write(tmp_path / "crema")
    path = heard_by(rank, root)
    spoil(path)
    said = launched(tmp_path, "-m", "ser_strategies", "fit", *SOUNDS, code=1)
    assert f"utterance {path.stem!r} of CREMAD cannot be used" in only_error(said)
    assert not (tmp_path / "runs").exists()


def test_a_mistake_that_all_processes_make_is_told_once(tmp_path):
    root = test_crema_d.write(tmp_path / "crema")
    next((root / "AudioWAV").glob("*.wav")).unlink()
    said = launched(tmp_path, "-m", "ser_strategies", "fit", *SOUNDS, code=1)
    assert "1 of the 59 sounds that CREMAD needs are missing" in only_error(said)


def test_two_processes_leave_out_of_a_cache_what_either_cannot_read(tmp_path):
    root = test_crema_d.write(tmp_path / "crema")
    broken = {heard_by(rank, root) for rank in (0, 1)}
    for path in broken:
        spoil(path)
    words = ("--model=CachedFineTuning", *SOUNDS[1:], "--data.damaged=skip", "--model.cache=frames")
    launched(tmp_path, "-m", "ser_strategies", "fit", *words, "--trainer.default_root_dir=two")
    assert set(score_of(tmp_path / "two/fit.json")["data"]["unreadable"]) == {path.stem for path in broken}
