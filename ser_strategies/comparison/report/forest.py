"""Differences between strategies, each with its interval and what can be said of it."""

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.axes import horizontal, is_narrow
from ser_strategies.comparison.report.canvas import SMALL, TEXT, Canvas, clipped, text_width
from ser_strategies.comparison.report.quantities import MINUS
from ser_strategies.comparison.report.scales import Scale, spanning
from ser_strategies.comparison.report.scorewords import ScoreWords
from ser_strategies.comparison.stats.differences import Difference

# More rows than these say nothing to anybody; then only the pairs with the best strategy are drawn.
MOST = 28


def drawn(findings: Findings) -> list[Difference]:
    """The pairs that are in the picture.

    Args:
        findings: What was found.
    """
    pairs = list(findings.differences)
    if len(pairs) > MOST:
        pairs = [pair for pair in pairs if findings.names[0] in {pair.a, pair.b}][:MOST]
    return pairs


def draw(findings: Findings, width: float) -> Canvas | None:
    """A row for each pair: filled where they can be told apart, hollow where not.

    Args:
        findings: What was found.
        width: Of the picture.
    """
    pairs, words = drawn(findings), findings.words
    if not pairs:
        return None
    narrow = is_narrow(width)
    step, top = (44.0 if narrow else 27.0), 34.0
    height = top + step * len(pairs) + 52
    names = max(text_width(title_of(pair)) for pair in pairs)
    texts = max(text_width(_numbers(pair, words), SMALL) for pair in pairs)
    left = 8.0 if narrow else min(names, 300.0) + 14
    right = width - 8 if narrow else width - texts - 18
    values = [value for pair in pairs for value in (pair.low, pair.high, pair.point) if value is not None]
    scale = spanning([0.0, *values], left, right, margin=0.04)
    canvas = Canvas(width, height, f"differences in {words.title} between strategies")
    title = ", ".join(filter(None, [f"difference in {words.short}", words.points]))
    horizontal(canvas, scale, top, height - 48, words.change_tick, title)
    canvas.line([(scale.at(0), top - 4), (scale.at(0), height - 48)], "muted", 1.5)
    for index, pair in enumerate(pairs):
        _row(canvas, words, pair, top + step * index + (31 if narrow else 15), scale)
    _key(canvas)
    return canvas


def title_of(pair: Difference) -> str:
    """Whose score less whose.

    Args:
        pair: The pair.
    """
    return f"{pair.a} {MINUS} {pair.b}"


def _row(canvas: Canvas, words: ScoreWords, pair: Difference, y: float, scale: Scale) -> None:
    told = pair.better is not None
    numbers = _numbers(pair, words)
    tip = f"{title_of(pair)}: {numbers}; {pair.verdict}"
    colour = "accent" if told else "muted"
    if pair.low is not None and pair.high is not None:
        canvas.line(
            [(scale.at(pair.low), y), (scale.at(pair.high), y)], colour, 2.5 if told else 1.5, tip=tip
        )
    canvas.mark(scale.at(pair.point), y, "circle", 5.5, colour, hollow=not told, tip=tip)
    tone = "ink" if told else "muted"
    if is_narrow(canvas.width):
        room = canvas.width - text_width(numbers, SMALL) - 10
        # So that no line of the grid runs through the letters.
        canvas.box(0, y - 25, canvas.width, 16, "ground")
        canvas.text(0, y - 13, _fitting(pair, room), bold=told)
        canvas.text(canvas.width, y - 13, numbers, "end", SMALL, tone)
    else:
        canvas.text(0, y + 4, _fitting(pair, scale.start - 14), bold=told)
        canvas.text(canvas.width, y + 4, numbers, "end", SMALL, tone)


def _fitting(pair: Difference, room: float) -> str:
    """Whose score less whose; where that is too long, both names give way."""
    if text_width(title_of(pair)) <= room:
        return title_of(pair)
    left = room - text_width(f" {MINUS} ")
    a = clipped(pair.a, max(left / 2, left - text_width(pair.b)))
    return f"{a} {MINUS} {clipped(pair.b, left - text_width(a))}"


def _numbers(pair: Difference, words: ScoreWords) -> str:
    return words.difference(pair.point, pair.low, pair.high)


def _key(canvas: Canvas) -> None:
    canvas.mark(7, 9, "circle", 5.5, "accent")
    canvas.text(18, 13, "told apart", size=TEXT - 1)
    canvas.mark(96, 9, "circle", 5.5, "muted", hollow=True)
    canvas.text(107, 13, "cannot be told apart with this data", size=TEXT - 1)
