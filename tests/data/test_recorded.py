"""Every corpus on a disk: where its files are, which classes are asked for, and what it says is missing."""

import json
import pickle
import shutil
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from ser_strategies.data import listing
from ser_strategies.data.label_files import read_table
from ser_strategies.data.protocol import Card, Count, Protocol
from ser_strategies.data.recorded import NO_CLASSES, RecordedCorpus
from ser_strategies.data.rules import Drawn, HeldOut

FOLDS = HeldOut("speaker", test=[["s1"], ["s2"], ["s3"]], val=[["s2"], ["s3"], ["s1"]])
APART = Protocol("apart", 1, "Speakers are apart.", FOLDS)
MIXED = Protocol("mixed", 2, "Speakers are mixed.", Drawn(test=0.34, val=0.5), shares=("speaker",))
# Id, speaker, code of the class: all three of them and no agreement for each of three speakers.
ROWS = [
    (f"{speaker}-{code or 'x'}", speaker, code)
    for speaker in ("s1", "s2", "s3")
    for code in ("A", "B", "C", "")
]


class Made(RecordedCorpus):
    """A table labels.csv, and a sound for each of its rows in the folder sounds."""

    card = Card(
        "Made Up", "https://example.org", (APART, MIXED), counts=(Count(total=12, by={"code": {"A": 3}}),)
    )
    label_sets: ClassVar = {
        "letters": {"A": "ay", "B": "bee", "C": "sea"},
        "two": {"A": "ay", "B": "bee"},
        NO_CLASSES: {},
    }

    def __init__(self, root, *, labels="letters", **options):
        super().__init__(str(root), labels=labels, **options)

    def codes(self):
        return frozenset("ABC")

    def annotations(self):
        table = read_table(self.find("labels.csv", "old/*.csv"), ["id", "speaker", "code"])
        return table.assign(path="sounds/" + table["id"] + ".wav")


class WithTimes(Made):
    """Its table knows some durations."""

    def annotations(self):
        table = super().annotations()
        return table.assign(seconds=[9.5 if name.endswith("A") else np.nan for name in table["id"]])


def with_card(**changes):
    card = Card(
        **{"name": "Made Up", "request": "https://example.org", "protocols": (APART, MIXED)} | changes
    )
    return type("Made", (Made,), {"card": card})


def write(root, rows=ROWS):
    """The corpus: sounds of 0.1 s and some samples more, no two alike."""
    (root / "sounds").mkdir(parents=True)
    (root / "labels.csv").write_text(
        "id,speaker,code\n" + "".join(f"{','.join(row)}\n" for row in rows), encoding="utf-8"
    )
    for number, (name, *_) in enumerate(rows):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 1_600 + number)
        soundfile.write(root / "sounds" / f"{name}.wav", samples, 16_000)
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "made")


# What is chosen ---------------------------------------------------------------------------------------------


def test_the_first_protocol_and_the_first_fold_are_the_default(root):
    corpus = Made(root)
    assert corpus.split_name == "apart-v1/fold-1"
    assert corpus.task == "Made/letters/apart-v1/fold-1"
    assert corpus.labels == ("ay", "bee", "sea")
    assert [set(corpus.split(name)["speaker"]) for name in ("test", "val", "train")] == [
        {"s1"},
        {"s2"},
        {"s3"},
    ]


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_each_fold_tests_its_speaker(root, fold):
    corpus = Made(root, fold=fold)
    assert set(corpus.split("test")["speaker"]) == {f"s{fold}"}
    assert corpus.task.endswith(f"/fold-{fold}")
    assert corpus.brands() == []


def test_where_there_is_one_fold_the_task_does_not_name_it(root):
    assert Made(root, protocol="mixed").task == "Made/letters/mixed-v2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"labels": "leters"},
            r"labels must be one of letters, two, none, got 'leters'; did you mean letters\?",
        ),
        ({"labels": "xyz"}, r"labels must be one of letters, two, none, got 'xyz'\.$"),
        (
            {"protocol": "mixd"},
            r"protocol must be one of apart, mixed for Made Up, got 'mixd'; did you mean mixed\?",
        ),
        ({"fold": 0}, r"fold must be 1 to 3 for the protocol apart, got 0"),
        ({"fold": 4}, r"fold must be 1 to 3 for the protocol apart, got 4"),
        ({"protocol": "mixed", "fold": 2}, r"fold must be only 1 for the protocol mixed, got 2"),
        ({"damaged": "ignore"}, r"damaged must be stop or skip, got 'ignore'"),
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Made(tmp_path / "none", **options)


# Where it is ------------------------------------------------------------------------------------------------


def test_a_root_that_is_not_there_is_refused_with_where_to_get_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--data.root .*none does not exist: .* Made Up \(https://example.org\)"
    ):
        Made(tmp_path / "none").everything()


