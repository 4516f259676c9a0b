"""CREMA-D, laid out small with invented votes, and its real tables against published facts."""

import csv
import json
import pickle
import shutil
from collections import Counter
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data.corpora.crema_d import CREMAD
from ser_strategies.data.rules import SPLITS
from tests.data.real import real_data

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
WORDS = dict(zip(EMOTIONS, ("anger", "disgust", "fear", "happiness", "neutral", "sadness"), strict=True))
LETTERS = {code[0]: word for code, word in WORDS.items()}
# Two actors of each fold of speaker-5fold.
ACTORS = (*("1003", "1004"), *("1007", "1024"), *("1005", "1076"), *("1012", "1015"), *("1001", "1002"))
FOLDS = [set(ACTORS[start : start + 2]) for start in range(0, 10, 2)]
CLIPS = [f"{actor}_MTI_{emotion}_XX" for actor in ACTORS for emotion in EMOTIONS]
SILENT = "1076_MTI_SAD_XX"
VOICE, FACE, BOTH = 1, 2, 3
# How many raters chose anger, disgust, fear, happiness, neutral, sadness; else all chose what was meant.
VOTES = {
    ("1001_MTI_ANG_XX", VOICE): (0, 0, 0, 0, 9, 1),
    ("1001_MTI_ANG_XX", BOTH): (6, 3, 0, 0, 1, 0),
    ("1001_MTI_DIS_XX", VOICE): (4, 4, 0, 0, 2, 0),
    ("1001_MTI_DIS_XX", BOTH): (0, 5, 0, 1, 0, 0),
    ("1001_MTI_FEA_XX", VOICE): (2, 2, 2, 2, 2, 2),
    ("1001_MTI_FEA_XX", BOTH): (0, 4, 0, 0, 0, 4),
}


def write(root, clips=CLIPS, votes=VOTES, kind="wav", people=None):
    """The corpus's own layout, with sounds of 0.05 s and some samples more, no two alike."""
    sounds, results = root / f"Audio{kind.upper()}", root / "processedResults"
    sounds.mkdir(parents=True)
    results.mkdir()
    if people is None:
        people = {name[:4]: "Female" if int(name[:4]) % 2 else "Male" for name in clips}
    demographics = [f'{actor},30,"{sex}","Asian","Not Hispanic"' for actor, sex in people.items()]
    lines(root / "VideoDemographics.csv", '"ActorID","Age","Sex","Race","Ethnicity"', demographics)
    summary = [
        f'"{row}","{name}","A:D","50"' for row, name in enumerate(clips, 1)
    ]  # whose votes are not read
    lines(results / "summaryTable.csv", '"","FileName","VoiceVote","VoiceLevel"', summary)
    tabulated = [
        f'"{mode}{row:05d}",{",".join(map(str, counts))},"{name}",{sum(counts)}'
        for mode in (VOICE, FACE, BOTH)
        for row, name in enumerate(clips, 1)
        if (counts := counted(votes, name, mode))
    ]
    lines(results / "tabulatedVotes.csv", '"","A","D","F","H","N","S","fileName","numResponses"', tabulated)
    for number, name in enumerate(clips):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 800 + number)
        soundfile.write(sounds / f"{name}.{kind}", samples, 16_000)
    return root


def lines(path, header, rows):
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")


