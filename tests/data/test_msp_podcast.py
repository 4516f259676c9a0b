"""MSP-Podcast, laid out small as each release does: what is read of it, who is where, what is refused."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from ser_strategies.data.protocol import Count

nan = math.nan
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
SEGMENTS = (
    ("MSP-PODCAST_0001_0008.wav", "N", 2.2, 4.0, 2.6, "30", "Male", "Train"),
    ("MSP-PODCAST_0001_0009.wav", "A", 6.777778, 1.5, 6.0, "30", "Male", "Train"),
    ("MSP-PODCAST_0002_0001.wav", "H", 5.0, 6.25, 4.0, "41", "Female", "Train"),
    ("MSP-PODCAST_0002_0002.wav", "X", 3.0, 3.5, 3.25, "41", "Female", "Train"),
    ("MSP-PODCAST_0003_0001.wav", "O", 4.0, 4.0, 4.0, "Unknown", "Unknown", "Train"),
    ("MSP-PODCAST_0003_0002.wav", "S", 1.4, 2.0, 1.8, "Unknown", "Unknown", "Train"),
    ("MSP-PODCAST_0004_0001.wav", "C", 4.2, 2.8, 5.0, "52", "Female", "Development"),
    ("MSP-PODCAST_0004_0002.wav", "H", 4.8, 5.6, 4.4, "52", "Female", "Development"),
    ("MSP-PODCAST_0005_0001.wav", "D", 4.5, 2.0, 4.25, "63", "Male", "Test1"),
    ("MSP-PODCAST_0005_0002.wav", "N", 3.8, 4.2, 3.6, "63", "Male", "Test1"),
    ("MSP-PODCAST_0006_0001.wav", "F", 5.2, 2.4, 2.2, "74", "Female", "Test2"),
    ("MSP-PODCAST_0006_0002.wav", "U", 5.8, 4.6, 4.8, "74", "Female", "Test2"),
)
TEST3 = (
    ("MSP-PODCAST_0007_0001.wav", "A", 6.0, 2.0, 5.5, "85", "Male", "Test3"),
    ("MSP-PODCAST_0007_0002.wav", "", "", "", "", "", "", "Test3"),
)
# Segment, rater, primary and secondary class, activation, valence, dominance.
RATINGS = (
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000001", "Neutral", "Neutral,Concerned", "2", "4", "3"),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000018", "Happy", "", "3", "5", "2"),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000021", "Neutral", "Neutral", "1.5", "4", "2"),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000044", "Other-confused", "Confused", "2", "3", "4"),
    ("MSP-PODCAST_0001_0009.wav", "WORKER00000018", "Angry", "Angry,Annoyed", "7", "1", "6"),
    ("MSP-PODCAST_0002_0001.wav", "WORKER00000001", "Other-(it: A:1, D:2)", "Amused", "5", "6", "4"),
    ("MSP-PODCAST_0005_0001.wav", "WORKER00000021", "Disgust", "Disgust,Fear", "4", "2", "4"),
    ("MSP-PODCAST_0005_0001.wav", "WORKER00000044", "Neutral", "Neutral", "", "", ""),
)
NAMES = {
    "Neutral": "neutral",
    "Happy": "happiness",
    "Angry": "anger",
    "Disgust": "disgust",
}
LAYOUTS = {
    "1.6": {"folder": "label", "spelling": "concensus", "development": "Validation", "ratings": "Workers"},
    "1.8-json": {
        "folder": "label",
        "spelling": "concensus",
        "kind": "json",
        "audio": "Audio",
        "development": "Validation",
        "ratings": "json",
    },
    "1.8": {"spelling": "concensus", "audio": "Audio", "development": "Validation", "ratings": "EmoDetail"},
    "1.9": {"folder": "labels", "spelling": "concensus", "ratings": "EmoDetail"},
    "1.10": {"ratings": "EmoDetail"},
    "1.11": {"ratings": "EmoDetail", "transcripts": True, "more": TEST3},
    "2.0": {"ratings": "WorkerID", "transcripts": True, "more": TEST3},
    "unpacked-twice": {"folder": "Labels/Labels", "ratings": "WorkerID"},
    "all-in-the-root": {"folder": ".", "ratings": "json"},
}


def write(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def lay_out(
    root,
    *,
    folder="Labels",
    spelling="consensus",
    kind="csv",
    audio="Audios",
    development="Development",
    ratings=None,
    transcripts=False,
    more=(),
):
    """A release whose sounds all differ."""
    rows = [(*row[:-1], row[-1].replace("Development", development)) for row in (*SEGMENTS, *more)]
    labels = root / folder / f"labels_{spelling}.{kind}"
    if kind == "csv":
        write(labels, COLUMNS, rows)
    else:
        labels.parent.mkdir(parents=True, exist_ok=True)
        content = {name: dict(zip(COLUMNS[1:], said, strict=True)) for name, *said in rows}
        labels.write_text(json.dumps(content))
    rate(root / folder, ratings)
    (root / audio).mkdir()
    for number, (name, *_) in enumerate(rows):
        soundfile.write(root / audio / name, np.full(1_600 + number, number / 100), 16_000, subtype="PCM_16")
    if transcripts:
        (root / "Transcripts").mkdir()
        (root / "Transcripts" / "MSP-PODCAST_0001_0008.txt").write_text(
            "It wasn\u2019t me.\n", encoding="utf-8"
        )
    return root


def rate(folder, form):
    """The ratings, as one of the releases writes them."""
    said = ("EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
    if form in {"Workers", "WorkerID"}:
        write(folder / "labels_detailed.csv", ("FileName", form, *said), RATINGS)
    if form == "EmoDetail":
        rows = [(r[0], f"{r[1]}; {r[2]}; {r[3]}; A:{r[4]}; V:{r[5]}; D:{r[6]};") for r in RATINGS]
        rows[1] = (rows[1][0], "WORKER00000018; Happy; A:3; V:5; D:2;")  # who gave no second class
        write(folder / "labels_detailed.csv", ("FileName", "EmoDetail"), rows)
    if form == "json":
        content = {}
        for name, rater, *rest in RATINGS:
            content.setdefault(name, {})[rater] = dict(zip(said, rest, strict=True))
        (folder / "labels_detailed.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("msp"), **LAYOUTS["2.0"])


@pytest.fixture
def own(tmp_path):
    """To be spoilt."""
    return lay_out(tmp_path, **LAYOUTS["1.10"])


def consensus(root):
    return root / "Labels" / "labels_consensus.csv"


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def plain(table):
    """Rows with None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def ids(*numbers):
    return [f"MSP-PODCAST_{number}" for number in numbers]


