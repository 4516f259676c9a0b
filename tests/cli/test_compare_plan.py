"""The plan of a comparison: which runs there are, and when two of them are the same."""

import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from ser_strategies import Augmentation, LoRAFineTuning, Synthetic, compare
from ser_strategies.cli.compare import parse
from ser_strategies.common.errors import MistypedError
from ser_strategies.data import contents
from ser_strategies.fit.noise import quiet
from ser_strategies.runs import api, grid
from ser_strategies.runs.arguments import CompareArguments
from ser_strategies.runs.fingerprints import DataPrints
from ser_strategies.runs.grid import merged, write_down
from ser_strategies.runs.plan import plan_grid
from tests.cli.conftest import DEMO, Noise
from tests.cli.test_chain_plan import Folds

SMALL = ("--data=Synthetic", "--data.speakers=5", "--data.utterances_per_speaker=8")
PRINTS = DataPrints()


def planned(*words, out="out"):
    quiet()
    return plan_grid(parse("compare", [*words, "--out", str(out)])[1], PRINTS)


def only(*words, out="out"):
    (cell,) = planned(*words, "--seeds=1", out=out)
    return cell


@pytest.fixture
def manifest(here):
    """A corpus of six speakers, whose protocol has folds; its sounds are not looked at."""
    rows = ["path,label,speaker,seconds"]
    for speaker in range(6):
        for number in range(8):
            name = f"{speaker}-{number}.wav"
            (here / name).write_bytes(b"RIFF")
            rows.append(f"{name},{('anger', 'joy')[number % 2]},s{speaker},1.0")
    (here / "mine.csv").write_text("\n".join(rows) + "\n")
    return ("--data=Manifest", f"--data.path={here / 'mine.csv'}", "--data.folds=3")


def test_every_strategy_runs_on_every_fold_with_every_seed(here, manifest):
    encoder = "--model.encoder=random:wav2vec2-tiny"
    cells = planned("--strategies", "vanilla", "lora", *manifest, encoder, "--folds=all", "--seeds=2")
    assert [(cell.seed, cell.fold, cell.name) for cell in cells] == [
        (seed, fold, name) for seed in (0, 1) for fold in (1, 2, 3) for name in ("vanilla", "lora")
    ]
    assert len({cell.hash for cell in cells}) == 12
    for cell in cells:
        config = cell.steps[0].config
        assert config["seed_everything"] == config["data"]["init_args"]["order_seed"] == cell.seed
        assert config["data"]["init_args"]["fold"] == cell.fold
        assert Path(config["trainer"]["default_root_dir"]) == cell.folder == Path("out/cells") / cell.hash


def test_a_corpus_without_folds_has_one(here):
    cells = planned("--strategies", "vanilla", *SMALL, "--folds=all", "--seeds=0,3")
    assert [(cell.fold, cell.seed) for cell in cells] == [(None, 0), (None, 3)]
    with pytest.raises(MistypedError, match="Synthetic has no option 'fold'"):
        planned("--strategies", "vanilla", *SMALL, "--folds=1..2")


def test_a_run_is_named_by_what_it_does(here):
    base = ("--strategies", "vanilla", *SMALL)
    same = only(*base).hash
    assert only(*base, out=here / "elsewhere").hash == same
    assert only(*base, "--trainer.enable_progress_bar=true", "--data.workers=1").hash == same
    assert only(*base, "--trainer.max_epochs=7").hash != same
    assert only(*base, "--model.head_lr=7e-3").hash != same
    assert only("--strategies", "vanilla", *SMALL[:2], "--data.utterances_per_speaker=9").hash != same


def test_caches_belong_to_the_comparison_unless_they_are_named(here):
    cell = only("--strategies", "cached", *SMALL)
    assert cell.cache == "out/cache"
    assert cell.hash == only("--strategies", "cached", *SMALL, out="another").hash
    named = only("--strategies", "cached", *SMALL, "--cached.model.cache=mine")
    assert named.cache == "mine"
    example = only(str(DEMO / "cached.yaml"), *SMALL)
    assert example.cache == "out/cache", "what another run has left there would pass for no cost"


