"""What can be said of units: how many are in use, and how well they tell emotions and speakers."""

from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.cache.reader import StoredFrames


def describe_units(report: dict[str, Any], stored: StoredFrames, rows: pd.DataFrame) -> None:
    """Adds to each clustering of a report its perplexity, and its purity against emotion and speaker.

    Purity is the share of frames whose unit is held mostly by utterances of their own emotion, or speaker; by
    chance is the share of the commonest one, which a single unit would reach. Rows are in the order of the
    stored units.
    """
    for index, (count, facts) in enumerate(report["clusterings"].items()):
        clusters = int(count)
        tables = {}
        for what in ("label", "speaker"):
            if what in rows and rows[what].notna().any():
                codes, values = rows[what].factorize()
                tables[what] = (codes, np.zeros((clusters, len(values)), dtype=np.int64))
        used = np.zeros(clusters, dtype=np.int64)
        for position in range(len(stored)):
            seen = np.bincount(stored.read(position, 0)[0][:, index].numpy(), minlength=clusters)
            used += seen
            for codes, table in tables.values():
                if codes[position] >= 0:
                    table[:, codes[position]] += seen
        shares = used[used > 0] / used.sum()
        facts["perplexity"] = float(np.exp(-(shares * np.log(shares)).sum()))
        for what, (_, table) in tables.items():
            facts[f"{what}_purity"] = float(table.max(1).sum() / table.sum())
            facts[f"{what}_purity_by_chance"] = float(table.sum(0).max() / table.sum())
