"""Any corpus on a disk as a manifest, to look at, correct and read again."""

from pathlib import Path

import pandas as pd

from ser_strategies.common.files import write_text
from ser_strategies.data.recorded import RecordedCorpus
from ser_strategies.data.rules import HeldOut
from ser_strategies.data.table import TEXT

COLUMNS = ("path", "label", "speaker", "gender", "fold", "session", "dialogue", "start", "end", "text", "id")


def as_manifest(corpus: RecordedCorpus) -> pd.DataFrame:
    """The utterances of a corpus by the columns of a manifest, with the folds of its protocol, if any."""
    table = corpus.annotated().reset_index(drop=True)
    meaning = dict(corpus.label_sets[corpus.label_set or ""])
    table = table.assign(label=table["code"].map(meaning).astype(TEXT))
    rule = corpus.protocol.rule
    if isinstance(rule, HeldOut) and rule.folds > 1 and rule.column in table:
        folds = {group: str(number) for number, groups in enumerate(rule.test, 1) for group in groups}
        table["fold"] = table[rule.column].map(folds).astype(TEXT)
    kept = [name for name in (*COLUMNS, *corpus.dimensions) if name in table and table[name].notna().any()]
    return table[kept]


def check_not_read(option: str, path: Path, corpus: object) -> None:
    """Raises ValueError where what is to be written is a file that a corpus is read from."""
    for given in vars(corpus).values():
        if isinstance(given, (str, Path)) and str(given) and path.exists():
            source = Path(given).expanduser()
            if source.is_file() and source.samefile(path):
                msg = f"{option} {path} is what the corpus is read from: name another file."
                raise ValueError(msg)


def write_manifest(corpus: RecordedCorpus, path: Path) -> None:
    """Writes a corpus as a manifest in CSV."""
    write_text(path, as_manifest(corpus).to_csv(index=False))
