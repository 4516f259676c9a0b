"""IEMOCAP, laid out small: what is read of it, who is where, and what is refused."""

import json
import math
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml

from ser_strategies.cli import main
from ser_strategies.comparison import Comparison
from ser_strategies.comparison.ledger import Ledger
from ser_strategies.data.corpora.iemocap import IEMOCAP
from ser_strategies.data.protocol import Protocol
from ser_strategies.data.rules import Drawn
from ser_strategies.runs import grid

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"
# The lines of an evaluation, with the session's number to fill in.
IMPRO = """
[6.2901 - 8.2357]\tSes0{n}F_impro01_F000\tneu\t[2.5000, 3.0000, 4.0000]
C-E2:\tNeutral;\t()
C-E4:\tExcited; Happiness;\t(laughs (a little))
C-F1:\tFrustration;\t()
A-E3:\tval 3; act 2; dom  5;\t()
A-E4:\tval 2; act 4; dom  ;\t(dom 1; not sure)
A-F1:\tval 3; act 1;\t()

[8.0000 - 8.5000]\tSes0{n}F_impro01_M000\tang\t[1.5000, 4.5000, 3.5000]
C-E2:\tAnger;\t()
C-M1:\tBoredom;\t()
A-E3:\tval 2; act 5; dom  4;\t()

[10.0000 - 10.7000]\tSes0{n}F_impro01_F001\thap\t[4.5000, 3.5000, 3.0000]
[11.0000 - 11.9000]\tSes0{n}F_impro01_M001\texc\t[4.0000, 4.0000, 3.0000]
[12.0000 - 13.1000]\tSes0{n}F_impro01_F002\tsad\t[1.0000, 1.5000, 2.0000]
[14.0000 - 14.4000]\tSes0{n}F_impro01_M002\tfru\t[2.0000, 3.0000, 3.5000]
"""
SCRIPT = """
[0.5000 - 1.0000]\tSes0{n}M_script01_1b_M000\txxx\t[3.0000, 3.0000, 3.0000]
[1.5000 - 2.1000]\tSes0{n}M_script01_1b_F000\tfea\t[2.0000, 3.0000, 1.5000]
[3.0000 - 3.7000]\tSes0{n}M_script01_1b_M001\tsur\t[3.0000, 4.0000, 3.0000]
[4.0000 - 4.8000]\tSes0{n}M_script01_1b_F001\tdis\t[2.0000, 2.5000, 3.0000]
[5.0000 - 5.9000]\tSes0{n}M_script01_1b_M002\toth\t[3.0000, 2.0000, 3.0000]
[6.0000 - 7.0000]\tSes0{n}M_script01_1b_F002\tneu\t[3.0000, 2.5000, 2.5000]
"""
WORDS = """
Ses0{n}F_impro01_F000 [006.2901-008.2357]: Excuse me, [LAUGHTER] is it 5: p.m.?
Ses0{n}F_impro01_MXX0 [008.1000-008.2000]: Hm.
M: Yes.
Ses0{n}F_impro01_M000 [008.0000-008.5000]:   No!
"""
CODES = {
    **{"impro01_F000": "neu", "impro01_M000": "ang", "impro01_F001": "hap"},
    **{"impro01_M001": "exc", "impro01_F002": "sad", "impro01_M002": "fru"},
    **{"script01_1b_F000": "fea", "script01_1b_M001": "sur", "script01_1b_F001": "dis"},
    **{"script01_1b_M002": "oth", "script01_1b_F002": "neu"},
}


def sheet(root, dialogue="Ses01F_impro01"):
    return root / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"


def lay_out(root, sessions="12345", *, sounds=True):
    """Sessions of two dialogues with six turns each, all sounds of which differ."""
    for n in sessions:
        for dialogue, lines in ((f"Ses0{n}F_impro01", IMPRO), (f"Ses0{n}M_script01_1b", SCRIPT)):
            path = sheet(root, dialogue)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(HEADER + lines.format(n=n))
            wavs = root / f"Session{n}" / "sentences" / "wav" / dialogue
            wavs.mkdir(parents=True)
            turns = [line.split("\t") for line in lines.format(n=n).splitlines() if line.startswith("[")]
            for number, (times, turn, *_) in enumerate(turns if sounds else ()):
                start, end = map(float, times.strip("[]").split(" - "))
                level = (int(n) + number / 10) / 10 * (-1 if "F" in dialogue else 1)
                sound = np.full(round((end - start) * 16_000), level)
                soundfile.write(wavs / f"{turn}.wav", sound, 16_000, subtype="PCM_16")
        spoken = root / f"Session{n}" / "dialog" / "transcriptions" / f"Ses0{n}F_impro01.txt"
        spoken.parent.mkdir()
        spoken.write_text(WORDS.format(n=n))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("IEMOCAP_full_release"))


