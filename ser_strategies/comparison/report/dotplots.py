"""Marks in rows: the differences of pairs, and the speakers of each strategy."""

import statistics
from typing import Any

from matplotlib.axes import Axes

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.picture import (
    NARROW,
    SMALL,
    TEXT,
    Picture,
    limits,
    rows_of_names,
    shortened,
)
from ser_strategies.comparison.report.tables import title_of
from ser_strategies.comparison.report.theme import LIGHT, Style, styles_of
from ser_strategies.comparison.stats.differences import Difference

# More rows than these say nothing to anybody; then only the pairs with the best strategy are drawn.
MOST_PAIRS = 28
MOST_TIPS = 600  # marks; words for each of more would make the page slow
SHAPES = ("o", "^", "s", "D")


def differences(findings: Findings, width: float) -> Picture | None:
    """A row for each pair: filled, in the colour of the better, where they can be told apart; else hollow."""
    pairs, words = list(findings.differences), findings.words
    if len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if findings.names[0] in {pair.a, pair.b}][:MOST_PAIRS]
    if not pairs:
        return None
    step = 44 if width < 600 else 26
    picture = Picture(width, 90 + step * len(pairs), f"differences in {words.title} between strategies")
    axes = picture.subplots()
    axes.set_xlabel(", ".join(filter(None, [f"difference in {words.short}", words.points])))
    axes.xaxis.set_major_formatter(lambda value, _: words.change_tick(value))
    ends = [end for pair in pairs for end in (pair.low, pair.high)]
    axes.set_xlim(*limits([0.0, *(pair.point for pair in pairs)], ends))
    axes.set_ylim(len(pairs) - 0.5, -0.8 if picture.narrow else -0.5)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=LIGHT["muted"], linewidth=1.5, zorder=1.5)
    styles = styles_of(map(str, findings.table.index))
    for row, pair in enumerate(pairs):
        look = styles[pair.better] if pair.better else Style("muted", "o")
        _pair(picture, axes, row, pair, look, words.difference(pair.point, pair.low, pair.high))
    if picture.narrow:
        axes.set_yticks([])
    else:
        axes.set_yticks(range(len(pairs)), [_short_title(pair, 20) for pair in pairs])
        axes.tick_params(axis="y", labelsize=TEXT, labelcolor=LIGHT["ink"])
    grey = {"marker": "o", "color": LIGHT["muted"]}
    picture.key(
        [
            ("the better of two told apart", grey),
            ("cannot be told apart with this data", grey | {"markerfacecolor": LIGHT["ground"]}),
        ]
    )
    return picture


def _pair(picture: Picture, axes: Axes, row: int, pair: Difference, look: Style, numbers: str) -> None:
    told = pair.better is not None
    if pair.low is not None and pair.high is not None:
        axes.plot([pair.low, pair.high], [row, row], color=look.colour, linewidth=2.5 if told else 1.5)
    hollow = {} if told else {"markerfacecolor": LIGHT["ground"], "markeredgecolor": look.colour}
    picture.mark(axes, pair.point, row, look, f"{title_of(pair)}: {numbers}; {pair.verdict}", **hollow)
    tone: dict[str, Any] = {
        "color": LIGHT["ink" if told else "muted"],
        "fontsize": SMALL,
        "transform": axes.get_yaxis_transform(),
    }
    if picture.narrow:
        ground = {"facecolor": LIGHT["ground"], "edgecolor": "none", "pad": 1}
        axes.text(0, row - 0.45, _short_title(pair, 12), va="center", bbox=ground, **tone)
        axes.text(1, row - 0.45, numbers, ha="right", va="center", bbox=ground, **tone)
    else:
        axes.text(1.01, row, numbers, va="center", **tone)


def _short_title(pair: Difference, letters: int) -> str:
    return (
        title_of(pair).replace(pair.a, shortened(pair.a, letters)).replace(pair.b, shortened(pair.b, letters))
    )


