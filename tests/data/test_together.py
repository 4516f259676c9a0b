"""Several corpora as one: classes by one name, balance in training, and what each corpus is told of."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score

from ser_strategies.cli import main
from ser_strategies.common.emotion_words import suggested_map
from ser_strategies.data.corpora.iemocap import IEMOCAP
from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from ser_strategies.data.corpora.together import Together
from ser_strategies.data.manifest import Folder
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.fit.scored import scores_by_corpus
from tests.data import test_iemocap, test_msp_podcast
from tests.data.test_acted import lay_out

SYNTHETIC = {"speakers": 5, "utterances_per_speaker": 8}
SPEAKERS = "abcdefg"


@pytest.fixture
def of(tmp_path):
    """A made-up corpus and a folder of another kind, with more classes and other names for two of them."""
    names = [
        f"{who}_{label}_{take}.wav"
        for who in SPEAKERS
        for label in ("happiness", "neutral", "Wut", "boredom")
        for take in (1, 2, 3)
    ]
    folder = {
        "root": lay_out(tmp_path, names),
        "label": "{speaker}_{label}_*",
        "label_map": {"Wut": "anger"},
    }
    return [{"Synthetic": dict(SYNTHETIC)}, {"Folder": folder}]


def test_classes_that_every_corpus_has_are_kept_and_the_others_counted(of):
    corpus = Together(of)
    assert corpus.labels == ("anger", "happiness", "neutral")
    sad = sum(Synthetic(**SYNTHETIC).everything()["label"] == "sadness")
    assert corpus.everything()["label"].notna().all()
    assert corpus.dropped == {
        "Synthetic: not every corpus has the class sadness": sad,
        "Folder: not every corpus has the class boredom": 21,
    }
    assert Together(of, classes="all").labels == ("anger", "boredom", "happiness", "neutral", "sadness")


def test_each_corpus_keeps_its_splits_and_its_speakers(of):
    table = Together(of).everything()
    own = Folder(**of[1]["Folder"]).everything().set_index("id")["split"]
    mine = table[table["corpus"] == "Folder"]
    assert (mine["split"].to_numpy() == own[mine["id"].str.removeprefix("Folder/")].to_numpy()).all()
    assert set(mine["speaker"]) == {f"Folder/{who}" for who in SPEAKERS}
    assert mine["path"].str.startswith("/").all()


def test_training_hears_each_corpus_equally_often(of):
    corpus = Together(of, batch_size=4)
    rows = corpus.split("train")
    sizes = Counter(rows["corpus"])
    assert len(set(sizes.values())) == 2
    heard = rows["corpus"].iloc[corpus.heard_order]
    assert Counter(heard) == dict.fromkeys(sizes, max(sizes.values()))
    # Every utterance comes as often as any other of its corpus, or once more.
    for name in sizes:
        times = Counter(corpus.heard_order[place] for place in np.flatnonzero((heard == name).to_numpy()))
        assert max(times.values()) - min(times.values()) <= 1
    assert sum(corpus.class_counts()) == len(heard)
    assert corpus.heard_order == Together(of).heard_order
    plain = Together(of, balance=False)
    assert plain.heard_order == list(range(len(rows)))


def test_batches_hold_what_an_epoch_hears_also_twice(of):
    del of[1]
    of.append({"Synthetic": {"speakers": 3, "utterances_per_speaker": 5, "seed": 7}})
    corpus = Together(of, batch_size=8)
    assert list(corpus.members) == ["Synthetic", "Synthetic-2"]
    ids = [name for batch in corpus.train_dataloader() for name in batch.ids]
    heard = corpus.split("train")["id"].iloc[corpus.heard_order]
    assert Counter(ids) == Counter(heard)
    assert max(Counter(ids).values()) > 1
    batch = next(iter(corpus.val_dataloader()))
    name = batch.ids[0]
    own = corpus.members[name.partition("/")[0]].waveform({"id": name.partition("/")[2]})
    np.testing.assert_array_equal(batch.waveforms[0, : batch.lengths[0]].numpy(), own)


def test_what_was_heard_here_is_known_to_each_corpus(of):
    together = Together(of)
    alone = together.members["Folder"]
    for kind, number in alone.numberings().items():
        rows = together.everything()
        mine = rows[rows["corpus"] == "Folder"].reset_index(drop=True)
        own = alone.everything().set_index("id").loc[mine["id"].str.removeprefix("Folder/")].reset_index()
        assert torch.equal(together.numberings()[kind](mine), number(own))


# Dimensions -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Every utterance of IEMOCAP, whose dimensions go from 1 to 5, and MSP-Podcast, where they go to 7."""
    roots = [tmp_path_factory.mktemp(name) for name in ("iemocap", "msp")]
    test_iemocap.lay_out(roots[0])
    test_msp_podcast.lay_out(roots[1])
    names = ("IEMOCAP", "MSPPodcast")
    return [{name: {"root": str(root), "labels": "none"}} for name, root in zip(names, roots, strict=True)]


