"""Fingerprints of what a result depends on: its configuration, its data, and the files it starts from."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ser_strategies.data.contents import hash_of_contents
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.encoder.checkpoints import hash_of_weights
from ser_strategies.fit.mistakes import explained, unwrapped

# Options that do not change what is learned.
IGNORED = {
    "trainer": (
        "default_root_dir",
        "enable_model_summary",
        "enable_progress_bar",
        "log_every_n_steps",
        "logger",
        "profiler",
    ),
    "data": ("workers", "near_copies"),
}
# Options that say where data lie, which is nothing to what is learned once their contents are known.
PLACES = ("root", "path")
# Options of `test` alone, which stand in a configuration of `fit` without a meaning there.
OF_TEST = ("robustness",)
# Options that have been added since 2026-11, and the value at which they leave things as they were: what ran
# without them is the same run. Those of one class stand under its name.
ADDED: dict[str, dict[str, Any]] = {
    "model": {
        "class_loss": "cross-entropy",
        "dimension_loss": "ccc",
        "raters": None,
        "conditions": [],
        "conditions_withheld": 0.2,
        "gender_enters": "joined",
        "gender_size": 16,
        "gender_weight": 0.1,
        "gender_at_test": "predicted",
        "text_encoder": None,
        "text_revision": None,
        "text_pooling": "mean",
        "text_size": 64,
        "standardise": False,
    },
    "data": {
        "label_map": None,
        "val": None,
        "text_informativeness": 0.0,
        "texts": None,
        "single_ratings": False,
        "fewest_ratings": 1,
        "doubled": "keep",
    },
    "TAPT": {"units_of": "encoder", "seen_weight": 0.5},
    "IEMOCAP": {"dimensions": None},
    "MSPPodcast": {"dimensions": None},
    "Manifest": {"ratings": None, "scale": None},
    "Together": {"dimensions": None, "scales": None},
    "Synthetic": {"rater_pool": None, "rater_disagreement": 0.0},
}
# Defaults that are written otherwise since, and as what.
FORMERLY: dict[str, dict[str, tuple[Any, Any]]] = {"data": {"folds": (None, 5)}}


@dataclass(frozen=True)
class DataPrint:
    """Equal for equal data, so far as that is cheap to know."""

    task: str
    digest: str
    sounds: str | None  # by what is in them, or by their sizes and times where that takes too long
    has_test: bool
    folds: int = 1
    labels: str = ""
    dated: str | None = None  # the sounds by sizes and times, as versions to 2026-11 knew them

    @property
    def anywhere(self) -> bool:
        """Whether a copy of the data elsewhere has the same fingerprint."""
        return self.sounds != self.dated

    def as_dict(self) -> dict[str, Any]:
        """The compared facts, as plain data."""
        return {"task": self.task, "digest": self.digest, "sounds": self.sounds}

    def as_formerly(self) -> "DataPrint":
        """The same as it was in versions to 2026-11, which knew sounds by their sizes and times alone."""
        return replace(self, sounds=self.dated)


class DataPrints:
    """The fingerprints of the corpora of a chain; stages that share one look at it once."""

    def __init__(self) -> None:
        self._known: dict[str, DataPrint] = {}

    def take(self, config: Mapping[str, Any]) -> DataPrint:
        """The fingerprint of a corpus, which is read and checked like before training."""
        options = dict(config.get("init_args", {}))
        if options.get("train_share", 1) == 1:
            # Then this seed is of the order of training alone, and all seeds of a fold share a fingerprint.
            options.pop("order_seed", None)
        described = {**config, "init_args": options}
        key = json.dumps(described, sort_keys=True)
        if key not in self._known:
            self._known[key] = _fingerprint(build(described))
        return self._known[key]


def build(config: Mapping[str, Any]) -> Corpus:
    """The corpus of a configuration's section data."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Corpus, "data", required=True, fail_untyped=False)
    with explained((), CORPORA):
        options = parser.parse_object({"data": dict(config)})
    with unwrapped():
        corpus: Corpus = parser.instantiate_classes(options).data
    return corpus


def _fingerprint(corpus: Corpus) -> DataPrint:
    corpus.setup("fit")
    has_test = not corpus.split("test").empty
    facts = corpus.facts()
    dated, sounds = _sounds(corpus)
    folds = corpus.protocol.rule.folds
    return DataPrint(facts["task"], facts["digest"], sounds, has_test, folds, _labels(corpus), dated)


def _labels(corpus: Corpus) -> str:
    """A hash over all that is said of each utterance, less the split that it is in."""
    table = corpus.everything().drop(columns=["split", "path"], errors="ignore")
    text = table.sort_values("id").to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sounds(corpus: Corpus) -> tuple[str | None, str | None]:
    """Two hashes of the parts of sounds that are used: with sizes and times of files, and with contents."""
    root = Path(getattr(corpus, "root", "."))
    table = corpus.everything()
    used = table[table["split"].notna() & table["path"].notna()]
    columns = (used["id"], used["path"], used["start"], used["end"])
    parts = [f"{name}\t{path}\t{start}\t{end}" for name, path, start, end in zip(*columns, strict=True)]
    if not parts:
        return None, None
    paths = used["path"].unique().tolist()
    dated = _hash_of_lines([*parts, *(_dated(root, path) for path in paths)])
    content = hash_of_contents(root, paths, dated)
    return dated, dated if content is None else _hash_of_lines([*parts, content])


def _dated(root: Path, path: str) -> str:
    try:
        found = (root / path).stat()
    except OSError:
        return f"{path}\tmissing"
    return f"{path}\t{found.st_size}\t{found.st_mtime_ns}"


def _hash_of_lines(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def without_ignored(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration less what does not change what is learned."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    for name in OF_TEST:
        plain.pop(name, None)
    for group, names in IGNORED.items():
        for name in names:
            plain[group].get("init_args", plain[group]).pop(name, None)
    for group in ("model", "data"):
        options = plain.get(group, {}).get("init_args", {})
        kind = str(plain.get(group, {}).get("class_path")).rpartition(".")[2]
        for name, value in (ADDED[group] | ADDED.get(kind, {})).items():
            if name in options and options[name] == value:
                del options[name]
    for group, former in FORMERLY.items():
        options = plain.get(group, {}).get("init_args", {})
        for name, (now, then) in former.items():
            if name in options and options[name] == now:
                options[name] = then
    return plain


def digest(facts: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def hash_of(path: Path, *, passing: Collection[str] = ()) -> str:
    """A hash of a checkpoint's weights, of any other file's content, or of all files in a folder.

    A checkpoint also holds how long its training took, and where; two trainings to the same weights differ in
    that, but not in what comes of them. Names in `passing` do not count in a folder.
    """
    if path.is_file():
        return _hash_of_file(path)
    inner = [each.relative_to(path) for each in sorted(path.rglob("*")) if each.is_file()]
    lines = [f"{each}\t{_hash_of_file(path / each)}" for each in inner if each.parts[0] not in passing]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash_of_file(path: Path) -> str:
    found = path.stat()
    return _read(str(path.resolve()), found.st_size, found.st_mtime_ns)


@cache
def _read(path: str, size: int, changed: int) -> str:
    """A file that several stages start from is read once, as long as it stays as it is."""
    del size, changed
    if path.endswith(".ckpt"):
        try:
            return hash_of_weights(path)
        except ValueError:  # not one of ours: the stage that starts from it knows what to say
            pass
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
