"""Every option says what it is for."""

import re

import pytest

from ser_strategies.cli import COMMANDS, main
from ser_strategies.fit.lightning_cli import CORPORA
from ser_strategies.strategies import STRATEGIES


def help_of(capsys, *words):
    """What a command prints when asked for help."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code in {0, None}
    return capsys.readouterr().out


def options_in(text: str) -> dict[str, str]:
    """Each option's name and description, without its type and default."""
    found = {}
    for block in re.split(r"\n(?=  -)", text):
        if not block.startswith("  -"):
            continue
        signature, _, description = re.sub(r"\n\n.*", "", block, flags=re.DOTALL).strip().partition("  ")
        name = re.search(r"--[\w.]+", signature)
        assert name is not None, block
        described = re.sub(r"\s+", " ", description)
        described = re.sub(r"\((required, )?type: .*|\(default: .*", "", described)
        found[name[0]] = described.strip()
    return found


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_help_lists_every_command(words, capsys):
    main(words)
    said = capsys.readouterr().out
    for name, (what, _) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", said, re.MULTILINE)


@pytest.mark.parametrize("strategy", [kind.__name__ for kind in STRATEGIES])
def test_every_option_of_a_strategy_has_help(strategy, capsys):
    options = options_in(help_of(capsys, "fit", "--model.help", strategy))
    assert {"--model.encoder", "--model.encoder_lr", "--model.head_lr"} <= set(options)
    assert [name for name, description in options.items() if not description] == []


@pytest.mark.parametrize("corpus", [kind.__name__ for kind in CORPORA])
def test_every_option_of_a_corpus_has_help(corpus, capsys):
    options = options_in(help_of(capsys, "fit", "--data.help", corpus))
    assert {"--data.batch_size", "--data.workers"} <= set(options)
    assert [name for name, description in options.items() if not description] == []


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_every_option_of_a_command_has_help(command, capsys):
    options = options_in(help_of(capsys, command, "--help-trainer"))
    assert {"--output", "--ckpt_path", "--trainer.max_epochs"} <= set(options)
    assert [name for name, description in options.items() if not description] == []


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_the_short_help_of_a_command_fits_on_a_screen_and_names_what_strategies_have(command, capsys):
    main([command, "--help"])
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 50
    for word in ("--model.top_blocks", "--model.rank", "--ckpt_path", "--help-trainer", "Manifest"):
        assert word in said


@pytest.mark.parametrize("model", ["partial", "PartialFineTuning"])
def test_the_options_of_a_chosen_strategy_come_first(model, capsys):
    main(["fit", "--model", model, "--data=Synthetic", "--help"])
    said = capsys.readouterr().out
    assert said.index("--model.top_blocks") < said.index("--model.pooling") < said.index("--data.speakers")
    assert said.index("--data.speakers") < said.index("--patience")
    full = options_in(help_of(capsys, "fit", "--model.help", model))
    listed = {word for word in said.split() if word.startswith("--model.")}
    assert {name for name in full if not name.endswith(".help")} - listed == set()


def test_compare_explains_its_options(capsys):
    options = options_in(help_of(capsys, "compare", "--help"))
    assert {"--strategies", "--folds", "--seeds", "--out", "--epochs", "--report"} <= set(options)
    assert all(words for option, words in options.items() if "." not in option)


def test_predict_explains_how_to_name_files(capsys):
    said = help_of(capsys, "predict", "--help")
    assert "--batch_size" in said
    assert "folders to search" in said