def speakers(findings: Findings, width: float) -> Picture | None:
    """A mark for each speaker, a row for each strategy: who is understood, and who is not."""
    words = findings.words
    people = {
        name: [(group.name, group.interval.point) for group in each.groups]
        for name, each in findings.groups["speaker"].items()
        if len(each.groups) > 1
    }
    if not people:
        return None
    picture = Picture(width, 95 + 38 * len(people), "the score of each speaker under each strategy")
    axes = picture.subplots()
    axes.set_xlabel(", ".join(filter(None, [f"{words.short} of a speaker", words.unit])))
    axes.xaxis.set_major_formatter(lambda value, _: words.tick(value))
    axes.set_xlim(*limits([score for row in people.values() for _, score in row], []))
    every = styles_of(map(str, findings.table.index))
    styles = {name: every[name] for name in people}
    rows_of_names(axes, styles)
    genders = findings.genders
    kinds = sorted(set(genders.values()))
    many = sum(map(len, people.values())) > MOST_TIPS
    for row, (name, scores) in enumerate(people.items()):
        axes.axhline(row, color=LIGHT["grid"], linewidth=0.8, zorder=1)
        mean = statistics.fmean(score for _, score in scores)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=LIGHT["ink"], linewidth=2, zorder=3)
        for kind in dict.fromkeys(genders.get(who) for who, _ in scores):
            some = [(who, score) for who, score in scores if genders.get(who) == kind]
            shape = SHAPES[kinds.index(kind) % len(SHAPES)] if kind else "o"
            look: dict[str, Any] = {
                "marker": shape,
                "color": styles[name].colour,
                "markersize": 7.5,
                "alpha": 0.75,
            }
            look |= {"linestyle": "", "markeredgecolor": LIGHT["ground"], "zorder": 4}
            for each in [some] if many else [[one] for one in some]:
                (line,) = axes.plot([score for _, score in each], [row] * len(each), **look)
                if not many:
                    who, score = each[0]
                    picture.tip(
                        line, f"{name}, {who}{f' ({kind})' if kind else ''}: {words.with_unit(score)}"
                    )
    entries = [
        (kind, {"marker": SHAPES[i % len(SHAPES)], "color": LIGHT["muted"]}) for i, kind in enumerate(kinds)
    ]
    picture.key(
        [*entries, ("mean of speakers", {"marker": "|", "color": LIGHT["ink"], "markeredgewidth": 2})]
    )
    return picture


def robustness(findings: Findings, width: float) -> Picture | None:
    """A row for each disturbance of the test sounds, a mark for each strategy."""
    told, words = findings.robustness, findings.words
    if not told.found:
        return None
    step = 44 if width < NARROW else 26
    picture = Picture(
        width, 110 + step * len(told.words), f"{words.title} under disturbances of the test sounds"
    )
    axes = picture.subplots()
    axes.set_xlabel(", ".join(filter(None, [words.short, words.unit])))
    axes.xaxis.set_major_formatter(lambda value, _: words.tick(value))
    ones = [one for each in told.found.values() for one in each.values()]
    ends = [end for one in ones for end in (one.low, one.high) if end is not None]
    axes.set_xlim(*limits([one.score for one in ones], ends))
    axes.set_ylim(len(told.words) - 0.5, -0.8 if picture.narrow else -0.5)
    axes.grid(visible=False, axis="y")
    every = styles_of(map(str, findings.table.index))
    for row, (disturbance, said) in enumerate(told.words.items()):
        axes.axhline(row, color=LIGHT["grid"], linewidth=0.8, zorder=1)
        for name, each in told.found.items():
            one = each.get(disturbance)
            if one is not None:
                change = words.difference(one.change, one.change_low, one.change_high)
                tip = f"{name}, {said}: {words.interval(one.score, one.low, one.high)} ({change})"
                if one.low is not None and one.high is not None:
                    axes.plot(
                        [one.low, one.high], [row, row], color=every[name].colour, linewidth=1, alpha=0.5
                    )
                picture.mark(axes, one.score, row, every[name], tip)
        if picture.narrow:
            tone: dict[str, Any] = {"color": LIGHT["muted"], "fontsize": SMALL, "va": "center"}
            axes.text(0, row - 0.45, said, transform=axes.get_yaxis_transform(), **tone)
    axes.set_yticks([] if picture.narrow else range(len(told.words)))
    if not picture.narrow:
        axes.set_yticklabels(list(told.words.values()))
        axes.tick_params(axis="y", labelsize=TEXT, labelcolor=LIGHT["ink"])
    picture.key([(name, {"marker": every[name].marker, "color": every[name].colour}) for name in told.found])
    return picture
