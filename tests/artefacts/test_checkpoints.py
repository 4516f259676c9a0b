"""What earlier versions have trained says the same as ever, is an encoder to start from, and goes on."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_strategies import load_strategy
from ser_strategies.cli import main
from ser_strategies.strategies import STRATEGIES
from tests.artefacts.answers import answers, scores
from tests.artefacts.conftest import EXPECTED, HERE, VERSIONS
from tests.artefacts.moved import move

# What stands in the artefacts for the folder that they were written in.
NOWHERE = "/home/someone/work"


def options_of(run: str) -> dict[str, Any]:
    options: dict[str, Any] = yaml.safe_load(Path("runs", run, "config.yaml").read_text("utf-8"))
    return options


@pytest.mark.smoke
@pytest.mark.parametrize("name", sorted({name for each in EXPECTED.values() for name in each["checkpoints"]}))
def test_a_checkpoint_says_the_same_and_so_does_its_encoder(name, artefacts):
    options = options_of(name)["model"]
    if options["init_args"]["encoder"].startswith("random:") and not artefacts.same_draws:
        pytest.skip("random:<size> has other weights on this processor, which a checkpoint rightly refuses")
    loaded = type(load_strategy(f"runs/{name}/best.ckpt"))
    assert options["class_path"] == f"ser_strategies.{loaded.__name__}"
    expected = artefacts.expected["checkpoints"][name]
    for what, values in answers(f"runs/{name}/best.ckpt").items():
        assert len(values) == len(expected[what])
        for row, wanted in zip(values, expected[what], strict=True):
            assert row == pytest.approx(wanted, abs=1e-5), what


def test_every_strategy_has_left_a_checkpoint(artefacts):
    named = {options_of(name)["model"]["class_path"] for name in artefacts.expected["checkpoints"]}
    later = {"Vesper", "AnnotatorFineTuning"}  # than the version that left them
    assert named == {f"ser_strategies.{kind.__name__}" for kind in STRATEGIES if kind.__name__ not in later}


def test_a_stopped_run_goes_on_and_comes_to_what_an_unstopped_one_does(artefacts):
    run, expected = Path("runs/stopped"), artefacts.expected["stopped"]
    move(run.glob("*.ckpt"), NOWHERE, str(Path.cwd()))
    assert scores(run)["fit"] != pytest.approx(expected["fit"], rel=1e-2), "it had not come there yet"
    ends = ("--trainer.max_epochs=3", f"--ckpt_path={run}/last.ckpt")
    main(["fit", "--config", f"{run}/config.yaml", *ends])
    assert scores(run)["fit"] == pytest.approx(expected["fit"], abs=artefacts.tolerance)


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_told_of_the_machine(version):
    place = re.compile(rb"(?<![\w.-])/(?:home|root|tmp|work|mnt|var|srv|Users)/[\w.-]+")
    named = socket.gethostname().encode()
    for path in (HERE / version).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert set(place.findall(content)) <= {b"/home/someone"}, path
            assert len(named) < 6 or named not in content, path