def test_a_chain_hands_on_within_its_run(here):
    first, second = planned(str(DEMO / "ptapt"), *SMALL, "--seeds=2")
    assert first.facts["strategy"] == "VanillaFineTuning → PTAPT → VanillaFineTuning"
    folder = first.folder
    assert [step.folder for step in first.steps] == [
        folder / name for name in ("1-teacher", "2-adapt", "3-finetune")
    ]
    assert first.steps[1].config["model"]["init_args"]["teacher"] == f"{folder}/1-teacher/best.ckpt"
    assert second.folder != folder
    assert [step.scores for step in first.steps] == [False, False, True]
    assert first.kind == second.kind


def test_what_a_run_starts_from_counts_by_its_content(here):
    weights = here / "start.ckpt"
    weights.write_bytes(b"one")
    words = ("--strategies", "vanilla", *SMALL, f"--model.encoder={weights}")
    before = only(*words).hash
    weights.write_bytes(b"another")
    assert only(*words).hash != before


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ((), "3 epochs"),
        (("--epochs=4",), "4 epochs"),
        (("--steps=2000",), "2,000 steps"),
        (("--seconds=90",), "00:00:01:30 (d:h:m:s)"),
        (
            ("--epochs=9", "--patience=2"),
            "9 epochs, stopped after 2 validations without a better",
        ),
    ],
)
def test_the_budget_is_told(here, words, mode):
    assert only("--strategies", "vanilla", *SMALL, *words).facts["mode"] == mode