def members(corpus):
    return {split: corpus.split(split)["id"].tolist() for split in ("train", "val", "test")}


# What is read -----------------------------------------------------------------------------------------------


def expected(row, audio):
    name, code, activation, valence, dominance, speaker, gender, official = row
    return {
        "id": name.removesuffix(".wav"),
        "path": f"{audio}/{name}",
        "code": code or None,
        "speaker": speaker or None,
        "gender": gender or None,
        "official": official,
        "podcast": name[12:16],
        "activation": activation or None,
        "valence": valence or None,
        "dominance": dominance or None,
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_release_is_read(layout, tmp_path):
    options = LAYOUTS[layout]
    table = MSPPodcast(lay_out(tmp_path, **options)).annotations()
    audio = options.get("audio", "Audios")
    assert plain(table) == [expected(row, audio) for row in (*SEGMENTS, *options.get("more", ()))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ratings_of_every_release_are_read(layout, tmp_path):
    table = MSPPodcast(lay_out(tmp_path, **LAYOUTS[layout])).ratings()
    assert plain(table) == [
        {
            "id": name.removesuffix(".wav"),
            "rater": rater,
            "label": NAMES.get(first),
            "activation": float(activation) if activation else None,
            "valence": float(valence) if valence else None,
            "dominance": float(dominance) if dominance else None,
        }
        for name, rater, first, _, activation, valence, dominance in RATINGS
    ]


def test_ratings_outside_the_chosen_classes_have_no_label(root):
    labels = {name: MSPPodcast(root, labels=name).ratings()["label"].dropna() for name in ("4-class", "none")}
    assert labels["4-class"].tolist() == ["neutral", "happiness", "neutral", "anger", "neutral"]
    assert labels["none"].empty


def test_a_corpus_without_ratings_has_none(own):
    (own / "Labels" / "labels_detailed.csv").unlink()
    assert MSPPodcast(own).ratings() is None


def test_csv_is_preferred_and_what_macos_leaves_is_ignored(own):
    (own / "Labels" / "labels_consensus.json").write_text("{}")
    (own / "Labels" / "._labels_consensus.csv").write_bytes(b"\0")
    assert len(MSPPodcast(own).annotations()) == len(SEGMENTS)


def test_a_byte_order_mark_is_no_part_of_the_first_column(own):
    consensus(own).write_bytes(b"\xef\xbb\xbf" + consensus(own).read_bytes())
    assert len(MSPPodcast(own).annotations()) == len(SEGMENTS)


def test_transcripts_are_read_only_if_asked_for(root):
    assert "text" not in MSPPodcast(root).annotations()
    texts = MSPPodcast(root, transcripts=True).everything().set_index("id")["text"]
    assert texts["MSP-PODCAST_0001_0008"] == "It wasn\u2019t me."
    assert texts.drop("MSP-PODCAST_0001_0008").isna().all()


def test_the_table_is_complete(root):
    row = MSPPodcast(root, votes=True).everything().set_index("id").loc["MSP-PODCAST_0001_0008"]
    assert row[["label", "speaker", "gender", "split"]].tolist() == ["neutral", "30", "male", "train"]
    assert row["seconds"] == pytest.approx(0.1)
    unknown = MSPPodcast(root).everything().set_index("id").loc["MSP-PODCAST_0003_0002"]
    assert unknown[["speaker", "gender"]].isna().all()


# Who is where -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "test"),
    [
        ("official", ids("0005_0001", "0005_0002")),
        ("official-test2", ids("0006_0001", "0006_0002")),
        ("official-test3", ids("0007_0001")),
    ],
)
def test_protocols(root, protocol, test):
    corpus = MSPPodcast(root, protocol=protocol)
    assert members(corpus) == {
        "train": ids("0001_0008", "0001_0009", "0002_0001", "0003_0002"),
        "val": ids("0004_0001", "0004_0002"),
        "test": test,
    }
    assert corpus.brands() == []
    assert corpus.task == f"MSPPodcast/8-class/{protocol}-v1"


def test_what_has_no_class_is_counted(root):
    corpus = MSPPodcast(root)
    corpus.everything()
    assert corpus.dropped == {
        "the raters do not agree": 1,
        "it has no label": 1,
        "the class is not in 8-class": 1,
    }
    assert corpus.labels == (
        *("anger", "contempt", "disgust", "fear"),
        *("happiness", "neutral", "sadness", "surprise"),
    )
    assert corpus.class_counts() == (1, 0, 0, 0, 1, 1, 1, 0)


def test_four_classes(root):
    corpus = MSPPodcast(root, labels="4-class")
    assert members(corpus)["val"] == ids("0004_0002")
    assert corpus.dropped["the class is not in 4-class"] == 5
    assert corpus.labels == ("anger", "happiness", "neutral", "sadness")


def test_without_classes_every_segment_is_kept(root):
    corpus = MSPPodcast(root, labels="none", protocol="official-test3")
    assert len(corpus.everything()) == len(SEGMENTS) + len(TEST3)
    assert corpus.labels == ()
    assert corpus.dropped == {}
    assert corpus.split("train")["label"].isna().all()
    assert corpus.split("test")["activation"].tolist() == pytest.approx([6.0, nan], nan_ok=True)


def test_a_podcast_may_be_in_two_splits_and_a_speaker_brands(own):
    change(consensus(own), "MSP-PODCAST_0003_0002.wav,S", "MSP-PODCAST_0005_0003.wav,S")
    (own / "Audios" / "MSP-PODCAST_0003_0002.wav").rename(own / "Audios" / "MSP-PODCAST_0005_0003.wav")
    assert MSPPodcast(own).brands() == []
    change(consensus(own), "63,Male,Test1", "30,Male,Test1")
    assert MSPPodcast(own).brands() == [
        "train and test share 1 speaker (50.0% of the test utterances), such as 30"
    ]


# Votes and batches ------------------------------------------------------------------------------------------


def test_votes_are_shares_among_the_chosen_classes(root):
    def votes(name, **options):
        table = MSPPodcast(root, votes=True, **options).annotations().set_index("id")
        shares = table.filter(like="vote/").loc[f"MSP-PODCAST_{name}"]
        return {column.removeprefix("vote/"): share for column, share in shares.items() if share != 0}

    assert votes("0001_0008") == pytest.approx({"neutral": 2 / 3, "happiness": 1 / 3})
    assert votes("0005_0001") == {"disgust": 0.5, "neutral": 0.5}
    assert votes("0005_0001", labels="4-class") == {"neutral": 1.0}
    # Nobody chose one of the classes, or nobody is known to have been asked.
    assert all(math.isnan(votes(name)["anger"]) for name in ("0002_0001", "0004_0001"))
    assert len(votes("0004_0001")) == 8
    assert "vote/anger" not in MSPPodcast(root).annotations()


def test_a_batch_holds_labels_dimensions_and_votes(root):
    corpus = MSPPodcast(root, votes=True)
    (batch,) = corpus.test_dataloader()
    assert batch.ids == tuple(ids("0005_0002", "0005_0001"))  # the longest first
    assert [corpus.labels[label] for label in batch.labels] == ["neutral", "disgust"]
    np.testing.assert_allclose(batch.dimensions, [[3.8, 4.2, 3.6], [4.5, 2.0, 4.25]], rtol=1e-6)
    np.testing.assert_equal(
        batch.soft_labels.numpy(), np.array([[nan] * 8, [0, 0, 0.5, 0, 0, 0.5, 0, 0]], dtype=np.float32)
    )
    assert batch.speakers == ("63", "63")
    assert batch.genders == ("male", "male")
    assert batch.lengths.tolist() == [1_609, 1_608]
    np.testing.assert_allclose(batch.waveforms[1, :1_608], 0.08, atol=1e-4)


def test_a_batch_without_votes_has_no_soft_labels(root):
    (batch,) = MSPPodcast(root).train_dataloader()
    assert batch.soft_labels is None
    assert sorted(batch.ids) == ids("0001_0008", "0001_0009", "0002_0001", "0003_0002")
    assert sorted(batch.speakers) == ["30", "30", "41", "unknown"]


# As it was published ----------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """Releases counted as if they were as small as ours."""
    counts = (
        Count("1.10", total=12, by={"official": {"Train": 6, "Test1": 2}}),
        Count("1.10", by={"code": {"X": 1, "O": 1, "N": 2}}),
        Count("1.11", total=14, by={"official": {"Train": 6, "Test3": 2}}),
        Count("1.11 without Test3", total=12, by={"official": {"Train": 7}}),
        Count("2.0", total=20, by={"official": {"Train": 6}}),
    )
    monkeypatch.setattr(MSPPodcast, "card", replace(MSPPodcast.card, counts=counts))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("version", "differences"),
    [
        (None, []),
        ("1.10", []),
        ("1.11", ["1.11 without Test3: official Train: 6 utterances, published 7"]),
        ("2.0", ["2.0: in all: 12 utterances, published 20"]),
        ("1.7", ["no counts are published for 1.7"]),
    ],
)
def test_a_copy_is_compared_with_its_release(own, version, differences):
    corpus = MSPPodcast(own, version=version)
    assert corpus.differences() == differences
    assert corpus.facts()["differences"] == differences


