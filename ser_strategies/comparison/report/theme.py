"""Colours by the role they play, light and dark; one table for the page, its pictures and their files.

A strategy has the same colour and shape in every picture of every report, from its name. The series begin
with Okabe and Ito's blue and vermilion; the others were searched for, so that any two differ by 22 or more
in CIELAB to normal, protan, deutan and tritan eyes alike, and each stands 3:1 or better from the ground. No
picture tells by colour alone: every mark is labelled, or has a shape of its own.
"""

from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

# Light and dark. No light one has two roles: pictures are drawn in these, and roles put in their place.
COLOURS = {
    "ground": ("#ffffff", "#11151b"),
    "surface": ("#f4f6f8", "#1a2029"),
    "ink": ("#1a1f27", "#e8ebf0"),
    "muted": ("#586170", "#a2abb9"),
    "line": ("#c2c9d3", "#475161"),
    "grid": ("#e4e8ed", "#29313d"),
    "accent": ("#0b5cad", "#6cb2f5"),
    "warn": ("#9a4200", "#ffb166"),
    "warn-ground": ("#fdf3e7", "#2b2113"),
    "heat": ("#0b5cae", "#6cb2f5"),
    "on-heat": ("#fefefe", "#0b1017"),
    "series-1": ("#0072b2", "#56b0ee"),
    "series-2": ("#c44e00", "#ff8d45"),
    "series-3": ("#607848", "#a8f090"),
    "series-4": ("#c07890", "#d8a8c0"),
    "series-5": ("#001890", "#7878f0"),
    "series-6": ("#783048", "#c060a8"),
    "series-7": ("#481860", "#909078"),
    "series-8": ("#600000", "#f0f0d8"),
    "time-earlier": ("#6d1f4f", "#c45f9f"),
    "time-training": ("#0b5a99", "#3d9be0"),
    "time-validation": ("#4f9fd6", "#a9d8ff"),
    "time-cache": ("#b87a00", "#e2b237"),
    "time-startup": ("#7b8494", "#77808f"),
    "time-other": ("#c3cad4", "#39424f"),
}
LIGHT = {role: light for role, (light, _) in COLOURS.items()}
DARK = {role: dark for role, (_, dark) in COLOURS.items()}
SERIES = 8
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
PRESETS = ("vanilla", "partial", "lora", "mixed-precision", "cached", "tapt", "ptapt", "frozen", "vesper")


class Style(NamedTuple):
    """Colour, as a role, and marker of a strategy."""

    role: str
    marker: str

    @property
    def colour(self) -> str:
        """As pictures are drawn: the light one."""
        return LIGHT[self.role]


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """The style of each strategy: the presets have their own, all others one from a hash of the name.

    Where two have the same, the later of them in the alphabet takes the next shape.
    """
    found: dict[str, Style] = {}
    for name in sorted(names, key=lambda each: (each not in PRESETS, each)):
        number = PRESETS.index(name) if name in PRESETS else crc32(name.encode())
        role, shape = f"series-{number % SERIES + 1}", number % len(SHAPES)
        turns = (Style(role, SHAPES[(shape + turn) % len(SHAPES)]) for turn in range(len(SHAPES)))
        found[name] = next((each for each in turns if each not in found.values()), Style(role, SHAPES[shape]))
    return found


def variables(colours: dict[str, str]) -> str:
    """The colours as custom properties of CSS."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())
