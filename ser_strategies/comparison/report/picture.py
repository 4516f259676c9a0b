"""A picture: a figure of matplotlib that follows the reader's light or dark; the same bytes every time."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from html import escape
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, MaxNLocator, NullLocator

from ser_strategies.common.files import whole_file, write_text
from ser_strategies.common.quantities import Quantity, known
from ser_strategies.comparison.report.theme import DARK, LIGHT, Style, variables

NARROW = 600  # pixels below which a picture is for a phone
DPI = 72  # one point is one pixel
SMALL, TEXT = 11, 12
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ROLES = {colour: role for role, colour in LIGHT.items()}
DURATIONS = [
    1,
    2,
    5,
    10,
    20,
    30,
    *(60 * m for m in (1, 2, 5, 10, 20, 30)),
    *(3600 * h for h in (1, 2, 5, 10)),
]
DURATIONS += [3600 * h for h in (20, 50, 100, 200, 500, 1000)]
SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LIGHT["line"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": SMALL,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["muted"],
    "axes.titlelocation": "left",
    "axes.titlesize": SMALL,
    "axes.xmargin": 0.03,
    "figure.facecolor": LIGHT["ground"],
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "grid.color": LIGHT["grid"],
    "legend.borderpad": 0.0,
    "legend.columnspacing": 1.4,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handletextpad": 0.4,
    "legend.labelcolor": LIGHT["ink"],
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "ser_strategies",
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a name may have a dollar in it
    "xtick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": SMALL,
    "ytick.color": LIGHT["line"],
    "ytick.labelcolor": LIGHT["muted"],
    "ytick.labelsize": SMALL,
    "ytick.left": False,
}


class Picture(Figure):
    """A figure with a title for those who do not see it, and words for the mouse on its marks."""

    def __init__(self, width: float, height: float, heading: str) -> None:
        super().__init__(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
        self.get_layout_engine().set(w_pad=3 / DPI, h_pad=3 / DPI)  # type: ignore[union-attr, call-arg]
        self.heading = heading
        self.tips: dict[str, str] = {}

    @property
    def narrow(self) -> bool:
        """Whether it is for a phone."""
        return self.get_figwidth() * DPI < NARROW

    def tip(self, artist: Artist, words: str) -> None:
        """Says something of a mark."""
        name = f"tip-{len(self.tips)}"
        artist.set_gid(name)
        self.tips[name] = words

    def mark(self, axes: Axes, x: float, y: float, style: Style, tip: str, **options: Any) -> Line2D:
        """A mark of a strategy, with a rim in the colour of the ground that keeps it apart from others."""
        look: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "markersize": 9,
            "zorder": 4,
            "linestyle": "",
        }
        (line,) = axes.plot([x], [y], **(look | {"markeredgecolor": LIGHT["ground"]} | options))
        self.tip(line, tip)
        return line

    def key(self, entries: Sequence[tuple[str, dict[str, Any]]], *, below: bool = False) -> None:
        """Explains marks, above the picture or below it."""
        words = [shortened(words, 42) for words, _ in entries]
        plain: dict[str, Any] = {"linestyle": "", "markersize": 8}
        lines = [Line2D([], [], **(plain | each)) for _, each in entries]
        room = self.get_figwidth() * DPI
        abreast = len(words) if sum(6.5 * len(each) + 40 for each in words) < room else 0
        abreast = abreast or max(1, int(room / (6.5 * max(map(len, words)) + 40)))
        # The picture grows, so that a long key takes nothing from it.
        self.set_figheight(self.get_figheight() + 16 * (math.ceil(len(words) / abreast) - 1 + below) / DPI)
        look: dict[str, Any] = {"ncols": abreast, "borderaxespad": 0.0}
        self.legend(lines, words, loc="outside lower left" if below else "outside upper left", **look)

    def settle(self) -> None:
        """Arranges everything, and keeps it there; what is settled already stays."""
        if engine := self.get_layout_engine():
            with _quiet():
                engine.execute(self)
                # Not "none", with which whatever is saved would be drawn twice.
                self.set_layout_engine(None)

    @property
    def renderer(self) -> RendererAgg:
        """What measures words; an artist looks for one of its own for longer than it measures."""
        return RendererAgg(*self.bbox.size, self.dpi)  # type: ignore[no-untyped-call]

    @cached_property
    def _drawn(self) -> str:
        """What is inside the SVG, with roles for colours, words for marks, and the ids that are used."""
        text = StringIO()
        with _quiet():
            self.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        body = text.getvalue()
        body = body[body.index(">", body.index("<svg")) + 1 : body.rindex("</svg>")]
        body = re.sub(r"<metadata>.*?</metadata>\s*|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
        body = re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{ROLES[m[0]]})" if m[0] in ROLES else m[0], body)
        body = body.replace("'DejaVu Sans'", FONTS)
        for name, words in self.tips.items():
            body = body.replace(f'<g id="{name}">', f"<g><title>{escape(words)}</title>", 1)
        used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', body))
        return re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", body)

    def svg(self, prefix: str | None = None) -> str:
        """The picture as SVG that brings its colours, or takes those of the page around it.

        On a page with several pictures, ids begin with `prefix`; the part before its first hyphen is the
        picture's class.
        """
        width, height = (round(inches * DPI) for inches in self.get_size_inches())
        body, of_class, look = self._drawn, "", ""
        if prefix is None:
            dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {variables(DARK)} }} }}"
            look = f"<style>svg {{ {variables(LIGHT)} }} {dark}</style>"
        else:
            body = re.sub(r'(url\(#| id="|href="#)', rf"\1{prefix}", body)
            of_class = f' class="{prefix.partition("-")[0]}"'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"{of_class}>'
            f"<title>{escape(self.heading)}</title><desc>{escape('; '.join(self.tips.values()))}</desc>"
            f"{look}{body}</svg>"
        )

    def save(self, path: Path) -> None:
        """Writes the picture in the format that the name of the file ends in: .svg, .png or .pdf."""
        if path.suffix.lower() == ".svg":
            write_text(path, self.svg())
            return
        with _quiet(), whole_file(path) as file:
            if path.suffix.lower() == ".png":
                self.savefig(file, format="png", dpi=2 * DPI, metadata={"Software": None})
            else:
                dates = {"CreationDate": None, "Creator": None, "Producer": None}
                self.savefig(file, format="pdf", metadata=dates)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        data = BytesIO()
        with _quiet():
            self.savefig(data, format="png", dpi=2 * DPI)
        return data.getvalue()


@contextmanager
def our_style() -> Iterator[None]:
    """Our settings of matplotlib, and none of the user's."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    # A letter that our font lacks is drawn by the reader's in SVG, and is an empty box in PNG.
    with our_style(), catch_warnings():
        simplefilter("ignore")
        yield