@pytest.fixture
def rated(tmp_path):
    """A table of valence and arousal from 0 to 100, of which a few are not known."""
    rows = [(f"{who}{take}", who, 10.0 * take, 100 - 20.0 * take) for who in SPEAKERS for take in range(5)]
    table = pd.DataFrame(rows, columns=["id", "speaker", "valence", "arousal"])
    table.loc[table["id"].isin(["a1", "b2", "c0"]), "valence"] = np.nan
    lay_out(tmp_path, [f"{name}.wav" for name in table["id"]])
    table.assign(path=table["id"] + ".wav").to_csv(tmp_path / "rated.csv", index=False)
    return tmp_path / "rated.csv"


def test_dimensions_of_each_corpus_go_from_end_to_end_of_its_own_scale(two):
    corpus = Together(two)
    assert corpus.dimensions == ("activation", "valence", "dominance")
    assert corpus.labels == ()
    table = corpus.everything().set_index("id")
    for name, kind, (low, high) in (("IEMOCAP", IEMOCAP, (1, 5)), ("MSPPodcast", MSPPodcast, (1, 7))):
        own = kind(**two[name == "MSPPodcast"][name]).everything().set_index("id")
        for dimension in corpus.dimensions:
            mine = table.loc[[f"{name}/{each}" for each in own.index], dimension].to_numpy()
            np.testing.assert_allclose(mine, np.interp(own[dimension], [low, high], [-1, 1]))
    batch = next(iter(corpus.val_dataloader()))
    assert batch.dimensions.abs().max() <= 1
    assert (batch.labels == -1).all()


def test_what_a_corpus_does_not_tell_is_missing_and_counted(rated):
    manifest = {"Manifest": {"path": str(rated), "folds": 3}}
    of = [{"Synthetic": dict(SYNTHETIC)}, manifest, {"Synthetic": SYNTHETIC | {"dimensions": ["valence"]}}]
    corpus = Together(of, classes="all", dimensions=("arousal", "valence"), scales={"Manifest": (0, 100)})
    assert corpus.dimensions == ("activation", "valence")
    rows = corpus.everything().set_index("corpus")
    assert rows.loc["Manifest", "valence"].isna().sum() == 3
    assert rows.loc["Synthetic-2", "activation"].isna().all()
    np.testing.assert_allclose(rows.loc["Manifest", "activation"].unique(), [1, 0.6, 0.2, -0.2, -0.6])
    told = corpus.facts()["corpora"]
    assert told["Manifest"]["dimensions"] == {"activation": 35, "valence": 32}
    assert told["Synthetic-2"]["dimensions"] == {"activation": 0, "valence": 40}
    # What is not asked for is what all of them tell.
    assert Together(of, classes="all", scales={"Manifest": (0, 100)}).dimensions == ("valence",)
    assert Together(of, classes="all").dimensions == ()
    manifest["Manifest"]["scale"] = [0, 100]
    assert Together(of, classes="all").dimensions == ("valence",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dimensions": ["valence"]},
            r"scale of Manifest is not known, and valence .* '\{Manifest: \[1, 5\]\}'",
        ),
        ({"dimensions": ["valense"]}, r"'valense', which no corpus tells: .*; did you mean valence\?"),
        ({"scales": {"Manifst": [0, 1]}}, r"names 'Manifst', .*; did you mean Manifest\?"),
        ({"scales": {"Manifest": [5, 1]}}, r"Manifest: got \[5, 1\], expected two ends, the lower first"),
        (
            {"scales": {"Manifest": [0, 20]}},
            r"28 of 35 values of activation in Manifest lie outside of its scale from 0 to 20, such as 100:",
        ),
    ],
)
def test_scales_that_are_not_known_or_wrong_are_one_sentence(rated, options, message):
    of = [{"Synthetic": dict(SYNTHETIC)}, {"Manifest": {"path": str(rated), "folds": 3}}]
    with pytest.raises(ValueError, match=message):
        Together(of, classes="all", **options).everything()


def test_a_few_values_outside_of_a_scale_are_kept_and_told(rated):
    table = pd.read_csv(rated)
    table.loc[0, "arousal"] = 104
    whole = pd.concat([table] + [table.assign(speaker=str(n), arousal=50) for n in range(3)])
    whole.assign(id=range(len(whole)), path="a0.wav").to_csv(rated, index=False)
    entry = {"Manifest": {"path": str(rated), "scale": [0, 100], "protocol": "test-only"}}
    corpus = Together([{"Synthetic": dict(SYNTHETIC)}, entry], classes="all", allow_leakage=True)
    assert corpus.everything()["activation"].max() == pytest.approx(1.08)
    assert corpus.differences()[-1] == "Manifest: 1 values of activation lie outside of its scale"


