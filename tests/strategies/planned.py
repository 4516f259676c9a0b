"""A corpus of which a test says who trains, who validates and who is tested."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.data.corpus import Corpus

EACH = 3
LABELS = ("calm", "wild")
SPLIT_OF = {"t": "train", "v": "val", "s": "test"}


class Planned(Corpus):
    """Groups of three clips of noise; the groups are split as a plan says.

    Args:
        plan: A letter for each group: t trains, v validates, s is tested (scored), - does not occur.
        allow_leakage: Go on although something was heard before.
    """

    labels = LABELS

    def __init__(self, plan: str = "ttvs", *, allow_leakage: bool = False) -> None:
        super().__init__(batch_size=4, allow_leakage=allow_leakage)
        self.plan = plan

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {
                    "id": f"{group}-{number}",
                    "split": SPLIT_OF[letter],
                    "seconds": 0.3,
                    "label": LABELS[(group + number) % 2],
                }
                for group, letter in enumerate(self.plan)
                if letter in SPLIT_OF
                for number in range(EACH)
            ]
        )

    def waveform(self, utterance: Mapping[str, Any]) -> Any:
        chance = np.random.default_rng(zlib.crc32(utterance["id"].encode()))
        return chance.normal(0, 0.1, 4_800).astype(np.float32)
