"""What a command leaves that was stopped in the middle: nothing that passes for a whole."""

import json
import shutil

import pytest
from lightning.pytorch import Trainer

from ser_strategies.cli import main
from ser_strategies.data.corpora import Manifest
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.fit.record import PredictionTable
from ser_strategies.strategies import LoRAFineTuning, VanillaFineTuning, load_strategy
from tests.cli.conftest import CPU, ENCODER, SMALL


def test_examples_are_there_whole_or_not_at_all(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    copied = []

    def full(source, target):
        if len(copied) == 3:
            raise OSError(28, "No space left on device", target)
        copied.append(target)
        return shutil.copy2(source, target)

    with monkeypatch.context() as context:
        context.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
        assert "No space left" in refused("examples", "mine")
    assert list(tmp_path.iterdir()) == []
    main(["examples", "mine"])
    assert (tmp_path / "mine/demo/lora.yaml").is_file()


def test_nobodys_table_is_replaced_by_what_is_made_of_it(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    Synthetic(speakers=3, utterances_per_speaker=4).save(tmp_path)
    before = (tmp_path / "manifest.csv").read_bytes()
    data = ("--data=Manifest", "--data.path=manifest.csv")
    for option in ("--manifest", "--json"):
        sentence = refused("doctor", *data, f"{option}={tmp_path / 'manifest.csv'}")
        assert sentence.startswith(f"error: {option} {tmp_path / 'manifest.csv'} is what the corpus is read")
    strategy = VanillaFineTuning(encoder=ENCODER, labels=("anger", "happiness", "neutral", "sadness"))
    trainer = Trainer(
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        callbacks=[PredictionTable("manifest.csv")],
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    with pytest.raises(ValueError, match=r"--output manifest\.csv is what the corpus is read from"):
        trainer.predict(strategy, datamodule=Manifest("manifest.csv"))
    assert (tmp_path / "manifest.csv").read_bytes() == before


@pytest.mark.parametrize("section", ["model", "data", "trainer"])
def test_a_section_that_holds_no_options_is_named(section, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(f"{section}: 5\n")
    sentence = refused(
        "fit", "--model=vanilla", f"--model.encoder={ENCODER}", "--data=Synthetic", "--config=my.yaml"
    )
    assert sentence == f"error: --config my.yaml: {section} is 5, expected `name: value` lines below it."


def test_fit_json_comes_last_since_it_says_that_the_rest_is_there(tmp_path, monkeypatch):
    """Killed before it, a stage of a chain is gone on with; after it, it counts as trained."""
    words = ("--model=LoRAFineTuning", f"--model.encoder={ENCODER}", *CPU, *SMALL)
    run = tmp_path / "run"

    class Killed(BaseException):
        pass

    def killed(strategy, folder):
        (folder / "adapter_config.json").write_text("{")
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(LoRAFineTuning, "save_adapter", killed)
        with pytest.raises(Killed):
            main(["fit", *words, f"--trainer.default_root_dir={run}"])
    assert (run / "best.ckpt").exists()
    assert not (run / "fit.json").exists()
    assert not (run / "adapter").exists()
    main(["fit", *words, f"--trainer.default_root_dir={run}", f"--ckpt_path={run / 'last.ckpt'}"])
    told = json.loads((run / "fit.json").read_text())
    # Nothing was left to train, and what the epochs before said is told all the same.
    assert told["epochs"] == 1
    assert told["best"]["epoch"] == 0
    assert told["metrics"]["val/ua"] == told["best"]["score"]
    assert sorted(path.name for path in (run / "adapter").iterdir())[0] == "adapter_config.json"
    load_strategy(run / "best.ckpt")
