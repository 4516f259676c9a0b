"""Databases of audformat, laid out as audformat 1.4 writes them, as text and as parquet."""

import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_strategies.data.manifest import Audformat

HEADER = """\
name: mini
source: ''
usage: research
languages: [eng]
schemes:
  arousal: {dtype: float, minimum: 0, maximum: 1}
  emotion:
    dtype: str
    labels:
      A: {name: anger}
      H: {name: happiness}
  speaker:
    dtype: int
    labels: SPEAKERS
splits:
  dev: {type: dev}
  test: {type: test}
  train: {type: train}
tables:
  emotion.train: {type: filewise, split_id: train, columns: {emotion: {scheme_id: emotion, rater_id: gold}}}
  emotion.dev: {type: filewise, split_id: dev, columns: {emotion: {scheme_id: emotion, rater_id: gold}}}
  emotion.test: {type: filewise, split_id: test, columns: {emotion: {scheme_id: emotion, rater_id: gold}}}
  files: {type: filewise, columns: {speaker: {scheme_id: speaker}, duration: {}}}
  segments: {type: segmented, columns: {emotion: {scheme_id: emotion}}}
misc_tables:
  who: {levels: {speaker: int}, columns: {gender: {}}}
"""
INLINE = "{1: {gender: female}, 2: {gender: male}, 3: {gender: female}}"
FILES = [f"audio/{who}_{take}.wav" for who in (1, 2, 3) for take in (0, 1)]


def emotions(who):
    return pd.DataFrame({"file": [f"audio/{who}_{take}.wav" for take in (0, 1)], "emotion": ["A", "H"]})


TABLES = {
    **{f"emotion.{split}": emotions(who) for who, split in ((1, "train"), (2, "dev"), (3, "test"))},
    "files": pd.DataFrame(
        {
            "file": FILES,
            "speaker": [int(name[6]) for name in FILES],
            "duration": [datetime.timedelta(seconds=0.1)] * 6,
        }
    ),
    "segments": pd.DataFrame(
        {
            "file": ["audio/1_0.wav"] * 2,
            "start": [datetime.timedelta(seconds=0.01), datetime.timedelta(seconds=0.05)],
            "end": [datetime.timedelta(seconds=0.04), None],
            "emotion": ["A", "H"],
        }
    ),
    "who": pd.DataFrame({"speaker": [1, 2, 3], "gender": ["female", "male", "female"]}),
}


def database(folder, kind, speakers=INLINE):
    (folder / "audio").mkdir(parents=True)
    for number, name in enumerate(FILES):
        soundfile.write(folder / name, [number / 10] * 1_600, 16_000)
    (folder / "db.yaml").write_text(HEADER.replace("SPEAKERS", speakers))
    for name, table in TABLES.items():
        if kind == "csv":
            table.to_csv(folder / f"db.{name}.csv", index=False)
        else:
            stored = pa.Table.from_pandas(table, preserve_index=False)
            if "emotion" in table:
                place = stored.column_names.index("emotion")
                stored = stored.set_column(place, "emotion", stored["emotion"].dictionary_encode())
            pq.write_table(stored, folder / f"db.{name}.parquet")
    return folder


OF_SPLITS = ("emotion.train", "emotion.dev", "emotion.test")


@pytest.mark.parametrize(("kind", "speakers"), [("csv", INLINE), ("parquet", INLINE), ("parquet", "who")])
def test_tables_are_joined_by_their_files(tmp_path, kind, speakers):
    corpus = Audformat(str(database(tmp_path / "db", kind, speakers)), tables=OF_SPLITS)
    table = corpus.everything().set_index("path")
    assert corpus.protocol.name == "own"
    assert corpus.labels == ("A", "H")
    columns = ["split", "label", "speaker", "gender", "seconds"]
    assert table.loc["audio/2_1.wav", columns].tolist() == ["val", "H", "2", "male", 0.1]
    assert table["speaker"].tolist() == [name[6] for name in table.index]
    assert len(table) == 6


def test_segments_are_parts_of_their_files(tmp_path):
    folder = str(database(tmp_path / "db", "csv"))
    corpus = Audformat(folder, tables=("segments",), protocol="test-only")
    table = corpus.everything()
    assert table[["start", "end"]].to_numpy().tolist() == [[0.01, 0.04], [0.05, 0.1]]
    assert table["speaker"].tolist() == ["1", "1"]
    assert [len(corpus.waveform(row)) for _, row in table.iterrows()] == [480, 800]


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    folder = database(tmp_path / "db", "csv")
    with pytest.raises(
        ValueError, match=r"2 rows of segments are in no split, where those of emotion.train, em"
    ):
        Audformat(str(folder))
    with pytest.raises(ValueError, match=r"names 'segment', but .* and segments; did you mean segments"):
        Audformat(str(folder), tables=("segment",))
    with pytest.raises(FileNotFoundError, match=r"has no db.yaml: expected a database of audformat"):
        Audformat(str(tmp_path))
    emotions(1)[::-1].assign(emotion=["A", "H"]).to_csv(folder / "db.emotion.dev.csv", index=False)
    with pytest.raises(ValueError, match=r"say different things of audio/1_0.wav as emotion: choose some"):
        Audformat(str(folder), tables=OF_SPLITS)
    (folder / "db.emotion.dev.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"db.emotion.dev is there neither as .parquet nor as .csv"):
        Audformat(str(folder), tables=OF_SPLITS)
    (folder / "db.yaml").write_text("tables: {files: {type: filewise}}\n")
    with pytest.raises(ValueError, match=r"has no table with a column label or emotion, only files: name it"):
        Audformat(str(folder))
    (folder / "db.yaml").write_text("{")
    with pytest.raises(ValueError, match=r"db.yaml is not YAML: copy it again"):
        Audformat(str(folder))
