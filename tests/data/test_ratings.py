"""Ratings of single raters on their way to a batch: from dictionaries to ragged numbers."""

import math
import re
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_strategies import IEMOCAP, Manifest, MSPPodcast, Synthetic
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.ratings import FEW
from ser_strategies.data.synthetic.population import draw_population, render
from tests.data.test_iemocap import lay_out as lay_out_iemocap
from tests.data.test_msp_podcast import lay_out as lay_out_msp

DIMENSIONS = ("activation", "valence")


class Rated(Corpus):
    """Utterances u0, u1, ... of which every third tests, and ratings that a test lists."""

    dimensions = DIMENSIONS
    scale = (1.0, 5.0)

    def __init__(self, ratings, count=9, **options):
        super().__init__(**({"single_ratings": True} | options))
        self.listed, self.count = ratings, count

    def table(self):
        splits = ["train", "val", "test"]
        rows = [
            {"id": f"u{n}", "split": splits[n % 3], "seconds": 1.0, "activation": 3.0, "valence": 3.0}
            for n in range(self.count)
        ]
        return pd.DataFrame(rows)

    def ratings(self):
        return pd.DataFrame(self.listed, columns=["id", "rater", *DIMENSIONS])

    def waveform(self, utterance):
        return np.full(800, 0.1, dtype=np.float32)


