"""`ensemble`: checkpoints weighed, scored once, shipped and loaded again; and what must be refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_strategies import Synthetic, load_ensemble, predict
from ser_strategies.cli import main
from ser_strategies.common.files import write_result
from ser_strategies.data.audio import read_audio
from ser_strategies.encoder.checkpoints import hash_of_weights, stamp_of
from ser_strategies.ensembles.log_loss import least_log_loss
from tests.cli.conftest import PARTIAL, everything_in, only_error
from tests.contained import contained

ON_CPU = "--accelerator=cpu"
CORPUS = ("--data=Synthetic", "--data.speakers=3", "--data.utterances_per_speaker=25")  # that of `finished`


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory):
    """Two runs on one split, the first with the predictions of both splits beside it; look, do not touch."""
    folder = tmp_path_factory.mktemp("members")
    shutil.copytree(finished.folder, folder / "vanilla")
    words = (*PARTIAL, *CORPUS, "--model.head_lr=1e-2", "--trainer.max_epochs=1")
    with contained():
        main(["fit", *words, f"--trainer.default_root_dir={folder / 'partial'}"])
    return folder


@pytest.fixture
def members(runs, here):
    """Copies of the runs, which a test may spoil."""
    return [shutil.copytree(runs / name, here / "runs" / name) for name in ("vanilla", "partial")]


def facts(path):
    return json.loads(Path(path).read_text())


def test_an_ensemble_is_weighed_scored_shipped_and_answers(members, here, capsys, monkeypatch):
    before = (members[0] / "test.parquet").stat().st_mtime_ns
    main(["ensemble", *map(str, members), "--out=both", ON_CPU, "--copy"])
    said = capsys.readouterr().out
    assert "predicting the test split with partial" in said
    assert "with vanilla" not in said, "its folder has them, of this checkpoint"
    assert "predicting the val" not in said, "a fit has kept them"
    assert (members[0] / "test.parquet").stat().st_mtime_ns == before
    made = facts("both/ensemble.json")
    assert [each["fingerprint"] for each in made["members"]] == [
        hash_of_weights(m / "best.ckpt") for m in members
    ]
    val = [pd.read_parquet(each / "val.parquet") for each in members]
    columns = [f"probability/{label}" for label in made["labels"]]
    truth = val[0]["label"].map(made["labels"].index).to_numpy()
    given = np.stack([rows[columns].to_numpy(float)[np.arange(len(rows)), truth] for rows in val])
    weights = least_log_loss(given).weights
    assert [each["weight"] for each in made["members"]] == pytest.approx(list(weights), abs=1e-9)
    scored = pd.read_parquet("both/test.parquet")
    data = Synthetic(speakers=3, utterances_per_speaker=25)
    assert list(scored["id"]) == list(data.split("test")["id"])
    costs = [facts(each / "costs.json") for each in members]
    assert facts("both/costs.json")["fit_seconds"] == pytest.approx(
        sum(each["fit_seconds"] for each in costs)
    )
    assert facts("both/test.json")["metrics"]["test/ua"] == pytest.approx(made["test"]["weighted"]["test/ua"])

    # It answers alike through `predict`, from a corpus and from files, and as a module.
    shutil.rmtree(here / "runs")  # the members are in it
    table = predict("both", data, accelerator="cpu").set_index("id").loc[scored["id"]]
    assert table[columns].to_numpy() == pytest.approx(scored[columns].to_numpy(), abs=1e-5)
    row = data.split("test").iloc[0]
    soundfile.write("one.wav", data.waveform(row), 16_000, subtype="FLOAT")
    (here / "broken.wav").write_bytes(b"no sound at all")
    main(["predict", "--ckpt_path=both", "one.wav", "broken.wav", "--output=said.csv", ON_CPU])
    said = pd.read_csv("said.csv").set_index("id")
    assert said.loc["one", columns].to_numpy(float) == pytest.approx(
        scored[columns].iloc[0].to_numpy(), abs=1e-4
    )
    assert said.loc["one", "label"] == made["labels"][int(scored[columns].iloc[0].to_numpy().argmax())]
    assert isinstance(said.loc["broken", "error"], str)
    assert said.loc["broken", columns].isna().all()
    module = load_ensemble("both")
    heard = torch.as_tensor(read_audio("one.wav"))[None]
    with torch.no_grad():
        answer = module(heard, torch.tensor([heard.shape[1]]))[0]
    assert answer.numpy() == pytest.approx(scored[columns].iloc[0].to_numpy(float), abs=1e-4)
    assert not module.training
    assert module.labels == tuple(made["labels"])

    # A member that has changed is not asked.
    member = next((here / "both/members").iterdir())
    other = torch.load(member, weights_only=True)
    next(iter(other["state_dict"].values())).add_(1e-3)
    torch.save(other, member)
    for ask in (load_ensemble, lambda folder: predict(folder, "one.wav")):
        with pytest.raises(ValueError, match="its weights have changed"):
            ask("both")
    member.unlink()
    with pytest.raises(FileNotFoundError, match="put it back"):
        load_ensemble("both")


def test_what_a_folder_says_counts_only_if_it_is_of_this_checkpoint(members, capsys):
    table = pd.read_parquet(members[0] / "test.parquet")
    assert table.attrs["checkpoint"] == stamp_of(members[0] / "best.ckpt")
    wrong = table.assign(**{"probability/anger": 1.0})
    wrong.attrs = table.attrs | {"checkpoint": "another"}
    wrong.to_parquet(members[0] / "test.parquet")
    main(["ensemble", *map(str, members), "--out=both", ON_CPU, "--by=f1_macro"])
    assert "predicting the test split with vanilla" in capsys.readouterr().out
    made = facts("both/ensemble.json")
    assert made["members"][0]["checkpoint"] == "../runs/vanilla/best.ckpt"
    assert made["test"]["single"]["test/recall/anger"] < 1, "which the false table would have made it"
    best = max(made["val"][kind]["val/f1_macro"] for kind in ("single", "mean"))
    assert made["val"]["weighted"]["val/f1_macro"] >= best


def other_order(words, members):
    return [*words, "--data.label_map={anger: a_anger, sadness: a_sadness}"]


def other_split(words, members):
    return [*words, "--data.speakers=4"]


def other_digest(words, members):
    path = members[1] / "fit.json"
    told = facts(path)
    told["data"]["digest"] = "0" * 16
    write_result(path, told)
    return words


def one_member(words, members):
    return [words[0], words[1], *words[3:]]


def the_same_twice(words, members):
    return [words[0], words[1], words[1], *words[3:]]


def no_checkpoint(words, members):
    return [words[0], words[1], "nowhere", *words[3:]]


def wrong_rule(words, members):
    return [*words, "--by=ccc"]


def wrong_score(words, members):
    return [*words, "--score=uaa"]


REFUSED = {
    other_order: "members must predict the same",
    other_split: "were heard in training|was trained on another split",
    other_digest: "with the digest 0000000000000000",
    one_member: "expected two members or more",
    the_same_twice: "has the same weights as the member vanilla",
    no_checkpoint: "no checkpoint at nowhere",
    wrong_rule: "choose log_loss, f1_macro or ua",
    wrong_score: "got 'uaa'",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_what_cannot_be_weighed_is_one_sentence_and_leaves_nothing(spoil, members, here, capsys):
    words = spoil(["ensemble", *map(str, members), "--out=both", ON_CPU], members)
    before = everything_in(here)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code not in {0, None}
    sentence = only_error(capsys.readouterr().err)
    assert any(each in sentence for each in REFUSED[spoil].split("|")), sentence
    assert everything_in(here) == before


def test_an_ensemble_is_not_written_over_a_run(members, here, capsys):
    for words, sentence in (([], "is there already"), (["--overwrite"], "is not the folder of an ensemble")):
        with pytest.raises(SystemExit):
            main(["ensemble", *map(str, members), f"--out={members[0]}", *words])
        assert sentence in only_error(capsys.readouterr().err)
