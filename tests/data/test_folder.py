"""A folder without a table: patterns for the names of files, what does not fit, and the manifest it makes."""

import itertools
import re

import pandas as pd
import pytest

from ser_strategies.data.manifest import Folder, Manifest
from ser_strategies.data.manifest.writing import write_manifest
from ser_strategies.data.naming import Pattern
from tests.data.real import real_data
from tests.data.test_acted import lay_out

PEOPLE = [f"{who}_{label}_{take}.wav" for who in "abcde" for label in ("anger", "sad") for take in (1, 2)]


def every_reading(pattern, text):
    """All meanings of a name, by trying all ways to cut it up."""
    parts = re.split(r"(\{\w+(?::\d+)?\}|\*)", pattern)
    found = set()
    holes = [part for part in parts if part.startswith(("{", "*"))]
    for cuts in itertools.product(range(len(text) + 1), repeat=len(holes)):
        sizes = iter(cuts)
        filled = [(part, next(sizes)) if part in holes else (part, len(part)) for part in parts]
        if sum(size for _, size in filled) != len(text):
            continue
        at, groups, fits = 0, [], True
        for part, size in filled:
            piece = text[at : at + size]
            at += size
            if part not in holes:
                fits &= piece == part
            elif part != "*":
                name, _, length = part.strip("{}").partition(":")
                fits &= size > 0 and "/" not in piece and (not length or size == int(length))
                groups.append((name, piece))
        if fits:
            found.add(tuple(groups))
    return found


@pytest.mark.parametrize(
    "pattern", ["{a}_{b}", "{a:2}_{b}", "{a}{b:1}_*", "*_{a}_*", "{a}-{b}", "x{a}", "{a}_{b}_{c}"]
)
def test_readings_are_those_that_trying_everything_finds(pattern):
    for text in ("x_y", "xx_yy", "a_b_c", "x", "_", "ab_cd_e", "aa_xx_bb", "x-y_z"):
        expected = every_reading(pattern, text)
        found = Pattern(pattern).read(f"{text}.wav")
        assert len(found) == min(len(expected), 2), (pattern, text)
        assert {tuple(each.items()) for each in found} <= expected


def test_the_folder_of_a_file_may_be_its_label(tmp_path):
    corpus = Folder(lay_out(tmp_path, [f"{name[2:5]}/{name}" for name in PEOPLE]), protocol="random")
    assert corpus.labels == ("ang", "sad")
    assert len(corpus.everything()) == 20


def test_groups_are_columns_under_the_names_that_tables_use(tmp_path):
    corpus = Folder(lay_out(tmp_path, PEOPLE), label="{actor}_{emotion}_{take}.wav")
    table = corpus.everything()
    assert [f"{row.speaker}_{row.label}" for row in table.itertuples()] == [
        name[:-6] for name in table["path"]
    ]
    assert corpus.protocol.name == "speaker-folds"
    assert corpus.splits.leaks == []


def test_what_does_not_fit_is_listed_or_counted(tmp_path):
    root = lay_out(tmp_path, [*PEOPLE, "take two.wav", "sub/.hidden.wav", "notes.txt"])
    pattern = "{speaker}_{label}_{take}"
    with pytest.raises(
        ValueError, match=r"does not fit 1 of the 21 sounds below .*: take two.wav: take them"
    ):
        Folder(root, label=pattern)
    corpus = Folder(root, label=pattern, unfit="skip")
    assert len(corpus.everything()) == 20
    assert corpus.dropped == {"the pattern does not fit, such as take two.wav": 1}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("{speaker}-{label}", r"fits none of the 20 sounds below .*, such as a_anger_1.wav: groups stand in"),
        ("{speaker}{label}_*", r"reads a_anger_1.wav two ways, as .*: say how long a part is, as in \{"),
        ("ravdess", r"fits none of the 20 sounds"),
        ("ravdes", r"must be a pattern with \{label\} in it or one of parent, .*; did you mean ravdess\?"),
        ("{speeker}_{label}_*", r"has the group \{speeker\}: did you mean speaker\?"),
        ("{speaker}_{mood}_*", r"has no group \{label\}"),
        ("{label}_{label}", r"has the group \{label\} twice"),
        ("{label", r"half a pair of braces"),
        ("{label:0}_*", r"expected a length, as :2, or words"),
        ("{la bel}", r"is no group: expected a name"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_one_sentence(label, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        Folder(lay_out(tmp_path, PEOPLE), label=label)
    assert "\n" not in str(error.value)


def test_a_ready_pattern_is_named_where_it_would_fit(tmp_path):
    root = lay_out(tmp_path, ["03a01Fa.wav", "08b02Wb.wav"])
    with pytest.raises(ValueError, match=r"fits none of .*; --data.label emo-db fits them all\."):
        Folder(root, label="{speaker}_{label}")


def test_the_table_can_be_written_and_read_as_a_manifest(tmp_path):
    corpus = Folder(lay_out(tmp_path / "sounds", PEOPLE), label="{speaker}_{label}_*")
    write_manifest(corpus, tmp_path / "mine.csv")
    for fold in (1, 4):
        made = Folder(str(tmp_path / "sounds"), label="{speaker}_{label}_*", fold=fold)
        again = Manifest(str(tmp_path / "mine.csv"), root=str(tmp_path / "sounds"), fold=fold)
        columns = ["id", "label", "speaker", "split"]
        pd.testing.assert_frame_equal(made.everything()[columns], again.everything()[columns])


def test_real_folders_are_read_by_ready_patterns_as_by_their_tables():
    for name, pattern in (("ased", "ased"), ("nemo", "{speaker}_{label}_{sentence}")):
        root = real_data(name)
        made = Folder(str(root), label=pattern).everything().set_index("path")
        said = Manifest(str(root / "manifest.csv")).everything().set_index("path")
        assert (made["label"] == said["label"].loc[made.index]).all()
        assert (made["speaker"] == said["speaker"].loc[made.index].str.removeprefix("S")).all()
