"""Pictures as SVG: in the page, whose colours they take, or as files that bring their own."""

from html import escape

from ser_strategies.comparison.report.canvas import MARGIN, Box, Canvas, Line, Shape, Text, outline
from ser_strategies.comparison.report.theme import DARK, LIGHT, variables

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def inline(canvas: Canvas, css_class: str = "") -> str:
    """The picture for a page that has the colours.

    Args:
        canvas: The picture.
        css_class: Class of the element.
    """
    body = "\n".join(map(_shape, canvas.shapes))
    w, h = _number(canvas.width), _number(canvas.height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{css_class}" viewBox="0 0 {w} {h}" '
        f'width="{w}" height="{h}" role="img" aria-label="{escape(canvas.title)}">\n{body}\n</svg>'
    )


def standalone(canvas: Canvas) -> str:
    """The picture as a file: light, or dark where the viewer asks for dark.

    Args:
        canvas: The picture.
    """
    w, h = _number(canvas.width + 2 * MARGIN), _number(canvas.height + 2 * MARGIN)
    corner = _number(-MARGIN)
    style = (
        f"svg {{ {variables(LIGHT)} font-family: {FONT}; }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {variables(DARK)} }} }}"
    )
    ground = f'<rect x="{corner}" y="{corner}" width="{w}" height="{h}" style="fill: var(--ground)"/>'
    body = "\n".join(map(_shape, canvas.shapes))
    size = f'viewBox="{corner} {corner} {w} {h}" width="{w}" height="{h}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>{escape(canvas.title)}</title>\n<style>{style}</style>\n{ground}\n{body}\n</svg>\n"
    )


def _shape(shape: Shape) -> str:
    if isinstance(shape, Text):
        return _text(shape)
    tip = f"<title>{escape(shape.tip)}</title>" if shape.tip else ""
    faint = f"; opacity: {shape.opacity:.3g}" if shape.opacity < 1 else ""
    fill = f'style="fill: var(--{shape.colour}){faint}"'
    if isinstance(shape, Box):
        size = f'width="{_number(shape.width)}" height="{_number(shape.height)}"'
        return f'<rect x="{_number(shape.x)}" y="{_number(shape.y)}" {size} {fill}>{tip}</rect>'
    if isinstance(shape, Line):
        dashes = "; stroke-dasharray: 5 4" if shape.dashed else ""
        stroke = f"stroke: var(--{shape.colour}); stroke-width: {_number(shape.width)}{dashes}{faint}"
        return f'<polyline points="{_points(shape.points)}" style="fill: none; {stroke}">{tip}</polyline>'
    # A rim in the colour of the ground keeps marks apart that touch; a hollow one is that ground inside.
    inner, rim = ("ground", shape.colour) if shape.hollow else (shape.colour, "ground")
    width = 2 if shape.hollow else 1
    look = f'style="fill: var(--{inner}); stroke: var(--{rim}); stroke-width: {width}{faint}"'
    if shape.shape == "circle":
        where = f'cx="{_number(shape.x)}" cy="{_number(shape.y)}" r="{_number(shape.size)}"'
        return f"<circle {where} {look}>{tip}</circle>"
    corners = _points(outline(shape.shape, shape.x, shape.y, shape.size))
    return f'<polygon points="{corners}" {look}>{tip}</polygon>'


def _text(text: Text) -> str:
    x, y = _number(text.x), _number(text.y)
    turn = f' transform="rotate(-90 {x} {y})"' if text.turned else ""
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    weight = "; font-weight: 600" if text.bold else ""
    look = f"fill: var(--{text.colour}); font-size: {_number(text.size)}px{weight}"
    return f'<text x="{x}" y="{y}"{anchor}{turn} style="{look}">{escape(text.words, quote=False)}</text>'


def _points(points: tuple[tuple[float, float], ...] | list[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