def test_a_root_that_is_a_file_is_refused(root):
    with pytest.raises(FileNotFoundError, match=r"labels\.csv is a file: expected the folder of Made Up"):
        Made(root / "labels.csv").everything()


def test_a_folder_of_something_else_is_refused_with_what_it_lacks(root):
    (root / "labels.csv").rename(root / "._labels.csv")  # what macOS leaves is none either
    with pytest.raises(
        FileNotFoundError,
        match=r"made is not the folder of Made Up, or half of it: it has no labels\.csv or old/",
    ):
        Made(root).everything()


def test_files_may_be_where_another_release_has_them(root):
    (root / "old").mkdir()
    (root / "labels.csv").rename(root / "old" / "b.csv")
    (root / "old" / "._a.csv").write_bytes(b"\x00")
    assert len(Made(root).everything()) == 9


@pytest.mark.parametrize("name", ["my corpora/made up", "Korpus Größe ą 你好", "[a]*?", "a.wav"])
def test_the_folder_may_have_any_name(root, tmp_path, name):
    moved = tmp_path / name
    moved.parent.mkdir(exist_ok=True)
    root.rename(moved)
    corpus = Made(moved)
    sounds = [corpus.waveform(row) for row in corpus.everything().to_dict("records")]
    assert [len(sound) for sound in sounds] == [1_600 + number for number in range(12) if number % 4 != 3]