@pytest.mark.usefixtures("counted")
def test_a_copy_of_no_known_size_is_told_so(own):
    with consensus(own).open("a") as file:
        file.write("MSP-PODCAST_0009_0001.wav,N,4,4,4,30,Male,Train\n")
    assert MSPPodcast(own).differences() == ["13 utterances: no published release has as many"]


@pytest.mark.usefixtures("counted")
def test_differing_counts_are_told(own):
    change(consensus(own), ",X,", ",N,")
    assert MSPPodcast(own).differences() == [
        "1.10: code X: 0 utterances, published 1",
        "1.10: code N: 3 utterances, published 2",
    ]


def test_what_is_compared_does_not_depend_on_the_chosen_classes(root):
    every = [MSPPodcast(root, labels=name).differences() for name in ("8-class", "4-class", "none")]
    assert every == [["14 utterances: no published release has as many"]] * 3


# What is missing --------------------------------------------------------------------------------------------


def test_a_missing_sound_is_refused_unless_it_is_to_be_skipped(own):
    (own / "Audios" / "MSP-PODCAST_0001_0009.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"are missing, such as .*_0001_0009\.wav: "):
        MSPPodcast(own).everything()
    corpus = MSPPodcast(own, damaged="skip")
    assert members(corpus)["train"] == ids("0001_0008", "0002_0001", "0003_0002")
    assert corpus.dropped["the sound is missing"] == 1


def test_the_sound_that_2_0_lacks_is_tolerated_and_counted(own):
    with consensus(own).open("a") as file:
        file.write("MSP-PODCAST_1909_1017.wav,N,4,4,4,30,Male,Train\n")
    corpus = MSPPodcast(own)
    assert "MSP-PODCAST_1909_1017" not in members(corpus)["train"]
    assert corpus.dropped["MSP-PODCAST_1909_1017: it is missing from release 2.0"] == 1


def test_folders_that_are_missing_are_named(own, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data\.root .*nowhere does not exist"):
        MSPPodcast(tmp_path / "nowhere").everything()
    with pytest.raises(FileNotFoundError, match="has no Transcripts"):
        MSPPodcast(own, transcripts=True).everything()
    (own / "Audios").rename(own / "sounds")
    with pytest.raises(FileNotFoundError, match="half of it: it has no Audios or Audio"):
        MSPPodcast(own).everything()
    with pytest.raises(FileNotFoundError, match=r"is not the folder of MSP-Podcast.*labels_consensus\.csv"):
        MSPPodcast(own / "sounds").everything()
    with pytest.raises(FileNotFoundError, match="is a file"):
        MSPPodcast(consensus(own)).everything()


def test_votes_need_ratings_and_classes(own):
    with pytest.raises(ValueError, match="votes needs classes"):
        MSPPodcast(own, labels="none", votes=True)
    (own / "Labels" / "labels_detailed.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no Labels/labels_detailed\.csv"):
        MSPPodcast(own, votes=True).everything()


# What is malformed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ",N,2.2",
            ",Q,2.2",
            "1 utterances such as 'MSP-PODCAST_0001_0008' have the label 'Q'.*one of A, C, D",
        ),
        ("EmoDom", "Dominance", r"labels_consensus\.csv lacks the column EmoDom: got FileName, EmoClass"),
        ("6.777778", '"6,777778"', "EmoAct is '6,777778', expected a number .with a decimal point"),
        ("_0001_0009", "_0001_0008", "names 1 utterances twice, such as 'MSP-PODCAST_0001_0008'"),
        ("Test2", "Test4", "'MSP-PODCAST_0006_0001' have 'Test4' as official: expected one of Train"),
        (",Male,Train", ",Male,", "have nothing as official"),
        (",Male,Train", ",Male", "line 2: 7 cells, expected 8"),
        (",41,Female,Train", ",41,Female,Train,,", "line 4: 10 cells, expected 8"),
    ],
)
def test_a_malformed_table_is_refused(own, old, new, message):
    change(consensus(own), old, new)
    with pytest.raises(ValueError, match=message):
        MSPPodcast(own).everything()


