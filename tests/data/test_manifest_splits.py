"""Manifests as people have them: names of columns, published folds, no validation, missing labels."""

import zlib
from itertools import zip_longest

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data.manifest import Manifest
from ser_strategies.data.rules import GroupFolds
from ser_strategies.data.table import complete

PARTS = ("train", "val", "test")


def people(speakers=6, each=4, labels=("anger", "neutral"), **columns):
    table = pd.DataFrame(
        [
            {
                "path": f"s{speaker}_{number}.wav",
                "label": labels[number % len(labels)],
                "speaker": f"s{speaker}",
            }
            for speaker in range(speakers)
            for number in range(each)
        ]
    )
    return table.assign(**columns)


@pytest.fixture
def manifest(tmp_path):
    """Writes a table, or the text of one, and its sounds, and gives the corpus."""

    def make(table, *, sounds=(), **options):
        paths = sounds if isinstance(table, str) else table.get("path", sounds)
        for path in paths:
            sound = np.random.default_rng(zlib.crc32(path.encode())).uniform(-0.5, 0.5, 800)
            soundfile.write(tmp_path / path, sound, 16_000)
        text = table if isinstance(table, str) else table.to_csv(index=False)
        (tmp_path / "mine.csv").write_bytes(text.encode())
        return Manifest(str(tmp_path / "mine.csv"), **options)

    return make


def members(corpus):
    return {part: set(corpus.split(part)["id"]) for part in PARTS}


def speakers(corpus, part):
    return set(corpus.split(part)["speaker"])


# Names of columns -------------------------------------------------------------------------------------------


USUAL = {
    "path": ("file_name", "wav", "file_path", "filepath", "audio_path", "wav_path"),
    "label": ("emo", "labels", "class", "category", "target"),
    "speaker": ("spk_id", "SpkrID", "actor", "subject", "speakerID"),
}


def test_usual_names_of_columns_are_known(manifest):
    table = people()
    expected = manifest(table).everything()
    for names in zip_longest(*USUAL.values()):
        renamed = table.rename(columns={c: name for c, name in zip(USUAL, names, strict=True) if name})
        found = manifest(renamed, sounds=table["path"])
        pd.testing.assert_frame_equal(found.everything(), expected)


def test_a_second_name_is_left_alone_beside_a_better_one(manifest):
    corpus = manifest(people(category="speech", subject="grammar", wav="x"))
    assert corpus.labels == ("anger", "neutral")
    assert speakers(corpus, "test") <= {f"s{number}" for number in range(6)}


def test_speakers_under_another_name_are_kept_apart_beside_a_split(manifest):
    table = people(split=["train", "val", "test", "train"] * 6).rename(columns={"speaker": "actor"})
    with pytest.raises(ValueError, match="train and test share 6 speakers"):
        manifest(table).everything()


# Published folds --------------------------------------------------------------------------------------------


