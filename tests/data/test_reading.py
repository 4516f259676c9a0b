"""Reading label files: nothing is guessed, and what cannot be meant is refused with file and line."""

import math
import re

import pandas as pd
import pytest

from ser_strategies.data.label_files import odd_encoding, read_table, to_numbers

nan = math.nan


@pytest.fixture
def read(tmp_path):
    """Writes a file, then reads it as columns of lists, None where a cell is empty."""

    def written_and_read(content, columns=("id",), **options):
        path = tmp_path / "Labels 1.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        table = read_table(path, columns, **options)
        assert table.index.equals(pd.RangeIndex(len(table)))
        return {
            column: [None if value is pd.NA else value for value in table[column].tolist()]
            for column in table.columns
        }

    return written_and_read


# Text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "NA",
        "N/A",
        "None",
        "none",
        "nan",
        "NaN",
        "null",
        "NULL",
        "n/a",
        "True",
        "001",
        "1e3",
        "1.0",
        "-",
        "#N/A",
        "inf",
    ],
)
def test_every_word_is_text_as_it_stands(read, word):
    assert read(f"id,name\nu1,{word}\nu2,\n") == {"id": ["u1", "u2"], "name": [word, None]}


def test_quotes_keep_commas_quotes_and_lines_together(read):
    content = 'id,text\nu1,"Oh, ""really""?"\nu2,"one\ntwo"\n'
    assert read(content)["text"] == ['Oh, "really"?', "one\ntwo"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(read, end):
    assert read(end.join(["id,label", "u1,x", "u2,y"])) == {"id": ["u1", "u2"], "label": ["x", "y"]}


def test_other_separators_will_do(read):
    assert read("id\ttext\nu1\ta, b\n", separator="\t") == {"id": ["u1"], "text": ["a, b"]}


def test_a_column_without_a_name_has_an_empty_one(read):
    assert read('"","A"\n"100001",3\n', ["", "A"]) == {"": ["100001"], "A": ["3"]}


def test_a_table_may_have_no_rows(read):
    assert read("id,valence\n", numbers=["valence"]) == {"id": [], "valence": []}


# Encodings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_with_or_without_a_mark(read, encoding):
    assert read("id,text\nu1,Größe ą 你好\n".encode(encoding)) == {"id": ["u1"], "text": ["Größe ą 你好"]}


def test_the_first_encoding_that_fits_is_taken(read):
    encodings = ("utf-8-sig", "cp1252")
    assert read("id,text\nu1,that\x92s\n".encode("latin-1"), encodings=encodings)["text"] == ["that\u2019s"]
    assert read("id,text\nu1,that\u2019s\n".encode(), encodings=encodings)["text"] == ["that\u2019s"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("lines", [1, 50_000], ids=["short", "late in a long file"])
def test_a_wrong_encoding_is_refused_with_what_to_do(read, encoding, lines):
    content = ("id,text\n" + "u1,x\n" * lines + "u2,ä\n").encode(encoding)
    with pytest.raises(ValueError, match=r"Labels 1\.csv is not written in UTF-8: save it as UTF-8"):
        read(content)


@pytest.mark.parametrize(
    ("content", "how"),
    [
        ("id,text\nu1,\u201cGr\u00f6\u00dfe\u201d\n".encode(), None),
        ("id,text\nu1,\u201cyes\u201d\n".encode("utf-8-sig"), None),
        (b"", None),
        (b"id,text\nu1,that\x92s\n", "not UTF-8 in line 2, so it is read as Windows' code page"),
        ("id\nu1\nthat\x92s\n".encode(), "characters of Windows' code page .* Latin-1, first in line 3"),
        ("id\nwait\x85\n".encode(), "characters of Windows' code page .* Latin-1, first in line 2"),
    ],
)
def test_an_encoding_that_nobody_expects_is_told(tmp_path, content, how):
    (tmp_path / "labels.csv").write_bytes(content)
    found = odd_encoding(tmp_path / "labels.csv")
    assert found is how is None or re.fullmatch(how, found)


# Numbers ----------------------------------------------------------------------------------------------------


def test_numbers_are_read_where_they_are_asked_for(read):
    table = read("id,v,w\na,1.5,1.5\nb,-2, 7\nc,1e-3,\nd, 4 ,x\n", numbers=["v"])
    assert table["v"] == [1.5, -2.0, 0.001, 4.0]
    assert table["w"] == ["1.5", " 7", None, "x"]


def test_an_empty_number_is_nan(read):
    assert read("id,v\na,1\nb,\n", numbers=["v"])["v"] == [1.0, pytest.approx(nan, nan_ok=True)]


@pytest.mark.parametrize("word", ["x", "nan", "NA", "None", "True", "1_0", "1 0", "0x10", "1.2.3", "3s", "-"])
def test_what_is_no_number_is_refused_with_its_row(read, word):
    with pytest.raises(
        ValueError, match=rf"Labels 1\.csv, row 2 below the header: v is '{word}', expected a number\.$"
    ):
        read(f"id,v\na,1\nb,{word}\nc,also wrong\n", numbers=["v"])


@pytest.mark.parametrize("content", ['id,v\na,"1,5"\n', "id;v\na;1,5\n"])
def test_a_decimal_comma_is_refused_with_a_hint(read, content):
    separator = ";" if ";" in content else ","
    with pytest.raises(
        ValueError,
        match=r"row 1 below the header: v is '1,5', expected a number \(with a decimal point, not a comma\)",
    ):
        read(content, numbers=["v"], separator=separator)


def test_numbers_of_any_column_keep_its_rows(tmp_path):
    column = pd.Series(["2", None], index=[8, 3], dtype="string[pyarrow]")
    numbers = to_numbers(tmp_path, column)
    assert numbers.index.tolist() == [8, 3]
    assert numbers[8] == 2.0
    assert math.isnan(numbers[3])


# What is no table -------------------------------------------------------------------------------------------


def test_a_missing_column_is_named_with_those_there_are(read):
    with pytest.raises(ValueError, match=r"Labels 1\.csv lacks the column id, label: got ID, text\.$"):
        read("ID,text\nu1,x\n", ["id", "label"])


@pytest.mark.parametrize(
    "content", ["", "\n", " \n\n", "\ufeff"], ids=["nothing", "a line", "lines", "a mark"]
)
def test_an_empty_file_is_refused_with_what_is_expected(read, content):
    with pytest.raises(
        ValueError, match=r"Labels 1\.csv .*(is empty: expected a table with|lacks) the column"
    ):
        read(content, ["id", "label"])


@pytest.mark.parametrize(
    ("content", "line", "cells"),
    [
        ("id,label\nu1,x,\nu2,y,\n", 2, 3),
        ("id,label\nu1,x,more\nu2,y\n", 2, 3),
        ("id,label\nu1,x\nu2,y,z\n", 3, 3),
        ("id,label\nu1,x,1,2\nu2,y,1,2\n", 2, 4),
        ("id,label\nu1,1,5\nu2,2,7\n", 2, 3),
        ("id,label\nu1\nu2,y\n", 2, 1),
    ],
    ids=["a comma at the end", "a cell more", "one later", "two more", "decimal commas", "a cell less"],
)
def test_a_line_of_another_width_is_refused_and_named(read, content, line, cells):
    with pytest.raises(ValueError, match=rf"Labels 1\.csv, line {line}: {cells} cells, expected 2 as in the"):
        read(content)


def test_quotes_that_never_close_are_refused(read):
    with pytest.raises(ValueError, match=r"Labels 1\.csv has a quotation mark that is never closed"):
        read('id,label\nu1,"x\nu2,y\n')


def test_columns_that_only_spaces_tell_apart_are_refused(read):
    with pytest.raises(ValueError, match=r"Labels 1\.csv"):
        read("id,v,v \na,1,2\n", numbers=["v"])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv", ["id"])