@pytest.fixture
def labels_only(tmp_path):
    """Its own, to be spoilt, and without a sound."""
    return lay_out(tmp_path, sounds=False)


def rows(corpus):
    return {row["id"]: row for row in corpus.annotations().to_dict("records")}


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# What is read -----------------------------------------------------------------------------------------------


def test_a_turn_has_everything_that_is_known_of_it(root):
    assert rows(IEMOCAP(root))["Ses03F_impro01_M000"] == {
        "id": "Ses03F_impro01_M000",
        "path": "Session3/sentences/wav/Ses03F_impro01/Ses03F_impro01_M000.wav",
        "code": "ang",
        "speaker": "3M",
        "gender": "M",
        "session": "3",
        "dialogue": "Ses03F_impro01",
        "recording": "Ses03F_impro01",
        "start": 8.0,
        "end": 8.5,
        "seconds": 0.5,
        "text": "No!",
        "activation": 4.5,
        "valence": 1.5,
        "dominance": 3.5,
    }


def test_every_turn_is_read_in_order(root):
    table = IEMOCAP(root).annotations()
    assert len(table) == 60
    assert table["id"].iloc[[0, 1, -1]].tolist() == [
        "Ses01F_impro01_F000",
        "Ses01F_impro01_M000",
        "Ses05M_script01_1b_F002",
    ]
    codes = dict(zip(table["id"].str.slice(7), table["code"], strict=True))
    assert pd.isna(codes.pop("script01_1b_M000"))
    assert codes == CODES


def test_the_speaker_is_who_speaks_and_not_who_wears_the_markers(root):
    table = IEMOCAP(root).everything().set_index("id")
    turns = ["Ses02F_impro01_M001", "Ses02M_script01_1b_F002"]
    assert table.loc[turns, "speaker"].tolist() == ["2M", "2F"]
    assert table.loc[turns, "gender"].tolist() == ["male", "female"]
    assert set(IEMOCAP(root).annotations()["speaker"]) == {f"{n}{g}" for n in range(1, 6) for g in "FM"}


def test_texts_are_those_of_the_turn_and_empty_without_a_transcription(root):
    turns = rows(IEMOCAP(root))
    assert turns["Ses01F_impro01_F000"]["text"] == "Excuse me, [LAUGHTER] is it 5: p.m.?"
    assert turns["Ses01F_impro01_F001"]["text"] == ""  # its line is missing
    assert turns["Ses01M_script01_1b_F000"]["text"] == ""  # its file is


FOUR = {"neu": "neutral", "ang": "anger", "hap": "happiness", "exc": "happiness", "sad": "sadness"}
FIVE = FOUR | {"fru": "frustration"}


@pytest.mark.parametrize(
    ("labels", "meaning", "outside"),
    [("4-class", FOUR, 25), ("5-class", FIVE, 20), ("6-class", FIVE | {"exc": "excitement"}, 20)],
)
def test_a_set_of_labels_keeps_its_classes_and_counts_the_rest(root, labels, meaning, outside):
    corpus = IEMOCAP(root, labels=labels)
    table = corpus.table()
    expected = {name: meaning[code] for name, code in CODES.items() if code in meaning}
    assert dict(zip(table["id"].str.slice(7), table["label"], strict=True)) == expected
    assert corpus.labels == tuple(sorted(set(meaning.values())))
    assert corpus.dropped == {
        "the raters do not agree": 5,
        f"the class is not in {labels}": outside,
    }


def test_without_classes_every_turn_is_kept(root):
    corpus = IEMOCAP(root, labels="none")
    assert corpus.labels == ()
    assert len(corpus.table()) == 60
    assert corpus.dropped == {}
    assert corpus.everything()["label"].isna().all()
    assert corpus.task == "IEMOCAP/none/leave-one-session-out-v1/fold-1"


