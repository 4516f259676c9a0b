"""What is done about a stage, by what stands in its folder; nothing is trained here."""

import os
from pathlib import Path

import pytest
import torch

from ser_strategies.runs.fingerprints import DataPrint, hash_of
from ser_strategies.runs.plan import Step
from ser_strategies.runs.state import (
    FINISHED,
    STARTED,
    check_foreign,
    decide,
    differences,
    facts_of,
    new_results,
    results_in,
    write_stamp,
)
from tests.cli.test_chain_plan import planned, write_chain

DATA = DataPrint("T", "d", None, has_test=True)
FACTS = {
    "version": "1",
    "configuration": {
        "trainer": {"max_epochs": 3},
        "model": {"class_path": "a.Old", "init_args": {"x": 1, "optimizer": {"class_path": "torch.SGD"}}},
    },
    "data": {"task": "T", "digest": "d", "sounds": "s", "dated": "t"},
    "inputs": {"1-adapt/best.ckpt": "h"},
}


def step(folder: Path, **changes: object) -> Step:
    facts: dict = {
        "stage": "2-finetune",
        "fold": None,
        "seed": 1,
        "folder": folder,
        "config": {"trainer": {}, "model": {}, "data": {}},
        "portable": {"trainer": {}, "model": {}, "data": {}},
        "inputs": {},
        "sources": frozenset({"1-adapt"}),
        "wanted": (),
        "scores": True,
        "late_data": False,
    }
    return Step(**facts | changes)


def decided(folder: Path, *, facts=FACTS, overwrite=False, pending=(), **changes: object):
    return decide(step(folder, **changes), lambda: facts, overwrite=overwrite, pending=pending)


def fill(folder: Path) -> Path:
    """Makes a folder that of a finished and tested stage."""
    folder.mkdir()
    for name in ("best.ckpt", "last.ckpt", "fit.json", "test.json"):
        (folder / name).write_text(name)
    write_stamp(folder, FINISHED, FACTS, {})
    return folder


@pytest.fixture
def done(here):
    """The folder of a finished and tested stage."""
    return fill(here / "stage")


def test_a_finished_stage_is_skipped(done):
    assert decided(done) == ("skip", "nothing has changed")


def test_a_stage_that_is_not_there_is_run(here):
    assert decided(here / "stage") == ("run", "it has not been run yet")


def test_everything_is_run_again_where_that_is_asked_for(done):
    assert decided(done, overwrite=True) == ("run", "--overwrite")


def with_change(**changes) -> dict:
    facts = {name: value if isinstance(value, str) else dict(value) for name, value in FACTS.items()}
    for name, value in changes.items():
        facts[name] = value if isinstance(value, str) else {**facts[name], **value}
    return facts


ADAM = {"class_path": "torch.Adam"}
CHANGES = {
    "an option": (
        {"configuration": {"trainer": {"max_epochs": 5}}},
        "trainer.max_epochs changed 3 -> 5",
    ),
    "an option that is new": (
        {"configuration": {"trainer": {"max_epochs": 3, "max_time": None}}},
        "trainer.max_time changed nothing -> null",
    ),
    "a class, which tells all": (
        {"configuration": {"model": {"class_path": "a.New", "init_args": {"y": 2}}}},
        "model changed Old -> New",
    ),
    "a class within": (
        {"configuration": {"model": {"class_path": "a.Old", "init_args": {"x": 1, "optimizer": ADAM}}}},
        "model.optimizer changed SGD -> Adam",
    ),
    "the task": ({"data": {"task": "U", "digest": "e"}}, "the data changed T -> U"),
    "the table": ({"data": {"digest": "e"}}, "the data changed (digest d -> e)"),
    "the sounds": ({"data": {"sounds": "u", "dated": "v"}}, "sound files changed (names or contents)"),
    "the sounds, which are too many to read": (
        {"data": {"sounds": "v", "dated": "v"}},
        "sound files changed (names or contents)",
    ),
    "a checkpoint": ({"inputs": {"1-adapt/best.ckpt": "i"}}, "1-adapt/best.ckpt changed"),
    "the package": ({"version": "2"}, "ser-strategies changed 1 -> 2"),
}


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", [STARTED, FINISHED])
def test_a_stage_is_run_again_where_something_has_changed(changes, reason, state, done):
    write_stamp(done, state, FACTS, {})
    assert decided(done, facts=with_change(**changes)) == ("run", reason)


