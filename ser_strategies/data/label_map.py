"""Classes of a corpus renamed, merged or left out, such as to test on another corpus."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ser_strategies.data.table import TEXT, VOTE


@dataclass(frozen=True)
class LabelMap:
    """New names of classes; classes without one stay as they are."""

    classes: tuple[str, ...]
    # A class -> its new name, which several may share; null leaves its utterances out
    targets: Mapping[str, str | None]

    def __post_init__(self) -> None:
        """Refuses names that the corpus does not have, and what leaves nothing to tell apart."""
        for name in self.targets:
            if name not in self.classes:
                near = difflib.get_close_matches(name, self.classes, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else "."
                listed = ", ".join(self.classes) or "none"
                msg = f"--data.label_map names {name!r}, expected classes of the corpus: {listed}{hint}"
                raise ValueError(msg)
        if len(self.labels) < 2:
            left = ", ".join(self.labels) or "none"
            msg = f"--data.label_map leaves the classes: {left}; expected two or more."
            raise ValueError(msg)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes there are afterwards: sorted where they were, else in the order they had."""
        after = tuple(dict.fromkeys(name for each in self.classes if (name := self._of(each)) is not None))
        return tuple(sorted(after)) if list(self.classes) == sorted(self.classes) else after

    @property
    def name(self) -> str:
        """A short name by its content, to stand in the name of a task."""
        content = json.dumps(sorted(self.targets.items()))
        return f"mapped-{hashlib.sha256(content.encode()).hexdigest()[:6]}"

    def apply(self, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
        """A complete table under the new names, and how many utterances each class that is left out had."""
        out = [each for each in self.classes if self._of(each) is None]
        counts = table["label"].value_counts()
        dropped = {name: int(counts[name]) for name in out if counts.get(name, 0)}
        table = table[~table["label"].isin(out)].reset_index(drop=True)
        table["label"] = table["label"].map({each: self._of(each) for each in self.classes}).astype(TEXT)
        votes = {each: f"{VOTE}{each}" for each in self.classes if f"{VOTE}{each}" in table}
        if not votes:
            return table, dropped
        merged = pd.DataFrame(0.0, index=table.index, columns=[f"{VOTE}{label}" for label in self.labels])
        for each, column in votes.items():
            if (name := self._of(each)) is not None:
                merged[f"{VOTE}{name}"] += table[column]
        # The votes that are left are a distribution over the classes that are left.
        merged = merged.div(merged.sum(axis=1, skipna=False).replace(0, float("nan")), axis=0)
        voted = table[list(votes.values())].notna().any(axis=1)
        table = table.drop(columns=list(votes.values())).join(merged)
        unsaid = table["label"].isna() & merged.isna().all(axis=1) & voted
        lost = int(unsaid.sum())
        return table[~unsaid].reset_index(drop=True), dropped | ({"votes alone": lost} if lost else {})

    def _of(self, name: str) -> str | None:
        return self.targets.get(name, name)