def test_ratings_are_one_judgement_a_row(root):
    ratings = IEMOCAP(root, labels="6-class").ratings()
    assert list(ratings) == ["id", "rater", "label", "activation", "valence", "dominance"]
    turn = ratings[ratings["id"] == "Ses02F_impro01_F000"].drop(columns="id")
    nan = math.nan
    expected = [
        ("E2", "neutral", nan, nan, nan),
        ("E4", "excitement", nan, nan, nan),  # two classes of one rater
        ("E4", "happiness", nan, nan, nan),
        ("2F", "frustration", nan, nan, nan),  # the actress herself
        ("E3", None, 2.0, 3.0, 5.0),
        ("E4", None, 4.0, 2.0, nan),  # the number is missing; the one in the comment is none
        ("2F", None, 1.0, 3.0, nan),  # all of it is
    ]
    pd.testing.assert_frame_equal(
        turn.reset_index(drop=True), pd.DataFrame(expected, columns=turn.columns), check_dtype=False
    )
    assert len(ratings) == 5 * 10
    other = ratings[ratings["id"] == "Ses02F_impro01_M000"]
    assert other["rater"].tolist() == ["E2", "2M", "E3"]
    assert other["label"].tolist()[:2] == ["anger", "boredom"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("4-class", ["neutral", "happiness", "frustration"]),
        ("6-class", ["neutral", "excitement", "happiness", "frustration"]),
        ("none", ["neutral", "excitement", "happiness", "frustration"]),
    ],
)
def test_raters_choose_among_the_classes_of_the_set(root, labels, classes):
    ratings = IEMOCAP(root, labels=labels).ratings()
    said = ratings[(ratings["id"] == "Ses01F_impro01_F000") & ratings["label"].notna()]
    assert said["label"].tolist() == classes


