"""What a run will take, told before it begins: batches, time, memory, disk; and nothing is left behind."""

import json
import math

import pytest
import torch
from lightning.pytorch import Trainer

from ser_strategies import Synthetic
from ser_strategies.cli import main
from ser_strategies.data.batching import BatchPlan
from ser_strategies.estimates.dry_run import Watch
from ser_strategies.estimates.estimating import course_of
from ser_strategies.estimates.stand_ins import Workload, programme, used
from ser_strategies.strategies import Recognizer
from tests.cli.conftest import CPU, ENCODER, SMALL, VANILLA, everything_in

CACHED = ("--model=CachedFineTuning", f"--model.encoder={ENCODER}", "--model.cache=frames", *CPU, *SMALL)
FRESH = ("--model.fresh_quantiser=true", "--model.mask_time_length=4")


@pytest.fixture(autouse=True)
def own_folder(here, monkeypatch):
    """Nothing is looked for, or left, in the user's home."""
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(here / "elsewhere"))


@pytest.fixture
def watched(monkeypatch):
    """The batches of dry runs, as ids, each with whether the optimizer had made its state then."""
    seen = []
    real = Watch.on_train_batch_start

    def look(self, trainer, pl_module, batch, batch_idx):
        ids = getattr(batch, "batch", batch).ids
        seen.append((ids, bool(trainer.optimizers[0].state)))
        real(self, trainer, pl_module, batch, batch_idx)

    monkeypatch.setattr(Watch, "on_train_batch_start", look)
    return seen


def told(capsys, *words):
    """The figures of an estimate."""
    main(["estimate", "--json", *words])
    return json.loads(capsys.readouterr().out)


# Which batches ----------------------------------------------------------------------------------------------


def plan_of(seconds, processes=1, **options):
    options = {"batch_size": 4, "batch_seconds": None} | options
    return BatchPlan(seconds, shuffle=True, processes=processes, **options)


def test_the_biggest_batches_of_all_epochs_are_found():
    seconds = [20.0, *[5.0] * 30, *[1.0] * 40]
    plan = plan_of(seconds, batch_size=32, batch_seconds=30.0)
    load = Workload(plan, epochs=5, used=len(plan), longest=None)
    sizes = []
    for epoch in range(5):
        plan.set_epoch(epoch)
        sizes += [(len(b.positions), max(seconds[p] for p in b.positions)) for b in plan]
    most = max(count * longest for count, longest in sizes)
    squared = max(count * longest**2 for count, longest in sizes)
    found = [load.size(batch) for batch in load.biggest]
    assert len(found) == 2, "one long clip for attention, many short ones for all else"
    assert max(size.padded for size in found) == pytest.approx(most)
    assert max(size.squared for size in found) == pytest.approx(squared) == 400


def test_clips_count_as_long_as_the_encoder_hears_them():
    load = Workload(plan_of([20.0, 4.0, 2.0, 2.0, 1.0]), epochs=1, used=2, longest=3.0)
    assert [load.size(batch).padded for batch in load.batches] == [1.0, 12.0]
    assert load.padded == 13.0


@pytest.mark.parametrize(("limit", "expected"), [(None, 5), (1.0, 5), (0.5, 2), (3, 3), (9, 5), (0, 0)])
def test_as_many_batches_are_used_as_the_trainer_uses(limit, expected):
    assert used(plan_of([1.0] * 20), limit) == expected


def test_batches_that_are_timed_stand_for_all_wherever_they_end():
    seconds = [float(number) for number in range(1, 65)]
    load = Workload(plan_of(seconds, batch_size=1), epochs=1, used=64, longest=None)
    mean = load.padded / 64
    for count, tolerance in ((3, 0.05), (7, 0.05), (24, 0.05)):
        chosen = [load.size(batch).padded for batch in load.typical(count)]
        assert sum(chosen) / count == pytest.approx(mean, rel=tolerance)
    few = Workload(plan_of([1.0, 1.0]), epochs=1, used=1, longest=None)
    assert len(few.typical(5)) == 5


