"""Who is understood and who is not: the score of each speaker under each strategy."""

import statistics

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.axes import horizontal, is_narrow
from ser_strategies.comparison.report.canvas import TEXT, Canvas, clipped, text_width
from ser_strategies.comparison.report.scales import spanning

SHAPES = ("circle", "triangle", "square", "diamond")


def draw(findings: Findings, width: float) -> Canvas | None:
    """A dot for each speaker, a row for each strategy.

    Args:
        findings: What was found.
        width: Of the picture.
    """
    people = {
        name: [(group.name, group.interval.point) for group in each.groups]
        for name, each in findings.groups["speaker"].items()
        if len(each.groups) > 1
    }
    if not people:
        return None
    genders = _genders(findings, list(people))
    words = findings.words
    narrow = is_narrow(width)
    step, top = (58.0 if narrow else 40.0), 32.0
    bottom = top + step * len(people)
    names = min(max(text_width(name) for name in people), 200.0)
    left = 10.0 if narrow else names + 16
    values = [score for row in people.values() for _, score in row]
    scale = spanning(values, left, width - 10, margin=0.04)
    canvas = Canvas(width, bottom + 50, "the score of each speaker under each strategy")
    title = ", ".join(filter(None, [f"{words.short} of a speaker", words.unit]))
    horizontal(canvas, scale, top, bottom, words.tick, title)
    kinds = sorted(set(genders.values()))
    for index, (name, row) in enumerate(people.items()):
        y = top + step * index + (34 if narrow else step / 2)
        canvas.line([(left, y), (width - 10, y)], "grid")
        if narrow:
            canvas.text(0, y - 15, clipped(name, width), bold=True)
        else:
            canvas.text(0, y + 4, clipped(name, names), bold=True)
        middle = scale.at(statistics.fmean(score for _, score in row))
        canvas.line([(middle, y - 11), (middle, y + 11)], "ink", 2)
        # The worst of them comes first.
        for rank, (who, score) in enumerate(row):
            gender = genders.get(who)
            shape = SHAPES[kinds.index(gender) % len(SHAPES)] if gender else "circle"
            tip = f"{name}, {who}{f' ({gender})' if gender else ''}: {words.with_unit(score)}"
            colour = "series-2" if rank == 0 else "series-1"
            canvas.mark(scale.at(score), y, shape, 4.6, colour, opacity=0.8, tip=tip)
    _key(canvas, kinds)
    return canvas


def _genders(findings: Findings, names: list[str]) -> dict[str, str]:
    """The gender of each speaker where it is known."""
    table = findings.comparison.aligned(names[0]).table[["speaker", "gender"]].dropna()
    return {str(who): str(gender) for who, gender in table.drop_duplicates("speaker").to_numpy()}


def _key(canvas: Canvas, kinds: list[str]) -> None:
    entries = [(SHAPES[i % len(SHAPES)], "series-1", kind) for i, kind in enumerate(kinds)]
    entries.append(("circle", "series-2", "lowest"))
    at = 6.0
    for shape, colour, words in entries:
        canvas.mark(at, 9, shape, 4.6, colour)
        canvas.text(at + 10, 13, words, size=TEXT - 1)
        at += text_width(words, TEXT - 1) + 30
    canvas.line([(at, 2), (at, 16)], "ink", 2)
    canvas.text(at + 8, 13, "mean of speakers", size=TEXT - 1)