def test_nothing_is_read_that_macos_or_single_raters_left(labels_only):
    before = IEMOCAP(labels_only).annotations()
    folder = sheet(labels_only).parent
    (folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07")
    (folder / "notes.doc").write_text("nothing")
    for name in ("Categorical", "Attribute", "Self-evaluation"):
        (folder / name).mkdir()
        (folder / name / "Ses01F_impro01_e1.txt").write_text("Ses01F_impro01_F000 :Neutral state; ()")
    pd.testing.assert_frame_equal(IEMOCAP(labels_only).annotations(), before)


def test_files_with_a_mark_or_another_encoding_or_windows_lines_are_read(labels_only):
    before = IEMOCAP(labels_only).annotations()
    plain = sheet(labels_only)
    lines = plain.read_text().removeprefix(HEADER).lstrip().replace("\n", "\r\n")
    plain.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    script = plain.parents[1] / "transcriptions" / plain.name
    text = script.read_text().replace("No!", "C'est un café …").encode("cp1252")
    script.write_bytes(text + b"\x9d is nothing in that encoding")
    after = IEMOCAP(labels_only).annotations()
    assert after.loc[1, "text"] == "C'est un café …"
    pd.testing.assert_frame_equal(after.drop(columns="text"), before.drop(columns="text"))


@pytest.mark.parametrize("place", ["IEMOCAP_full_release", "données à part/é è/IEMOCAP_full_release"])
def test_the_folder_above_will_do_whatever_it_is_called(root, tmp_path, place):
    release = lay_out(tmp_path / place, sounds=False)
    above = IEMOCAP(release.parent).annotations()
    inside = IEMOCAP(release).annotations()
    assert above.loc[0, "path"] == f"IEMOCAP_full_release/{inside.loc[0, 'path']}"
    pd.testing.assert_frame_equal(above.drop(columns="path"), inside.drop(columns="path"))


def test_a_relative_root_and_one_below_home_are_found(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    for spelling in (root.name, f"./{root.name}", f"~/{root.name}", f"{root.name}/../{root.name}/"):
        assert len(IEMOCAP(spelling).everything()) == 30


# Splits -----------------------------------------------------------------------------------------------------

SESSIONS = {fold: (str(fold), str(fold % 5 + 1)) for fold in range(1, 6)}
SPEAKERS = [f"{n}{gender}" for n in range(1, 6) for gender in "FM"]


def parts(corpus, column):
    return {name: set(corpus.split(name)[column]) for name in ("train", "val", "test")}


@pytest.mark.parametrize("fold", SESSIONS)
def test_a_session_is_held_out_and_the_next_one_validates(root, fold):
    corpus = IEMOCAP(root, fold=fold)
    corpus.setup("fit")
    test, val = SESSIONS[fold]
    assert parts(corpus, "session") == {"train": set("12345") - {test, val}, "val": {val}, "test": {test}}
    assert corpus.brands() == []


@pytest.mark.parametrize("fold", range(1, 11))
def test_a_speaker_is_held_out_and_the_partner_validates(root, fold):
    corpus = IEMOCAP(root, protocol="leave-one-speaker-out", fold=fold)
    test = SPEAKERS[fold - 1]
    val = test[0] + {"F": "M", "M": "F"}[test[1]]
    others = {speaker for speaker in SPEAKERS if speaker[0] != test[0]}
    assert parts(corpus, "speaker") == {"train": others, "val": {val}, "test": {test}}
    assert any("share 1 session" in brand for brand in corpus.brands())
    assert not any("speaker" in brand for brand in corpus.brands())


@pytest.mark.parametrize("fold", SESSIONS)
def test_the_woman_of_the_next_session_validates(root, fold):
    corpus = IEMOCAP(root, protocol="leave-one-session-out-speaker-validates", fold=fold)
    test, val = SESSIONS[fold]
    kept = {speaker for speaker in SPEAKERS if speaker[0] != test and speaker != f"{val}F"}
    assert parts(corpus, "speaker") == {"train": kept, "val": {f"{val}F"}, "test": {f"{test}F", f"{test}M"}}
    assert any("train and val share 1 session" in brand for brand in corpus.brands())


def test_the_sessions_of_work_on_single_annotators(root):
    corpus = IEMOCAP(root, labels="none", protocol="sessions-123-4-5")
    assert parts(corpus, "session") == {"train": set("123"), "val": {"4"}, "test": {"5"}}
    assert [len(corpus.split(name)) for name in ("train", "val", "test")] == [36, 12, 12]
    assert corpus.task == "IEMOCAP/none/sessions-123-4-5-v1"


def test_every_protocol_is_tested_here():
    assert [(protocol.name, protocol.rule.folds) for protocol in IEMOCAP.card.protocols] == [
        ("leave-one-session-out", 5),
        ("leave-one-speaker-out", 10),
        ("leave-one-session-out-speaker-validates", 5),
        ("leave-one-session-out-no-validation", 5),
        ("sessions-123-4-5", 1),
    ]


def test_a_random_split_is_refused_or_branded(root):
    random = Protocol("random", 1, "By chance.", Drawn(test=0.3, val=0.3))
    corpus = IEMOCAP(root, labels="none")
    corpus.protocol = random
    with pytest.raises(
        ValueError, match=r"splits of IEMOCAP \(random\) leak: train and val share \d+ speak.*"
    ) as e:
        corpus.everything()
    assert "Choose --data.protocol leave-one-session-out or sessions-123-4-5" in str(e.value)
    branded = IEMOCAP(root, labels="none", allow_leakage=True)
    branded.protocol = random
    branded.everything()
    assert any("speakers" in brand for brand in branded.brands())


@pytest.mark.parametrize(
    ("protocol", "fold", "words"),
    [
        ("leave-one-session-out", 6, "fold must be 1 to 5 for the protocol leave-one-session-out, got 6"),
        ("leave-one-speaker-out", 0, "fold must be 1 to 10 for the protocol leave-one-speaker-out, got 0"),
        ("sessions-123-4-5", 2, "fold must be only 1 for the protocol sessions-123-4-5, got 2"),
    ],
)
def test_a_fold_that_is_not_there_is_refused(root, protocol, fold, words):
    with pytest.raises(ValueError, match=words):
        IEMOCAP(root, protocol=protocol, fold=fold)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"labels": "4class"},
            "labels must be one of 4-class, .*, none, got '4class'; did you mean 4-class?",
        ),
        ({"labels": "emotions"}, r"labels must be one of 4-class, .*, none, got 'emotions'\."),
        ({"protocol": "leave-one-speaker"}, "for IEMOCAP, got .*; did you mean leave-one-speaker-out?"),
        ({"damaged": "ignore"}, "damaged must be stop or skip, got 'ignore'"),
    ],
)
def test_a_mistyped_name_gets_a_hint(root, options, words):
    with pytest.raises(ValueError, match=words):
        IEMOCAP(root, **options)


