"""The words of `run`, and the mistakes that can be found before anything runs."""

from pathlib import Path

import pytest

from ser_strategies.cli import main
from ser_strategies.cli.run import parse
from ser_strategies.common.errors import MistypedError
from ser_strategies.runs.arguments import as_numbers
from tests.cli.test_chain_plan import write_chain
from tests.cli.test_help import help_of, options_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", (2,)),
        ("1,3", (1, 3)),
        ("1..5", (1, 2, 3, 4, 5)),
        ("0..2,7", (0, 1, 2, 7)),
        ("4..4", (4,)),
        ("1, 3", (1, 3)),
    ],
)
def test_numbers_are_single_ones_lists_and_spans(text, expected):
    assert as_numbers("--fold", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "such as 2, 1,3 or 1..5, got 'a'"),
        ("", "got ''"),
        ("1..", "got '1..'"),
        ("..3", "got '..3'"),
        ("1-3", "got '1-3'"),
        ("-1", "got '-1'"),
        ("1.5", "got '1.5'"),
        ("1,,2", "got '1,,2'"),
        ("٣", "got '٣'"),
        ("5..1", "counts down: give the smaller number first, as in 1..5"),
        ("1..3,2", "names 2 twice"),
        ("0..99999999999", "expected 1,000 at most"),
    ],
)
def test_other_text_is_no_number(text, expected):
    with pytest.raises(MistypedError) as error:
        as_numbers("--seed", text)
    assert str(error.value).startswith("--seed")
    assert expected in str(error.value)


def test_options_go_to_run_to_every_stage_or_to_one():
    wishes = parse(
        "run",
        [
            *("chains/mine", "--data", "MELD", "--data.root=~/MELD", "--fold", "1..2", "--model.x", "-1"),
            *("--2-last.model.y", "[1,", "2]", "--2-last.trainer.z=3", "--overwrite", "-c", "more.yaml"),
            *("--1-first.data", "Synthetic", "--dry_run"),
        ],
    )
    assert wishes.folder == Path("chains/mine")
    assert wishes.out == Path("runs/mine")
    assert (wishes.folds, wishes.seeds) == ((1, 2), (None,))
    assert (wishes.overwrite, wishes.dry_run) == (True, True)
    assert wishes.options.common == (
        *("--data", "MELD", "--data.root=~/MELD", "--model.x", "-1", "-c", "more.yaml"),
    )
    assert wishes.options.special == {
        "2-last": ("--model.y", "[1,", "2]", "--trainer.z=3"),
        "1-first": ("--data", "Synthetic"),
    }


def test_the_folder_gives_the_place_its_name_however_it_is_written(here):
    inside = here / "tapt"
    inside.mkdir()
    for words in (["tapt/"], [str(inside)], ["./tapt"], ["tapt/../tapt"]):
        assert parse("run", words).out == Path("runs/tapt")
    assert parse("run", ["tapt", "--out", "elsewhere"]).out == Path("elsewhere")


MISTAKES = {
    "no folder": (("--seed", "0"), ("the chain is missing", "run examples/tapt")),
    "the folder last": (("--data", "Synthetic", "mine"), ("the chain is missing",)),
    "no such folder": (("nowhere",), ("nowhere does not exist", "1-adapt.yaml")),
    "a file for the folder": (("mine/1-adapt.yaml",), ("1-adapt.yaml is a file", "expected a folder")),
    "an empty folder": (("empty",), ("empty holds no stages", "1-adapt.yaml and 2-finetune.yaml")),
    "a slip in an option": (("mine", "--fald", "1"), ("no option '--fald'", "did you mean --fold?")),
    "a hyphen in an option": (("mine", "--dry-run"), ("did you mean --dry_run?",)),
    "a word too many": (("mine", "--dry_run", "again"), ("again",)),
    "folds that are no numbers": (("mine", "--fold", "a"), ("--fold", "1..5", "'a'")),
    "no folds": (("mine", "--fold"), ("--fold", "expected one argument")),
    "seeds that count down": (("mine", "--seed", "4..0"), ("0..4",)),
    "a place that is a file": (("mine", "--out", "mine/1-adapt.yaml"), ("--out", "is a file")),
    "a folder of one's own": (
        ("mine", "--trainer.default_root_dir=x"),
        ("--trainer.default_root_dir", "--out"),
    ),
    "a folder for one stage": (("mine", "--1-adapt.trainer.default_root_dir", "x"), ("--out",)),
    "a checkpoint to go on from": (("mine", "--ckpt_path", "x.ckpt"), ("--ckpt_path", "by itself")),
    "printing": (("mine", "--print_config"), ("--print_config", "fit --config FILE")),
    "the fold twice": (("mine", "--fold", "1", "--data.fold", "2"), ("--data.fold", "--fold says it")),
    "the seed twice": (("mine", "--seed", "1", "--seed_everything=2"), ("--seed_everything", "--seed says")),
    "the order's seed, too": (("mine", "--seed", "1", "--data.init_args.order_seed=2"), ("order_seed",)),
    "a stage that is not there": (
        ("mine", "--1-adept.model.top_blocks=1"),
        ("--1-adept.", "1-adapt, 2-finetune", "did you mean 1-adapt?"),
    ),
    "an option of another strategy": (
        ("mine", "--model.top_blocks=1"),
        ("2-finetune: ", "VanillaFineTuning", "top_blocks"),
    ),
    "a slip in an option of a stage": (
        ("mine", "--1-adapt.model.top_block=1"),
        ("1-adapt: ", "did you mean top_blocks?"),
    ),
    "a slip in an option of fit": (("mine", "--trainer.max_epoches=1"), ("1-adapt: ", "max_epochs?")),
    "folds of a corpus without": (("mine", "--fold", "1"), ("1-adapt: Synthetic", "fold", "--fold")),
    "a corpus that cannot be": (("mine", "--data.speakers=2"), ("1-adapt: speakers must be at least 3",)),
    "a corpus with an empty split": (
        ("mine", "--2-finetune.data=tests.cli.conftest.Noise", "--2-finetune.data.counts=[8,0,4]"),
        ("2-finetune: the val split of Noise is empty",),
    ),
    "nothing kept": (("mine", "--trainer.fast_dev_run=true"), ("1-adapt: ", "fast_dev_run", "checkpoints")),
    "no checkpoints": (("mine", "--trainer.enable_checkpointing=false"), ("enable_checkpointing",)),
    "a checkpoint in a file": (("mine", "--config", "going_on.yaml"), ("1-adapt: leave out ckpt_path",)),
    "more configuration that is not there": (("mine", "--config", "nowhere.yaml"), ("nowhere.yaml",)),
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words, expected, refused):
    write_chain("mine")
    Path("empty").mkdir()
    Path("going_on.yaml").write_text("ckpt_path: x.ckpt")
    message = refused("run", *words)
    assert [word for word in expected if word not in message] == [], message
    assert "<class" not in message