def test_classes_of_some_corpora_alone_are_one_sentence(rated):
    of = [{"Synthetic": dict(SYNTHETIC)}, {"Manifest": {"path": str(rated), "scale": [0, 100]}}]
    with pytest.raises(
        ValueError, match="Manifest has no classes, as Synthetic has: take the classes from all"
    ):
        Together(of)


def test_dimensions_of_two_corpora_are_learned_and_scored_by_corpus(two, tmp_path, capsys):
    words = ["--data", "Together", "--data.of", str(two), "--trainer.accelerator", "cpu"]
    model = [
        "--model",
        "PartialFineTuning",
        "--model.encoder",
        "random:wav2vec2-tiny",
        "--model.top_blocks=0",
    ]
    more = ["--model.objective", "dimensions", "--trainer.max_epochs", "1", "--trainer.limit_train_batches=1"]
    more += ["--trainer.default_root_dir", str(tmp_path / "run")]
    main(["fit", *model, *words, *more])
    main(["test", "--ckpt_path", str(tmp_path / "run")])
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "test-by-corpus.json").read_text())
    table = pd.read_parquet(tmp_path / "run" / "test.parquet")
    for name, rows in table.groupby("corpus"):
        x, y = rows["valence"].to_numpy("float64"), rows["true/valence"].to_numpy("float64")
        concordance = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert found[name]["ccc_valence"] == pytest.approx(concordance)
        assert found[name]["utterances"] == len(rows)
        assert f"of {len(rows)} utterances" in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([{"Synthetic": {}}], r"names 1 corpora, expected two or more"),
        ([{"Synthetc": {}}, {"Synthetic": {}}], r"has the corpus 'Synthetc', .*; did you mean Synthetic\?"),
        (
            [{"Synthetic": {"speeker": 3}}, {"Synthetic": {}}],
            r"Synthetic: got an unexpected .*speeker",
        ),
        ([{"Synthetic": 3}, {"Synthetic": {}}], r"expected a corpus with its options, as in \{NEMO"),
        (["Synthetic", "Synthetic"], r"has 'Synthetic', expected a corpus with its options"),
    ],
)
def test_corpora_that_cannot_be_made_are_one_sentence(changed, message):
    with pytest.raises(ValueError, match=message):
        Together(changed)


def test_classes_that_do_not_meet_are_one_sentence_with_a_map(tmp_path):
    root = lay_out(tmp_path, [f"{who}_{label}.wav" for who in "abc" for label in ("Wut", "Freude", "x")])
    folder = {"root": root, "label": "{speaker}_{label}"}
    with pytest.raises(ValueError, match=r"no class in common: Synthetic \(anger, .*\) and Folder") as error:
        Together([{"Synthetic": {}}, {"Folder": folder}])
    assert "for Folder label_map: {Freude: happiness, Wut: anger}." in str(error.value)


def test_words_of_other_languages_are_understood():
    found = suggested_map(
        ["Wut", "tristesse", "radość", "ps", "neutral", "odd"], ["angry", "sad", "joy", "neutral"]
    )
    assert found == {"Wut": "angry", "tristesse": "sad", "radość": "joy"}


def test_scores_by_corpus_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((60, 3)), columns=[f"probability/{name}" for name in "abc"])
    table = table.assign(label=rng.choice(list("ab"), 60), corpus=["one"] * 20 + ["two"] * 40)
    found = scores_by_corpus(table)
    for name, rows in table.groupby("corpus"):
        said = rows.filter(like="probability/").idxmax(axis=1).str[-1]
        recalls = recall_score(rows["label"], said, average=None, labels=["a", "b"])
        assert found[name]["ua"] == pytest.approx(recalls.mean())
        assert found[name]["wa"] == pytest.approx(accuracy_score(rows["label"], said))


def test_a_dimension_that_a_corpus_does_not_tell_has_no_score_there():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((40, 4)), columns=["valence", "true/valence", "power", "true/power"])
    table = table.assign(id=[*map(str, range(40))], label=None, corpus=["one"] * 20 + ["two"] * 20)
    table.loc[:19, "true/power"] = np.nan
    found = scores_by_corpus(table)
    assert [*found["one"]] == ["utterances", "ccc", "ccc_valence"]
    assert found["one"]["ccc"] == found["one"]["ccc_valence"]
    assert found["two"]["ccc"] == pytest.approx((found["two"]["ccc_valence"] + found["two"]["ccc_power"]) / 2)