# What is refused --------------------------------------------------------------------------------------------


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere does not exist: expected the folder of IEMOCAP \(http"
    ):
        IEMOCAP(tmp_path / "nowhere").everything()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="file is a file: expected the folder of IEMOCAP"):
        IEMOCAP(tmp_path / "file").everything()
    with pytest.raises(FileNotFoundError, match=r"not the folder of IEMOCAP.*Session.*IEMOCAP_full_release"):
        IEMOCAP(tmp_path).everything()


def test_half_a_corpus_is_refused(tmp_path):
    lay_out(tmp_path, "145")
    with pytest.raises(FileNotFoundError, match=r"lacks the ratings of Session2, Session3: unpack .* skip"):
        IEMOCAP(tmp_path).everything()


def test_half_a_corpus_is_used_on_demand_and_said(tmp_path):
    lay_out(tmp_path, "145")
    corpus = IEMOCAP(tmp_path, protocol="sessions-123-4-5", damaged="skip")
    corpus.setup("fit")
    assert parts(corpus, "session") == {"train": {"1"}, "val": {"4"}, "test": {"5"}}
    assert "session 2, code neu: 0 utterances, published 362" in corpus.differences()
    with pytest.raises(ValueError, match=r"the val split of IEMOCAP is empty \(train 12, val 0, test 6\)"):
        IEMOCAP(tmp_path, damaged="skip").setup("fit")


def test_missing_sounds_are_refused_or_counted(tmp_path):
    lay_out(tmp_path)
    lost = tmp_path / "Session4" / "sentences" / "wav" / "Ses04F_impro01"
    for name in ("Ses04F_impro01_F000", "Ses04F_impro01_M002"):  # the second is of no class
        (lost / f"{name}.wav").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 30 sounds that IEMOCAP needs are missing, .*Ses04F_impro01_F000"
    ):
        IEMOCAP(tmp_path).everything()
    corpus = IEMOCAP(tmp_path, damaged="skip")
    assert len(corpus.everything()) == 29
    assert corpus.dropped["the sound is missing"] == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[6.2901 - 8.2357]", "[6.2901 - ]"),
        ("[6.2901 - 8.2357]", "[6.2901 , 8.2357]"),
        ("[6.2901 - 8.2357]", "6.2901"),
        ("[2.5000, 3.0000, 4.0000]", "[2.5000, 3.0000]"),
        ("[2.5000, 3.0000, 4.0000]", "[2.5000, nan, 4.0000]"),
        ("[2.5000, 3.0000, 4.0000]", ""),
        ("F000\tneu", "F000"),
        ("Ses01F_impro01_F000\tneu", "Ses01F_impro01\tneu"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(labels_only, old, new):
    path = sheet(labels_only)
    replace(path, old, new)
    with pytest.raises(
        ValueError, match=r"Ses01F_impro01\.txt, line 3: expected \[start - end\] turn .*, got '"
    ):
        IEMOCAP(labels_only).annotations()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("val 3; act 2; dom  5;", "val 3; act two; dom  5;", 7),
        ("val 3; act 2; dom  5;", "3; 2; 5;", 7),
        ("C-E2:\tNeutral;\t()", "C-E2\tNeutral;\t()", 4),
    ],
)
def test_a_rating_that_cannot_be_read_is_named(labels_only, old, new, line):
    replace(sheet(labels_only), old, new)
    with pytest.raises(ValueError, match=rf"Ses01F_impro01\.txt, line {line}: expected C-E1: .*, got '"):
        IEMOCAP(labels_only).ratings()


@pytest.mark.parametrize("content", [b"", HEADER.encode(), b"\n\n"])
def test_an_evaluation_of_nothing_is_refused(labels_only, content):
    sheet(labels_only).write_bytes(content)
    with pytest.raises(ValueError, match=r"Ses01F_impro01\.txt names no turn"):
        IEMOCAP(labels_only).annotations()


def test_a_rating_before_any_turn_is_refused(labels_only):
    replace(sheet(labels_only), HEADER, "C-E2:\tNeutral;\t()\n")
    with pytest.raises(ValueError, match="line 1: expected"):
        IEMOCAP(labels_only).annotations()


