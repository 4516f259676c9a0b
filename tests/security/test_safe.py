"""A configuration can run code, and with --safe cannot. The code here leaves a file, which tells."""

import pytest

from ser_strategies.cli import main
from ser_strategies.common.class_paths import SAFE, check_safe, safely

EVIL = "import pathlib\npathlib.Path('ran').touch()\nclass Thing:\n    pass\n"
START = ["--model=lora", "--model.encoder=random:wav2vec2-tiny", "--data=Synthetic"]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(SAFE, raising=False)
    return tmp_path


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--safe"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "--safe refuses" in said
    assert "Traceback" not in said
    return said


CONFIGURATIONS = {
    "a model": "model: evil_module.Thing",
    "a class path": "model: {class_path: evil_module.Thing}",
    "a callback": "trainer: {callbacks: [{class_path: evil_module.Thing}]}",
    "a part": "model: {class_path: LoRAFineTuning, init_args: {pooling: evil_module.Thing}}",
    "a text that is YAML": "model: '{class_path: evil_module.Thing}'",
    "a file": "data: inner.yaml",
    "a function of torch": "model: {class_path: LoRAFineTuning, init_args: {pooling: torch.hub.load}}",
    "a module of torch": "model: {class_path: LoRAFineTuning, init_args: {optimizer: torch.os.system}}",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("command", ["fit", "run"])
def test_a_strangers_configuration_runs_nothing(name, command, evil, capsys):
    folder = evil / "chain"
    folder.mkdir()
    file = folder / "1-first.yaml"
    file.write_text(CONFIGURATIONS[name])
    (folder / "inner.yaml").write_text("class_path: evil_module.Thing")
    words = ["fit", "--config", str(file), *START] if command == "fit" else ["run", str(folder)]
    refused(capsys, *words)
    assert not (evil / "ran").exists()


def test_every_command_that_takes_a_class_path_refuses(evil, capsys):
    (evil / "mine.yaml").write_text("model: evil_module.Thing\ndata: Synthetic\n")
    refused(capsys, "compare", "mine.yaml", "--data=Synthetic", "--out=out")
    refused(capsys, "test", "--config=mine.yaml")
    refused(capsys, "doctor", "--data=evil_module.Thing")
    refused(capsys, "predict", "--ckpt_path=x.ckpt", "--trust=evil_module", "x.wav")
    assert not (evil / "ran").exists()


def test_without_safe_the_code_runs(evil, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model=evil_module.Thing", "--data=Synthetic"])
    assert (evil / "ran").exists(), "what docs/security.md says of configurations"


def test_what_is_ours_is_accepted(evil, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *START, "--model.optimizer=torch.optim.AdamW", "--print_config", "--safe"])
    assert ended.value.code == 0
    assert "torch.optim.AdamW" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", ["torch.optim.AdamW", "torch.nn.Linear", "ser_strategies.parts.schedules.FlatThenDecay"]
)
def test_accepted(path):
    check_safe(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "os.system",
            "builtins.eval",
            "torch.load",
            "torch.hub.load",
            "torch.optim.optimizer.functools.partial",
        ),
        *(
            "torch.nn.modules.module.warnings.warn",
            "ser_strategies.cli.main",
            "lightning.pytorch.cli.LightningCLI",
        ),
    ],
)
def test_not_accepted(path):
    with pytest.raises(ValueError, match="--safe refuses"):
        check_safe(path)


def test_processes_that_are_started_inherit_it(monkeypatch):
    import os

    monkeypatch.delenv(SAFE, raising=False)
    with safely(True):
        assert os.environ[SAFE] == "1"
    assert SAFE not in os.environ
