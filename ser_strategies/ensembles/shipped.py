"""An ensemble as a folder: its members by fingerprint, in it or elsewhere, and their weights beside them.

```
<folder>/ensemble.json         members, weights, what is predicted, how it was scored
<folder>/members/*.ckpt        the members, where they were copied
<folder>/val.parquet, test.parquet, test.json
```
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.common.files import copy_file, opened, write_result
from ser_strategies.comparison.ledger_cell import ENSEMBLE
from ser_strategies.comparison.stats.aligned import PROBABILITY
from ser_strategies.encoder.checkpoints import hash_of_weights
from ser_strategies.ensembles.mixtures import with_mixture
from ser_strategies.ensembles.weighing import Weights

FORMAT = 1
NEEDED = ("labels", "dimensions", "members", "by", "class_wise")


@dataclass(frozen=True)
class ShippedMember:
    """A member of an ensemble, and where it is."""

    name: str
    checkpoint: Path
    fingerprint: str  # of its weights

    def check(self) -> None:
        """Raises ValueError unless the checkpoint is there and has the weights that were weighed."""
        if not self.checkpoint.is_file():
            msg = (
                f"the member {self.name} of the ensemble is not at {self.checkpoint}: put it back, or make "
                "the ensemble again with --copy, which takes members along."
            )
            raise FileNotFoundError(msg)
        if hash_of_weights(self.checkpoint) != self.fingerprint:
            msg = (
                f"{self.checkpoint} is not the member {self.name} that the ensemble was made of: its weights "
                "have changed, and the ensemble's would not suit them; make it again."
            )
            raise ValueError(msg)


@dataclass(frozen=True)
class ShippedEnsemble:
    """What is in the folder of an ensemble."""

    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    members: tuple[ShippedMember, ...]
    weights: Weights

    def blend(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """One table of predictions from one of each member, as `predict` gives them.

        What a member could not predict, the ensemble does not.
        """
        first = tables[0].copy()
        said = [[f"{PROBABILITY}{each}" for each in self.labels], list(self.dimensions)]
        lost = np.zeros(len(first), dtype=bool)
        for table in tables:
            lost |= table["error"].notna().to_numpy() if "error" in table else False
        outputs = [_outputs(tables, columns) for columns in said]
        for columns, values in zip(said, self.weights.blend(*outputs), strict=True):
            for index, column in enumerate(columns):
                first[column] = np.where(lost, np.nan, values[:, index])
        if self.labels and (~lost).any():
            places = first[said[0]].fillna(0).to_numpy().argmax(axis=1)
            likeliest = np.array(self.labels, dtype=object)[places]
            first["label"] = pd.Series(likeliest, index=first.index).where(~lost)
        return with_mixture(first, tables, self.weights.of_members, self.dimensions)


def is_shipped(folder: str | Path) -> bool:
    """Whether a path is the folder of an ensemble."""
    return (Path(folder).expanduser() / ENSEMBLE).is_file()


def read_shipped(folder: str | Path) -> ShippedEnsemble:
    """The ensemble in a folder; its members are not looked at. ValueError if the folder is damaged."""
    path = Path(folder).expanduser() / ENSEMBLE
    try:
        facts = opened(json.loads(path.read_text(encoding="utf-8")), path)
        lacking = [name for name in NEEDED if name not in facts]
        if not lacking and facts.get("format", 0) <= FORMAT:
            return _understood(facts, path.parent)
    except FileNotFoundError:
        msg = (
            f"{folder} is not the folder of an ensemble: expected {ENSEMBLE} in it, as `ensemble` writes it."
        )
        raise FileNotFoundError(msg) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{path} cannot be read ({' '.join(str(error).split())}): make the ensemble again."
        raise ValueError(msg) from error
    if lacking:
        # Of a comparison's row, or of something else.
        msg = f"{path} is not of an ensemble that can be loaded: it has no {', '.join(lacking)}."
        raise ValueError(msg)
    msg = f"{path} has format {facts['format']}, this version reads up to {FORMAT}: update ser-strategies."
    raise ValueError(msg)


def write_shipped(
    folder: Path,
    members: Mapping[str, Path],
    weights: Weights,
    told: Mapping[str, Any],
    *,
    copy: bool,
    final: Path,
) -> None:
    """Writes ensemble.json, and copies of the members if wanted, into a folder that is to become `final`."""
    listed = []
    for number, (name, path) in enumerate(members.items()):
        if copy:
            kept = Path("members", f"{number + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.ckpt")
            (folder / kept).parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, folder / kept)
            place = kept.as_posix()
        else:
            place = Path(os.path.relpath(path.resolve(), final.resolve())).as_posix()
        listed.append(
            {
                "name": name,
                "checkpoint": place,
                "fingerprint": hash_of_weights(path),
                "weight": weights.of_member(number),
                "classes": weights.classes[number].tolist(),
                "dimensions": weights.dimensions[number].tolist(),
            }
        )
    write_result(folder / ENSEMBLE, {"format": FORMAT, **told, "members": listed})


def _understood(facts: Mapping[str, Any], folder: Path) -> ShippedEnsemble:
    labels, dimensions = tuple(facts["labels"]), tuple(facts["dimensions"])
    members, classes, others = [], [], []
    for each in facts["members"]:
        members.append(
            ShippedMember(str(each["name"]), folder / each["checkpoint"], str(each["fingerprint"]))
        )
        classes.append(each["classes"])
        others.append(each["dimensions"])
    weights = Weights(
        by=str(facts["by"]),
        class_wise=bool(facts["class_wise"]),
        classes=_matrix(classes, len(labels)),
        dimensions=_matrix(others, len(dimensions)),
    )
    return ShippedEnsemble(labels, dimensions, tuple(members), weights)


def _matrix(rows: Sequence[Sequence[float]], width: int) -> np.ndarray:
    values = np.array(rows, dtype=np.float64).reshape(len(rows), width)
    if (values < 0).any() or (width and not np.allclose(values.sum(axis=0), 1, atol=1e-6)):
        msg = "its weights are not at least zero, and together one"
        raise ValueError(msg)
    return values


def _outputs(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> np.ndarray:
    """(members, rows, columns), NaN where a member said nothing."""
    return np.stack([table.reindex(columns=list(columns)).to_numpy(np.float64) for table in tables])