def test_a_class_or_a_name_that_cannot_be_is_refused(tmp_path):
    lay_out(tmp_path)
    path = sheet(tmp_path)
    replace(path, "\tneu\t", "\tbor\t")
    with pytest.raises(
        ValueError, match=r"'Ses01F_impro01_F000' have the label 'bor', which IEMOCAP does not"
    ):
        IEMOCAP(tmp_path).everything()
    replace(path, "\tbor\t", "\tneu\t")
    replace(path, "Ses01F_impro01_F001", "Ses01F_impro01_F000")
    with pytest.raises(ValueError, match="names 1 utterances twice, such as 'Ses01F_impro01_F000'"):
        IEMOCAP(tmp_path).everything()


# As published -----------------------------------------------------------------------------------------------


def published():
    card = json.loads(files("ser_strategies.data").joinpath("protocols/iemocap.json").read_text())
    return {count["where"]["session"]: count["by"]["code"] for count in card["counts"] if "where" in count}


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """Label files of as many turns as there are, the rest of them without agreement."""
    root = tmp_path_factory.mktemp("full")
    rest = 10_039 - sum(sum(counts.values()) for counts in published().values())
    for session, counts in published().items():
        codes = [code for code, count in counts.items() for _ in range(count)]
        codes += ["xxx"] * (rest if session == "5" else 0)
        lines = [
            f"[{i}.0 - {i}.5]\tSes0{session}F_impro01_{'FM'[i % 2]}{i:03}\t{code}\t[3.0, 2.0, 1.0]\n"
            for i, code in enumerate(codes)
        ]
        path = sheet(root, f"Ses0{session}F_impro01")
        path.parent.mkdir(parents=True)
        path.write_text(HEADER + "".join(lines))
    return root


def test_a_corpus_of_the_published_size_is_as_published(full_size):
    corpus = IEMOCAP(full_size)
    assert corpus.differences() == []
    four = corpus.annotated()["code"].map(corpus.label_sets["4-class"])
    assert four.value_counts().to_dict() == {
        "neutral": 1708,
        "happiness": 1636,
        "anger": 1103,
        "sadness": 1084,
    }


def test_what_differs_from_the_published_corpus_is_said(root):
    differences = IEMOCAP(root).differences()
    assert differences[0] == "in all: 60 utterances, published 10,039"
    assert "session 4, code hap: 1 utterances, published 65" in differences
    assert len(differences) == 31


# Batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_what_the_files_say(root, workers):
    corpus = IEMOCAP(root, batch_size=4, fold=3, workers=workers)
    turns = rows(corpus)
    seen = set()
    for batch in corpus.train_dataloader():
        for i, name in enumerate(batch.ids):
            turn = turns[name]
            sound, rate = soundfile.read(root / turn["path"], dtype="float32")
            assert rate == 16_000
            assert batch.lengths[i] == len(sound) == round(turn["seconds"] * 16_000)
            assert np.array_equal(batch.waveforms[i, : len(sound)], sound)
            assert not batch.waveforms[i, len(sound) :].any()
            assert corpus.labels[batch.labels[i]] == FOUR[turn["code"]]
            assert batch.dimensions[i].tolist() == [turn["activation"], turn["valence"], turn["dominance"]]
            assert batch.speakers[i] == turn["speaker"]
            assert batch.genders[i] == {"F": "female", "M": "male"}[turn["gender"]]
            assert batch.texts[i] == turn["text"]
            assert batch.paths[i] == turn["path"]
            seen.add(name)
    assert seen == set(corpus.split("train")["id"])
    assert len(seen) == 18


def test_batches_without_classes_have_dimensions(root):
    corpus = IEMOCAP(root, labels="none", batch_size=60)
    (batch,) = corpus.test_dataloader()
    assert set(batch.labels.tolist()) == {-1}
    assert batch.dimensions.shape == (12, 3)
    assert batch.soft_labels is None


# No validation, parts and votes -----------------------------------------------------------------------------


def test_nobody_validates_where_nobody_is_to(root):
    for fold in range(1, 6):
        corpus = IEMOCAP(root, protocol="leave-one-session-out-no-validation", fold=fold)
        corpus.setup("fit")
        assert set(corpus.split("test")["session"]) == {str(fold)}
        assert set(corpus.split("train")["session"]) == set("12345") - {str(fold)}
        assert len(corpus.val_dataloader()) == 0
        assert corpus.facts()["brands"] == ["nobody validates: the last epoch is tested"]
    with pytest.raises(ValueError, match="the val split of IEMOCAP is empty"):
        corpus.setup("validate")


