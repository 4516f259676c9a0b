"""What a stage learns from, as a fingerprint: who is where with which label, and the files they are in."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.fit.mistakes import explained, unwrapped


@dataclass(frozen=True)
class DataPrint:
    """Equal for equal data, so far as that is cheap to know.

    Args:
        task: What is learned, by name.
        digest: The digest of the corpus: who is where with which label.
        sounds: A hash over which part of which file each utterance is, and each file's size and time of
            change; None where there are no files.
        has_test: Whether there is a test split.
        folds: How many folds its protocol has.
        labels: A hash over who says what with which label, whatever the fold.
    """

    task: str
    digest: str
    sounds: str | None
    has_test: bool
    folds: int = 1
    labels: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What is compared, as plain data."""
        return {name: value for name, value in asdict(self).items() if name in {"task", "digest", "sounds"}}


class DataPrints:
    """The fingerprints of the corpora of a chain; stages that share one look at it once."""

    def __init__(self) -> None:
        self._known: dict[str, DataPrint] = {}

    def take(self, config: Mapping[str, Any]) -> DataPrint:
        """The fingerprint of a corpus, which is read and checked like before training.

        Args:
            config: Its class and options.
        """
        options = dict(config.get("init_args", {}))
        if options.get("train_share", 1) == 1:
            # Then this seed is of the order of training alone, and all seeds of a fold share a fingerprint.
            options.pop("order_seed", None)
        described = {**config, "init_args": options}
        key = json.dumps(described, sort_keys=True)
        if key not in self._known:
            self._known[key] = _fingerprint(_build(described))
        return self._known[key]


def _build(config: Mapping[str, Any]) -> Corpus:
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
    lines = sorted(_sounds(corpus))
    sounds = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else None
    return DataPrint(
        facts["task"], facts["digest"], sounds, has_test, corpus.protocol.rule.folds, _labels(corpus)
    )


def _labels(corpus: Corpus) -> str:
    """A hash over all that is said of each utterance, less the split that it is in."""
    table = corpus.everything().drop(columns=["split", "path"], errors="ignore")
    text = table.sort_values("id").to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sounds(corpus: Corpus) -> Iterator[str]:
    """A line for each utterance that is used and each of their files; sound is looked at, not heard."""
    root = Path(getattr(corpus, "root", "."))
    table = corpus.everything()
    used = table[table["split"].notna() & table["path"].notna()]
    for name, path, start, end in zip(used["id"], used["path"], used["start"], used["end"], strict=True):
        yield f"{name}\t{path}\t{start}\t{end}"
    for path in used["path"].unique():
        try:
            found = (root / path).stat()
        except OSError:
            yield f"{path}\tmissing"
        else:
            yield f"{path}\t{found.st_size}\t{found.st_mtime_ns}"
