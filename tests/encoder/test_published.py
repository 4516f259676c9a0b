"""Where a published encoder is found: in a folder, in the hub's cache as it really looks, or on the hub."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file
from transformers import (
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Processor,
)

from ser_strategies.encoder import Encoder, load_quantiser
from ser_strategies.encoder import published as published_module
from ser_strategies.encoder.sources import load_encoder
from tests.encoder.conftest import stock

SIZE = "wav2vec2-tiny"
COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2145\nsize 380267417\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of a hub that must not be asked: a connection is a failure of the test."""

    def download(*arguments: Any, **_: Any) -> str:
        pytest.fail(f"the hub was asked for {arguments}")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(published_module, "hf_hub_download", download)
    return tmp_path / "hub"


def cache(hub: Path, folder: Path, *, commit: str = COMMIT, refs: tuple[str, ...] = ("main",)) -> Path:
    """Lays a folder out as the hub's cache does: blobs, and a snapshot of links to them."""
    repository = hub / "models--lab--encoder"
    for name in ("blobs", f"snapshots/{commit}", "refs"):
        (repository / name).mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{commit[:4]}{number}"
        shutil.copy(file, blob)
        (repository / "snapshots" / commit / file.name).symlink_to(blob)
    for ref in refs:
        (repository / "refs" / ref).write_text(commit)
    return repository


def answers(monkeypatch, error: Exception) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(published_module, "hf_hub_download", download)


def http(kind: type[Exception]) -> Exception:
    return kind("no", response=SimpleNamespace(headers={}, request=None, status_code=404))  # type: ignore[call-arg]


# The cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "main", COMMIT, COMMIT[:7], COMMIT[:12]])
def test_what_is_in_the_cache_is_read_without_asking_the_network(folder, hub, revision):
    model = stock("hubert-tiny")
    cache(hub, folder(model))
    started = time.monotonic()
    encoder = Encoder("lab/encoder", revision=revision)
    assert encoder.identity.revision == COMMIT
    assert load_quantiser("lab/encoder", COMMIT) == {}
    assert time.monotonic() - started < 30  # retries took 83 seconds


def test_the_quantiser_comes_from_the_cache_too(folder, hub):
    model = Wav2Vec2ForPreTraining(stock(SIZE).config)
    cache(hub, folder(model))
    found = load_quantiser("lab/encoder")
    assert torch.equal(found["project_q.weight"], model.project_q.weight)


def test_a_cache_that_was_copied_without_its_refs_gives_the_only_commit_it_has(folder, hub):
    cache(hub, folder(stock(SIZE)), refs=())
    assert load_encoder("lab/encoder").identity.revision == COMMIT
    assert load_encoder("lab/encoder", COMMIT).identity.revision == COMMIT


def test_of_two_commits_without_refs_none_is_guessed(folder, hub, monkeypatch):
    path = folder(stock(SIZE))
    cache(hub, path, refs=())
    cache(hub, path, commit=OTHER, refs=())
    answers(monkeypatch, LocalEntryNotFoundError("no connection"))
    with pytest.raises(FileNotFoundError, match="the hub cannot be reached"):
        load_encoder("lab/encoder")
    assert load_encoder("lab/encoder", OTHER[:9]).identity.revision == OTHER


def test_a_reference_cannot_lead_out_of_the_cache(folder, hub, tmp_path, monkeypatch):
    cache(hub, folder(stock(SIZE)))
    (tmp_path / "secret").write_text(COMMIT)
    answers(monkeypatch, http(RevisionNotFoundError))
    with pytest.raises(FileNotFoundError, match="knows no revision"):
        load_encoder("lab/encoder", "../../../secret")


def test_what_the_cache_lacks_is_fetched_at_the_commit_that_it_has(folder, hub, monkeypatch):
    path = folder(stock(SIZE))
    snapshot = cache(hub, path) / "snapshots" / COMMIT
    (snapshot / "model.safetensors").unlink()
    asked = []

    def download(source: str, name: str, revision: str | None = None) -> str:
        asked.append((source, name, revision))
        if not (path / name).is_file():
            raise http(RemoteEntryNotFoundError)
        if not (snapshot / name).is_file():
            shutil.copy(path / name, snapshot / name)
        return str(snapshot / name)

    monkeypatch.setattr(published_module, "hf_hub_download", download)
    assert load_encoder("lab/encoder").identity.revision == COMMIT
    assert ("lab/encoder", "model.safetensors", COMMIT) in asked
    assert {revision for _, _, revision in asked} == {COMMIT}
    monkeypatch.setattr(published_module, "hf_hub_download", None)
    load_encoder("lab/encoder")  # now whole


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (LocalEntryNotFoundError("no connection"), "the hub cannot be reached: connect once"),
        (http(RepositoryNotFoundError), "the hub has no model of that name, or a private one"),
        (http(GatedRepoError), "accepted its terms"),
        (http(RevisionNotFoundError), "knows no revision None|knows no revision 'v2'"),
        (HFValidationError("bad name"), "no name that the hub could have"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.usefixtures("hub")
def test_each_reason_why_the_hub_gives_nothing_has_words_of_its_own(monkeypatch, error, says):
    answers(monkeypatch, error)
    with pytest.raises(FileNotFoundError, match=says):
        load_encoder("lab/encoder", "v2")


@pytest.mark.usefixtures("hub")
def test_offline_by_choice_and_no_connection_are_told_apart(monkeypatch):
    answers(monkeypatch, LocalEntryNotFoundError("no"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="not asked while HF_HUB_OFFLINE is set"):
        load_encoder("lab/encoder")


# Folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [True, False])
def test_a_folder_that_transformers_saved_with_a_processor_is_read(folder, tmp_path, normalise):
    path = folder(stock(SIZE), normalise=None)
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5}))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(vocabulary))).save_pretrained(path)
    assert not (path / "preprocessor_config.json").exists()  # which is the point
    assert load_encoder(str(path)).identity.normalise is normalise


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_named_as_one(folder, name):
    path = folder(stock(SIZE))
    (path / "model.safetensors").unlink()
    (path / name).write_text(POINTER)
    with pytest.raises(ValueError, match=f"{name} is a pointer of git-lfs, not weights: run `git lfs pull`"):
        load_encoder(str(path))


def test_a_part_that_the_index_names_and_nobody_copied_is_named(folder):
    path = folder(stock(SIZE))
    names = list(load_file(path / "model.safetensors"))
    (path / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"names model-00001-of-00002\.safetensors, which is not there"):
        load_encoder(str(path))


def test_weights_that_would_run_code_are_refused_in_one_sentence(folder):
    path = folder(stock(SIZE))
    (path / "model.safetensors").unlink()
    torch.save({"a": print}, path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin holds other things than tensors\.$") as raised:
        load_encoder(str(path))
    assert "weights_only" not in str(raised.value)