def test_the_optimizer_has_its_state_before_the_biggest_batches_come():
    load = Workload(plan_of([1.0] * 20), epochs=1, used=5, longest=None)
    plain = programme(load, None, accumulate=3, scaled=False)
    assert plain.first_timed == 3 + len(load.biggest)
    assert programme(load, load, accumulate=1, scaled=True).first_timed == 8 + len(load.biggest)
    assert plain.val == []


@pytest.mark.parametrize(
    ("options", "epochs", "batches", "validations"),
    [
        ({"max_epochs": 3}, 3, 30, 1),
        ({"max_epochs": -1}, None, None, 1),
        ({}, 1000, 10_000, 1),
        ({"max_steps": 25}, 3, 25, 1),
        ({"max_epochs": 2, "max_steps": 25}, 2, 20, 1),
        ({"max_steps": 5, "accumulate_grad_batches": 4}, 2, 20, 1),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, 4, 40, 0.5),
        ({"max_epochs": 4, "val_check_interval": 0.5}, 4, 40, 2),
        ({"max_epochs": 4, "val_check_interval": 3}, 4, 40, 3),
    ],
)
def test_a_run_goes_on_as_long_as_its_trainer_says(options, epochs, batches, validations):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
    }
    course = course_of(Trainer(**quiet, **options), 10, 4)
    assert (course.epochs, course.batches, course.validations) == (epochs, batches, validations)


# What it says -----------------------------------------------------------------------------------------------


def test_what_is_estimated_is_what_the_run_then_leaves(here, watched, capsys):
    words = (*VANILLA, *SMALL, "--data.batch_size=3")
    said = told(capsys, *words)
    assert everything_in(here) == set()
    assert not watched[0][1]
    assert all(stepped for _, stepped in watched[1:])
    rows = Synthetic(speakers=3, utterances_per_speaker=8).split("train")
    longest = rows.nlargest(3, "seconds")
    assert set(longest["id"]) in [set(ids) for ids, _ in watched[1:3]]
    assert said["biggest_batch"]["utterances"] == 3
    assert said["processes"] == 1

    main(["fit", *words, "--trainer.default_root_dir=run"])
    took = json.loads((here / "run" / "costs.json").read_text())
    assert said["memory_kind"] == took["memory_kind"]
    assert said["device"] == took["device"]
    assert said["epochs"] == took["epochs"]
    assert said["checkpoint_bytes"] == pytest.approx(took["checkpoint_bytes"], rel=0.02)
    assert said["peak_memory_bytes"] == pytest.approx(took["peak_memory_bytes"], rel=0.15)
    assert said["cache_bytes"] == took["cache_bytes"] == 0
    assert said["train_seconds"] > 0 < said["validation_seconds"]
    for name in ("inference_parameters", "inference_bytes", "inference_flops_per_audio_second"):
        assert said[name] == took[name] > 0