def test_published_folds_are_used_as_they_are(manifest):
    fold = [str(number // 4 % 3 + 9) for number in range(24)]  # 9, 10, 11: numbers, not words
    for number, name in enumerate(("9", "10", "11"), 1):
        corpus = manifest(people(fold=fold), fold=number)
        tested = {path[:-4] for path, each in zip(people()["path"], fold, strict=True) if each == name}
        assert members(corpus)["test"] == tested
        following = manifest(people(fold=fold), fold=number % 3 + 1)
        assert members(corpus)["val"] == members(following)["test"]
        assert f"own-folds-v1/{corpus._hash}/fold-{number}-of-3" in corpus.task
        assert corpus.facts()["words"].startswith(
            "The column fold of the table, with 3 folds, says who tests"
        )


@pytest.mark.parametrize(("folds", "val"), [(2, None), (3, "share")])
def test_a_share_of_those_who_train_validates(manifest, folds, val):
    table = people(speakers=12, fold=[str(number // 4 % folds) for number in range(48)])
    for fold in range(1, folds + 1):
        corpus = manifest(table, fold=fold, val=val)
        parts = [speakers(corpus, part) for part in PARTS]
        assert parts[2] == {f"s{number}" for number in range(12) if number % folds == fold - 1}
        assert 1 <= len(parts[1]) <= 3
        assert len(set.union(*parts)) == sum(map(len, parts)) == 12
        assert "own-folds-val-share-v1/" in corpus.task
        assert corpus.facts()["words"].endswith("of the others, a fifth validates.")
        corpus.setup("fit")


def test_published_folds_that_share_speakers_are_refused(manifest):
    with pytest.raises(
        ValueError, match=r"leak: train and val share 6 speakers.* Correct the column fold of "
    ):
        manifest(people(fold=list("123") * 8)).everything()


def test_a_split_comes_before_folds(manifest):
    split = ["train"] * 16 + ["val"] * 4 + ["test"] * 4
    assert "/own-v1/" in manifest(people(split=split, fold=list("123") * 8)).task


# No validation ----------------------------------------------------------------------------------------------


def test_train_and_test_alone_need_an_option(manifest):
    table = people(speakers=12, split=["train"] * 36 + ["test"] * 12)
    with pytest.raises(ValueError, match=r"has no val .* or give --data.val share to take a fifth of train"):
        manifest(table).setup("fit")
    corpus = manifest(table, val="share")
    corpus.setup("fit")
    assert speakers(corpus, "test") == {"s9", "s10", "s11"}
    assert 1 <= len(speakers(corpus, "val")) <= 3
    assert not speakers(corpus, "val") & speakers(corpus, "train")
    assert corpus.task.split("/")[2] == "own-val-share-v1"
    assert corpus.facts()["words"].endswith("of those who train, a fifth validates.")
    manifest(table).setup("test")  # which needs none


def test_without_speakers_the_share_is_drawn_within_classes(manifest):
    table = people(each=20, split=["train"] * 100 + ["test"] * 20).drop(columns="speaker")
    assert manifest(table, val="share").split("val")["label"].value_counts().to_dict() == {
        "anger": 10,
        "neutral": 10,
    }


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        (
            {"split": ["train", "val", "test", "test"] * 6},
            {"val": "share"},
            "says who validates in its column",
        ),
        (
            {"split": ["train", "test"] * 12},
            {"val": "next-fold"},
            "mine.csv has no folds, so --data.val next-",
        ),
        ({}, {"val": "share"}, "--data.val goes with the protocols own and own-folds, got speaker-folds"),
        ({"fold": "1"}, {}, "mine.csv has 1 fold in its column fold, expected 2 or more: name another"),
        (
            {"fold": ["1", "2"] * 12},
            {"val": "next-fold"},
            "has 2 folds .* expected 3 or more: .*--data.val sh",
        ),
        ({"fold": ["1", None] * 12}, {}, "line 3: fold is empty .*, expected the fold in which it tests"),
        (
            {"split": "train"},
            {"protocol": "own-folds"},
            "has no column fold, by which the protocol own-folds",
        ),
        ({"fold": "1"}, {"val": "half"}, "--data.val must be one of share, next-fold, got 'half'"),
    ],
)
def test_what_cannot_be_is_told(manifest, columns, options, said):
    with pytest.raises(ValueError, match=said):
        manifest(people(**columns), **options)


# Folds of speakers ------------------------------------------------------------------------------------------


def test_three_speakers_have_three_folds_unless_others_are_asked_for(manifest):
    assert manifest(people(speakers=3)).protocol.rule.folds == 3
    assert manifest(people(speakers=8)).protocol.rule.folds == 5
    with pytest.raises(ValueError, match="has 3 speakers, too few for 5 folds"):
        manifest(people(speakers=3), folds=5)


def test_every_fold_has_its_share_of_women_and_men(manifest):
    table = people(speakers=15, each=6)
    # Whoever speaks more is a man, so that size alone puts them together.
    table = pd.concat([table[table["speaker"].isin([f"s{n}" for n in range(5)]) | (table.index % 6 < 4)]])
    men = table["speaker"].isin([f"s{number}" for number in range(5)])
    table["gender"] = np.where(men, "M", "female")
    for fold in range(1, 6):
        tested = manifest(table, fold=fold).split("test").drop_duplicates("speaker")
        assert tested["gender"].value_counts().to_dict() == {"female": 2, "male": 1}


def test_the_version_before_stays_as_it_was(manifest):
    table = people(speakers=9, each=5, gender=["f"] * 30 + ["m"] * 15)
    corpus = manifest(table, protocol="speaker-folds-v1", folds=3)
    shared = complete(table.assign(id=table["path"].str.removesuffix(".wav"), seconds=0.0), "Made")
    expected = GroupFolds(folds=3).assign(shared, 1)
    assert corpus.everything()["split"].tolist() == expected.tolist()
    assert "/speaker-folds-v1/" in corpus.task
    assert "/speaker-folds-v2/" in manifest(table, folds=3).task


def test_a_row_less_seldom_moves_another():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"id": f"{speaker}-{label}-{number}", "speaker": f"s{speaker}", "label": f"c{label}"}
            for speaker in range(20)
            for label in range(4)
            for number in range(rng.integers(1, 12))
        ]
    )

    def moved(rule, gone):
        before, after = rule.assign(table, 1), rule.assign(table.drop(gone), 1)
        return int((before.drop(gone) != after).sum())

    gone = rng.choice(len(table), 20, replace=False)
    counts = {steady: [moved(GroupFolds(steady=steady), row) for row in gone] for steady in (False, True)}
    assert sum(each == 0 for each in counts[True]) >= 15
    assert sum(counts[True]) < sum(counts[False]) / 2


# Cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["nan", "None", "N/A", "NULL", ""])
def test_no_label_is_no_class(manifest, nothing):
    corpus = manifest(people(label=["anger", "neutral", "anger", nothing] * 6))
    corpus.everything()
    assert corpus.labels == ("anger", "neutral")
    assert corpus.dropped == {"the label is empty": 6}


def test_a_class_may_be_called_none_if_it_is_named(manifest):
    corpus = manifest(people(label=["anger", "none"] * 12), classes=("anger", "none"))
    assert corpus.class_counts() == (6, 6)


def test_a_line_for_excel_names_the_delimiter(manifest):
    text = "sep=;\r\npath;label;speaker;a,b\r\n" + "".join(
        f"{n}.wav;{'xy'[n % 2]};s{n};1,2\r\n" for n in range(6)
    )
    corpus = manifest(text, sounds=[f"{n}.wav" for n in range(6)])
    assert len(corpus.everything()) == 6
    with pytest.raises(ValueError, match="line 4: label is 'z', expected one of x, y"):
        manifest(text.replace("1.wav;y", "1.wav;z"), classes=("x", "y"))


def test_decimal_commas_are_read(manifest):
    rows = "".join(
        f"{n}.wav;{1 + n / 4:g};s{n}\n".replace(".", ",").replace(",wav", ".wav") for n in range(6)
    )
    corpus = manifest("path;arousal;speaker\n" + rows, sounds=[f"{n}.wav" for n in range(6)])
    assert corpus.everything()["activation"].tolist() == [1, 1.25, 1.5, 1.75, 2, 2.25]