def test_strategies_that_are_one_are_refused(here):
    config = yaml.safe_load((DEMO / "vanilla.yaml").read_text())
    for name in ("one", "two"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(MistypedError, match="one and two are the same in all that matters"):
        planned("one.yaml", "two.yaml", *SMALL)


def test_what_predicts_no_emotion_is_refused(here):
    config = DEMO / "tapt" / "1-adapt.yaml"
    Path("adapt.yaml").write_text(config.read_text())
    with pytest.raises(MistypedError, match="TAPT predicts no emotion, so it has no score"):
        planned("adapt.yaml", *SMALL)


def test_a_mistake_in_options_names_the_strategy(here):
    with pytest.raises(MistypedError, match="lora: LoRAFineTuning has no option 'rang'; did you mean rank"):
        planned("--strategies", "vanilla", "lora", *SMALL, "--lora.model.rang=4")


def test_what_was_compared_before_stays_if_it_is_the_same_strategy(here):
    words = ("--strategies", "vanilla", "lora", *SMALL)
    first = merged({}, planned(*words, "--seeds=2"))
    assert len(first) == 4
    more = merged(first, planned(*words, "--seeds=2..3"))
    assert set(first) <= set(more)
    assert len(more) == 8
    other = merged(more, planned(*words, "--lora.model.rank=2", "--seeds=1"))
    assert sum(each["name"] == "lora" for each in other.values()) == 1
    assert sum(each["name"] == "vanilla" for each in other.values()) == 4


def test_other_sounds_or_labels_are_another_comparison(here, manifest):
    words = ("--strategies", "vanilla", *manifest, "--model.encoder=random:wav2vec2-tiny", "--folds=1")
    planned_anew = lambda *more: plan_grid(parse("compare", [*words, *more])[1], DataPrints())  # noqa: E731
    quiet()
    before = merged({}, planned_anew("--seeds=2"))
    assert len(merged(before, planned_anew("--seeds=1"))) == 2
    (here / "0-0.wav").write_bytes(b"RIFF another")
    assert len(merged(before, planned_anew("--seeds=1"))) == 1
    before = merged({}, planned_anew("--seeds=2"))
    text = Path("mine.csv").read_text()
    Path("mine.csv").write_text(text.replace("5-0.wav,anger", "5-0.wav,joy"))
    assert len(merged(before, planned_anew("--seeds=1"))) == 1


def test_a_copy_of_the_data_is_the_same_comparison(here, manifest, tmp_path, monkeypatch):
    words = (
        "--strategies",
        "vanilla",
        "--model.encoder=random:wav2vec2-tiny",
        "--data=Manifest",
        "--folds=1",
    )
    planned_anew = lambda *more: plan_grid(parse("compare", [*words, *more])[1], DataPrints())[0]  # noqa: E731
    quiet()
    before = planned_anew("--data.path=mine.csv", "--data.folds=3")
    there = tmp_path / "elsewhere"
    shutil.copytree(here, there, copy_function=shutil.copyfile)
    for words_of_it in (f"--data.path={there}/mine.csv", f"--data.path=mine.csv --data.root={there}"):
        copied = planned_anew(*words_of_it.split(), "--data.folds=3")
        assert (copied.hash, copied.kind) == (before.hash, before.kind)
        assert copied.steps[0].config["data"]["init_args"]["path"] == words_of_it.split()[0].partition("=")[2]
    (there / "0-0.wav").write_bytes(b"RIFX")  # as long as it was
    assert planned_anew(f"--data.path={there}/mine.csv", "--data.folds=3").hash != before.hash
    # Where there are too many to read, their times tell.
    monkeypatch.setattr(contents, "MOST_FILES", 5)
    os.utime(here / "0-0.wav", (1, 1))
    by_time = planned_anew("--data.path=mine.csv", "--data.folds=3")
    os.utime(here / "0-0.wav", (2, 2))
    assert planned_anew("--data.path=mine.csv", "--data.folds=3").hash != by_time.hash


def test_a_comparison_of_a_version_that_knew_sounds_by_their_times_is_gone_on_with(
    here, manifest, monkeypatch
):
    words = ["--strategies", "vanilla", *manifest, "--model.encoder=random:wav2vec2-tiny", "--folds=1"]
    asked = parse("compare", [*words, "--seeds=2", "--out=out"])[1]
    quiet()
    now = plan_grid(asked, DataPrints())
    with monkeypatch.context() as then:
        then.setattr(contents, "MOST_FILES", 0)
        before = plan_grid(asked, DataPrints())
    assert not {each.hash for each in before} & {each.hash for each in now}
    write_down(asked, before)
    assert [each.hash for each in plan_grid(asked, DataPrints())] == [each.hash for each in before]


def test_a_single_configuration_keeps_the_paths_below_its_own_folder(here):
    config = yaml.safe_load((DEMO / "vanilla.yaml").read_text())
    config["trainer"]["default_root_dir"] = "runs"
    config["model"]["init_args"]["encoder"] = "runs/adapted/best.ckpt"
    config["trainer"]["logger"] = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs/logs"}}
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    cell = only("mine.yaml", *SMALL)
    (step,) = cell.steps
    assert step.config["model"]["init_args"]["encoder"] == "runs/adapted/best.ckpt"
    assert step.config["trainer"]["logger"]["init_args"]["save_dir"] == f"{cell.folder}/logs"
    config["trainer"]["default_root_dir"] = "."
    Path("here.yaml").write_text(yaml.safe_dump(config))
    (step,) = only("here.yaml", *SMALL).steps
    assert step.config["data"]["class_path"] == "ser_strategies.Synthetic"


def test_a_run_has_the_same_name_wherever_the_command_is_given(here, monkeypatch):
    words = ("--strategies", "cached", *SMALL)
    before = only(*words, out=here / "out").hash
    (here / "out").mkdir()
    monkeypatch.chdir(here / "out")
    assert only(*words, out=here / "out").hash == before
    assert only(*words, out=".").hash == before


@pytest.fixture
def asked(monkeypatch):
    """What Python asks of the grid, with nothing run."""
    found = []

    def plan_only(arguments, *, verbose):
        found.append(arguments)
        return grid.Result("comparison", None)

    monkeypatch.setattr(api, "run_grid", plan_only)

    def ask(*given, **options):
        assert compare(*given, **options, out="out") == "comparison"
        return found[-1]

    return ask


def test_objects_describe_the_same_runs_as_words(here, asked):
    """Equal hashes: equal configurations, every option of them."""
    Path("mine.yaml").write_text(
        "model:\n  class_path: LoRAFineTuning\n"
        "  init_args: {encoder: random:wav2vec2-tiny, rank: 4, head_lr: 0.01}\n"
    )
    augmentation = ("--data.augmentation.gain=3", "--data.augmentation.speed=[0.9,1.1]")
    words = ("mine.yaml", "--strategies", "partial", *SMALL, *augmentation, "--epochs=2", "--seeds=0,7")
    expected = [cell.hash for cell in planned(*words, "--trainer.gradient_clip_val=0.5")]
    lora = LoRAFineTuning("random:wav2vec2-tiny", rank=4, head_lr=0.01, num_classes=4)
    change = Augmentation(gain=3, speed=(0.9, 1.1))
    corpus = Synthetic(speakers=5, utterances_per_speaker=8, augmentation=change)
    described = {
        "class_path": "Synthetic",
        "init_args": {"speakers": 5, "utterances_per_speaker": 8, "augmentation": change},
    }
    rest = {"trainer": {"gradient_clip_val": 0.5}, "epochs": 2, "seeds": [0, 7]}
    for data, mine in ((corpus, lora), (described, Path("mine.yaml"))):
        given = asked({"partial": "partial", "mine": mine}, data, **rest)
        assert [cell.hash for cell in plan_grid(given, PRINTS)] == expected


def test_a_corpus_and_a_strategy_of_ones_own_are_named_by_their_module(here, asked):
    given = asked({"mine": "frozen"}, Folds(order_seed=5), model={"encoder": "random:wav2vec2-tiny"}, seeds=1)
    assert given.options.common[:2] == ("--data=tests.cli.test_chain_plan.Folds", "--data.order_seed=5")
    quiet()
    (cell,) = plan_grid(given, PRINTS)
    assert cell.steps[0].config["data"]["class_path"] == "tests.cli.test_chain_plan.Folds"


class Foreign(Noise):
    """A corpus of a script."""


Foreign.__module__ = "__main__"
FROM_PYTHON = {
    "a corpus of a script": (({"a": "lora"}, Foreign()), {}, "Foreign is defined in __main__"),
    "no strategy": (([], "Synthetic"), {}, "nothing to compare"),
    "an unknown strategy": ((["lorra"], "Synthetic"), {}, "did you mean lora?"),
    "no class": (({"a": {"rank": 4}}, "Synthetic"), {}, "expected a dictionary with class_path"),
    "an object for an option": (
        (["lora"], "Synthetic"),
        {"trainer": {"callbacks": [object()]}},
        "trainer.callbacks is a object, which a process of its own cannot be given",
    ),
    "two budgets": ((["lora"], "Synthetic"), {"epochs": 1, "steps": 1}, "two budgets"),
    "no seeds": ((["lora"], "Synthetic"), {"seeds": 0}, "seeds 0 is no seed at all"),
    "folds in words": ((["lora"], "Synthetic"), {"folds": "some"}, "folds takes numbers"),
    "a budget of nothing": ((["lora"], "Synthetic"), {"steps": -1}, "steps must be 1 or more"),
    "an unknown score": ((["lora"], "Synthetic"), {"score": "f1macro"}, "did you mean f1_macro?"),
    "no deadline": ((["lora"], "Synthetic"), {"deadline": 0}, "deadline must be more than 0"),
}


@pytest.mark.parametrize(("given", "options", "expected"), FROM_PYTHON.values(), ids=FROM_PYTHON)
def test_a_mistake_in_python_is_a_value_error(given, options, expected, here):
    with pytest.raises(ValueError, match=re.escape(expected)):
        compare(*given, **options, out="out")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("option", ["dry_run", "words", "sedes"])
def test_python_takes_no_other_options(option, here):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        compare(["lora"], "Synthetic", **{option: True})


def test_python_has_every_option_of_a_comparison():
    """Those that are handed on as they are, and those that it takes in forms of its own."""
    own = {"strategies", "out", "words", "folds", "seeds", "budget", "dry_run", "public", "options"}
    own |= {"ensembles", "train_on", "test_on"}  # the last two are of the command line alone
    rules = set(api.CompareRules.__annotations__) - {"ensemble_by", "ensemble_class_wise"}
    assert rules == {each.name for each in fields(CompareArguments)} - own
