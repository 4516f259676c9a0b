"""A score as people read it: accuracies in percent and percentage points, all others as they are."""

from ser_strategies.comparison.report.quantities import MINUS, MISSING, known

TITLES = {
    "ua": "unweighted accuracy (UA)",
    "wa": "accuracy (WA)",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "ccc": "concordance (CCC)",
    "mean": "mean of UA and CCC",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
    "loss": "loss",
}
SHORT = {"ua": "UA", "wa": "WA", "f1_macro": "F1", "f1_weighted": "weighted F1", "ccc": "CCC", "ece": "ECE"}
SHARES = ("ua", "wa", "f1_macro", "f1_weighted", "ece")


class ScoreWords:
    """How a score is called and written.

    Args:
        name: The score, such as ua or recall/anger; "test/" or "val/" before it is ignored.
    """

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("test/").removeprefix("val/")
        self.share = self.name in SHARES or self.name.startswith("recall/")
        kind, _, rest = self.name.replace("/", "_").partition("_")
        named = {"recall": "recall", "ccc": "CCC", "pearson": "correlation", "rmse": "RMSE"}
        of = f"{named[kind]} of {rest}" if rest and kind in named else self.name
        self.title = TITLES.get(self.name, of)
        self.short = SHORT.get(self.name, of if of != self.name else self.title)
        self.unit = "%" if self.share else ""
        self.points = "percentage points" if self.share else ""

    def text(self, value: float | None) -> str:
        """A value, without its unit: 61.3, or 0.678."""
        if not known(value):
            return MISSING
        return f"{100 * value:.1f}" if self.share else f"{value:.3f}".replace("-", MINUS)

    def with_unit(self, value: float | None) -> str:
        """A value with its unit: 61.3 %."""
        return f"{self.text(value)} {self.unit}".rstrip() if known(value) else MISSING

    def tick(self, value: float) -> str:
        """A value on an axis."""
        return f"{100 * value:.3g}" if self.share else f"{value:.2g}".replace("-", MINUS)

    def change(self, value: float | None) -> str:
        """A difference, always signed: +2.1, or +0.021."""
        if not known(value):
            return MISSING
        text = f"{100 * value:+.1f}" if self.share else f"{value:+.3f}"
        return text[1:] if not float(text) else text.replace("-", MINUS)

    def change_tick(self, value: float) -> str:
        """A difference on an axis."""
        text = f"{100 * value:+.3g}" if self.share else f"{value:+.2g}"
        return "0" if not float(text) else text.replace("-", MINUS)

    def interval(self, point: float | None, low: float | None, high: float | None) -> str:
        """A value with its interval: 61.3 [57.0, 65.1]."""
        ends = f" [{self.text(low)}, {self.text(high)}]" if known(low) and known(high) else ""
        return f"{self.text(point)}{ends}"

    def difference(self, point: float | None, low: float | None, high: float | None) -> str:
        """A difference with its interval: +2.1 [+0.4, +4.6]."""
        ends = f" [{self.change(low)}, {self.change(high)}]" if known(low) and known(high) else ""
        return f"{self.change(point)}{ends}"


def chance(p: float | None) -> str:
    """A p value: 0.012, or < 0.001."""
    if not known(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.0995 else f"{min(p, 1.0):.2f}"