def test_a_fit_without_validation_leaves_the_last_epoch_as_the_best(root, tmp_path, capsys):
    run = [
        *("--model", "PartialFineTuning", "--model.encoder", "random:wav2vec2-tiny"),
        *("--model.top_blocks", "1", "--data", "IEMOCAP", "--data.root", str(root)),
        *("--data.protocol", "leave-one-session-out-no-validation", "--trainer.limit_train_batches=1"),
        *("--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path / "run")),
    ]
    main(["fit", *run, "--trainer.max_epochs", "2"])
    best, last = (
        torch.load(tmp_path / "run" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    assert best["epoch"] == last["epoch"] == 1
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())
    fit = json.loads((tmp_path / "run" / "fit.json").read_text())
    assert fit["best"] == {"monitor": None, "score": None, "epoch": None}
    main(["test", *run])
    result = json.loads((tmp_path / "run" / "test.json").read_text())
    blind, copied = result["data"]["brands"]
    assert blind == "nobody validates: the last epoch is tested"
    assert copied.startswith("train and test share 6 recordings in several files")  # as they were laid out
    assert fit["data"]["brands"] == [blind, copied]
    assert sum(map(sum, result["confusion"])) == 6
    with pytest.raises(SystemExit):
        main(["fit", *run, "--patience", "2", "--overwrite"])
    assert (
        "nobody validates under leave-one-session-out-no-validation: leave it out." in capsys.readouterr().err
    )


def test_a_comparison_without_validation_tests_the_last_epoch(root, tmp_path, monkeypatch):
    options = {"root": str(root), "protocol": "leave-one-session-out-no-validation"}
    config = {
        "model": {"class_path": "PartialFineTuning", "init_args": {"encoder": "random:wav2vec2-tiny"}},
        "data": {"class_path": "IEMOCAP", "init_args": options},
        "trainer": {
            "max_epochs": 1,
            "limit_train_batches": 1,
            "accelerator": "cpu",
            "default_root_dir": "chain/1-mine",
        },
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid, "write_report", lambda asked, **_: Comparison.load(asked.out))
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain/1-mine.yaml").write_text(yaml.safe_dump(config))
    main(["compare", "chain", "--folds=2", "--seeds=1", "--out=out"])
    ledger = Ledger.read(tmp_path / "out")
    (run,) = ledger.runs.to_dict("records")
    assert (run["status"], run["fold"]) == ("finished", 2)
    assert "nobody validates: the last epoch is tested" in ledger.data(run["hash"])["brands"]
    assert not list((tmp_path / "out").rglob("*.ckpt"))


@pytest.mark.parametrize(("part", "left"), [("improvised", 25), ("scripted", 5)])
def test_parts_are_chosen_and_named(root, part, left):
    corpus = IEMOCAP(root, parts=part)
    table = corpus.everything()
    assert len(table) == left
    assert table["dialogue"].str.contains(part[:5]).all()
    assert corpus.task.startswith(f"IEMOCAP/4-class/{part}/leave-one-session-out-v1/")
    other = "scripted" if part == "improvised" else "improvised"
    assert corpus.facts()["dropped"][f"the dialogue is {other}"] == 30
    assert len(IEMOCAP(root, labels="none", parts=part).everything()) == 30


def test_happiness_may_go_without_excitement(root):
    table = IEMOCAP(root, labels="4-class-without-excitement").everything()
    assert table["label"].value_counts().to_dict() == {
        "neutral": 10,
        "anger": 5,
        "happiness": 5,
        "sadness": 5,
    }


def test_votes_are_shares_of_the_classes_that_are_learned(root):
    corpus = IEMOCAP(root, votes=True)
    row = corpus.everything().set_index("id").loc["Ses02F_impro01_F000"]
    # One said neutral, one excited and happy, which are one class here; frustration is none of the four.
    assert row[["vote/anger", "vote/happiness", "vote/neutral", "vote/sadness"]].tolist() == pytest.approx(
        [0, 1 / 2, 1 / 2, 0]
    )
    assert corpus.facts()["digest"] != IEMOCAP(root).facts()["digest"]
    with pytest.raises(ValueError, match=r"votes needs classes .* than none\."):
        IEMOCAP(root, labels="none", votes=True)
