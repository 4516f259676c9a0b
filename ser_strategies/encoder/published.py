"""Published encoders as folders: one of the user's, or what the hub gives, its local cache first.

Whatever is in the cache is used without a word to the network: a machine that is not connected would wait for
minutes before it gave up asking whether the same commit is still the same.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)

from ser_strategies.common.hub import why_absent

CONFIG = "config.json"
# How waveforms are normalised. transformers 5 writes the second where a model is saved with its processor.
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
# What a tokenizer may be made of. transformers needs one of the first to know any word.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZERS = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
INDEX = ".index.json"
# In the order in which transformers looks for them.
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
POINTER = b"version https://git-lfs"


class Published(NamedTuple):
    """The files of an encoder in transformers' format, and the hub's commit that they are from."""

    folder: Path
    commit: str | None


def published(source: str, revision: str | None = None, *, text: bool = False) -> Published:
    """The folder that `source` is or names on the hub, fetched if it is not in the local cache.

    The revision of a hub id is a branch, a tag or a commit; the beginning of a commit is enough in the cache.
    A speech encoder comes with how its sound is prepared, an encoder of text with its tokenizer.
    """
    if Path(source).is_dir():
        return Published(Path(source), None)
    snapshot = _cached(source, revision)
    if snapshot is None or not _whole(snapshot, VOCABULARIES if text else PREPROCESSORS):
        commit = revision if snapshot is None else snapshot.name
        beside = tuple((name,) for name in TOKENIZERS) if text else (PREPROCESSORS,)
        snapshot = _fetched(source, commit, (*beside, WEIGHTS))
    return Published(snapshot, snapshot.name)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would read the weights from; none where there are none.

    Raises:
        ValueError: A part is missing, or what stands there is a pointer of git-lfs.
    """
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        return []
    files = [folder / part for part in _parts(folder / name)]
    for file in files:
        if not file.is_file():
            msg = f"{folder / name} names {file.name}, which is not there: copy or fetch the encoder again."
            raise ValueError(msg)
        with file.open("rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                msg = f"{file} is a pointer of git-lfs, not weights: run `git lfs pull` where it was cloned."
                raise ValueError(msg)
    return files


def read_settings(path: Path) -> dict[str, Any]:
    """A file of settings; empty if it is not there."""
    try:
        settings: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not valid JSON ({error}): copy or fetch it again."
        raise ValueError(msg) from error
    if not isinstance(settings, dict):
        msg = f"{path} is a {type(settings).__name__} where an object was expected: copy or fetch it again."
        raise ValueError(msg)
    return settings


def _parts(path: Path) -> list[str]:
    """The file itself, or all that an index names."""
    if not path.name.endswith(INDEX):
        return [path.name]
    return sorted(set(read_settings(path)["weight_map"].values()))


def _cached(source: str, revision: str | None) -> Path | None:
    """The one snapshot in the cache that a revision can mean, whole or not."""
    repository = Path(constants.HF_HUB_CACHE, f"models--{source.replace('/', '--')}")
    snapshots = repository / "snapshots"
    known = sorted(path.name for path in snapshots.iterdir()) if snapshots.is_dir() else []
    wanted = revision or "main"
    reference = repository / "refs" / wanted
    if ".." not in reference.parts and reference.is_file():
        wanted = reference.read_text(encoding="utf-8").strip()
    short = re.fullmatch("[0-9a-f]{7,40}", wanted) is not None
    found = [name for name in known if name == wanted or (short and name.startswith(wanted))]
    if not found and revision is None:
        found = known  # copied without its refs: the only commit there is
    return snapshots / found[0] if len(found) == 1 else None


def _whole(snapshot: Path, beside: tuple[str, ...]) -> bool:
    name = next((name for name in WEIGHTS if (snapshot / name).is_file()), None)
    described = (snapshot / CONFIG).is_file() and any((snapshot / each).is_file() for each in beside)
    return (
        described
        and name is not None
        and all((snapshot / part).is_file() for part in _parts(snapshot / name))
    )


def _fetched(source: str, revision: str | None, wanted: Iterable[tuple[str, ...]]) -> Path:
    """The folder of the cache into which the hub's files have come; what it lacks is told by who reads it.

    Of several names that are wanted in each other's place the first that there is will do.
    """
    config = _file(source, CONFIG, revision)
    if config is None:
        where = f"{source}@{revision}" if revision else source
        msg = f"{where} has no {CONFIG} on the hub: expected an encoder in transformers' format."
        raise FileNotFoundError(msg)
    commit = config.parent.name
    for names in wanted:
        name = next((name for name in names if _file(source, name, commit) is not None), None)
        if name is not None and name.endswith(INDEX):
            for part in _parts(config.parent / name):
                _file(source, part, commit)
    return config.parent


def _file(source: str, name: str, revision: str | None) -> Path | None:
    """One file of the hub, in the local cache; None where there is none, or none that can be reached."""
    where = f"{source}@{revision}" if revision else source
    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except EntryNotFoundError as error:  # which a file is too that is not in the cache of who is offline
        if not isinstance(error, LocalEntryNotFoundError) or name != CONFIG:
            return None
        missing: Exception = error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        missing = error
    raise FileNotFoundError(
        why_absent(missing, where, revision, kind="model", expected="one such as facebook/wav2vec2-base")
    )