def test_data_that_were_copied_elsewhere_are_the_same(done):
    here, there = ({"data": {"init_args": {"root": root}}} for root in ("a", "b"))
    write_stamp(done, FINISHED, with_change(configuration=here), {})
    now = with_change(configuration=there, data={"dated": "of the copy"})
    assert decided(done, facts=now) == ("skip", "nothing has changed")
    unread = with_change(configuration=there, data={"sounds": "t"})
    assert decided(done, facts=unread)[0] == "run"


def test_a_stage_of_a_version_that_knew_sounds_by_their_times_is_the_same_while_they_are(done):
    write_stamp(done, FINISHED, with_change(data={"sounds": "t"}), {})
    assert decided(done) == ("skip", "nothing has changed")
    assert decided(done, facts=with_change(data={"dated": "later"}))[0] == "run"


def test_of_many_changes_three_are_told(done):
    changed = {"trainer": {"max_epochs": 5, "a": 1, "b": 2, "c": 3}}
    _, reason = decided(done, facts=with_change(configuration=changed))
    assert reason.endswith("trainer.c changed nothing -> 3 and 1 more")


def test_a_stage_that_was_stopped_goes_on(done):
    (done / "fit.json").unlink()
    write_stamp(done, STARTED, FACTS, {})
    assert decided(done) == ("resume", "it was stopped")
    (done / "last.ckpt").unlink()
    assert decided(done) == ("run", "it was stopped before its first checkpoint")


def test_a_stage_does_not_go_on_from_what_another_run_has_left(done):
    left = results_in(done)
    write_stamp(done, STARTED, FACTS, left)
    assert new_results(done, left) == set()
    assert decided(done) == ("run", "it was stopped before its first checkpoint")
    (done / "last.ckpt").write_text("of this run")
    assert new_results(done, left) == {"last.ckpt"}
    assert decided(done) == ("resume", "it was stopped")
    (done / "fit.json").write_text("of this run")
    assert decided(done) == ("test", "it is trained, but not tested")


def test_a_stage_that_was_stopped_before_its_test_is_tested(done):
    (done / "test.json").unlink()
    write_stamp(done, STARTED, FACTS, {})
    assert decided(done) == ("test", "it is trained, but not tested")
    assert decided(done, scores=False) == ("skip", "nothing has changed")


@pytest.mark.parametrize("state", [STARTED, FINISHED])
def test_a_stage_whose_checkpoint_is_wanted_and_gone_is_run_again(state, done):
    write_stamp(done, state, FACTS, {})
    (done / "best.ckpt").unlink()
    assert decided(done, wanted=("best.ckpt",)) == ("run", "its best.ckpt is gone")
    assert decided(done).action == "skip", "nobody needs it any more"
    (done / "test.json").unlink()
    assert decided(done) == ("run", "its best.ckpt is gone")


def test_in_a_rehearsal_a_stage_waits_for_what_it_starts_from(done):
    action, reason = decided(done, pending=("1-adapt",))
    assert action == "run"
    assert "starts from 1-adapt" in reason
    assert decided(done, pending=("0-other",)).action == "skip"


def test_a_run_that_is_not_of_a_chain_is_left_alone(here):
    folder = here / "stage"
    folder.mkdir()
    (folder / "notes.txt").touch()
    check_foreign(step(folder))
    (folder / "last.ckpt").touch()
    for check in (check_foreign, lambda each: decide(each, lambda: FACTS, overwrite=False)):
        with pytest.raises(FileExistsError, match=r"not of a chain \(last.ckpt.*--overwrite.*--out"):
            check(step(folder))
    assert decided(folder, overwrite=True).action == "run"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "finished"}', "\xff"])
