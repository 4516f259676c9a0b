"""Texts of utterances from elsewhere than the corpus: a table of transcripts, and who wrote them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ser_strategies.common.errors import check_choice
from ser_strategies.data.label_files import read_table
from ser_strategies.data.table import TEXT

By = Literal["people", "machine"]
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Transcripts:
    """What is said, and who wrote it down.

    What people wrote down is an oracle for a machine that has to listen, which brands the results of those
    that are told; what a recogniser of speech wrote is not.

    Args:
        path: A table with the columns id and text, .csv or .tsv, in place of the texts that the corpus has;
            utterances that it does not name have none. Null keeps those of the corpus.
        by: Who wrote down the texts, of the table or of the corpus: people or a machine.
    """

    path: str | None = None
    by: By = "people"

    def __post_init__(self) -> None:
        check_choice("texts.by", self.by, By)
        if self.path is not None and Path(self.path).suffix.lower() not in SEPARATORS:
            msg = f"--data.texts.path must end in .csv or .tsv, got {self.path}."
            raise ValueError(msg)

    def told(self) -> dict[str, str]:
        """Where the texts are from and who wrote them down, as plain data."""
        return {"source": self.source, "by": self.by}

    @property
    def source(self) -> str:
        """Where the texts are from, with a hash of what is in it."""
        if self.path is None:
            return "the corpus"
        found = hashlib.sha256(Path(self.path).expanduser().read_bytes()).hexdigest()
        return f"{Path(self.path).name} ({found[:8]})"

    def of(self, table: pd.DataFrame, corpus: str) -> pd.Series:
        """The text of each utterance of a complete table of a corpus, missing where there is none."""
        if self.path is None:
            return table["text"]
        path = Path(self.path).expanduser()
        if not path.is_file():
            msg = f"--data.texts.path {path} is no file: expected a table with the columns id and text."
            raise FileNotFoundError(msg)
        written = read_table(path, ["id", "text"], separator=SEPARATORS[path.suffix.lower()])
        repeated = written["id"][written["id"].duplicated()]
        if len(repeated):
            msg = f"{path} has two texts of the utterance {repeated.iloc[0]!r}: leave one of them."
            raise ValueError(msg)
        texts = table["id"].map(dict(zip(written["id"], written["text"], strict=True))).astype(TEXT)
        if not table["id"].isin(list(written["id"])).any():
            first, theirs = table["id"].iloc[0], written["id"].iloc[0] if len(written) else "none"
            msg = (
                f"{path} has no text of any utterance of {corpus}: expected ids such as {first!r}, got "
                f"{theirs!r}."
            )
            raise ValueError(msg)
        return texts
