"""A mistake of the user is one sentence that says what was expected, and leaves nothing behind."""

import importlib.util
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
import torch

from ser_strategies.cli import main
from tests.cli.conftest import (
    CPU,
    DEMO,
    ENCODER,
    LABELS,
    MIXED,
    NOISE,
    PARTIAL,
    SMALL,
    VANILLA,
    changed,
    everything_in,
    only_error,
)

pytestmark = pytest.mark.usefixtures("one_parser")

# Few words: most is refused before anything is built, and each word takes its time to be read.
LORA = ("--model=LoRAFineTuning", f"--model.encoder={ENCODER}")
FIT = ("fit", *VANILLA[:2], *SMALL[:1])
WITHOUT_ENCODER = ("fit", "--model=VanillaFineTuning", *SMALL[:1])

# What is typed, and words that the sentence must contain.
MISTAKES = {
    "unknown command": (("fitt",), ("fitt", "did you mean fit?", "validate", "predict", "compare")),
    "nothing like a command": (("zzz",), ("zzz", "fit", "validate", "test", "predict", "compare")),
    "unknown strategy": (
        ("fit", "--model=VanilaFineTuning", *SMALL[:1]),
        ("VanilaFineTuning", "LoRAFineTuning", "did you mean VanillaFineTuning?"),
    ),
    "unknown corpus": (
        ("fit", *VANILLA[:2], "--data=Syntetic"),
        ("--data", "Syntetic", "did you mean Synthetic?"),
    ),
    "another name for robustness": (
        (*FIT, "--conditions=all"),
        ("'conditions' is no option", "did you mean robustness or model.conditions?"),
    ),
    "unknown optimizer": ((*FIT, "--model.optimizer=SDG"), ("SDG", "AdamW", "did you mean SGD?")),
    "unknown scheduler": (
        (*FIT, "--model.scheduler=CosineAnealingLR"),
        ("CosineAnealingLR", "did you mean CosineAnnealingLR?"),
    ),
    "unknown callback": (
        (*FIT, "--trainer.callbacks+=EarlyStoping"),
        ("EarlyStoping", "did you mean EarlyStopping?"),
    ),
    "no strategy": (("fit", *SMALL[:1]), ("--model", "VanillaFineTuning", "LoRAFineTuning")),
    "no corpus": (("fit", *VANILLA[:2]), ("--data", "Synthetic")),
    "nothing at all": (("fit",), ("--model", "VanillaFineTuning")),
    "unknown option of the strategy": (
        (*FIT, "--model.poolling=mean"),
        ("VanillaFineTuning", "poolling", "did you mean pooling?"),
    ),
    "option of another strategy": ((*FIT, "--model.rank=4"), ("VanillaFineTuning", "rank")),
    "unknown option of the corpus": (
        (*FIT, "--data.speekers=3"),
        ("Synthetic", "speekers", "did you mean speakers?"),
    ),
    "unknown option of the trainer": (
        (*FIT, "--trainer.max_epoches=3"),
        ("trainer", "max_epoches", "did you mean max_epochs?"),
    ),
    "unknown option": ((*FIT, "--overwritten"), ("overwritten", "did you mean overwrite?")),
    "a word too many": ((*FIT, "more"), ("more",)),
    "unknown pooling": (
        (*FIT, "--model.pooling=meen"),
        ("pooling", "attentive", "meen", "did you mean mean?"),
    ),
    "unknown objective": ((*FIT, "--model.objective=clases"), ("objective", "did you mean classes?")),
    "unknown precision": (
        (*FIT, "--trainer.precision=bf16-mixd"),
        ("precision", "16-mixed", "bf16-mixd", "did you mean bf16-mixed?"),
    ),
    "unknown accelerator": ((*FIT, "--trainer.accelerator=cpuu"), ("accelerator", "cpuu", "cuda")),
    "unknown dimension": ((*FIT, "--data.dimensions=[valance]"), ("valance", "did you mean valence?")),
    "a word for a whole number": (
        ("fit", *PARTIAL[:2], *SMALL[:1], "--model.top_blocks=three"),
        ("top_blocks", "whole number", "three"),
    ),
    "a fraction for a whole number": (
        ("fit", *PARTIAL[:2], *SMALL[:1], "--model.top_blocks=1.5"),
        ("top_blocks", "whole number", "1.5"),
    ),
    "a word for a number": ((*FIT, "--model.head_lr=fast"), ("head_lr", "number", "fast")),
    "a word for yes or no": ((*FIT, "--model.layer_mix=perhaps"), ("layer_mix", "true or false", "perhaps")),
    "a word for a number of epochs": (
        (*FIT, "--trainer.max_epochs=two"),
        ("trainer.max_epochs", "whole number", "two"),
    ),
    "a word for a number of devices": ((*FIT, "--trainer.devices=two"), ("devices",)),
    "no such number of speakers": ((*FIT, "--data.speakers=2"), ("speakers must be at least 3", "got 2")),
    "no such batch size": ((*FIT, "--data.batch_size=0"), ("batch_size must be at least 1", "got 0")),
    "no such length": ((*FIT, "--model.max_seconds=-1"), ("max_seconds", "-1")),
    "too many blocks": (
        ("fit", *PARTIAL[:2], *SMALL[:1], "--model.top_blocks=5"),
        ("error: top_blocks must be between 0 and 4", ENCODER, "got 5"),
    ),
    "too few blocks": (
        ("fit", *PARTIAL[:2], *SMALL[:1], "--model.top_blocks=-1"),
        ("error: top_blocks must be between 0 and 4", ENCODER, "got -1"),
    ),
    "targets that match nothing": (
        ("fit", *LORA, *SMALL[:1], "--model.targets=[q_prj]"),
        ("targets", "q_prj", "v_proj", "did you mean q_proj?"),
    ),
    "no targets": (("fit", *LORA, *SMALL[:1], "--model.targets=[]"), ("targets",)),
    "options that exclude each other": (
        (*FIT, "--model.train_cnn=true", "--model.freeze_projection=true"),
        ("freeze_projection", "train_cnn"),
    ),
    "another number of classes than the corpus": ((*FIT, "--model.num_classes=7"), ("num_classes", "7", "4")),
    "other labels than the corpus": ((*FIT, "--model.labels=[a,b]"), ("--model.labels", "a, b", "--data")),
    "dimensions of a corpus that has none": (
        ("fit", *VANILLA[:2], *NOISE[:1], "--model.objective=dimensions"),
        ("dimensions",),
    ),
    "classes and dimensions of a corpus without dimensions": (
        ("fit", *VANILLA[:2], *NOISE[:1], "--model.objective=both"),
        ("dimensions",),
    ),
    "votes of a corpus that has none": (
        ("fit", *VANILLA[:2], *NOISE[:1], "--model.soft_labels=true"),
        ("soft_labels", "choose a corpus"),
    ),
    "no encoder": (WITHOUT_ENCODER, ("VanillaFineTuning needs encoder", "--model.encoder")),
    "an encoder that says nothing": ((*WITHOUT_ENCODER, "--model.encoder="), ("encoder",)),
    "a random encoder misspelt": (
        (*WITHOUT_ENCODER, "--model.encoder=random:wav2vec-tiny"),
        ("random:wav2vec-tiny", "wavlm-tiny", "did you mean random:wav2vec2-tiny?"),
    ),
    "a hub id that is not there offline": (
        (*WITHOUT_ENCODER, "--model.encoder=facebook/not-there"),
        ("error: facebook/not-there", "local folder", "connect"),
    ),
    "an encoder folder that does not exist": (
        (*WITHOUT_ENCODER, "--model.encoder=./nowhere"),
        ("error: no encoder at nowhere", "config.json"),
    ),
    "an encoder checkpoint that does not exist": (
        (*WITHOUT_ENCODER, "--model.encoder=nowhere.ckpt"),
        ("error: no checkpoint at nowhere.ckpt",),
    ),
    "a configuration that does not exist": (("fit", "--config=nowhere.yaml"), ("nowhere.yaml", "YAML")),
    "a folder for a configuration": (("fit", "--config=."), ("--config", "YAML")),
    "a checkpoint that does not exist": (
        ("test", *VANILLA[:2], *SMALL[:1], "--ckpt_path=nowhere.ckpt"),
        ("no checkpoint at nowhere.ckpt", "expected a .ckpt file"),
    ),
    "a run that does not exist": (
        ("test", *VANILLA[:2], *SMALL[:1]),
        ("no checkpoint at runs/vanilla/best.ckpt",),
    ),
    "resuming what does not exist": ((*FIT, "--ckpt_path=nowhere.ckpt"), ("no checkpoint at nowhere.ckpt",)),
    "mixed precision in full precision": (
        ("fit", *MIXED[:2], *SMALL[:1], "--trainer.precision=32-true"),
        ("MixedPrecisionFineTuning", "bf16-mixed", "32-true"),
    ),
    "mixed precision declared full": (
        ("fit", *MIXED[:2], *SMALL[:1], "--model.precision=32-true"),
        ("precision", "bf16-mixed", "16-mixed", "32-true"),
    ),
    "an empty validation split": (
        ("fit", *VANILLA[:2], *NOISE[:1], "--data.counts=[8,0,4]"),
        ("val split", "Noise", "empty", "train 8"),
    ),
    "an empty train split": (
        ("fit", *VANILLA[:2], *NOISE[:1], "--data.counts=[0,4,4]"),
        ("train split", "Noise", "empty", "val 4"),
    ),
    "one class": (("fit", *VANILLA[:2], *NOISE[:1], "--data.used=1"), ("train split", "one class", "anger")),
    "one class of the embedded corpus": (
        (*FIT, "--data.speakers=3", "--data.utterances_per_speaker=1"),
        ("train split", "one class"),
    ),
    "no utterances": ((*FIT, "--data.utterances_per_speaker=0"), ("utterances_per_speaker", "at least 1")),
    "a strategy that is null": ((*FIT, "--model=null"), ("--model missing", "VanillaFineTuning")),
    "an option before its corpus": (
        ("fit", "--data.speakers=3", *FIT[1:]),
        ("--data is not chosen yet", "speakers", "first"),
    ),
    "nothing to train on": ((*FIT, "--trainer.limit_train_batches=0"), ("limit_train_batches",)),
    "a logger without its folder": (
        (*FIT, "--trainer.logger=CSVLogger"),
        ("CSVLogger needs save_dir", "--trainer.logger.save_dir"),
    ),
    "no patience at all": (
        ("fit", *VANILLA[:2], *SMALL[:1], "--patience=0"),
        ("--patience must be 1 or more",),
    ),
    "epochs to compare that are no number": (("compare", "--epochs=x"), ("epochs", "x")),
    "an unknown option of comparing": (("compare", "--epoks=1"), ("--epoks", "--epochs")),
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(words, expected, refused):
    message = refused(*words)
    assert [word for word in expected if word not in message] == [], message
    assert "<class" not in message
    assert "Namespace(" not in message


CONFIGURATIONS = {
    "misspelt at the top": ({"seed_everythin": 1}, ("seed_everythin", "did you mean seed_everything?")),
    "misspelt in the model": (
        {"model__init_args__poolling": "mean"},
        ("VanillaFineTuning", "poolling", "did you mean pooling?"),
    ),
    "misspelt in the corpus": (
        {"data__init_args": {"speekers": 3}},
        ("Synthetic", "speekers", "did you mean speakers?"),
    ),
    "misspelt in the trainer": (
        {"trainer__max_epoch": 3},
        ("trainer", "max_epoch", "did you mean max_epochs?"),
    ),
    "misspelt class": ({"model__class_path": "VanilaFineTuning"}, ("did you mean VanillaFineTuning?",)),
    "misspelt class_path": ({"model": {"clas_path": "VanillaFineTuning"}}, ("clas_path", "class_path")),
    "wrong type": ({"model__init_args__head_lr": "fast"}, ("head_lr", "number", "fast")),
    "a list for a model": ({"model": [1, 2]}, ("model",)),
}


@pytest.mark.parametrize(("changes", "expected"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_mistake_in_a_configuration_is_one_sentence(changes, expected, refused):
    message = refused("fit", "--config", str(changed(DEMO / "vanilla.yaml", **changes)), *CPU)
    assert [word for word in expected if word not in message] == [], message
    assert "<class" not in message


@pytest.mark.parametrize(
    "text",
    ["model: [1, 2", "model:\n  a: 1\n b: 2", "just words", ""],
    ids=["bracket", "indent", "words", "empty"],
)
def test_a_broken_configuration_is_named(text, refused):
    Path("broken.yaml").write_text(text)
    assert "broken.yaml" in refused("fit", "--config", "broken.yaml")


@pytest.mark.parametrize("size", [0, 100, 0.5, 0.99])
def test_a_part_of_a_checkpoint_is_refused(size, finished, refused):
    whole = finished.best.read_bytes()
    Path("part.ckpt").write_bytes(whole[: int(size * len(whole)) if isinstance(size, float) else size])
    message = refused("test", *finished.words, "--ckpt_path=part.ckpt")
    assert "part.ckpt is not a checkpoint, or only part of one" in message


@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit"])
def test_a_text_file_is_no_checkpoint(command, refused):
    Path("text.ckpt").write_text("hello")
    message = refused(command, *VANILLA, *SMALL, "--ckpt_path=text.ckpt")
    assert "text.ckpt is not a checkpoint" in message


def test_a_text_file_is_no_encoder_either(refused):
    Path("text.ckpt").write_text("hello")
    message = refused(*WITHOUT_ENCODER, "--model.encoder=text.ckpt")
    assert message.startswith("error: text.ckpt is not a checkpoint")


def test_a_damaged_checkpoint_is_refused(finished, refused):
    shutil.copy(finished.best, "damaged.ckpt")
    with zipfile.ZipFile("damaged.ckpt") as archive:
        pickled = next(each for each in archive.infolist() if each.filename.endswith("data.pkl"))
    with Path("damaged.ckpt").open("r+b") as file:
        file.seek(pickled.header_offset + 200)
        file.write(b"\xa7" * 400)
    assert "damaged.ckpt" in refused("test", *finished.words, "--ckpt_path=damaged.ckpt")


def test_weights_alone_are_no_checkpoint(refused):
    torch.save({"state_dict": {}}, "weights.ckpt")
    message = refused("test", *VANILLA, *SMALL, "--ckpt_path=weights.ckpt")
    assert "weights.ckpt was not written by" in message


@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit"])
def test_a_checkpoint_of_another_strategy_is_refused_with_the_way_out(command, finished_partial, refused):
    message = refused(command, *VANILLA, *SMALL, f"--ckpt_path={finished_partial.best}")
    for expected in (
        "PartialFineTuning",
        "--model PartialFineTuning",
        f"--model.encoder {finished_partial.best}",
    ):
        assert expected in message


@pytest.mark.parametrize("run", ["finished", "finished_partial"])
def test_a_checkpoint_of_another_encoder_is_refused(run, request, refused):
    run = request.getfixturevalue(run)
    words = [*run.words, "--model.encoder=random:wavlm-tiny", "--trainer.default_root_dir=other"]
    message = refused("test", *words, f"--ckpt_path={run.best}")
    assert "was trained on random:wav2vec2-tiny" in message
    assert "random:wavlm-tiny" in message


@pytest.mark.parametrize(
    "option",
    ["--model.pooling=mean", "--model.head=mlp", "--model.objective=dimensions", "--model.layer_mix=true"],
)
def test_a_checkpoint_of_a_model_with_other_options_is_refused(option, finished, refused):
    words = [*finished.words, "--trainer.default_root_dir=other", f"--ckpt_path={finished.best}"]
    assert "options it was trained with" in refused("test", *words, option)


def test_a_checkpoint_with_fewer_trained_blocks_is_refused(finished_partial, refused):
    words = [
        *finished_partial.words,
        "--trainer.default_root_dir=other",
        f"--ckpt_path={finished_partial.best}",
    ]
    assert "options it was trained with" in refused("test", *words, "--model.top_blocks=1")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("test", LABELS[::-1]),
        ("test", ("calm", "joy", "fear", "rage")),
        ("test", LABELS[:3]),
        ("validate", LABELS[::-1]),
        ("predict", LABELS[::-1]),
    ],
    ids=["in another order", "others", "fewer", "validate", "predict"],
)
def test_a_checkpoint_trained_on_other_labels_is_refused(command, names, finished_noise, refused):
    words = [*finished_noise.words, "--trainer.default_root_dir=other", f"--ckpt_path={finished_noise.best}"]
    message = refused(command, *words, f"--data.names=[{','.join(names)}]")
    assert "labels" in message
    assert all(name in message for name in (*names, *LABELS))


def test_a_checkpoint_trained_on_other_dimensions_is_refused(refused, here):
    words = [*VANILLA, *SMALL, "--model.objective=dimensions"]
    main(["fit", *words, "--data.dimensions=[valence]", "--trainer.default_root_dir=one"])
    words = [*words, "--trainer.default_root_dir=other", "--ckpt_path=one/best.ckpt"]
    message = refused("test", *words, "--data.dimensions=[activation]")
    assert all(name in message for name in ("dimensions", "valence", "activation"))


def test_resuming_with_other_labels_is_refused(finished_noise, refused):
    words = [*finished_noise.words, "--trainer.default_root_dir=other", "--trainer.max_epochs=2"]
    last = finished_noise.folder / "last.ckpt"
    assert "labels" in refused(
        "fit", *words, f"--ckpt_path={last}", f"--data.names=[{','.join(LABELS[::-1])}]"
    )


def test_a_folder_that_holds_a_run_is_refused_with_the_ways_out(finished, refused):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    message = refused("fit", *finished.words)
    assert f"{finished.folder} already holds a run" in message
    for way in ("--overwrite", f"--ckpt_path {finished.folder}/last.ckpt", "--trainer.default_root_dir"):
        assert way in message
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_an_empty_test_split_is_refused(finished_noise, refused):
    words = [*finished_noise.words, "--trainer.default_root_dir=other", f"--ckpt_path={finished_noise.best}"]
    message = refused("test", *words, "--data.counts=[8,4,0]")
    assert all(word in message for word in ("test split", "Noise", "empty"))


def failed(capsys, *words):
    """The sentence of a run that fails after it has begun, which leaves its configuration behind."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code not in {0, None}
    return only_error(capsys.readouterr().err)


def test_a_sound_that_is_not_a_number_stops_training_and_is_named(here, capsys):
    message = failed(capsys, "fit", *VANILLA, *NOISE, "--data.broken=train_5")
    assert "the loss is nan at step" in message
    assert "train_5" in message
    assert not any(f"train_{number}" in message for number in (0, 1, 2, 3, 4, 6, 7))
    assert not list(here.rglob("*.ckpt"))


def test_a_learning_rate_that_explodes_names_the_step_and_the_utterances(here, capsys):
    words = [*VANILLA, *SMALL, "--data.batch_size=2", "--model.encoder_lr=1e30"]
    message = failed(capsys, "fit", *words)
    assert "at step 1" in message
    assert "s00_u00" in message
    assert "lower the learning rates" in message
    assert not list(here.rglob("*.ckpt"))


def test_weights_that_explode_in_the_last_step_do_not_become_the_best_checkpoint(here, capsys):
    message = failed(capsys, "fit", *VANILLA, *SMALL, "--model.encoder_lr=1e30")
    assert "nan" in message
    assert not list(here.rglob("best.ckpt"))


@pytest.mark.parametrize(
    ("command", "broken"), [("validate", "val_2"), ("test", "test_2"), ("predict", "test_2")]
)
def test_an_utterance_that_cannot_be_scored_is_named(command, broken, finished_noise, here, capsys):
    words = [*finished_noise.words, f"--data.broken={broken}", "--output=said.csv"]
    with pytest.raises(SystemExit):
        main([command, *words])
    assert broken in only_error(capsys.readouterr().err)
    assert everything_in(here) == set()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_a_logger_that_is_not_installed_is_one_sentence(refused):
    message = refused(*FIT, "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=board")
    assert "tensorboard" in message
    assert "pip install" in message


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("test", *VANILLA, *SMALL), FileNotFoundError),
        ((*FIT, "--model.poolling=mean"), Exception),
        (("fit", *PARTIAL, *SMALL, "--model.top_blocks=5"), ValueError),
    ],
    ids=["while running", "while reading the words", "while building the model"],
)
def test_traceback_shows_where_an_error_happened(words, error, here):
    with pytest.raises(error):
        main([*words, "--traceback"])


def test_a_mistake_in_the_words_exits_with_2_and_any_other_with_1(here, capsys):
    for words, code in (
        (("fitt",), 2),
        ((*FIT, "--model.poolling=mean"), 2),
        (("test", *VANILLA, *SMALL), 1),
    ):
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        assert stop.value.code == code


def test_an_error_says_how_to_see_more(here, capsys):
    with pytest.raises(SystemExit):
        main(["test", *VANILLA, *SMALL])
    assert "--traceback" in capsys.readouterr().err


def test_an_interruption_while_the_program_ends_is_no_traceback(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    try:
        main(["--version"])
        assert signal.getsignal(signal.SIGINT) is before, "whoever calls it from Python keeps theirs"
        monkeypatch.setattr("sys.argv", ["ser-strategies", "--version"])
        main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interruption_exits_like_a_shell_expects(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ser_strategies.fit.lightning_cli.run", interrupted)
    with pytest.raises(SystemExit) as stop:
        main([*FIT])
    assert stop.value.code == 130