def counted(votes, name, mode):
    meant = tuple(10 * (emotion in name) for emotion in EMOTIONS)
    return votes.get((name, mode), meant if mode != FACE else (0, 0, 0, 0, 0, 1))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The small corpus, which a test leaves as it is."""
    return write(tmp_path_factory.mktemp("made") / "CREMA-D")


@pytest.fixture
def own(tmp_path):
    """One that a test may change."""
    return write(tmp_path / "CREMA-D")


def labels_of(corpus):
    table = corpus.everything()
    return dict(zip(table["id"], table["label"], strict=True))


# Splits -----------------------------------------------------------------------------------------------------


def test_by_default_actors_are_apart_and_learned_is_what_they_meant(root):
    corpus = CREMAD(str(root))
    assert corpus.task == "CREMAD/intended/speaker-5fold-v1/fold-1"
    assert corpus.labels == tuple(WORDS.values())
    assert labels_of(corpus) == {name: WORDS[name[9:12]] for name in CLIPS if name != SILENT}
    assert corpus.class_counts() == (6, 6, 6, 6, 6, 5)
    facts = corpus.facts()
    assert facts["brands"] == []
    assert facts["splits"]["test"]["classes"] == dict.fromkeys(WORDS.values(), 2)


@pytest.mark.parametrize("fold", range(1, 6))
def test_a_fold_tests_and_the_next_one_validates(root, fold):
    corpus = CREMAD(str(root), fold=fold)
    assert set(corpus.split("test")["speaker"]) == FOLDS[fold - 1]
    assert set(corpus.split("val")["speaker"]) == FOLDS[fold % 5]
    assert set(corpus.split("train")["speaker"]) == set(ACTORS) - FOLDS[fold - 1] - FOLDS[fold % 5]


@pytest.mark.parametrize(
    ("protocol", "published"), [("emobox-speaker-dependent", 0.25), ("vesper-speaker-dependent", 0.2)]
)
def test_published_splits_share_speakers_which_brands_the_result(root, protocol, published):
    corpus = CREMAD(str(root), protocol=protocol)
    sizes = Counter(corpus.everything()["label"])
    assert Counter(corpus.split("test")["label"]) == {
        word: int(size * published) for word, size in sizes.items()
    }
    brands = corpus.facts()["brands"]
    assert any(brand.startswith("train and test share") and "speaker" in brand for brand in brands)
    assert corpus.task == f"CREMAD/intended/{protocol}-v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 0}, r"fold must be 1 to 5 for the protocol speaker-5fold, got 0"),
        ({"fold": 6}, r"fold must be 1 to 5 for the protocol speaker-5fold, got 6"),
        ({"protocol": "emobox-speaker-dependent", "fold": 2}, r"fold must be only 1 for the protocol emobox"),
        (
            {"protocol": "speaker5fold"},
            r"protocol must be one of speaker-5fold, .*; did you mean speaker-5fold\?",
        ),
        ({"protocol": "vesper-speaker"}, r"did you mean vesper-speaker-dependent\?"),
        (
            {"labels": "audiovisual"},
            r"labels must be one of intended, voice, .*; did you mean audio-visual\?",
        ),
        ({"labels": "Intended"}, r"got 'Intended'; did you mean intended\?"),
        ({"labels": "face"}, r"labels must be one of .*, got 'face'"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(root, options, message):
    with pytest.raises(ValueError, match=message):
        CREMAD(str(root), **options)


def test_an_actor_whom_the_protocol_does_not_know_is_named(tmp_path):
    root = write(tmp_path / "more", [*CLIPS, "1092_MTI_ANG_XX"])
    with pytest.raises(ValueError, match=r"1 utterances such as '1092_MTI_ANG_XX' have the speaker '1092'"):
        CREMAD(str(root)).everything()
    assert len(CREMAD(str(root), protocol="emobox-speaker-dependent").everything()) == 60


# What the tables say ----------------------------------------------------------------------------------------


def test_everything_that_is_known_of_a_clip(root):
    table = CREMAD(str(root)).everything().set_index("id")
    row = table.loc["1001_MTI_HAP_XX"]
    assert row["speaker"] == "1001"
    assert row["gender"] == "female"
    assert row["text"] == "Maybe tomorrow it will be cold."
    assert row["path"] == "AudioWAV/1001_MTI_HAP_XX.wav"
    assert row["seconds"] == (800 + CLIPS.index("1001_MTI_HAP_XX")) / 16_000
    assert table.loc["1002_MTI_HAP_XX", "gender"] == "male"


def test_genders_are_those_of_the_demographics(tmp_path):
    people = {"1001": "Male", "1003": "Female", "1007": "Male", "1005": ""}
    clips = [f"{actor}_IEO_ANG_HI" for actor in (*people, "1012")]
    table = CREMAD(str(write(tmp_path / "few", clips, people=people))).everything()
    assert table["gender"].tolist() == ["male", "female", "male", pd.NA, pd.NA]


def test_an_emotion_that_there_is_not_is_named(tmp_path):
    root = write(tmp_path / "odd", [*CLIPS, "1001_MTI_SUR_XX"])
    with pytest.raises(
        ValueError, match=r"'1001_MTI_SUR_XX' have the label 'SUR', which CREMA-D does not know: .*ANG"
    ):
        CREMAD(str(root)).everything()


@pytest.mark.parametrize(
    "name",
    [
        "1001_MTI",
        "",
    ],
)
def test_a_name_that_is_none_of_a_clip_is_refused(tmp_path, name):
    root = write(tmp_path / "odd")
    with (root / "processedResults" / "summaryTable.csv").open("a") as file:
        file.write(f'"61","{name}","A","50"\n')
    with pytest.raises((ValueError, FileNotFoundError)):
        CREMAD(str(root), damaged="skip").everything()


@pytest.mark.parametrize(
    "labels",
    [
        "intended",
        "voice",
    ],
)
def test_a_clip_that_is_listed_twice_is_named(tmp_path, labels):
    root = write(tmp_path / "twice", [*CLIPS, CLIPS[0]])
    with pytest.raises(ValueError, match=r"names 1 utterances twice, such as '1003_MTI_ANG_XX'"):
        CREMAD(str(root), labels=labels).everything()


# Votes ------------------------------------------------------------------------------------------------------

TIES = {"voice": {"1001_MTI_DIS_XX", "1001_MTI_FEA_XX"}, "audio-visual": {"1001_MTI_FEA_XX"}}


@pytest.mark.parametrize("mode", TIES)
def test_a_clip_is_what_most_raters_chose_and_left_out_where_as_many_chose_another(root, mode):
    corpus = CREMAD(str(root), labels=mode)
    meant = {name: WORDS[name[9:12]] for name in CLIPS if name != SILENT}
    heard = {"1001_MTI_ANG_XX": "neutral" if mode == "voice" else "anger"}
    assert labels_of(corpus) == {
        name: word for name, word in (meant | heard).items() if name not in TIES[mode]
    }
    assert corpus.dropped == {f"{SILENT}: it is silent": 1, "the raters do not agree": len(TIES[mode])}
    assert corpus.labels == tuple(WORDS.values())


def test_of_four_classes_two_are_left_out(root):
    corpus = CREMAD(str(root), labels="audio-visual-4class")
    assert corpus.labels == ("anger", "happiness", "neutral", "sadness")
    assert set(labels_of(corpus)) == {
        name for name in CLIPS if name[9:12] in "ANG HAP NEU SAD" and name != SILENT
    }
    assert corpus.dropped == {
        f"{SILENT}: it is silent": 1,
        "the raters do not agree": 1,
        "the class is not in audio-visual-4class": 19,
    }


@pytest.mark.parametrize("mode", TIES)
def test_soft_labels_keep_those_on_whom_raters_are_divided(root, mode):
    corpus = CREMAD(str(root), labels=f"{mode}-soft")
    table = corpus.everything().set_index("id")
    assert set(table.index) == set(CLIPS) - {SILENT}
    assert set(table.index[table["label"].isna()]) == TIES[mode]
    assert corpus.dropped == {f"{SILENT}: it is silent": 1}
    columns = [f"vote/{word}" for word in corpus.labels]
    for name in table.index:
        counts = np.array(counted(VOTES, name, VOICE if mode == "voice" else BOTH))
        np.testing.assert_allclose(table.loc[name, columns].astype(float), counts / counts.sum())


def test_votes_come_with_the_batches(root):
    corpus = CREMAD(str(root), labels="voice-soft", batch_size=60)
    (batch,) = corpus.train_dataloader()
    assert batch.soft_labels.shape == (len(batch.ids), 6)
    np.testing.assert_allclose(batch.soft_labels.sum(dim=1), 1, rtol=1e-6)
    for name, label, votes in zip(batch.ids, batch.labels.tolist(), batch.soft_labels.numpy(), strict=True):
        counts = np.array(counted(VOTES, name, VOICE))
        np.testing.assert_allclose(votes, counts / counts.sum(), rtol=1e-6)
        assert label == (counts.argmax() if (counts == counts.max()).sum() == 1 else -1)


def test_what_actors_meant_comes_without_votes(root):
    (batch,) = CREMAD(str(root), batch_size=60).train_dataloader()
    assert batch.soft_labels is None


def test_the_votes_of_four_classes_are_a_distribution_over_them(root):
    corpus = CREMAD(str(root), labels="audio-visual-4class", batch_size=60, fold=2)
    (batch,) = corpus.train_dataloader()
    assert "1001_MTI_ANG_XX" in batch.ids
    np.testing.assert_allclose(batch.soft_labels.sum(dim=1), 1, rtol=1e-6)


def test_a_clip_without_votes_in_the_table_is_left_out_for_that_reason(tmp_path):
    root = write(tmp_path / "few", votes={("1001_MTI_ANG_XX", VOICE): ()})
    for labels in ("voice", "voice-soft"):
        corpus = CREMAD(str(root), labels=labels)
        assert "1001_MTI_ANG_XX" not in labels_of(corpus)
        assert corpus.dropped["no votes are in the table"] == 1


def test_a_clip_that_nobody_has_rated_has_no_label(tmp_path):
    root = write(tmp_path / "few", votes={("1001_MTI_ANG_XX", VOICE): (0, 0, 0, 0, 0, 0)})
    corpus = CREMAD(str(root), labels="voice")
    assert "1001_MTI_ANG_XX" not in labels_of(corpus)
    assert corpus.dropped["the raters do not agree"] == 1
    table = CREMAD(str(root), labels="voice-soft").everything().set_index("id")
    assert pd.isna(table.loc["1001_MTI_ANG_XX", "label"])
    assert np.isnan(table.loc["1001_MTI_ANG_XX", "vote/anger"])


def test_votes_that_are_no_numbers_are_refused(own):
    path = own / "processedResults" / "tabulatedVotes.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",10,", ",ten,", 1), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"tabulatedVotes\.csv, row 1 below the header: . is 'ten', expected a number"
    ):
        CREMAD(str(own), labels="voice").everything()


def test_other_labels_are_another_task(root):
    sets = ("intended", "voice", "audio-visual", "audio-visual-4class", "voice-soft", "audio-visual-soft")
    corpora = [CREMAD(str(root), labels=labels) for labels in sets]
    assert len({corpus.task for corpus in corpora}) == 6
    assert len({corpus.facts()["digest"] for corpus in corpora}) == 6


# What single raters said ------------------------------------------------------------------------------------

RESPONSES = (
    *("localid", "pos", "ans", "ttr", "queryType", "numTries", "clipNum", "questNum", "subType", "clipName"),
    *("sessionNums", "respEmo", "respLevel", "dispEmo", "dispVal", "dispLevel"),
)
ANSWERS = [
    ("p1", VOICE, "1001_MTI_ANG_XX", "N"),
    ("p2", VOICE, "1001_MTI_ANG_XX", "S"),
    ("p1", FACE, "1001_MTI_ANG_XX", "H"),
    ("p1", BOTH, "1001_MTI_ANG_XX", "A"),
    ("p3", VOICE, "1002_MTI_FEA_XX", "F"),
    ("p3", BOTH, "1002_MTI_FEA_XX", "D"),
]


def write_responses(root):
    rows = [
        f'"{n}","{rater}",7,"{emotion}_80",5000,{mode},0,12,{n},4,"{clip}",33,"{emotion}",80,"A","X",50'
        for n, (rater, mode, clip, emotion) in enumerate(ANSWERS, 1)
    ]
    lines(root / "finishedResponses.csv", ",".join(f'"{name}"' for name in ("", *RESPONSES)), rows)


@pytest.mark.parametrize(
    ("labels", "mode"),
    [
        ("voice", VOICE),
        ("voice-soft", VOICE),
        ("audio-visual", BOTH),
        ("audio-visual-soft", BOTH),
        ("audio-visual-4class", BOTH),
    ],
)
def test_single_raters_are_those_of_the_mode(own, labels, mode):
    write_responses(own)
    ratings = CREMAD(str(own), labels=labels).ratings()
    expected = [(clip, rater, LETTERS[emotion]) for rater, query, clip, emotion in ANSWERS if query == mode]
    assert list(ratings[["id", "rater", "label"]].itertuples(index=False, name=None)) == expected
    assert ratings.index.tolist() == list(range(len(expected)))


def test_there_are_no_raters_of_what_actors_meant_nor_without_their_file(own):
    assert CREMAD(str(own), labels="voice").ratings() is None
    write_responses(own)
    assert CREMAD(str(own)).ratings() is None


# What is missing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", ["stop", "skip"])
@pytest.mark.parametrize("there", [True, False])
def test_the_silent_clip_is_never_used(own, damaged, there):
    if not there:
        (own / "AudioWAV" / f"{SILENT}.wav").unlink()
    corpus = CREMAD(str(own), damaged=damaged)
    assert SILENT not in labels_of(corpus)
    assert corpus.dropped == {f"{SILENT}: it is silent": 1}


def test_a_missing_clip_stops_the_run_or_is_skipped_and_counted(own):
    (own / "AudioWAV" / "1003_MTI_ANG_XX.wav").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"^1 of .*59.* missing, such as .*AudioWAV/1003_MTI_ANG_XX\.wav"
    ):
        CREMAD(str(own)).everything()
    corpus = CREMAD(str(own), damaged="skip")
    assert "1003_MTI_ANG_XX" not in labels_of(corpus)
    assert corpus.dropped["the sound is missing"] == 1


@pytest.mark.parametrize(
    "gone", ["processedResults/summaryTable.csv", "processedResults", "VideoDemographics.csv"]
)
def test_half_a_corpus_is_refused_with_what_it_lacks(own, gone):
    path = own / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"is not the folder of CREMA-D, or half of it: it has no {gone}.*github"
    ):
        CREMAD(str(own)).everything()


def test_votes_are_needed_where_they_are_learned(own):
    (own / "processedResults" / "tabulatedVotes.csv").unlink()
    assert len(CREMAD(str(own)).everything()) == 59
    with pytest.raises(FileNotFoundError, match=r"it has no processedResults/tabulatedVotes\.csv"):
        CREMAD(str(own), labels="voice").everything()


def test_a_table_without_its_column_is_refused(own):
    lines(own / "VideoDemographics.csv", "ActorID,Age", ["1001,51"])
    with pytest.raises(ValueError, match=r"VideoDemographics\.csv lacks the column Sex: got ActorID, Age"):
        CREMAD(str(own)).everything()


@pytest.mark.parametrize("name", ["", "AudioWAV", "VideoDemographics.csv", "gone"])
def test_a_wrong_root_is_refused_with_where_to_get_the_corpus(root, name):
    wrong = root.parent if not name else root / name
    with pytest.raises(FileNotFoundError, match=r"CREMA-D.*github\.com/CheyneyComputerScience/CREMA-D"):
        CREMAD(str(wrong)).everything()


@pytest.mark.parametrize("name", ["my data/CREMA D", "Sprachdaten Größe ą 情感"])
def test_the_folder_may_have_any_name(own, tmp_path, name):
    moved = tmp_path / name
    moved.parent.mkdir(exist_ok=True)
    own.rename(moved)
    corpus = CREMAD(str(moved), batch_size=60)
    (batch,) = corpus.test_dataloader()
    assert len(batch.ids) == 12


def test_a_tilde_is_the_home_folder(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(CREMAD("~/CREMA-D").everything()) == 59


# Sounds -----------------------------------------------------------------------------------------------------


def test_mp3_files_are_read_where_they_are_asked_for(tmp_path):
    root = write(tmp_path / "CREMA-D", CLIPS[:6], kind="mp3")
    corpus = CREMAD(str(root), audio="mp3")
    table = corpus.everything()
    assert set(table["path"]) == {f"AudioMP3/{name}.mp3" for name in CLIPS[:6]}
    sounds = [corpus.waveform(row) for row in table.to_dict("records")]
    assert all(len(sound) >= 800 and sound.dtype == np.float32 for sound in sounds)
    with pytest.raises(FileNotFoundError, match=r"AudioWAV/1003_MTI_ANG_XX\.wav"):
        CREMAD(str(root)).everything()


def test_a_pointer_of_git_lfs_is_no_sound(own):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{:064x}\nsize 72804\n"
    for number, path in enumerate(sorted((own / "AudioWAV").glob("*.wav"))):
        path.write_text(pointer.format(number), encoding="utf-8")
    corpus = CREMAD(str(own))
    with pytest.raises(
        ValueError, match=r"_MTI_.* of CREMAD cannot be used: .*\.wav cannot be read as sound"
    ):
        list(corpus.train_dataloader())


def test_a_worker_process_can_have_it(root):
    corpus = CREMAD(str(root), labels="voice-soft")
    row = corpus.everything().to_dict("records")[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(corpus)).waveform(row), corpus.waveform(row))


def test_a_small_tree_differs_from_what_is_published(root):
    differences = CREMAD(str(root)).differences()
    assert "in all: 60 utterances, published 7,442" in differences
    assert "intended ANG: 10 utterances, published 1,271" in differences
    assert len(differences) == 7


# The real tables --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return real_data("CREMA-D")


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def summary(real):
    return {row["FileName"]: row for row in rows_of(real / "processedResults" / "summaryTable.csv")}


@pytest.fixture(scope="module")
def annotated(real):
    return {
        labels: CREMAD(str(real), labels=labels).annotated().set_index("id")
        for labels in ("intended", "voice", "audio-visual")
    }


def test_the_real_corpus_is_as_published(real, annotated):
    table = annotated["intended"]
    assert len(table) == 7_442
    assert Counter(table["code"]) == {
        "ANG": 1271,
        "DIS": 1271,
        "FEA": 1271,
        "HAP": 1271,
        "SAD": 1271,
        "NEU": 1087,
    }
    assert CREMAD(str(real)).differences() == []
    assert CREMAD(str(real), labels="voice-soft").differences() == []


def test_the_real_corpus_has_48_men_and_43_women_who_say_twelve_sentences(annotated):
    table = annotated["intended"]
    assert Counter(table.groupby("speaker")["gender"].first()) == {"Male": 48, "Female": 43}
    assert table["text"].nunique() == 12
    assert table["text"].notna().all()


def test_clips_of_the_list_and_of_the_summary_are_the_same(real, annotated):
    listed = {row["Filename"] for row in rows_of(real / "SentenceFilenames.csv")}
    assert set(annotated["intended"].index) == listed


@pytest.mark.parametrize(
    ("labels", "column", "ties", "as_meant"),
    [("voice", "VoiceVote", 644, 3_099), ("audio-visual", "MultiModalVote", 420, 5_374)],
)
def test_votes_are_those_of_the_published_summary(annotated, summary, labels, column, ties, as_meant):
    """41.6 % of the clips sound as they were meant; 72.2 % look and sound so."""
    table = annotated[labels]
    won = {name: row[column] for name, row in summary.items() if ":" not in row[column]}
    assert table["code"].dropna().to_dict() == won
    assert table["code"].isna().sum() == ties
    assert (table["code"] == table["intended"].str[0]).sum() == as_meant
    votes = table.filter(like="vote/")
    assert votes.shape == (7_442, 6)
    np.testing.assert_allclose(votes.sum(axis=1), 1)


def test_each_fold_of_the_protocol_has_women_and_men(annotated):
    genders = annotated["intended"].groupby("speaker")["gender"].first()
    for fold in CREMAD("unused").protocol.rule.test:
        counts = Counter(genders[fold])
        assert 8 <= counts["Female"] <= 9
        assert 9 <= counts["Male"] <= 10


def test_most_of_the_real_sounds_are_missing(real):
    with pytest.raises(FileNotFoundError, match=r"^7,4(29|30) of .*7,44[12] sounds .*missing.*doctor"):
        CREMAD(str(real)).everything()
    corpus = CREMAD(str(real), damaged="skip")
    assert len(corpus.everything()) == 12
    assert sum(corpus.dropped.values()) == 7_430
    with pytest.raises(ValueError, match=r"the val split of CREMAD is empty \(train 12, val 0, test 0\)"):
        corpus.setup("fit")


@pytest.mark.parametrize(("audio", "clips"), [("wav", 12), ("mp3", 6)])
def test_the_real_sounds_last_what_is_estimated(real, audio, clips):
    corpus = CREMAD(str(real), audio=audio, damaged="skip")
    table = corpus.everything()
    assert len(table) == clips
    for row in table.to_dict("records"):
        sound = corpus.waveform(row)
        assert 0.01 < abs(sound).max() <= 1
        assert row["seconds"] == pytest.approx(len(sound) / 16_000, rel=0.1)


def test_the_same_clips_as_wav_and_as_mp3_sound_alike(real):
    wav, mp3 = (CREMAD(str(real), audio=audio, damaged="skip") for audio in ("wav", "mp3"))
    rows = wav.everything().set_index("id")
    for row in mp3.everything().to_dict("records"):
        one, other = wav.waveform(rows.loc[row["id"]]), mp3.waveform(row)
        assert len(one) / len(other) == pytest.approx(1, rel=0.1)


@pytest.fixture(scope="module")
def whole(real, tmp_path_factory):
    """The real tables with a file for every clip; what is in it is no sound."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(real / "processedResults", root / "processedResults")
    shutil.copy(real / "VideoDemographics.csv", root)
    (root / "AudioWAV").mkdir()
    for row in rows_of(real / "SentenceFilenames.csv"):
        (root / "AudioWAV" / f"{row['Filename']}.wav").write_text(row["Filename"], encoding="utf-8")
    return root