def judged(seed=0):
    """Ratings of some raters, in no order, of whom some judge twice and some hardly anything."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(9):
        for rater in chance.permutation(6)[: chance.integers(1, 6)]:
            for _ in range(2 if chance.random() < 0.2 else 1):
                rows.append((f"u{number}", f"rater-{rater}", *chance.integers(1, 6, 2).astype(float)))
    return [rows[each] for each in chance.permutation(len(rows))]


def test_ratings_reach_the_batch_as_plain_dictionaries_have_them():
    rows = [*judged(), ("u0", "rater-1", math.nan, 2.0), ("elsewhere", "rater-0", 1.0, 1.0)]
    corpus = Rated(rows, batch_size=4)
    said = defaultdict(lambda: defaultdict(list))
    for name, rater, *values in rows:
        if not math.isnan(values[0]):
            said[name][f"Rated/{rater}"].append([(value - 3) / 2 for value in values])
    expected = {
        name: {rater: np.mean(each, axis=0) for rater, each in by.items()}
        for name, by in said.items()
        if len(by) >= 2 and name != "elsewhere"
    }
    trained = {rater for name, by in expected.items() for rater in by if int(name[1:]) % 3 == 0}
    assert corpus.raters == tuple(sorted(trained))
    found = {}
    for loader in (corpus.train_dataloader(), corpus.val_dataloader(), corpus.test_dataloader()):
        for batch in loader:
            assert batch.ratings.shape == (len(batch.ids), batch.raters.shape[1], 2)
            for row, name in enumerate(batch.ids):
                there = ~batch.ratings[row, :, 0].isnan()
                found[name] = list(
                    zip(batch.raters[row, there].tolist(), batch.ratings[row, there].tolist(), strict=True)
                )
                assert (batch.raters[row, ~there] == -1).all()
                mean = np.mean([values for _, values in found[name]], axis=0)
                np.testing.assert_allclose(batch.dimensions[row].numpy(), mean, atol=1e-6)
    assert set(found) == set(expected)
    for name, by in expected.items():
        places = [corpus.raters.index(each) if each in corpus.raters else -1 for each in sorted(by)]
        assert [place for place, _ in found[name]] == places
        np.testing.assert_allclose(
            [values for _, values in found[name]], [by[each] for each in sorted(by)], atol=1e-6
        )
    assert corpus.splits.dropped[FEW] == 9 - len(expected)
    facts = corpus.facts()["ratings"]
    assert facts["incomplete"] == 1
    assert facts["twice"] == sum(
        len(each) - 1 for n, by in said.items() for each in by.values() if n[0] == "u"
    )
    assert corpus.task == "Rated/single-ratings/own-v1/" + corpus.splits.hash


def test_raters_with_few_ratings_are_taken_for_one():
    rows = [(f"u{n}", f"r{r}", 1.0 + r, 2.0) for n in range(9) for r in range(3) if r < 2 or n in {0, 1}]
    rows += [("u1", "r3", 4.0, 4.0)]  # who is never heard in training
    corpus = Rated(rows, fewest_ratings=2, batch_size=9)
    assert corpus.raters == ("Rated/r0", "Rated/r1", "Rated/others")
    (batch,) = corpus.val_dataloader()
    assert batch.raters[batch.ids.index("u1")].tolist() == [0, 1, 2, 2]
    assert corpus.facts()["ratings"]["together"] == 1


def test_without_being_asked_nothing_changes():
    corpus = Rated(judged(), single_ratings=False)
    (batch,) = corpus.val_dataloader()
    assert batch.raters is None
    assert corpus.raters == ()
    assert "ratings" not in corpus.facts()
    assert (batch.dimensions == 3).all()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [("u0", "ann", 1.0, 1.0), ("u1", "ann", 2.0, 2.0)],
            r"are by one rater \(ann\): expected those of two",
        ),
        ([], "are by nobody"),
        (
            [("u0", "a", 1.0, 6.0), ("u0", "b", 1.0, 1.0)],
            "1 ratings of Rated lie outside .* from 1 to 5, such as 6",
        ),
        ([("u0", "a", 1.0, 1.0), ("u1", "b", 1.0, 1.0)], "no utterance of Rated has ratings of two raters"),
    ],
)
def test_ratings_that_cannot_be_learned_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        Rated(rows).setup("fit")


def test_corpora_without_ratings_of_dimensions_say_so(monkeypatch):
    corpus = Rated([])
    monkeypatch.setattr(corpus, "ratings", lambda: None)
    with pytest.raises(ValueError, match="Rated tells no ratings of single raters"):
        corpus.setup("fit")
    corpus = Rated([])
    monkeypatch.setattr(corpus, "ratings", lambda: pd.DataFrame({"id": ["u0"], "rater": "a", "label": "x"}))
    with pytest.raises(
        ValueError, match=r"lack the dimension .*: its raters chose classes, which --model.soft_"
    ):
        corpus.setup("fit")


def test_recorded_corpora_hand_out_what_their_files_say(tmp_path):
    lay_out_iemocap(tmp_path / "iemocap")
    corpus = IEMOCAP(
        str(tmp_path / "iemocap"), labels="none", dimensions=DIMENSIONS, single_ratings=True, batch_size=99
    )
    # E3, E4 and the actress rated the first turn; one rater alone rated each other one.
    assert sorted(corpus.everything()["id"]) == [f"Ses0{n}F_impro01_F000" for n in range(1, 6)]
    (batch,) = corpus.test_dataloader()
    assert batch.ids == ("Ses01F_impro01_F000",)
    expected = [[-1.0, 0.0], [-0.5, 0.0], [0.5, -0.5]]  # 1F: 1 and 3, E3: 2 and 3, E4: 4 and 2, of 5
    np.testing.assert_allclose(batch.ratings[0].numpy(), expected)
    assert corpus.raters == ("IEMOCAP/3F", "IEMOCAP/4F", "IEMOCAP/5F", "IEMOCAP/E3", "IEMOCAP/E4")
    with pytest.raises(ValueError, match=r"dimensions must be some of .* did you mean valence"):
        IEMOCAP(str(tmp_path / "iemocap"), dimensions=("valense",))
    msp = MSPPodcast(
        lay_out_msp(tmp_path / "msp", ratings="EmoDetail"), dimensions=DIMENSIONS, single_ratings=True
    )
    (batch,) = msp.train_dataloader()
    assert batch.ids == ("MSP-PODCAST_0001_0008",)
    expected = [[(value - 4) / 3 for value in row] for row in ((2, 4), (3, 5), (1.5, 4), (2, 3))]
    np.testing.assert_allclose(batch.ratings[0].numpy(), expected, atol=1e-6)


def test_made_up_raters_have_habits_and_leave_the_sound_alone():
    plain, known = (draw_population(3, 24, seed=3, pool=pool) for pool in (None, 8))
    assert render(known[5]).tobytes() == render(plain[5]).tobytes()
    assert [clip.seconds for clip in known] == [clip.seconds for clip in plain]
    corpus = Synthetic(speakers=10, utterances_per_speaker=40, rater_pool=8)
    ratings = corpus.ratings()
    assert ratings.groupby("id")["rater"].nunique().eq(5).all()
    apart = ratings.assign(**{n: ratings[n] - ratings.groupby("id")[n].transform("mean") for n in DIMENSIONS})
    means = apart.groupby("rater")[list(DIMENSIONS)].mean()
    biases = corpus.rater_biases().loc[means.index, list(DIMENSIONS)]
    for name in DIMENSIONS:
        assert np.corrcoef(means[name], biases[name])[0, 1] > 0.95
    with pytest.raises(ValueError, match="rater_pool must be at least 5, raters of an utterance, got 4"):
        Synthetic(rater_pool=4).setup("fit")


HEADER = "id,rater,arousal,valence"
GOOD = ["one,ann,1,5", "one,bob,3,4", "two,ann,2,2", "two,bob,5,1", "three,ann,4,4", "three,eve,4,2"]


def manifest(folder, lines, header=HEADER, **options):
    for number, name in enumerate(("one", "two", "three")):
        soundfile.write(folder / f"{name}.wav", np.full(1600 + number, number / 10), 16_000)
    table = ["path,split,speaker", "one.wav,train,a", "two.wav,val,b", "three.wav,test,c"]
    (folder / "mine.csv").write_text("\n".join(table) + "\n")
    (folder / "ratings.csv").write_text("\n".join([header, *lines]) + "\n")
    given = {"ratings": str(folder / "ratings.csv"), "single_ratings": True} | options
    return Manifest(str(folder / "mine.csv"), **given)


def test_a_manifest_takes_its_ratings_from_a_file(tmp_path):
    corpus = manifest(tmp_path, GOOD)
    assert corpus.dimensions == ("activation", "valence")
    assert corpus.raters == ("Manifest/ann", "Manifest/bob")
    assert corpus.scale == (1.0, 5.0)
    (batch,) = corpus.test_dataloader()
    assert batch.raters.tolist() == [[0, -1]]
    np.testing.assert_allclose(batch.ratings[0].numpy(), [[0.5, 0.5], [0.5, -0.5]])
    assert "single-ratings" in corpus.task
    means = manifest(tmp_path, GOOD, single_ratings=False).everything().set_index("id")
    assert means.loc["one", ["activation", "valence"]].tolist() == [2.0, 4.5]
    wider = manifest(tmp_path, GOOD, scale=(1.0, 7.0), dimensions=("valence", "arousal"))
    (batch,) = wider.test_dataloader()
    np.testing.assert_allclose(batch.ratings[0].numpy(), [[0.0, 0.0], [-2 / 3, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        ([], {}, "has no ratings, only the names of its columns"),
        (["one,ann,1,2", "four,bob,1,2"], {}, "line 3: id is 'four', expected an utterance of the manifest"),
        (["one,ann,1,2", "one,bob,1,x"], {}, "line 3: valence is 'x', expected a number"),
        (
            ["one,ann,1,2", "one,bob,,2"],
            {},
            "line 3: arousal is empty, expected a number: leave out a rating",
        ),
        (["one,ann,1,nan", "one,bob,1,2"], {}, "line 2: valence is 'nan', expected a number"),
        (["one,,1,2"], {}, "line 2: rater is empty, expected a name"),
        (GOOD, {"scale": (1.0, 4.0)}, "line 5: arousal is 5, expected 1 to 4, the ends of --data.scale"),
        (["one,ann,2,2", "one,bob,2,2"], {}, "goes from 2 to 2, expected two ends"),
        (
            GOOD,
            {"dimensions": ("activation", "dominance")},
            "has no column dominance, got id, rater, arousal",
        ),
        (GOOD, {"ratings": "nowhere.csv"}, "nowhere.csv does not exist: expected a table"),
        (["one,ann,1,5", "two,ann,3,4"], {}, "are by one rater"),
    ],
)
def test_mistakes_in_a_file_of_ratings_are_one_sentence(lines, options, words, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        manifest(tmp_path, lines, **options).setup("fit")
    assert len(re.findall(r"\.(?:\s|$)", str(caught.value))) == 1


def test_an_empty_file_of_ratings_is_told_what_it_might_have_had(tmp_path):
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(
        ValueError, match=r"none.csv is empty: .* the columns id, rater, activation and valence\.$"
    ):
        manifest(tmp_path, GOOD, ratings=str(tmp_path / "none.csv"))


def test_workers_and_stored_frames_hand_out_ratings_too():
    corpus = Rated(judged(), workers=1, batch_size=4)
    (batch,) = corpus.val_dataloader()
    alone = corpus.collate(corpus.split("val").set_index("id").loc[list(batch.ids)].reset_index(), [])
    assert torch.equal(batch.raters, alone.raters)
    assert torch.equal(batch.ratings.nan_to_num(9), alone.ratings.nan_to_num(9))
