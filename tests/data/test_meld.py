"""MELD, laid out small, and its real tables: what is read, who is where, and what is refused."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data.corpora.meld import EMOTIONS, MELD
from ser_strategies.data.leakage import find_leaks
from ser_strategies.data.protocol import Protocol
from ser_strategies.data.rules import ByValue, Drawn
from ser_strategies.data.table import complete
from tests.data.real import real_data

COLUMNS = (
    *("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
    *("Season", "Episode", "StartTime", "EndTime"),
)
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
CAST = ("Joey", "Ross", "Rachel", "Phoebe", "Monica", "Chandler")
# Utterance, speaker, emotion, sentiment, dialogue, utterance, season, episode, start, end.
TRAIN = [
    ("Hi, \"you\"!", "Joey", "joy", "positive", 0, 0, 8, 21, "00:16:16,059", "00:16:16,159"),
    ("Don\u2019t.", "Phoebe Sr.", "anger", "negative", 0, 1, 8, 21, "0:16:17,000", "0:16:17,200"),
    ("NA", "Richard\u2019s Date ", "neutral", "neutral", 1, 0, 3, 13, "00:06:45,489", "00:06:45,73"),
    ("Oh.", "Monica", "sadness", "negative", 2, 0, 10, 2, "01:00:00,500", "01:00:00,500"),
    ("No.", "Rachel", "disgust", "negative", 2, 1, 10, 2, "01:00:02,500", "01:00:01,500"),
]  # fmt: skip
DEV = [
    ("What?", "Ross", "surprise", "negative", 0, 0, 8, 21, "00:16:20,000", "00:16:20,300"),
    ("Hi!", "Joey", "joy", "positive", 0, 1, 8, 21, "00:16:16,059", "00:16:16,159"),  # also in train
]
TEST = [
    ("Eek!", "Chandler", "fear", "negative", 0, 0, 1, 1, "00:00:01,000", "00:00:01,400"),
    ("Well.", "Phoebe", "neutral", "neutral", 0, 1, 1, 1, "00:00:03,000", "00:00:03,350"),
]
PARTS = {"train": TRAIN, "dev": DEV, "test": TEST}


def as_csv(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((number, *row) for number, row in enumerate(rows, 1))
    return text.getvalue()


def write_tables(root, parts=PARTS, encoding="utf-8"):
    root.mkdir(parents=True, exist_ok=True)
    for official, rows in parts.items():
        (root / f"{official}_sent_emo.csv").write_bytes(as_csv(rows).encode(encoding))
    return root


def clips(parts=PARTS):
    """Folder, name without ending, and a number of its own for each clip."""
    names = [(FOLDERS[part], f"dia{row[4]}_utt{row[5]}") for part, rows in parts.items() for row in rows]
    return [(folder, name, number) for number, (folder, name) in enumerate(names, 1)]


def write_sounds(root, suffix=".flac", parts=PARTS):
    for folder, name, number in clips(parts):
        (root / folder).mkdir(exist_ok=True)
        rng = np.random.default_rng(number)
        soundfile.write(root / folder / f"{name}{suffix}", rng.uniform(-1, 1, 800 * number), 16_000)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_sounds(write_tables(tmp_path_factory.mktemp("MELD.Raw")))


@pytest.fixture
def tables(tmp_path):
    """Its own, to be spoilt, and without a sound."""
    return write_tables(tmp_path / "MELD.Raw")


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# What is read -----------------------------------------------------------------------------------------------


def test_an_utterance_has_everything_that_is_known_of_it(root):
    table = MELD(root).annotations().set_index("id", drop=False)
    assert table.loc["train_dia0_utt0"].to_dict() == {
        "id": "train_dia0_utt0",
        "path": "train_splits/dia0_utt0.flac",
        "code": "joy",
        "emotion": "joy",
        "sentiment": "positive",
        "speaker": "Joey",
        "text": 'Hi, "you"!',
        "dialogue": "train_dia0",
        "session": "s08e21",
        "recording": "s08e21",
        "start": pytest.approx(976.059),
        "end": pytest.approx(976.159),
        "seconds": pytest.approx(0.1),
        "official": "train",
    }
    assert table["official"].tolist() == ["train"] * 5 + ["dev"] * 2 + ["test"] * 2
    assert table.loc["dev_dia0_utt0", "path"] == "dev_splits_complete/dia0_utt0.flac"
    assert table.loc["test_dia0_utt0", "path"] == "output_repeated_splits_test/dia0_utt0.flac"
    assert table.loc["test_dia0_utt0", "session"] == "s01e01"


def test_odd_cells_are_read_as_they_are_meant(root):
    table = MELD(root).annotations().set_index("id")
    assert table["speaker"].tolist()[:4] == ["Joey", "Phoebe Sr", "Richard\u2019s Date", "Monica"]
    assert table.loc["train_dia1_utt0", "text"] == "NA"  # said, not missing
    assert table.loc["train_dia0_utt1", "start"] == 977.0  # an hour of one digit
    assert table.loc["train_dia1_utt0", "end"] == pytest.approx(405.73)  # two digits
    assert table.loc["train_dia2_utt0", "seconds"] == 0.01  # none by the table
    assert table.loc["train_dia2_utt1", "seconds"] == 0.01  # fewer than none
    assert table.loc["train_dia2_utt1", "start"] == 3602.5


@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        (
            "emotions",
            ["joy", "anger", "neutral", "sadness", "disgust", "surprise", "joy", "fear", "neutral"],
            ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"),
        ),
        (
            "sentiments",
            [row[3] for rows in PARTS.values() for row in rows],
            ("negative", "neutral", "positive"),
        ),
    ],
)
def test_either_column_is_the_label(root, labels, expected, classes):
    corpus = MELD(root, labels=labels)
    assert corpus.everything()["label"].tolist() == expected
    assert corpus.labels == classes
    assert corpus.dropped == {}
    assert corpus.task == f"MELD/{labels}/official-v1"
    assert corpus.everything()["gender"].isna().all()
    assert corpus.ratings() is None


MOJIBAKE = str.maketrans({"\u2019": "\x92", "\u2026": "\x85"})


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("cp1252"),
        lambda text: text.translate(MOJIBAKE).encode(),  # as in the first release
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
    ids=["mark", "cp1252", "mojibake", "windows-lines"],
)
def test_other_encodings_say_the_same(tables, encode):
    before = MELD(tables).annotations()
    path = tables / "train_sent_emo.csv"
    path.write_bytes(encode(path.read_text()))
    assert path.read_bytes() != as_csv(TRAIN).encode()
    after = MELD(tables).annotations()
    assert after.loc[1, "text"] == "Don\u2019t."
    pd.testing.assert_frame_equal(after, before)


# Where it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["MELD.Raw", "d\u00e9j\u00e0 vu/die R\u00f6hre/MELD.Raw"])
@pytest.mark.parametrize("depth", [0, 1])
def test_the_folder_is_found_whatever_it_is_called(tmp_path, place, depth):
    inside = write_sounds(write_tables(tmp_path / place))
    corpus = MELD([inside, inside.parent][depth])
    assert len(corpus.everything()) == 9
    prefix = ["", "MELD.Raw/"][depth]
    assert corpus.everything().loc[0, "path"] == f"{prefix}train_splits/dia0_utt0.flac"


def test_each_archive_may_have_a_folder_of_its_own(root, tmp_path):
    for official, rows in PARTS.items():
        write_tables(tmp_path / official, {official: rows})
        write_sounds(tmp_path / official, parts={official: rows})
    paths = MELD(tmp_path).everything()["path"].tolist()
    assert paths[0] == "train/train_splits/dia0_utt0.flac"
    assert paths[-1] == "test/output_repeated_splits_test/dia0_utt1.flac"


def test_a_folder_within_one_of_the_same_name_is_found(tmp_path):
    write_sounds(write_tables(tmp_path))
    outer = tmp_path / "dev_splits_complete"
    outer.rename(tmp_path / "moved")
    outer.mkdir()
    (tmp_path / "moved").rename(outer / outer.name)
    paths = MELD(tmp_path).everything()["path"].tolist()
    assert paths[5] == "dev_splits_complete/dev_splits_complete/dia0_utt0.flac"


def test_flac_is_preferred_to_wav_and_either_will_do(root, tmp_path):
    write_sounds(write_tables(tmp_path), ".wav")
    assert set(MELD(tmp_path).everything()["path"].str[-4:]) == {".wav"}
    flac = tmp_path / "train_splits" / "dia0_utt0.flac"
    flac.write_bytes((root / "train_splits" / "dia0_utt0.flac").read_bytes())
    assert MELD(tmp_path).everything()["path"].str[-4:].tolist() == ["flac", *[".wav"] * 8]


def test_clips_that_are_still_video_must_be_prepared(tables):
    for folder, name, _ in clips():
        (tables / folder).mkdir(exist_ok=True)
        (tables / folder / f"{name}.mp4").write_bytes(b"film")
        (tables / folder / f"._{name}.mp4").write_bytes(b"macOS")
    (tables / FOLDERS["test"] / "final_videos_testdia0_utt0.mp4").write_bytes(b"double")
    (tables / FOLDERS["test"] / "notes.txt").write_text("")
    for damaged in ("stop", "skip"):
        corpus = MELD(tables, damaged=damaged)
        with pytest.raises(FileNotFoundError) as refused:
            corpus.everything()
        assert str(refused.value) == (
            f"5 clips in {tables}/train_splits are there only as video, such as dia0_utt0.mp4: "
            f"run `ser-strategies prepare --data MELD --data.root {tables}` first."
        )
        assert corpus.clips_to_prepare() == sorted(
            tables / folder / f"{name}.mp4" for folder, name, _ in clips()
        )
    write_sounds(tables)
    assert len(MELD(tables).everything()) == 9
    (tables / "train_splits" / "dia2_utt0.flac").unlink()  # an interrupted preparation
    with pytest.raises(FileNotFoundError, match=r"1 clips in .* only as video, .*dia2_utt0.*damaged skip"):
        MELD(tables).everything()
    corpus = MELD(tables, damaged="skip")
    assert len(corpus.everything()) == 8
    assert corpus.dropped == {"the sound is missing": 1}


def test_the_command_to_prepare_can_be_copied_whatever_the_root(tmp_path):
    root = write_tables(tmp_path / "my films")
    (root / "train_splits").mkdir()
    (root / "train_splits" / "dia0_utt0.mp4").write_bytes(b"film")
    with pytest.raises(FileNotFoundError, match=r"--data\.root '.*/my films'`"):
        MELD(root).everything()


def test_without_clips_there_is_nothing_to_prepare(root, tables):
    assert MELD(root).clips_to_prepare() == []
    assert MELD(tables).clips_to_prepare() == []
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        MELD(tables / "nowhere").clips_to_prepare()


def test_missing_sounds_are_refused_or_counted(tables):
    with pytest.raises(
        FileNotFoundError,
        match=r"9 of the 9 sounds that MELD needs are missing, .*train_splits/dia0_utt0\.flac",
    ):
        MELD(tables).everything()
    write_sounds(tables)
    (tables / "dev_splits_complete" / "dia0_utt1.flac").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 9 sounds that MELD needs are missing"):
        MELD(tables).everything()
    corpus = MELD(tables, damaged="skip")
    assert corpus.everything()["id"].tolist().count("dev_dia0_utt1") == 0
    assert corpus.dropped == {"the sound is missing": 1}


def test_the_clips_that_are_damaged_in_the_archive_are_never_used(tmp_path):
    bad_train = ("Ha.", "Ross", "joy", "positive", 125, 3, 1, 2, "00:00:01,000", "00:00:02,000")
    bad_dev = ("Hm.", "Ross", "joy", "positive", 110, 7, 1, 3, "00:00:01,000", "00:00:02,000")
    parts = PARTS | {"train": [*TRAIN, bad_train], "dev": [*DEV, bad_dev]}
    write_sounds(write_tables(tmp_path, parts))
    (tmp_path / "train_splits" / "dia125_utt3.mp4").write_bytes(b"it is there, but of no use")
    corpus = MELD(tmp_path)
    assert len(corpus.everything()) == 9
    assert corpus.dropped == {
        "train_dia125_utt3: its clip is corrupt in the published archive": 1,
        "dev_dia110_utt7: its clip is missing from the published archive": 1,
    }


# Splits -----------------------------------------------------------------------------------------------------


def test_the_official_splits_say_what_they_share(root):
    corpus = MELD(root)
    corpus.setup("fit")
    assert [len(corpus.split(name)) for name in ("train", "val", "test")] == [5, 2, 2]
    assert corpus.split("val")["official"].tolist() == ["dev", "dev"]
    brands = corpus.brands()
    assert brands[0].startswith("train and val share 1 speaker (50.0% of the val utterances), such as Joey")
    assert any("train and val share 1 session" in brand for brand in brands)
    assert any("train_dia0_utt0 = dev_dia0_utt1" in brand for brand in brands)
    assert not any("dialogue" in brand for brand in brands)


def test_a_sound_in_two_official_splits_is_said(tables):
    write_sounds(tables)
    again = tables / "output_repeated_splits_test" / "dia0_utt1.flac"
    again.write_bytes((tables / "train_splits" / "dia0_utt0.flac").read_bytes())
    corpus = MELD(tables)
    corpus.everything()
    assert any("train_dia0_utt0 = test_dia0_utt1" in brand for brand in corpus.brands())


def everyone():
    """One utterance of each of the cast and of two others, all in one dialogue of the train table."""
    speakers = (*CAST, "Phoebe Sr.", "Vince")
    return [
        ("Hi.", speaker, EMOTIONS[i % 7], "neutral", 0, i, 1, 1, f"00:00:{i + 10},000", f"00:00:{i + 10},900")
        for i, speaker in enumerate(speakers)
    ]


@pytest.mark.parametrize("fold", range(1, 7))
def test_one_of_the_cast_tests_and_the_next_validates(tmp_path, fold):
    parts = {"train": everyone(), "dev": [], "test": []}
    root = write_sounds(write_tables(tmp_path, parts), parts=parts)
    corpus = MELD(root, protocol="speaker-6fold", fold=fold)
    corpus.setup("fit")
    corpus.setup("test")
    with_them = {"Joey": {"Vince"}, "Rachel": {"Phoebe Sr"}}
    expected = {
        name: {CAST[i], *with_them.get(CAST[i], ())} for name, i in (("test", fold - 1), ("val", fold % 6))
    }
    for name, speakers in expected.items():
        assert set(corpus.split(name)["speaker"]) == speakers
    rest = {*CAST, "Vince", "Phoebe Sr"} - expected["test"] - expected["val"]
    assert set(corpus.split("train")["speaker"]) == rest
    assert not any("speaker" in brand for brand in corpus.brands())
    assert any("train and test share 1 dialogue" in brand for brand in corpus.brands())
    assert corpus.task == f"MELD/emotions/speaker-6fold-v1/fold-{fold}"


def test_every_protocol_is_tested_here():
    assert [(protocol.name, protocol.rule.folds) for protocol in MELD.card.protocols] == [
        ("official", 1),
        ("speaker-6fold", 6),
    ]


def test_a_speaker_whom_no_fold_knows_is_refused(tables):
    write_sounds(tables)
    replace(tables / "dev_sent_emo.csv", "Ross", "Rosss")
    assert len(MELD(tables).everything()) == 9
    with pytest.raises(ValueError, match="1 utterances such as 'dev_dia0_utt0' have the speaker 'Rosss'"):
        MELD(tables, protocol="speaker-6fold").everything()


def test_splits_that_share_more_than_they_declare_are_refused(root):
    corpus = MELD(root)
    corpus.protocol = Protocol("random", 1, "By chance.", Drawn(test=0.4, val=0.4, column="official"))
    with pytest.raises(ValueError, match=r"the splits of MELD \(random\) leak: .* share"):
        corpus.everything()
    honest = ByValue("official", {"train": "train", "dev": "val", "test": "test"})
    corpus = MELD(root)
    corpus.protocol = Protocol("silent", 1, "The official splits.", honest, shares=("speaker", "session"))
    with pytest.raises(ValueError, match=r"leak: train and val share 1 (span|moment).*dev_dia0_utt1"):
        corpus.everything()
    corpus.allow_leakage = True
    assert len(corpus.everything()) == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fold": 2}, "fold must be only 1 for the protocol official, got 2"),
        (
            {"protocol": "speaker-6fold", "fold": 7},
            "fold must be 1 to 6 for the protocol speaker-6fold, got 7",
        ),
        (
            {"labels": "emotion"},
            "labels must be one of emotions, sentiments, got 'emotion'; did you mean emotions?",
        ),
        ({"labels": "4-class"}, r"labels must be one of emotions, sentiments, got '4-class'\."),
        ({"protocol": "oficial"}, "for MELD, got 'oficial'; did you mean official?"),
    ],
)
def test_a_mistyped_option_gets_a_hint(root, options, words):
    with pytest.raises(ValueError, match=words):
        MELD(root, **options)


# What is refused --------------------------------------------------------------------------------------------


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere does not exist: expected the folder of MELD \(http"
    ):
        MELD(tmp_path / "nowhere").everything()
    with pytest.raises(FileNotFoundError, match=r"not the folder of MELD.* it has no train_sent_emo\.csv, "):
        MELD(tmp_path).everything()


def test_half_a_corpus_is_refused(tables):
    (tables / "test_sent_emo.csv").unlink()
    (tables / "._test_sent_emo.csv").write_bytes(b"macOS")
    with pytest.raises(FileNotFoundError, match=r"or half of it: it has no test_sent_emo\.csv"):
        MELD(tables).annotations()


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "Sr No."])
def test_a_missing_column_is_named(tables, column):
    replace(tables / "dev_sent_emo.csv", column, "Something")
    with pytest.raises(ValueError, match=rf"dev_sent_emo\.csv lacks the column {column}: got Sr No\."):
        MELD(tables).annotations()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0:16:17,000", "0:16:17", r"StartTime is '0:16:17', expected a time such as 00:16:16,059"),
        ("0:16:17,200", "later", "EndTime is 'later', expected a time"),
        ("0:16:17,200", "0:16:17,2001", "EndTime is '0:16:17,2001', expected a time"),
        ('"0:16:17,200"', "", "EndTime is empty, expected a time"),
        (",0,1,8,21,", ",0,one,8,21,", "Utterance_ID is 'one', expected a number"),
        (",0,1,8,21,", ",,1,8,21,", "Dialogue_ID is empty, expected a number"),
        (",0,1,8,21,", ",0,1,8.5,21,", r"Season is '8\.5', expected a number"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(tables, old, new, words):
    replace(tables / "train_sent_emo.csv", old, new)
    with pytest.raises(ValueError, match=rf"train_sent_emo\.csv, line 3: {words}"):
        MELD(tables).annotations()


def test_a_download_that_broke_off_is_noticed(tables):
    path = tables / "test_sent_emo.csv"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"test_sent_emo\.csv"):
        MELD(tables).annotations()


@pytest.mark.parametrize("new", ["boredom", "Joy", ""])
def test_an_emotion_that_cannot_be_is_refused(tables, new):
    write_sounds(tables)
    replace(tables / "dev_sent_emo.csv", "joy", new)
    with pytest.raises(ValueError, match=f"'dev_dia0_utt1' have the label '{new}', which MELD does not know"):
        MELD(tables).everything()


def test_an_utterance_that_is_named_twice_is_refused(tables):
    write_sounds(tables)
    replace(tables / "train_sent_emo.csv", ",0,1,8,21", ",0,0,8,21")
    with pytest.raises(ValueError, match="names 1 utterances twice, such as 'train_dia0_utt0'"):
        MELD(tables).everything()


# Batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["emotions", "sentiments"])
def test_batches_hold_what_the_tables_say(root, labels):
    corpus = MELD(root, labels=labels, batch_size=2)
    said = corpus.annotations().set_index("id")
    seen = set()
    for batch in corpus.train_dataloader():
        for i, name in enumerate(batch.ids):
            row = said.loc[name]
            sound, _ = soundfile.read(root / row["path"], dtype="float32")
            assert np.array_equal(batch.waveforms[i, : batch.lengths[i]], sound)
            assert corpus.labels[batch.labels[i]] == row["code"]
            assert batch.speakers[i] == row["speaker"]
            assert batch.genders[i] == "unknown"
            assert batch.texts[i] == row["text"]
            seen.add(name)
        assert batch.dimensions is None
    assert seen == set(said.index[said["official"] == "train"])


def test_of_a_film_the_channel_with_the_dialogue_is_heard(root, tables):
    write_sounds(tables)
    path = tables / "train_splits" / "dia0_utt0.flac"
    channels = np.arange(1, 7) / 10 * np.ones((480, 1))
    soundfile.write(path.with_suffix(".wav"), channels, 16_000)
    path.unlink()
    corpus = MELD(tables)
    heard = corpus.waveform(corpus.everything().iloc[0].to_dict())
    assert heard == pytest.approx(0.3, abs=1e-3)


# The real tables --------------------------------------------------------------------------------------------

# Of each emotion in the order of the alphabet.
PUBLISHED = {
    "train": (1109, 271, 268, 1743, 4710, 683, 1205),
    "dev": (153, 22, 40, 163, 470, 111, 150),
    "test": (345, 68, 50, 402, 1256, 208, 281),
}


@pytest.fixture(scope="module")
def real():
    return real_data("MELD")


@pytest.fixture(scope="module")
def annotated(real):
    return MELD(real).annotated()


def split_by(annotated, name, fold=1):
    table = complete(annotated.rename(columns={"code": "label"}), "MELD")
    return table.assign(split=MELD.card.choose(name).assign(table, fold))


def test_the_real_tables_are_as_published(real, annotated):
    assert MELD(real).differences() == []
    assert MELD(real, labels="sentiments").differences() == []
    counts = pd.crosstab(annotated["official"], annotated["code"])
    assert {part: tuple(counts.loc[part, list(EMOTIONS)]) for part in PUBLISHED} == PUBLISHED
    assert annotated["official"].value_counts().to_dict() == {"train": 9989, "dev": 1109, "test": 2610}


def test_nothing_is_lost_of_the_real_tables(annotated):
    assert annotated["id"].is_unique
    columns = ["text", "speaker", "session", "dialogue", "start", "end", "seconds"]
    assert annotated[columns].notna().all(axis=None)
    assert annotated["text"].str.contains("\u2019").sum() > 1000
    assert not annotated["text"].str.contains("[\x80-\x9f]").any()
    assert annotated["seconds"].min() == 0.01
    long = annotated.nlargest(3, "seconds").set_index("id")["seconds"].round(2).to_dict()
    assert long == {"test_dia38_utt4": 304.94, "test_dia220_utt0": 235.07, "train_dia309_utt0": 41.04}


def test_what_the_real_official_splits_share(annotated):
    leaks = {(leak.relation, leak.splits): leak for leak in find_leaks(split_by(annotated, "official"))}
    assert round(leaks["speaker", ("train", "test")].share, 3) == 0.958
    assert leaks["speaker", ("train", "test")].count == 69
    assert round(leaks["speaker", ("train", "val")].share, 3) == 0.967
    assert leaks["span", ("train", "val")].count == 2
    assert leaks["span", ("train", "test")].count == 3
    assert {relation for relation, _ in leaks} == {"speaker", "session", "span"}
    assert {relation for relation, _ in leaks} <= set(MELD.card.choose("official").shares)


def test_every_real_speaker_tests_once_and_is_in_one_split(annotated):
    shares = set(MELD.card.choose("speaker-6fold").shares)
    tested = []
    names = set(annotated["speaker"])
    said_together = {name for name in names if " and " in name} | {"All", "Both", "The Guys", "Her-Friends"}
    for fold in range(1, 7):
        table = split_by(annotated, "speaker-6fold", fold)
        together = table["split"].isna()
        assert together.sum() == 69
        assert set(table["speaker"][together]) == said_together
        relations = {leak.relation for leak in find_leaks(table)}
        assert "speaker" not in relations
        assert relations <= shares
        for split in ("train", "val", "test"):
            assert set(table["label"][table["split"] == split]) == set(EMOTIONS)
        tested += table["id"][table["split"] == "test"].tolist()
    assert sorted(tested) == sorted(annotated["id"][~annotated["speaker"].isin(said_together)])
    assert annotated["speaker"].nunique() == 303
