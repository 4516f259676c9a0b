"""The code in the documents runs, in order, page by page; links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")


def with_python(pages):
    return [page for page in pages if PYTHON.search(page.read_text(encoding="utf-8"))]


@pytest.mark.filterwarnings("ignore")  # Lightning advises on loaders too small to matter
@pytest.mark.parametrize("page", with_python(PAGES), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"TODO|TBD|FIXME|FIGURES|XXX", page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_corpus_of_the_page_on_adding_reads_files(tmp_path):
    import soundfile

    page = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    names = {"__name__": "__page__"}
    exec(compile(PYTHON.findall(page)[-1], "adding.md", "exec"), names)
    from ser_strategies import Synthetic

    corpus = Synthetic(speakers=3, utterances_per_speaker=4)
    for speaker, utterance in zip(("ann", "bob", "eve"), corpus.utterances(), strict=False):
        for number, label in enumerate(corpus.labels):
            soundfile.write(tmp_path / f"{speaker}_{label}_{number}.wav", corpus.waveform(utterance), 16_000)
    mine = names["MyFolder"](str(tmp_path), batch_size=4)
    mine.setup("fit")
    (batch,) = mine.train_dataloader()
    assert batch.speakers == ("eve",) * 4
    assert sorted(batch.labels.tolist()) == [0, 1, 2, 3]
    assert mine.class_counts() == (1, 1, 1, 1)