def sizes(corpus):
    return tuple(len(corpus.split(name)) for name in SPLITS)


@pytest.mark.parametrize("fold", range(1, 6))
def test_every_fold_of_the_whole_corpus_has_the_clips_of_its_actors(whole, summary, fold):
    card = json.loads(
        (files("ser_strategies.data") / "protocols" / "crema_d.json").read_text(encoding="utf-8")
    )
    parts = card["protocols"][0]["rule"]["test"]
    clips = [sum(name[:4] in part and name != SILENT for name in summary) for part in parts]
    assert sum(clips) == 7_441
    test, val = clips[fold - 1], clips[fold % 5]
    corpus = CREMAD(str(whole), fold=fold)
    assert sizes(corpus) == (7_441 - test - val, val, test)
    assert corpus.dropped == {f"{SILENT}: it is silent": 1}
    assert corpus.facts()["brands"] == []
    assert corpus.facts()["differences"] == []


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        # A quarter of 1271 (four times), 1270 and 1087; a fifth of what is left.
        ("emobox-speaker-dependent", (5_585 - 1_113, 1_113, 1_856)),
        # A fifth of 1271 (four times), 1270 and 1087; a tenth of what is left.
        ("vesper-speaker-dependent", (5_954 - 592, 592, 1_487)),
    ],
)
def test_the_published_splits_of_the_whole_corpus_have_their_sizes(whole, protocol, expected):
    corpus = CREMAD(str(whole), protocol=protocol)
    assert sizes(corpus) == expected
    (brand,) = (brand for brand in corpus.brands() if brand.startswith("train and test"))
    assert brand.startswith("train and test share 91 speakers (100.0%")


def test_the_published_speaker_disjoint_split_has_its_published_sizes(whole):
    corpus = CREMAD(str(whole), protocol="tfds")
    assert sizes(corpus) == (5_144, 738, 1_556)
    assert [corpus.split(part)["speaker"].nunique() for part in SPLITS] == [63, 9, 19]
    assert corpus.splits.leaks == []
    # As published: speakers as strings, shuffled by numpy's old generator.
    order = [str(number) for number in range(1001, 1092)]
    np.random.RandomState(0).shuffle(order)
    assert set(corpus.split("test")["speaker"]) == set(order[72:])


@pytest.mark.parametrize(
    ("labels", "size"),
    [("voice", 6_798), ("audio-visual", 7_022), ("voice-soft", 7_442), ("audio-visual-soft", 7_442)],
)
def test_the_whole_corpus_has_as_many_clips_as_raters_agree_on(whole, annotated, labels, size):
    corpus = CREMAD(str(whole), labels=labels)
    silent = annotated[labels.removesuffix("-soft")].loc[SILENT, "code"]
    assert len(corpus.everything()) == size - (labels.endswith("-soft") or pd.notna(silent))