def test_a_finished_run_in_the_same_folder_is_not_disturbed(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    said = told(capsys, *finished.words)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before
    assert said["checkpoint_bytes"] == pytest.approx(finished.best.stat().st_size, rel=0.02)


def test_a_cache_is_reckoned_and_not_written(here, capsys):
    said = told(capsys, *CACHED)
    assert everything_in(here) == set()
    assert said["cache_missing_bytes"] == said["cache_bytes"] > 0
    assert said["cache_build_seconds"] > 0
    main(["fit", *CACHED, "--trainer.default_root_dir=run"])
    took = json.loads((here / "run" / "costs.json").read_text())
    assert said["cache_bytes"] == pytest.approx(took["cache_bytes"], rel=0.03)

    capsys.readouterr()
    before = everything_in(here)
    again = told(capsys, *CACHED)
    assert again["cache_missing_bytes"] == again["cache_build_seconds"] == 0
    assert everything_in(here) == before


@pytest.mark.parametrize("objective", ["contrastive", "units"])
def test_an_adaptation_is_estimated_without_making_its_units(objective, here, capsys):
    words = (
        "--model=TAPT",
        f"--model.encoder={ENCODER}",
        f"--model.objective={objective}",
        *FRESH,
        *CPU,
        *SMALL,
    )
    said = told(capsys, *words)
    assert everything_in(here) == set()
    assert said["units"] == (objective == "units")
    assert said["cache_bytes"] == (None if objective == "units" else 0)
    assert said["train_seconds"] > 0


def test_an_estimate_is_a_few_plain_lines(here, capsys):
    main(["estimate", *CACHED])
    lines = capsys.readouterr().out.splitlines()
    starts = ["CachedFineTuning on CPU", "memory: ", "time: ", "checkpoint: ", "cache: ", "as shipped: "]
    starts += ["it fits into "]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 7
    assert "1 epoch" in lines[2]


def test_of_several_processes_one_is_estimated(here, capsys):
    words = (*VANILLA, *SMALL, "--data.batch_size=2", "--trainer.devices=2")
    two = told(capsys, *words)
    assert two["processes"] == 2
    assert two["epoch_train_seconds"] > 0
    main(["estimate", *words])
    assert "for one of 2 processes" in capsys.readouterr().out


def test_a_run_without_end_without_validation_and_without_checkpoints(here, capsys):
    none = ("--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false")
    said = told(capsys, *VANILLA, *SMALL, "--trainer.max_epochs=-1", *none)
    assert said["epochs"] is said["train_seconds"] is said["checkpoint_bytes"] is None
    assert said["epoch_validation_seconds"] == 0 < said["epoch_train_seconds"]


def test_what_does_not_fit_says_so_and_ends_with_1(here, monkeypatch, capsys):
    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate 2.00 TiB")

    monkeypatch.setattr(Recognizer, "training_step", out_of_memory)
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            main(["estimate", *words, *VANILLA, *SMALL])
        assert stop.value.code == 1
        said = capsys.readouterr().out
        if not words:
            assert "memory: more than there is; the biggest batch is 8 utterances" in said
            assert "it does not fit" in said
    facts = json.loads(said)
    assert facts["fits"] is False
    assert facts["peak_memory_bytes"] is facts["train_seconds"] is None


def test_times_add_up_from_the_pace_of_what_was_timed():
    from ser_strategies.estimates.estimating import Course, times

    load = Workload(plan_of([2.0] * 40), epochs=1, used=10, longest=None)
    todo = programme(load, load, accumulate=1, scaled=False)
    watch = Watch(todo, accumulate=1, folder=None, prepare=lambda: None)
    watch.timed, watch.train_seconds = todo.train[-3:], 6.0  # 2 s a batch
    watch.val_seconds = 3.0  # of six batches
    watch.first_step, watch.checkpoint_seconds = 7.0, 0.25
    found = times(watch, todo, load, load, Course(3, 10, 1.0, 30))
    assert found["epoch_train_seconds"] == pytest.approx(10 * 2 + 2 * 0.25)
    assert found["epoch_validation_seconds"] == pytest.approx(5.0)
    assert found["train_seconds"] == pytest.approx(3 * 20.5 + 5.0)
    assert found["validation_seconds"] == pytest.approx(15.0)
    assert math.isclose(times(watch, todo, load, None, Course(3, 10, 0.0, 30))["epoch_train_seconds"], 20.25)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_it_explains_itself(words, capsys):
    main(["estimate", *words])
    said = capsys.readouterr().out
    assert "--json" in said
    assert "ser-strategies fit --help" in said


# Mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("estimate", *VANILLA, *SMALL, "--model.poolling=mean"), "did you mean pooling?"),
        (("estimate", "--config=nowhere.yaml"), "--config nowhere.yaml does not exist"),
        (("estimate", *VANILLA, *SMALL, "--jsn"), "'jsn' is no option here"),
        (("estimate", *VANILLA, *SMALL, "--trainer.max_epochs=0"), "nothing would train"),
        (("estimate", *VANILLA, *SMALL, "--trainer.limit_train_batches=0.1"), "leaves none of 1 batches"),
    ],
    ids=["option", "file", "word", "epochs", "batches"],
)
def test_a_mistake_is_one_sentence(refused, words, said):
    assert said in refused(*words)