def test_a_damaged_stamp_is_named_with_the_ways_out(text, done):
    (done / "stage.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"stage.json is damaged: give --overwrite .* or delete"):
        decided(done)
    assert decided(done, overwrite=True).action == "run"


def test_equal_facts_have_no_differences():
    assert differences(FACTS, FACTS) == []


def test_what_does_not_change_what_is_learned_is_not_compared(here):
    write_chain("mine")
    looks = {"trainer.enable_progress_bar": "true", "trainer.log_every_n_steps": "1", "data.workers": "1"}
    words = [f"--{name}={value}" for name, value in looks.items()]
    ((first, _),) = planned("mine")
    ((other, _),) = planned("mine", *words, "--trainer.logger=false", "--out=elsewhere")
    assert facts_of(first, DATA) == facts_of(other, DATA)
    ((longer, _),) = planned("mine", "--trainer.max_epochs=2")
    assert differences(facts_of(first, DATA), facts_of(longer, DATA)) == ["trainer.max_epochs changed 1 -> 2"]


def test_an_input_is_its_content(here):
    write_chain("mine")
    ((_, second),) = planned("mine")
    with pytest.raises(
        ValueError, match=r"2-finetune: .*1-adapt/best.ckpt is not there, although 1-adapt is"
    ):
        facts_of(second, DATA)
    path = second.inputs["1-adapt/best.ckpt"]
    path.parent.mkdir(parents=True)
    hashes = []
    for text in ("one", "two", "one"):
        path.write_text(text)
        os.utime(path, ns=(0, len(hashes)))
        hashes.append(facts_of(second, DATA)["inputs"]["1-adapt/best.ckpt"])
    assert hashes[0] == hashes[2] != hashes[1]
    assert hashes[0] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # sha256 of "one"


def test_an_input_that_is_a_checkpoint_is_its_weights(here):
    record = {"strategy": "X", "format": 1, "encoder": {"identity": {"source": "here", "family": "f"}}}
    whole = {
        "state_dict": {
            "a": torch.zeros(2, 3),
            "b": torch.ones((), dtype=torch.bfloat16),
            "c": torch.tensor([]),
        },
        "ser_strategies": record,
        "callbacks": {"seconds": 1.0},
    }
    other_place = {**record, "encoder": {"identity": {"source": "there", "family": "f"}}}
    other_encoder = {**record, "encoder": {"identity": {"source": "here", "family": "g"}}}
    another = {**whole["state_dict"], "a": torch.zeros(2, 3).index_fill(0, torch.tensor(1), 1e-30)}
    hashes = {}
    for name, changes in {
        "first": {},
        "time": {"callbacks": {"seconds": 2.0}},
        "place": {"ser_strategies": other_place},
        "encoder": {"ser_strategies": other_encoder},
        "weights": {"state_dict": another},
        "shape": {"state_dict": {**whole["state_dict"], "a": torch.zeros(3, 2)}},
        "name": {"state_dict": {"d" if each == "a" else each: w for each, w in whole["state_dict"].items()}},
    }.items():
        path = here / f"{name}.ckpt"
        torch.save({**whole, **changes}, path)
        hashes[name] = hash_of(path)
    same = {"first", "time", "place"}
    assert {name for name, found in hashes.items() if found == hashes["first"]} == same
    assert len(set(hashes.values())) == 1 + len(set(hashes) - same)


def test_an_input_that_is_a_folder_is_all_that_is_in_it(here):
    write_chain("mine", encoder2="runs/mine/1-adapt/model")
    ((_, second),) = planned("mine")
    folder = second.inputs["1-adapt/model"]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_text("one")
    before = facts_of(second, DATA)["inputs"]
    (folder / "weights").write_text("other")
    assert facts_of(second, DATA)["inputs"] != before
