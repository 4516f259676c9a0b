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
from tests.cli.conftest import VANILLA, contained

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


def launched(folder: Path, *command: str) -> str:
    """What a command says on stderr, run by a fresh interpreter."""
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
    assert ran.returncode == 0, ran.stderr
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


def test_one_configuration_and_one_log_are_written(trained):
    folder, _ = trained
    assert len(list((folder / "two/logs").glob("*/metrics.csv"))) == 2  # one of fit, one of test
    assert sorted(path.name for path in (folder / "two").glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_two_processes_warn_of_nothing(trained):
    _, said = trained
    assert [
        line for line in said.splitlines() if "Warning" in line or "recommended" in line or "aware" in line
    ] == []
