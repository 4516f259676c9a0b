"""The code in the documents runs, in order, page by page; links lead somewhere."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from tests.documented import PYTHON, forget, write_files

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)")


@pytest.fixture(scope="module", autouse=True)
def still_there(tmp_path_factory):
    """Leaves what pages define importable: in later tests, too, jsonargparse asks for every strategy."""
    folder = tmp_path_factory.mktemp("pages")
    write_files(ROOT / "docs" / "adding.md", folder)
    sys.path.append(str(folder))
    yield
    forget(sys.modules, "my_package")


def with_python(pages):
    return [page for page in pages if PYTHON.search(page.read_text(encoding="utf-8"))]


@pytest.mark.filterwarnings("ignore")  # Lightning advises on loaders too small to matter
@pytest.mark.parametrize("page", with_python(PAGES), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget(sys.modules, "my_package")
    names = {"__name__": "__page__"}
    for block in write_files(page, tmp_path):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"TODO|TBD|FIXME|FIGURES|XXX", page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_strategy_has_a_row_and_a_section():
    from ser_strategies.strategies import STRATEGIES

    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    for strategy in STRATEGIES:
        assert f"\n## {strategy.__name__}\n" in page
        assert re.search(rf"\n\| `{strategy.__name__}[`(]", page), strategy.__name__


@pytest.fixture
def my_folder(tmp_path, monkeypatch):
    """The corpus of the page on adding, in a package of one's own."""
    write_files(ROOT / "docs" / "adding.md", tmp_path / "mine")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    forget(sys.modules, "my_package")
    return importlib.import_module("my_package.folder").MyFolder


@pytest.fixture
def recordings(tmp_path):
    """A folder with a file for each class of three speakers."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    import soundfile

    from ser_strategies import Synthetic

    corpus = Synthetic(speakers=3, utterances_per_speaker=4)
    utterances = corpus.everything().to_dict("records")
    for speaker, utterance in zip(("ann", "bob", "eve"), utterances, strict=False):
        for number, label in enumerate(corpus.labels):
            soundfile.write(folder / f"{speaker}_{label}_{number}.wav", corpus.waveform(utterance), 16_000)
    return folder


def test_the_corpus_of_the_page_on_adding_reads_files(my_folder, recordings):
    mine = my_folder(str(recordings), batch_size=4)
    mine.setup("fit")
    (batch,) = mine.train_dataloader()
    assert batch.speakers == ("eve",) * 4
    assert sorted(batch.labels.tolist()) == [0, 1, 2, 3]
    assert mine.class_counts() == (1, 1, 1, 1)
    assert mine.task.startswith("MyFolder/own-v1/")
    assert mine.brands() == []


@pytest.mark.parametrize("allowed", [False, True])
def test_the_corpus_of_the_page_on_adding_is_checked_for_leaks(allowed, my_folder, recordings, monkeypatch):
    mine = my_folder(str(recordings), allow_leakage=allowed)
    careless = mine.table().assign(split=["train", "val", "test", "train"] * 3)
    monkeypatch.setattr(mine, "table", lambda: careless)
    if not allowed:
        with pytest.raises(ValueError, match=r"train and val share 3 speakers .*, such as ann, bob, eve"):
            mine.setup("fit")
        return
    mine.setup("fit")
    assert [phrase[:38] for phrase in mine.brands()] == [
        "train and val share 3 speakers (100.0%",
        "train and test share 3 speakers (100.0",
        "val and test share 3 speakers (100.0% ",
    ]


def test_the_corpus_of_the_page_on_adding_has_the_options_of_every_corpus(my_folder):
    from jsonargparse import ArgumentParser

    from ser_strategies.data.corpus_options import CorpusOptions

    parser = ArgumentParser()
    parser.add_class_arguments(my_folder)
    helped = {action.dest: (action.help or "").strip() for action in parser._actions}
    assert {"root", *CorpusOptions.__annotations__} <= set(helped)
    assert [name for name, text in helped.items() if not text] == []
