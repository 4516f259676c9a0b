"""What a user meets every day: short names, a run's folder as its whole description, readable scores."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ser_strategies.cli import main
from ser_strategies.common.careful_yaml import read_yaml
from ser_strategies.fit.shorthand import FULL_NAMES, completed, with_full_names
from ser_strategies.runs.presets import PRESETS
from ser_strategies.strategies import STRATEGIES
from tests.cli.conftest import CPU, ENCODER, SMALL, VANILLA, everything_in

FIT = ("fit", *VANILLA, *SMALL)


@pytest.fixture
def run(finished, here):
    """A copy of a finished run, to be tested again."""
    shutil.copytree(finished.folder, here / "run", ignore=shutil.ignore_patterns("logs"))
    return here / "run"


# Names ------------------------------------------------------------------------------------------------------


def test_every_strategy_has_the_short_name_that_compare_has():
    assert set(FULL_NAMES.values()) == {kind.__name__ for kind in STRATEGIES}
    # Of single raters there is no table with classes: its baselines are options of its own.
    assert set(PRESETS) - {"frozen", "cached-head"} == set(FULL_NAMES) - {"annotator"}


@pytest.mark.parametrize("words", [["--model", "lora"], ["--model=lora"], ["--model.help", "lora"]])
def test_a_short_name_is_written_out(words):
    assert "LoRAFineTuning" in " ".join(with_full_names(["fit", *words]))


def test_other_words_stay_as_they_are():
    words = ["--model.encoder", "lora", "--model", "LoRAFineTuning", "--data=lora"]
    assert with_full_names(words) == words


@pytest.mark.parametrize("command", ["fit", "estimate"])
def test_a_short_name_is_a_strategy_in_every_command(command, here, capsys):
    words = ["--model=partial", f"--model.encoder={ENCODER}", "--model.top_blocks=1", *CPU, *SMALL]
    main([command, *words])
    assert "PartialFineTuning" in capsys.readouterr().out


OWN = '''
from typing import final
from ser_strategies.strategies import Recognizer

@final
class HeadOnly(Recognizer):
    """Trains the head."""

    def __init__(self, encoder: str, **options):
        super().__init__(encoder, **options)
        for parameter in self.encoder.parameters():
            parameter.requires_grad = False
'''


def test_a_class_in_the_current_folder_is_found(here, capsys, monkeypatch):
    (here / "my_strategies.py").write_text(OWN)
    main(["fit", "--model=my_strategies.HeadOnly", f"--model.encoder={ENCODER}", *CPU, *SMALL])
    assert "HeadOnly trains" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "nowhere_at_all.Mine",
            "there is no module nowhere_at_all, neither installed nor in the current folder",
        ),
        ("my_module.Min", "has no class Min; did you mean Mine?"),
        ("needs_more.Mine", "needs_more needs not_installed, which is not installed"),
        ("broken.Mine", "importing broken failed (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_class_that_is_not_found_says_why(name, sentence, here, refused):
    (here / "my_module.py").write_text("class Mine: pass")
    (here / "needs_more.py").write_text("import not_installed")
    (here / "broken.py").write_text("1 / 0")
    said = refused("fit", f"--model={name}", *SMALL)
    assert f"--model {name} cannot be used: " in said
    assert sentence in said


def test_a_slip_in_a_short_name_is_understood(here, refused):
    assert "--model partail is not known" in (said := refused("fit", "--model=partail", *SMALL))
    assert "did you mean partial?" in said


def test_a_checkpoint_that_is_not_there_is_named(here, refused):
    assert "--ckpt_path nowhere does not exist: expected a checkpoint" in refused(
        "test", "--ckpt_path=nowhere"
    )


# A run's folder ---------------------------------------------------------------------------------------------


def test_a_run_is_tested_by_its_folder_alone(run, finished, capsys):
    (run / "test.json").unlink()
    main(["test", "--ckpt_path", str(run), "--trainer.enable_progress_bar=false"])
    again = json.loads((run / "test.json").read_text())
    assert again["metrics"] == finished.facts("test.json")["metrics"]
    said = capsys.readouterr().out
    share = again["metrics"]["test/ua"]
    assert re.search(rf"unweighted accuracy \(UA\) +{100 * share:.1f} %", said)
    assert not re.search(r"\d\.\d{6}", said)
    assert f"written to {run / 'test.json'}" in said


def test_what_is_given_stands_before_what_the_run_says(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "best.ckpt").touch()
    whole = completed("test", ["--ckpt_path", str(tmp_path), "--data.fold=2"])
    assert whole[:2] == ["--config", str(tmp_path / "config.yaml")]
    assert whole[-3:] == ["--ckpt_path", str(tmp_path / "best.ckpt"), "--data.fold=2"]
    given = ["--model=VanillaFineTuning", f"--ckpt_path={tmp_path}"]
    assert completed("test", given) == [given[0], f"--ckpt_path={tmp_path / 'best.ckpt'}"]
    assert completed("fit", given) == given


def test_what_describes_the_corpus_of_a_run_does_not_describe_another(tmp_path):
    (tmp_path / "best.ckpt").touch()
    options = {"root": "here", "dimensions": ["valence"], "batch_size": 7}
    data = {"class_path": "ser_strategies.CREMAD", "init_args": options}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 3, "data": data}))
    given = ["--ckpt_path", str(tmp_path)]
    _, config, *_ = completed("test", [*given, "--data=Folder"])
    told = yaml.safe_load(Path(config).read_text())
    assert told == {"seed_everything": 3, "data": data | {"init_args": {"batch_size": 7}}}
    for corpus in ("CREMAD", "ser_strategies.CREMAD"):
        assert completed("test", [*given, "--data", corpus])[1] == str(tmp_path / "config.yaml")


def test_the_result_of_another_task_does_not_replace_the_runs_own(run, capsys):
    before = {name: (run / name).read_bytes() for name in ("test.json", "test.parquet")}
    known = everything_in(run)
    other = ("--data.utterances_per_speaker=9", "--trainer.enable_progress_bar=false")
    main(["test", "--ckpt_path", str(run), *other])
    assert {name: (run / name).read_bytes() for name in before} == before
    new = {name for name in everything_in(run) - known if not name.startswith("logs")}
    assert len(new) == 2
    table = next(name for name in new if name.startswith("test-Synthetic") and name.endswith(".parquet"))
    assert len(pd.read_parquet(run / table)) == 9
    assert table.replace(".parquet", ".json") in capsys.readouterr().out


# What a fit says --------------------------------------------------------------------------------------------


def test_a_fit_tells_each_validation_and_ends_with_the_best(here, capsys):
    main([*FIT, "--trainer.max_epochs=2"])
    said = capsys.readouterr().out
    best = json.loads((here / "runs/vanilla/fit.json").read_text())["best"]
    told = re.findall(r"epoch (\d): validation UA ([\d.]+) %, loss [\d.]+", said)
    assert [epoch for epoch, _ in told] == ["0", "1"]
    assert dict(told)[str(best["epoch"])] == f"{100 * best['score']:.1f}"
    assert f"in epoch {best['epoch']}, in runs/vanilla/best.ckpt" in said
    assert "ser-strategies test --ckpt_path runs/vanilla" in said.splitlines()[-2]


def test_a_class_that_does_not_occur_in_a_split_is_noted(here, capsys):
    noise = ("--data=tests.cli.conftest.Noise", "--data.used=3", "--trainer.max_epochs=1")
    main(["fit", *VANILLA, *noise])
    assert "note: no val utterance is of class sadness" in capsys.readouterr().out


# What cannot be meant ---------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "--trainer.max_epochs=inf": "max_epochs",
    "--trainer.gradient_clip_val=-1": "gradient_clip_val must be 0 (no clipping) or more, got -1",
    "--trainer.accumulate_grad_batches=0": "accumulate_grad_batches must be more than 0, got 0",
    "--trainer.val_check_interval=0": "val_check_interval must be more than 0, got 0",
    "--trainer.check_val_every_n_epoch=5": "the run has 1 epochs, so it would never validate",
    "--trainer.limit_train_batches=0": "limit_train_batches is 0, so nothing would train",
    "--trainer.max_time=00:00:00:00": "max_time must be DD:HH:MM:SS, as 00:02:00:00, and more than nothing",
    "--trainer.max_time=5": "max_time must be DD:HH:MM:SS, as 00:02:00:00, and more than nothing; got 5",
    "--trainer.default_root_dir=/dev/null/x": "must name a folder for the run, got '/dev/null/x', and",
    "--seed_everything=true": "--seed_everything must be a whole number",
    "--output=x.csv": "--output is an option of predict",
}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("fit", option) for option in IMPOSSIBLE),
        *(("estimate", option) for option in list(IMPOSSIBLE)[:7:3]),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_sentence(command, option, here, capsys):
    """An estimate reads its words as a fit does: a third of them."""
    with pytest.raises(SystemExit) as stop:
        main([command, *VANILLA, *SMALL, option])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert IMPOSSIBLE[option] in said
    assert said.count("error: ") == 1
    assert everything_in(here) == set()


def test_validation_beyond_the_run_is_refused(refused):
    said = refused(*FIT, "--trainer.val_check_interval=99", "--trainer.check_val_every_n_epoch=null")
    assert "so the run would never validate" in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}\n", "trainer stands twice, in lines 1 and 2"),
        ("a: &a [*a]\n", "refers to itself"),
        (
            "a0: &a0 [1, 2]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            "more than 50,000 values",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_sentence(text, sentence, here, refused):
    (here / "x.yaml").write_text(text)
    assert sentence in refused("fit", "--config=x.yaml", *VANILLA, *SMALL)


def test_a_file_may_refer_to_what_it_has_said(here):
    (here / "y.yaml").write_text("a: &a {x: 1}\nb:\n  <<: *a\n  y: *a\n")
    assert read_yaml(here / "y.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": {"x": 1}}}