def test_a_repeated_name_is_told_with_votes_too(own):
    change(consensus(own), "_0001_0009", "_0001_0008")
    with pytest.raises(ValueError, match="names 1 utterances twice"):
        MSPPodcast(own, votes=True).everything()


@pytest.mark.parametrize("content", ["", "[]", '{"MSP-PODCAST_0001_0008.wav": "N"}', '{"MSP-PODC'])
def test_malformed_json_is_refused(own, content):
    consensus(own).with_suffix(".json").write_text(content)
    consensus(own).unlink()
    with pytest.raises(ValueError, match=r"labels_consensus\.json is no JSON object of labels by FileName"):
        MSPPodcast(own).everything()


def test_json_lacking_a_column_is_refused(own):
    consensus(own).with_suffix(".json").write_text('{"MSP-PODCAST_0001_0008.wav": {"EmoClass": "N"}}')
    consensus(own).unlink()
    with pytest.raises(
        ValueError, match="lacks the column EmoAct, EmoVal, EmoDom, SpkrID, Gender, Split_Set"
    ):
        MSPPodcast(own).everything()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "WORKER00000018; Angry; Angry,Annoyed; A:7",
            "Angry",
            "row 5 below the header: EmoDetail is 'Angry; V:1",
        ),
        ("V:1; D:6", "V:1,5; D:6", "row 5 .*: EmoVal is '1,5', expected a number"),
        ("EmoDetail", "Detail", "labels_detailed.csv lacks the column WorkerID, EmoClass_Major"),
    ],
)
def test_malformed_ratings_are_refused(own, old, new, message):
    change(own / "Labels" / "labels_detailed.csv", old, new)
    with pytest.raises(ValueError, match=message):
        MSPPodcast(own).ratings()


