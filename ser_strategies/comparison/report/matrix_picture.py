"""The picture of a cross-corpus matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ser_strategies.common.files import whole_file

GROUND = 0.6  # of the colour scale, from which on words are white


def draw_matrix(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Scores as shades, rows by strategy and training corpus, columns by test corpus; in-corpus is framed."""
    rows = list(dict.fromkeys((each["strategy"], each["trained_on"]) for each in entries))
    columns = list(dict.fromkeys(each["tested_on"] for each in entries))
    values = np.full((len(rows), len(columns)), np.nan)
    figure = Figure(figsize=(2.6 + 1.4 * len(columns), 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for each in entries:
        row, column = rows.index((each["strategy"], each["trained_on"])), columns.index(each["tested_on"])
        values[row, column] = each["ua"]
        words = f"{100 * each['ua']:.1f}"
        if each["low"] is not None:
            words += f"\n[{100 * each['low']:.1f}, {100 * each['high']:.1f}]"
        colour = "white" if each["ua"] > GROUND else "black"
        axes.text(column, row, words, ha="center", va="center", color=colour, fontsize=8)
        if each["in_corpus"]:
            frame = Rectangle(
                (column - 0.48, row - 0.46), 0.96, 0.92, fill=False, edgecolor="black", linewidth=1.5
            )
            axes.add_patch(frame)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [f"{strategy}, on {trained}" for strategy, trained in rows])
    axes.set_xlabel("tested on")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix[1:])