BROKEN_CHAINS = {
    "a gap": ({"1-a.yaml": "", "3-c.yaml": ""}, ("no stage 2, but 3-c.yaml",)),
    "no first": ({"2-b.yaml": ""}, ("no stage 1, but 2-b.yaml",)),
    "a number twice": ({"1-a.yaml": "", "1-b.yaml": "", "2-c.yaml": ""}, ("1 more than once", "1-b.yaml")),
    "a number twice, at the end": ({"1-a.yaml": "", "2-b.yaml": "", "2-b.yml": ""}, ("2 more than once",)),
    "only others": ({"adapt.yaml": "", "1-notes.txt": ""}, ("holds no stages",)),
    "a name that is none": ({"1_a.yaml": ""}, ("1_a.yaml", "a hyphen")),
    "a space": ({"1-my adapter.yaml": ""}, ("1-my adapter.yaml", "letters, digits")),
    "no YAML": ({"1-a.yaml": "model: [1, 2"}, ("1-a.yaml is not valid YAML",)),
    "no options": ({"1-a.yaml": "words"}, ("1-a.yaml holds no options",)),
    "nothing in it": ({"1-a.yaml": ""}, ("1-a.yaml holds no options",)),
    "no text": ({"1-a.yaml": "\x00\x01"}, ("1-a.yaml is not valid YAML",)),
    "no strategy": ({"1-a.yaml": "data: {class_path: Synthetic}"}, ("1-a: --model missing",)),
}


@pytest.mark.parametrize(("files", "expected"), BROKEN_CHAINS.values(), ids=BROKEN_CHAINS)
def test_a_chain_that_is_none_is_one_sentence(files, expected, refused):
    Path("mine").mkdir()
    for name, text in files.items():
        Path("mine", name).write_text(text)
    message = refused("run", "mine")
    assert [word for word in expected if word not in message] == [], message


LINKS = {
    "itself": ({2: "runs/mine/2-finetune/best.ckpt"}, ("2-finetune: model.encoder", "its own folder")),
    "a later stage": (
        {1: "runs/mine/2-finetune/best.ckpt"},
        ("1-adapt: model.encoder runs/mine/2-finetune/best.ckpt", "2-finetune, which comes later"),
    ),
    "a slip": ({2: "runs/mine/1-adapt/bset.ckpt"}, ("1-adapt writes", "did you mean best.ckpt?")),
}


@pytest.mark.parametrize(("encoders", "expected"), LINKS.values(), ids=LINKS)
def test_a_hand_off_that_cannot_be_is_one_sentence(encoders, expected, refused):
    write_chain("mine", **{f"encoder{number}": encoder for number, encoder in encoders.items()})
    message = refused("run", "mine")
    assert [word for word in expected if word not in message] == [], message


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"folder1": "runs/x", "folder2": "runs/x"}, ("share a folder",)),
        ({"folder1": "runs/x", "folder2": "runs/x/2"}, ("share a folder",)),
        ({"folder1": "."}, ("1-adapt", "holds everything")),
        ({"folder2": "/"}, ("2-finetune", "holds everything")),
    ],
    ids=["the same", "one in the other", "the working folder", "the root"],
)
def test_stages_that_have_no_folder_of_their_own_are_refused(folders, expected, refused):
    write_chain("mine", encoder2="random:wav2vec2-tiny", **folders)
    message = refused("run", "mine")
    assert [word for word in expected if word not in message] == [], message


@pytest.mark.parametrize(
    ("words", "code"),
    [(("run",), 2), (("run", "mine", "--fold", "x"), 2), (("run", "mine", "--data.speakers=2"), 1)],
)
def test_a_mistake_in_the_words_exits_with_2_and_any_other_with_1(words, code, here):
    write_chain("mine")
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == code


def test_run_explains_its_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    said = help_of(capsys, "run", "--help")
    options = options_in(said)
    assert {"--out", "--folds", "--seeds", "--seed", "--overwrite", "--dry_run"} <= set(options)
    assert all(options.values())
    assert "--1-adapt.trainer.max_epochs 5" in said


def test_help_may_stand_behind_the_folder(capsys):
    assert "FOLDER" in help_of(capsys, "run", "examples/tapt", "--help")