def cost_axis(axes: Axes, kind: Quantity, costs: Sequence[float], *, zero: bool = False) -> None:
    """A horizontal axis of costs: round numbers; logarithmic if the largest is tenfold the smallest."""
    low, high = min(costs), max(costs)
    log = not zero and 0 < 10 * low <= high
    if log:
        margin = (high / low) ** 0.06
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_xlim(0 if zero else low - margin, high + margin)
    many = 5 if _pixels(axes) < NARROW else 9
    axes.xaxis.set_major_locator(_ticks(kind, axes.get_xlim(), many, log=log))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: kind.text(value) if value else "0"))
    axes.set_xlabel(f"{axes.get_xlabel()}, logarithmic" if log else axes.get_xlabel())


def _ticks(kind: Quantity, ends: tuple[float, float], many: int, *, log: bool) -> Locator:
    low, high = ends
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        some = DURATIONS if kind.time else [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
        inside = [each for each in some if low <= each <= high]
        if len(inside) > many and not kind.time:
            inside = [each for each in inside if math.log10(each).is_integer()]
        return FixedLocator(inside[:: max(1, -(-len(inside) // many))])
    if kind.time and high > 10:
        step = next((each for each in DURATIONS if (high - low) / each <= many), DURATIONS[-1])
        return FixedLocator([step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)])
    return MaxNLocator(many, steps=[1, 2, 5, 10])


def _pixels(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    return figure.get_figwidth() * DPI if figure else NARROW


def limits(points: Iterable[float], ends: Iterable[float | None], width: float = 0.1) -> tuple[float, float]:
    """The range of an axis: all points, and of the ends of their intervals those that do not flatten them."""
    inside = list(points)
    low, high = min(inside), max(inside)
    room = max(high - low, width)
    far = [end for end in ends if known(end)]
    low = min(low, max(min(far, default=low), low - room))
    high = max(high, min(max(far, default=high), high + room))
    margin = 0.05 * (high - low or width)
    return low - margin, high + margin


def shortened(name: str, letters: int) -> str:
    """A name that fits."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def rows_of_names(axes: Axes, styles: dict[str, Style], letters: int = 28) -> None:
    """A row for each strategy, the first at the top, with its name and its mark."""
    axes.set_ylim(len(styles) - 0.5, -0.5)
    axes.set_yticks(range(len(styles)), [shortened(name, letters) for name in styles])
    axes.tick_params(axis="y", labelsize=TEXT, labelcolor=LIGHT["ink"], pad=20)
    axes.grid(visible=False, axis="y")
    for row, style in enumerate(styles.values()):
        (mark,) = axes.plot([0], [row], marker=style.marker, color=style.colour, markersize=7, clip_on=False)
        mark.set_transform(axes.get_yaxis_transform())
        mark.set_xdata([-12 / _pixels(axes)])