def test_who_chooses_what_is_not_there_is_told_what_is(root):
    with pytest.raises(
        ValueError, match=r"labels must be one of 8-class, 4-class, none, got '8class'; did you"
    ):
        MSPPodcast(root, labels="8class")
    with pytest.raises(ValueError, match="protocol must be one of official, official-test2, official-test3"):
        MSPPodcast(root, protocol="test2")


def test_the_card_is_consistent():
    """Every release adds up, wherever all its parts are published."""
    for count in MSPPodcast.card.counts:
        for parts in count.by.values():
            if count.total is not None:
                assert sum(parts.values()) == count.total, count.version
    codes = pd.Series([code for count in MSPPodcast.card.counts for code in count.by.get("code", {})])
    assert set(codes) == set(MSPPodcast.codes(MSPPodcast))


def test_sounds_in_a_folder_of_the_same_name_within(tmp_path):
    lay_out(tmp_path)
    (tmp_path / "Audios").rename(tmp_path / "unpacked")
    (tmp_path / "Audios").mkdir()
    (tmp_path / "unpacked").rename(tmp_path / "Audios" / "Audios")
    table = MSPPodcast(tmp_path).everything()
    assert table["path"].str.startswith("Audios/Audios/MSP-PODCAST_").all()


def test_the_only_test_part_of_an_old_release_is_test1(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    expected = len(MSPPodcast(lay_out(new)).split("test"))
    path = lay_out(old) / "Labels" / "labels_consensus.csv"
    path.write_text(path.read_text().replace("Test1", "Test"))
    assert len(MSPPodcast(old).split("test")) == expected > 0