def test_a_tilde_is_the_home_folder(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(Made("~/made").everything()) == 9


def test_a_relative_root_will_do(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert len(Made("made").everything()) == 9


# Classes ----------------------------------------------------------------------------------------------------


def test_what_has_no_class_is_left_out_and_counted(root):
    corpus = Made(root)
    assert sorted(corpus.everything()["label"].unique()) == ["ay", "bee", "sea"]
    assert corpus.dropped == {"the raters do not agree": 3}


def test_classes_that_are_not_asked_for_are_left_out_and_counted(root):
    corpus = Made(root, labels="two")
    assert corpus.labels == ("ay", "bee")
    assert corpus.everything()["label"].value_counts().to_dict() == {"ay": 3, "bee": 3}
    assert corpus.dropped == {"the raters do not agree": 3, "the class is not in two": 3}


def test_without_classes_everything_is_used(root):
    corpus = Made(root, labels=NO_CLASSES)
    assert corpus.labels == ()
    assert len(corpus.everything()) == 12
    assert corpus.everything()["label"].isna().all()
    assert corpus.dropped == {}


def test_a_class_that_the_corpus_does_not_have_is_named(tmp_path):
    root = write(tmp_path / "made", [*ROWS, ("u1", "s1", "Z"), ("u2", "s1", "a")])
    with pytest.raises(
        ValueError,
        match=r"2 utterances such as 'u1' have the label 'Z', which .* expected one of A, B, C\.",
    ):
        Made(root).everything()


def test_a_speaker_whom_the_protocol_does_not_list_is_named(tmp_path):
    root = write(tmp_path / "made", [*ROWS, ("u1", "s4", "A")])
    with pytest.raises(
        ValueError, match=r"'u1' have the speaker 's4', which stands in no list of the protocol"
    ):
        Made(root).everything()
    assert len(Made(root, protocol="mixed").everything()) == 10


def test_utterances_that_stand_twice_are_named(tmp_path):
    root = write(tmp_path / "made", [*ROWS, ROWS[0]])
    with pytest.raises(ValueError, match=r"Made names 1 utterances twice, such as 's1-A'"):
        Made(root).everything()


def test_a_row_without_an_id_is_refused(tmp_path):
    root = write(tmp_path / "made")
    with (root / "labels.csv").open("a") as file:
        file.write(",s1,A\n")
    with pytest.raises(ValueError, match=r"Made has 1 utterances without an id"):
        Made(root).everything()


# What is missing --------------------------------------------------------------------------------------------


def test_missing_sounds_are_refused_with_how_many_and_what_to_do(root):
    for name in ("s1-A", "s2-B"):
        (root / "sounds" / f"{name}.wav").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"^2 of the 9 sounds .* missing, such as .*sounds/s1-A\.wav: "
    ) as error:
        Made(root).everything()
    assert f"`ser-strategies doctor --data Made --data.root {root}`" in str(error.value)
    assert "--data.damaged skip" in str(error.value)


def test_missing_sounds_are_skipped_and_counted_where_that_is_asked_for(root):
    for name in ("s1-A", "s2-B"):
        (root / "sounds" / f"{name}.wav").unlink()
    corpus = Made(root, damaged="skip")
    assert set(corpus.everything()["id"]) == {name for name, _, code in ROWS if code} - {"s1-A", "s2-B"}
    assert corpus.dropped == {"the raters do not agree": 3, "the sound is missing": 2}
    assert corpus.facts()["dropped"] == corpus.dropped


def test_sounds_of_classes_that_are_not_asked_for_may_be_missing(root):
    (root / "sounds" / "s1-C.wav").unlink()
    (root / "sounds" / "s1-x.wav").unlink()
    assert len(Made(root, labels="two").everything()) == 6
    with pytest.raises(FileNotFoundError, match=r"^1 of "):
        Made(root).everything()


def test_a_folder_in_place_of_a_sound_or_a_link_to_nowhere_is_missing(root):
    (root / "sounds" / "s1-A.wav").unlink()
    (root / "sounds" / "s1-A.wav").mkdir()
    (root / "sounds" / "s2-A.wav").unlink()
    (root / "sounds" / "s2-A.wav").symlink_to("gone.wav")
    with pytest.raises(FileNotFoundError, match=r"^2 of "):
        Made(root).everything()


def test_a_corpus_without_its_sounds_is_refused(root):
    shutil.rmtree(root / "sounds")
    with pytest.raises(FileNotFoundError, match=r"^9 of the 9 sounds that Made needs are missing"):
        Made(root).everything()


def test_a_corpus_without_its_sounds_has_empty_splits_where_they_are_skipped(root):
    shutil.rmtree(root / "sounds")
    corpus = Made(root, damaged="skip")
    with pytest.raises(ValueError, match=r"the train split of Made is empty \(train 0, val 0, test 0\)"):
        corpus.setup("fit")


def test_a_split_that_is_left_empty_is_refused(root):
    for sound in (root / "sounds").glob("s2-*"):
        sound.unlink()
    corpus = Made(root, damaged="skip")
    corpus.setup("test")
    with pytest.raises(
        ValueError,
        match=r"the val split of Made is empty \(train 3, val 0, test 3\): complete the corpus \(.*"
        r"3 left out: the sound is missing\)",
    ):
        corpus.setup("fit")


def test_damaged_utterances_are_never_used(root):
    corpus = with_card(damaged={"s1-A": "it is silent", "gone": "it is not there"})(root)
    assert "s1-A" not in set(corpus.everything()["id"])
    assert corpus.dropped == {"s1-A: it is silent": 1, "the raters do not agree": 3}


def test_damaged_utterances_may_be_missing(root):
    (root / "sounds" / "s1-A.wav").unlink()
    corpus = with_card(damaged={"s1-A": "it is silent"})(root)
    assert len(corpus.everything()) == 8
    assert corpus.dropped == {"s1-A: it is silent": 1, "the raters do not agree": 3}


@pytest.mark.parametrize("there", [True, False])
def test_utterances_known_to_be_missing_are_used_where_they_are_there(root, there):
    corpus = with_card(absent={"s1-A": "it was lost"})(root)
    if not there:
        (root / "sounds" / "s1-A.wav").unlink()
    assert ("s1-A" in set(corpus.everything()["id"])) == there
    assert corpus.dropped == {"the raters do not agree": 3} | ({} if there else {"s1-A: it was lost": 1})


def test_a_sound_that_cannot_be_read_stops_the_run_or_is_skipped(root):
    (root / "sounds" / "s3-A.wav").write_bytes(b"no sound")
    with pytest.raises(
        ValueError, match=r"utterance 's3-A' of Made cannot be used: .*s3-A\.wav cannot be read as sound"
    ):
        list(Made(root).train_dataloader())
    corpus = Made(root, damaged="skip")
    (batch,) = corpus.train_dataloader()
    assert sorted(batch.ids) == ["s3-B", "s3-C"]
    assert list(corpus.facts()["unreadable"]) == ["s3-A"]


# Durations and sounds ---------------------------------------------------------------------------------------


def test_durations_are_estimated_where_the_table_does_not_say_them(root):
    exact = {name: (1_600 + number) / 16_000 for number, (name, *_) in enumerate(ROWS)}
    table = Made(root).everything()
    assert dict(zip(table["id"], table["seconds"], strict=True)) == {
        name: exact[name] for name in table["id"]
    }
    table = WithTimes(root).everything()
    expected = {name: 9.5 if name.endswith("A") else exact[name] for name in table["id"]}
    assert dict(zip(table["id"], table["seconds"], strict=True)) == expected


def test_several_channels_are_averaged(root):
    left, right = np.full(1_700, 0.5), np.full(1_700, 0.25)
    soundfile.write(root / "sounds" / "s1-A.wav", np.stack([left, right], axis=1), 16_000)
    corpus = Made(root)
    (row,) = corpus.everything().query("id == 's1-A'").to_dict("records")
    np.testing.assert_allclose(corpus.waveform(row), 0.375, atol=1e-4)


def test_label_files_are_read_once(root, monkeypatch):
    corpus = Made(root)
    read = []
    annotations = Made.annotations
    monkeypatch.setattr(Made, "annotations", lambda self: read.append(1) or annotations(self))
    corpus.setup("fit")
    corpus.setup("test")
    corpus.facts()
    assert read == [1]


def test_a_worker_process_can_have_it(root):
    corpus = Made(root)
    row = corpus.everything().to_dict("records")[0]
    copy = pickle.loads(pickle.dumps(corpus))
    np.testing.assert_array_equal(copy.waveform(row), corpus.waveform(row))
    assert len(pickle.dumps(corpus)) < 20_000


# What splits share ------------------------------------------------------------------------------------------


def test_identical_sounds_in_two_splits_are_refused_or_brand_the_result(root):
    shutil.copy(root / "sounds" / "s1-A.wav", root / "sounds" / "s3-B.wav")
    with pytest.raises(
        ValueError,
        match=r"the splits of Made \(apart\) leak: train and test share 1 sound .* such as s1-A = s3-B",
    ):
        Made(root).everything()
    corpus = Made(root, allow_leakage=True)
    (brand,) = corpus.facts()["brands"]
    assert "s1-A = s3-B" in brand


def test_identical_sounds_within_a_split_are_no_leak(root):
    shutil.copy(root / "sounds" / "s1-A.wav", root / "sounds" / "s1-B.wav")
    assert Made(root).brands() == []


def test_what_a_protocol_declares_is_not_refused_but_brands_the_result(root):
    corpus = Made(root, protocol="mixed")
    brands = corpus.facts()["brands"]
    assert brands
    assert all(" speaker" in brand for brand in brands)


def test_a_leak_that_is_not_declared_names_the_protocols_that_share_nothing(root):
    shutil.copy(root / "sounds" / "s1-A.wav", root / "sounds" / "s3-A.wav")
    undeclared = Protocol("undeclared", 1, "Speakers are mixed, and nobody says so.", MIXED.rule)
    cards = {"protocols": (APART, undeclared, MIXED)}
    with pytest.raises(
        ValueError,
        match=r"share \d speaker.*Choose --data.protocol apart, or give --data.allow_leakage true",
    ):
        with_card(**cards)(root, protocol="undeclared").everything()
    with pytest.raises(ValueError, match=r"Choose --data.protocol undeclared, or give"):
        with_card(**cards)(root).everything()
    with pytest.raises(ValueError, match=r"Split it so that they are kept apart, or give"):
        with_card()(root).everything()


def test_sounds_that_are_too_many_to_compare_are_said_not_to_be_checked(root, monkeypatch):
    assert Made(root).facts()["unchecked"] == []
    monkeypatch.setattr(listing, "MOST_COMPARED", 1)
    for name in ("s1-A", "s3-B", "s2-C"):
        shutil.copy(root / "sounds" / "s1-A.wav", root / "sounds" / f"{name}-copy")
        (root / "sounds" / f"{name}-copy").replace(root / "sounds" / f"{name}.wav")
    corpus = Made(root)
    (unchecked,) = corpus.facts()["unchecked"]
    assert "identical sounds" in unchecked
    assert corpus.brands() == []


def test_files_of_no_bytes_are_no_leak(root):
    for name in ("s1-A", "s3-A"):
        (root / "sounds" / f"{name}.wav").write_bytes(b"")
    assert Made(root).brands() == []


# What a result says -----------------------------------------------------------------------------------------


def test_differences_are_those_from_the_published_counts(root, tmp_path):
    assert Made(root).differences() == []
    assert Made(write(tmp_path / "fewer", ROWS[1:])).differences() == [
        "in all: 11 utterances, published 12",
        "code A: 2 utterances, published 3",
    ]


def test_differences_do_not_depend_on_what_is_chosen_or_missing(root):
    (root / "sounds" / "s1-A.wav").unlink()
    assert Made(root, labels="two", damaged="skip").differences() == []


@pytest.mark.parametrize(
    "options", [{"labels": "two"}, {"labels": NO_CLASSES}, {"fold": 2}, {"protocol": "mixed"}]
)
def test_other_choices_are_other_tasks(root, options):
    assert Made(root, **options).facts()["digest"] != Made(root).facts()["digest"]
    assert Made(root, **options).task != Made(root).task


def test_sounds_that_are_missing_make_another_task(root):
    digest = Made(root).facts()["digest"]
    (root / "sounds" / "s1-A.wav").unlink()
    assert Made(root, damaged="skip").facts()["digest"] != digest


def test_facts_are_plain_data(root):
    facts = Made(root).facts()
    assert facts["words"] == "Speakers are apart."
    assert facts["splits"]["train"] == {
        "utterances": 3,
        "hours": 0.0,
        "speakers": 1,
        "without_class": 0,
        "classes": {"ay": 1, "bee": 1, "sea": 1},
    }
    assert facts["left_out"] == 0
    assert json.loads(json.dumps(facts)) == facts
