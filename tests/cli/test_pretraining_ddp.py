"""Two processes find the units of one, and validate like one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ser_strategies.cli import main
from tests.cli.conftest import CPU, ENCODER, VANILLA
from tests.cli.test_ddp import EACH, ONE, SPEAKERS, TWO, launched
from tests.contained import contained

DATA = ("--data=Synthetic", f"--data.speakers={SPEAKERS}", f"--data.utterances_per_speaker={EACH}")
COMMON = (f"--model.encoder={ENCODER}", "--model.mask_time_probability=0.3", "--trainer.max_epochs=1")
UNITS = ("--model=PTAPT", "--model.clusters=[4,8]", "--model.kmeans_passes=3", *COMMON, *CPU, *DATA)
CONTRAST = ("--model=TAPT", "--model.fresh_quantiser=true", "--model.negatives=20", *COMMON, *CPU, *DATA)
# Masks of a clip are its own whatever its batch is: two processes train what one does with twice the batch.
TARGETS = (
    *("--model=Vesper", "--model.large_length=12", "--model.cache=frames", "--model.stored=float32"),
    *("--model.encoder_dropout=0", "--model.optimizer=SGD", "--model.encoder_lr=1e-2"),
    *(f"--model.encoder={ENCODER}", "--trainer.max_epochs=1", *CPU, *DATA),
)
# Lightning starts the second process with the words of the first.
SCRIPT = """
import json, sys
from ser_strategies.cli import main
for command, words in json.loads(sys.argv[1]):
    main([command, *words])
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A folder with a teacher, and with runs of both kinds by two processes, validated by them as well."""
    folder = tmp_path_factory.mktemp("together")
    with contained():
        where = f"--trainer.default_root_dir={folder / 'teacher'}"
        main(["fit", *VANILLA, *DATA, "--model.frame_loss_weight=1", "--trainer.max_epochs=1", where])
    (folder / "script.py").write_text(SCRIPT)
    words = [
        [command, [*of_kind, *TWO, f"--trainer.default_root_dir={name}"]]
        for name, of_kind in kinds(folder).items()
        for command in ("fit", "validate")
    ]
    said = launched(folder, "script.py", json.dumps(words))
    return folder, said


def kinds(folder: Path) -> dict[str, tuple[str, ...]]:
    return {
        "units": (*UNITS, f"--model.teacher={folder / 'teacher/best.ckpt'}"),
        "contrast": CONTRAST,
        "targets": TARGETS,
    }


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
    return store.name, units, json.loads((store / "units.json").read_text())


@pytest.mark.parametrize("kind", ["units", "contrast", "targets"])
def test_two_processes_validate_like_one_and_on_the_same_units(kind, together, here):
    folder, _ = together
    best = here / "best.ckpt"
    best.write_bytes((folder / kind / "best.ckpt").read_bytes())
    main(["validate", *kinds(folder)[kind], *ONE, f"--ckpt_path={best}", "--trainer.default_root_dir=one"])
    one = json.loads((here / "val.json").read_text())["metrics"]
    two = json.loads((folder / kind / "val.json").read_text())["metrics"]
    assert two == pytest.approx(one, abs=1e-5)
    assert one["val/masked_frames"] > 100
    fitted = json.loads((folder / kind / "fit.json").read_text())
    assert fitted["best"]["score"] == pytest.approx(one["val/loss"], abs=1e-5)
    if kind == "units":
        assert stored(folder / kind) == stored(here / "one")
        assert len(list((folder / kind).rglob("*-of-002-*.safetensors"))) == 2
        assert fitted["units"] == stored(here / "one")[2]


def test_two_processes_train_on_every_masked_frame_together(together):
    """What is logged of training adds up over both, and the loss is that of all frames, not of one half."""
    folder, _ = together
    for kind in kinds(folder):
        found = json.loads((folder / kind / "fit.json").read_text())
        assert found["steps"] == 3
        assert found["metrics"]["train/masked_frames"] > 500  # a half has less
        assert 0 < found["metrics"]["train/loss"] < 10


def test_two_processes_train_the_student_of_one_with_twice_the_batch(together, here):
    folder, _ = together
    main(["fit", *TARGETS, *ONE, "--trainer.default_root_dir=one"])
    main(["fit", *TARGETS, *ONE, "--trainer.default_root_dir=still", "--model.encoder_lr=0"])
    one, still, two = (
        torch.load(path / "last.ckpt", weights_only=True)["state_dict"]
        for path in (here / "one", here / "still", folder / "targets")
    )
    moved = 0.0
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-6, rtol=1e-4, msg=name)
        moved = max(moved, (weight - still[name]).abs().max().item())
    assert moved > 1e-3, "weights that never move are the same in any number of processes"
    keys = [path.name for path in (folder / "frames").iterdir()]
    assert keys == [path.name for path in (here / "frames").iterdir()]


def test_two_processes_that_adapt_warn_of_nothing(together):
    _, said = together
    assert [
        line for line in said.splitlines() if "Warning" in line or "recommended" in line or "aware" in line
    ] == []
