import pandas as pd
import pytest

from ser_strategies.data.synthetic import Synthetic
from ser_strategies.data.transcripts import Transcripts

IDS = ["s00_u000", "s00_u001"]


def corpus(texts: Transcripts | None = None) -> Synthetic:
    return Synthetic(speakers=3, utterances_per_speaker=2, texts=texts)


def written(folder, rows, name="heard.csv"):
    separator = "\t" if name.endswith(".tsv") else ","
    pd.DataFrame(rows, columns=["id", "text"]).to_csv(folder / name, index=False, sep=separator)
    return str(folder / name)


@pytest.mark.parametrize("name", ["heard.csv", "heard.tsv"])
def test_texts_of_a_table_stand_in_place_of_those_of_the_corpus(name, tmp_path):
    path = written(tmp_path, [(IDS[0], "Hello, you"), (IDS[1], None), ("elsewhere", "x")], name)
    told = corpus(Transcripts(path, by="machine"))
    texts = dict(zip(told.everything()["id"], told.everything()["text"], strict=True))
    assert texts.pop(IDS[0]) == "Hello, you"
    assert pd.isna(list(texts.values())).all()
    assert told.text_source()["by"] == "machine"
    assert told.text_source()["source"].startswith(f"{name} (")
    batch = next(iter(told.train_dataloader()))
    assert "Hello, you" in batch.texts
    assert "" in batch.texts


def test_a_corpus_keeps_its_own_texts_and_who_wrote_them_may_be_said():
    plain, told = corpus(), corpus(Transcripts(by="machine"))
    assert plain.text_source() == {"source": "the corpus", "by": "people"}
    assert told.text_source() == {"source": "the corpus", "by": "machine"}
    pd.testing.assert_frame_equal(plain.everything(), told.everything())


def test_the_content_of_the_table_is_part_of_its_name(tmp_path):
    first = Transcripts(written(tmp_path, [(IDS[0], "one")])).source
    assert Transcripts(written(tmp_path, [(IDS[0], "two")])).source != first


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [("nobody", "x")],
            r"no text of any utterance of Synthetic: expected ids such as 's00_u000', got 'nobody'",
        ),
        ([(IDS[0], "x"), (IDS[0], "y")], "two texts of the utterance 's00_u000'"),
        (None, "is no file: expected a table with the columns id and text"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(rows, says, tmp_path):
    path = str(tmp_path / "absent.csv") if rows is None else written(tmp_path, rows)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        corpus(Transcripts(path)).everything()


def test_a_table_of_another_kind_and_an_unknown_author_are_refused():
    with pytest.raises(ValueError, match=r"must end in \.csv or \.tsv, got heard\.txt"):
        Transcripts("heard.txt")
    with pytest.raises(ValueError, match=r"texts\.by must be one of people, machine"):
        Transcripts(by="nobody")
