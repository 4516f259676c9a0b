"""`compare --train-on --test-on`: what is trained on some corpora, tested on these and others."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.metrics import recall_score

from ser_strategies.cli import main
from ser_strategies.runs import grid, matrix
from tests.cli.conftest import CPU, ENCODER
from tests.cli.test_compare import load


def corpus(folder, name, **options):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": "Synthetic", "init_args": options}}))
    return path


def test_the_matrix_scores_each_training_corpus_on_each_test_corpus(tmp_path, monkeypatch):
    """Corpora with other classes meet in those that both have; what has been scored is not scored again.

    The report of a training corpus is that of any comparison, and takes longer than its run.
    """
    monkeypatch.setattr(grid, "write_report", load)
    first = corpus(tmp_path, "first", speakers=5, utterances_per_speaker=8)
    second = corpus(
        tmp_path, "second", speakers=6, utterances_per_speaker=6, seed=3, label_map={"sadness": None}
    )
    words = ["compare", "--strategies=partial", f"--train-on={first}", f"--test-on={first},{second}"]
    words += [f"--model.encoder={ENCODER}", *CPU, "--seeds=1", "--epochs=1", f"--out={tmp_path / 'out'}"]
    main(words)
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())["entries"]
    assert [(each["tested_on"], each["in_corpus"]) for each in found] == [("first", True), ("second", False)]
    for each in found:
        (table,) = (tmp_path / "out" / "scored" / "first").glob(f"*/{each['tested_on']}/test.parquet")
        rows = pd.read_parquet(table)
        assert sorted(rows["label"].unique()) == ["anger", "happiness", "neutral"]
        said = rows.filter(like="probability/").idxmax(axis=1).str.removeprefix("probability/")
        recalls = recall_score(rows["label"], said, average=None, labels=["anger", "happiness", "neutral"])
        assert each["ua"] == pytest.approx(recalls.mean())
        assert each["unit"] == "speaker"
        assert each["utterances"] == len(rows)
    told = (tmp_path / "out" / "matrix.md").read_text()
    assert "| strategy | trained on | tested on first | tested on second |" in told
    assert (tmp_path / "out" / "matrix.svg").exists()
    monkeypatch.setattr(matrix, "_test", None)
    main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train-on=a.yaml"], "--train-on and --test-on go together"),
        (
            ["--train-on=a.yaml", "--test-on=a.yaml"],
            "a.yaml does not exist: expected a file",
        ),
        (["--train-on=b.yaml", "--test-on=b.yaml"], "b.yaml describes no corpus: expected class_path"),
        (["--train-on=b.yaml", "--test-on=b.yaml", "--folds=2"], "--folds is of one corpus: leave it out"),
        (["--train-on=c.yaml", "--test-on=d.yaml"], "the corpora share"),
    ],
)
def test_a_matrix_that_cannot_be_is_one_sentence(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("b.yaml").write_text("x: 1\n")
    corpus(tmp_path, "c", label_map={"anger": "cross", "sadness": "low"})
    corpus(tmp_path, "d", label_map={"happiness": "joy"})
    with pytest.raises(SystemExit):
        main(["compare", "--strategies=partial", *words])
    assert message in capsys.readouterr().err
