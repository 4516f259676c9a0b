"""Vesper from the command line: estimated, killed and resumed, exported, refused as its own teacher."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

from ser_strategies import Encoder
from ser_strategies.cli import main
from ser_strategies.runs import chain
from ser_strategies.strategies import Vesper
from tests.cli.conftest import CPU, SMALL
from tests.contained import contained
from tests.programs import Program

WORDS = (
    *("--model=Vesper", "--model.encoder=random:wavlm-tiny-prenorm", "--model.large_length=12"),
    *("--model.cache=frames", *CPU, *SMALL, "--trainer.max_epochs=2"),
)


def killed(words):
    """Runs a stage that ends itself, as the system would, once its first epoch is kept."""
    begin = Vesper.on_train_epoch_start

    def end(self):
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        begin(self)

    Vesper.on_train_epoch_start = end
    main(words)


def facts(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and of its cache; look, do not touch."""
    folder = tmp_path_factory.mktemp("student")
    with contained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", *WORDS, "--trainer.default_root_dir=whole"])
    return folder


def test_an_estimate_tells_what_the_teachers_frames_take_and_writes_none(run, here, capsys):
    main(["estimate", "--json", *WORDS])
    told = json.loads(capsys.readouterr().out)
    assert list(here.iterdir()) == []
    costs = facts(run / "whole/costs.json")
    assert told["cache_missing_bytes"] == told["cache_bytes"]
    assert told["cache_bytes"] == pytest.approx(costs["cache_bytes"], rel=0.05)
    main(["estimate", "--json", *WORDS, "--model.live_teacher=true"])
    assert json.loads(capsys.readouterr().out)["cache_bytes"] == 0


def test_a_student_is_exported_with_a_note_and_over_nothing(run, here, refused, capsys):
    main(["export", str(run / "whole"), "--to", "student"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "wavlm, 121 k parameters, in student"
    assert said[1].startswith("note: this student has no norm above its last block")
    assert said[2].startswith("next: ser-strategies fit --model lora --model.encoder student")
    found, expected = (Encoder(str(path)).eval() for path in ("student", run / "whole/best.ckpt"))
    clip, length = torch.randn(1, 8_000), torch.tensor([8_000])
    with torch.no_grad():
        assert torch.equal(found(clip, length).values, expected(clip, length).values)
    assert "student is there already: name a folder that is not" in refused(
        "export", str(run / "whole"), "--to", "student"
    )
    assert "no checkpoint at" in refused("export", "whole", "--to", "other")


def test_a_chain_whose_compression_is_killed_goes_on_and_ends_like_one_that_was_not(
    run, here, monkeypatch, capsys
):
    """Its first stage is the run of all tests, so that nothing but the rest is run twice."""
    parsed = {"seed_everything": 0, "data": {"class_path": "Synthetic"}}
    parsed["data"]["init_args"] = {"speakers": 3, "utterances_per_speaker": 8}
    trainer = {"accelerator": "cpu", "enable_progress_bar": False}
    teacher = {"encoder": "random:wavlm-tiny-prenorm", "large_length": 12, "cache": "frames"}
    student = {"encoder": "runs/mine/1-compress/best.ckpt"}
    for name, kind, options, epochs in (
        ("1-compress", "Vesper", teacher, 2),
        ("2-finetune", "VanillaFineTuning", student, 1),
    ):
        place = {"max_epochs": epochs, "default_root_dir": f"runs/mine/{name}"}
        config = parsed | {"model": {"class_path": kind, "init_args": options}, "trainer": trainer | place}
        (here / "mine").mkdir(exist_ok=True)
        (here / f"mine/{name}.yaml").write_text(yaml.safe_dump(config))

    def die(words, lock):
        return Program(killed, list(words)).wait().code

    monkeypatch.setattr(chain, "run_in_terminal", die)
    with pytest.raises(SystemExit):
        main(["run", "mine"])
    assert "stopped at 1-compress, whose `fit` was ended by SIGKILL" in capsys.readouterr().err
    calls = []
    monkeypatch.setattr(chain, "run_in_terminal", lambda words, lock: calls.append(words) or main(words) or 0)
    main(["run", "mine"])
    assert calls[0][-2:] == ["--ckpt_path", "runs/mine/1-compress/last.ckpt"]
    assert [words[0] for words in calls] == ["fit", "fit", "test"]
    resumed, straight = facts("runs/mine/1-compress/fit.json"), facts(run / "whole/fit.json")
    for name in ("epochs", "steps", "metrics", "targets"):
        assert resumed[name] == straight[name]
    found, expected = (
        torch.load(path / "last.ckpt", weights_only=True)["state_dict"]
        for path in (Path("runs/mine/1-compress"), run / "whole")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    tested = facts("runs/mine/2-finetune/test.json")["encoder"]["source"]
    assert tested == str(here / "runs/mine/1-compress/best.ckpt")


def test_a_student_that_would_be_its_own_teacher_is_refused_in_a_sentence(run, here, refused):
    path = run / "whole/best.ckpt"
    sentence = refused("fit", *WORDS, f"--model.encoder={path}")
    assert f"{path} is such a student already, and cannot be its own teacher" in sentence
    assert not (here / "runs").exists()
    assert not (here / "frames").exists()
