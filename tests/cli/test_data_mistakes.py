"""What users mistype in the options of the corpora: one sentence, in their words, whatever the command."""

from pathlib import Path

import pytest

from ser_strategies.cli import main
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.fit.hints import takes
from ser_strategies.strategies import CachedFineTuning, LoRAFineTuning
from tests.cli.conftest import PARTIAL

# Words of a type system, and of the parser: users know neither.
VOCABULARY = (
    "<class",
    "Parser key",
    "NestedArg",
    "Namespace(",
    "class_path",
    "Union",
    "Literal",
    "tuple",
    "NoneType",
)
CSV = "path,label,speaker\n" + "".join(f"{n}.wav,{'xy'[n % 2]},s{n}\n" for n in range(6))
CORPUS = {
    "Manifest": ("--data=Manifest", "--data.path=x.csv"),
    "CREMAD": ("--data=CREMAD", "--data.root=crema"),
    "IEMOCAP": ("--data=IEMOCAP", "--data.root=iemocap"),
    "MELD": ("--data=MELD", "--data.root=meld"),
    "MSPPodcast": ("--data=MSPPodcast", "--data.root=podcast"),
    "Synthetic": ("--data=Synthetic",),
}
NAMES = "must be a list of names, as in '[one, two]', got "
PAIRS = "must be pairs of names in braces, as in '{label: mood}', got "
TWO = "must be two numbers in square brackets, as in '[0.9, 1.1]', got "
# Which corpus, what is typed behind it, and how the sentence begins and ends.
MISTYPED = [
    ("Manifest", "--data.classes a", f"--data.classes {NAMES}'a'."),
    ("Manifest", "--data.classes a,b", f"--data.classes {NAMES}'a,b'."),
    ("Manifest", "--data.classes [a,1]", f"--data.classes {NAMES}['a', 1]."),
    ("Manifest", "--data.dimensions valence", f"--data.dimensions {NAMES}'valence'."),
    ("Manifest", "--data.columns label", f"--data.columns {PAIRS}'label'."),
    ("Manifest", "--data.columns {label:[a]}", f"--data.columns {PAIRS}{{label:[a]}}."),
    ("Manifest", "--data.columns {label:", f"--data.columns {PAIRS}'{{label:'."),
    ("Manifest", "--data.augmentation.speed [1,2,3]", f"--data.augmentation.speed {TWO}[1, 2, 3]."),
    ("Manifest", "--data.augmentation.speed 1,2,3", f"--data.augmentation.speed {TWO}'1,2,3'."),
    ("Manifest", "--data.augmentation.speed 1.1", f"--data.augmentation.speed {TWO}'1.1'."),
    ("CREMAD", "--data.augmentation.noise_snr [5,30", f"--data.augmentation.noise_snr {TWO}'[5,30'."),
    ("CREMAD", "--data.augmentation.sped 1", "Augmentation has no option 'sped'; did you mean speed?"),
    (
        "CREMAD",
        "--data.augmentation speed",
        "--data.augmentation must be null, or given by its options (noise_snr,",
    ),
    (
        "CREMAD",
        "--data.augmentation true",
        "--data.augmentation must be null, or given by its options (noise_snr,",
    ),
    ("CREMAD", "--data.augmentation.gain loud", "--data.augmentation.gain must be a number, got 'loud'."),
    ("Manifest", "--data.folds three", "--data.folds must be a whole number, got 'three'."),
    (
        "Manifest",
        "--data.labels x",
        "Manifest has no option 'labels'; did you mean label_map?",
    ),
    (
        "Manifest",
        "--data.label_map x",
        "--data.label_map must be names with the name or null that each becomes, as in '{excitement: hap",
    ),
    ("Manifest", "--data.path", "--data.path has no value: give one behind it, or leave it out."),
    ("CREMAD", "--data.fold=", "--data.fold must be a whole number, got ''."),
    ("CREMAD", "--data.fold [1,2]", "--data.fold must be a whole number, got [1, 2]."),
    ("CREMAD", "--data.labels", "--data.labels has no value: give one behind it, or leave it out."),
    (
        "CREMAD",
        "--data.labels 4-class",
        "--data.labels must be one of intended, voice, audio-visual, audio-visual-4",
    ),
    ("CREMAD", "--data.protocol emobox", "got 'emobox'; did you mean emobox-speaker-dependent?"),
    ("CREMAD", "--data.damaged true", "--data.damaged must be one of stop, skip, got 'true'."),
    (
        "CREMAD",
        "--data.allow-leakage true",
        "CREMAD has no option 'allow-leakage'; did you mean allow_leakage?",
    ),
    ("CREMAD", "--data.batch_size 8.5", "--data.batch_size must be a whole number, got '8.5'."),
    ("IEMOCAP", "--data.labels 4", "got '4'; did you mean 4-class?"),
    ("MELD", "--data.labels emotion", "got 'emotion'; did you mean emotions?"),
    ("MELD", "--data.path x", "MELD has no option 'path': --data.help MELD lists what it has."),
    ("MSPPodcast", "--data.version 2", "got '2'; did you mean 2.0?"),
]
HERE = [(name, words, message, "fit") for name, words, message in MISTYPED]
HERE += [(name, words, message, "doctor") for name, words, message in MISTYPED]
# Only a strategy learns from the embedded corpus.
HERE += [
    ("Synthetic", words, message, "fit")
    for words, message in (
        (
            "--data.dimensions valence",
            "--data.dimensions must be a list of some of activation, valence, dominance, as",
        ),
        ("--data.dimensions [valance]", "got 'valance'; did you mean valence?"),
        ("--data.root x", "Synthetic has no option 'root': --data.help Synthetic lists what it has."),
    )
]


def said(capsys, *words):
    """Exit code and the one sentence of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("(where it")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert [word for word in VOCABULARY if word in lines[0]] == []
    return stop.value.code, lines[0].removeprefix("error: ")


@pytest.mark.parametrize(("corpus", "words", "message", "command"), HERE)
def test_a_value_that_an_option_does_not_take(corpus, words, message, command, here, capsys):
    Path("x.csv").write_text(CSV)
    model = PARTIAL if command == "fit" else ()
    code, sentence = said(capsys, command, *model, *CORPUS[corpus], *words.split(" ", 1))
    assert code == 2
    assert message in sentence


@pytest.mark.parametrize("command", ["fit", "doctor"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--data=CREMAD", "--data.root=~nouser/x"),
            "--data.root ~nouser/x: no home folder is known for ~nouser",
        ),
        (
            ("--data=Manifest", "--data.path=~nouser/x.csv"),
            "--data.path ~nouser/x.csv: no home folder is known for",
        ),
        (
            ("--data=Manifest", "--data.path=x.csv", "--data.root=~nouser"),
            "--data.root ~nouser: no home folder is",
        ),
        (("--data=CREMAD", "--data.root="), "--data.root is empty: give a path"),
        (("--data=Manifest", "--data.path="), "--data.path is empty: give a path"),
    ],
)
def test_a_place_that_leads_nowhere(command, words, message, here, capsys):
    Path("x.csv").write_text(CSV)
    code, sentence = said(capsys, command, *(PARTIAL if command == "fit" else ()), *words)
    assert code == 1
    assert sentence.startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data=crema-d",), "did you mean CREMAD?"),
        (("--data=msp-podcast",), "did you mean MSPPodcast?"),
        (
            ("--data=Synthetic", "--batch_size=3"),
            "'batch_size' is no option here; did you mean data.batch_size?",
        ),
        (("--data=CREMAD", "--root=x"), "'root' is no option here; did you mean data.root?"),
        (("--data",), "--data has no value"),
        (
            ("--data=Synthetic", "--model.optimizer=SGD", "--model.optimizer.lr=fast"),
            "lr must be a number, got 'fast'.",
        ),
    ],
)
def test_a_name_that_is_nearly_right(words, message, here, capsys):
    code, sentence = said(capsys, "fit", *PARTIAL, *words)
    assert code == 2
    assert message in sentence


def test_a_mistake_in_a_configuration_names_the_option_as_on_the_command_line(here, capsys):
    Path("x.csv").write_text(CSV)
    data = "data:\n  class_path: Manifest\n  init_args: {path: x.csv, classes: a}\n"
    Path("c.yaml").write_text(f"model:\n  class_path: PartialFineTuning\n  init_args: {{encoder: x}}\n{data}")
    code, sentence = said(capsys, "fit", "--config", "c.yaml")
    assert (code, sentence) == (2, f"--data.classes {NAMES}'a'.")


@pytest.mark.parametrize("value", ["most", "true", "2.5", "null"])
def test_a_number_of_blocks_that_is_none(value, here, capsys):
    words = ("--model=CachedFineTuning", "--model.encoder=random:wav2vec2-tiny", "--data=Synthetic")
    code, sentence = said(capsys, "fit", *words, f"--model.top_blocks={value}")
    assert code == (1 if value == "null" else 2)
    assert "top_blocks must be " in sentence
    assert "whole number" in sentence
    assert "all" in sentence


def test_what_options_take_is_said_in_words():
    assert takes(Augmentation, "gain") == "a number"
    assert takes(Augmentation, "speed") == TWO.removeprefix("must be ").removesuffix(", got ")
    assert takes(CachedFineTuning, "top_blocks") == "a whole number or all"
    assert takes(LoRAFineTuning, "targets") == "a list of names, as in '[one, two]'"
    assert takes(Synthetic, "batch_seconds") == "a number"
    assert takes(Synthetic, "colour") is None
    assert takes(LoRAFineTuning, "optimizer") is None


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_option_of_a_corpus_can_be_said_in_words(corpus):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(corpus, "data")
    options = {action.dest.split(".")[1] for action in parser._actions if action.dest.startswith("data.")}
    assert len(options) > 8
    assert [option for option in options if takes(corpus, option) is None] == []
