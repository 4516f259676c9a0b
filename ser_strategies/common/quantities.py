"""The sample rate; scores, costs and other numbers as people read them. What is missing is "—", never 0."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeGuard

SAMPLE_RATE = 16_000  # samples a second, of one channel, as all encoders here were pre-trained with


MISSING = "—"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
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
    "tvd": "total variation distance (TVD)",
    "jsd": "Jensen-Shannon divergence (JSD), base 2",
    "ccc_individual": "concordance (CCC) of single ratings",
    "ccc_marginals": "concordance (CCC) of the distribution's means",
    "uar_cell": "most probable cell found (UAR)",
    "kde_fallbacks": "distributions of which no bandwidth was found",
    "gender_accuracy": "gender predicted rightly",
}
SHORT = {
    "ua": "UA",
    "wa": "WA",
    "f1_macro": "F1",
    "f1_weighted": "weighted F1",
    "ccc": "CCC",
    "ece": "ECE",
    "tvd": "TVD",
    "jsd": "JSD",
    "ccc_individual": "CCC of single ratings",
    "ccc_marginals": "CCC of marginals",
    "uar_cell": "UAR of cells",
}
SHARES = ("ua", "wa", "f1_macro", "f1_weighted", "ece", "gender_accuracy")
KINDS = {"recall": "recall", "ccc": "CCC", "pearson": "correlation", "rmse": "RMSE", "uar": "UAR"}
# What a concordance is of, where it is not of the predicted values of a dimension.
OF = {"individual_": "single ratings", "marginals_": "marginals"}
KNOWN = "_known"  # how names of scores end of those raters alone who rated an utterance
BY_KNOWN = " by known raters"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent, without the sign: 61.3."""
    return _signed(f"{100 * value:.{digits}f}") if known(value) else MISSING


def plain(value: float | None) -> str:
    """A number with three digits that matter."""
    return _signed(f"{value:.3g}") if known(value) else MISSING


def duration(value: float | None) -> str:
    """Seconds: 0.4 s, 45 s, 3 min 20 s, 2 h 5 min."""
    if not known(value):
        return MISSING
    if value < 10:
        return f"{value:.1f} s"
    if round(value) < 100 and value % 60:
        return f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds and minutes < 20 else f"{round(value / 60)} min"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes} min" if minutes and hours < 20 else f"{round(value / 3600)} h"


def milliseconds(value: float | None) -> str:
    """Milliseconds: 2.1 ms, 810 ms, 1.4 s."""
    if not known(value):
        return MISSING
    return f"{value:.3g} ms" if value < 999.5 else f"{value / 1000:.3g} s"


def size(value: float | None) -> str:
    """Bytes: 1.7 GB."""
    return _scaled(value, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))


def count(value: float | None) -> str:
    """A number of things: 3,076, 298 k, 21.3 M."""
    if known(value) and abs(value) < 1e4:
        return f"{value:,.0f}"
    return _scaled(value, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")))


def rate(value: float | None) -> str:
    """Seconds of sound in a second: 0.83, 12.3, 340, 1,250."""
    return plain(value) if known(value) and abs(value) < 99.95 else count(value)


def operations(value: float | None) -> str:
    """Floating point operations: 131 TFLOP."""
    units = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1, "FLOP"))
    return _scaled(value, units)


def energy(value: float | None) -> str:
    """Joules as watt-hours: 12.3 Wh."""
    return _scaled(None if value is None else value / 3600, ((1e3, "kWh"), (1, "Wh"), (1e-3, "mWh")))


def known(value: float | None) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return value is not None and math.isfinite(value)


class Quantity(NamedTuple):
    """A cost."""

    title: str  # in a table
    axis: str  # at an axis
    text: Callable[[float | None], str]  # writes a value
    time: bool = False  # in seconds, so that ticks fall on minutes and hours
    more: bool = False  # whether more of it is cheaper, as of speed


QUANTITIES = {
    "cost/fit_seconds": Quantity("training time", "time of one training run", duration, time=True),
    "cost/train_seconds": Quantity("of it in steps", "time in training steps", duration, time=True),
    "cost/validation_seconds": Quantity("validation", "time in validation", duration, time=True),
    "cost/cache_build_seconds": Quantity("cache", "time to build the cache", duration, time=True),
    "cost/load_seconds": Quantity("start-up", "time until the first step", duration, time=True),
    "cost/step_ms_median": Quantity("step", "median step", milliseconds),
    "cost/step_ms_iqr": Quantity("step spread (IQR)", "spread of steps", milliseconds),
    "cost/wait_ms_median": Quantity("wait for data", "wait for data in a step", milliseconds),
    "cost/audio_seconds": Quantity("audio heard", "audio heard in training", duration, time=True),
    "cost/audio_seconds_per_second": Quantity("audio s / s", "seconds of audio a second", rate, more=True),
    "cost/peak_memory_bytes": Quantity("peak memory", "peak memory", size),
    "cost/peak_memory_reserved_bytes": Quantity("reserved memory", "reserved memory", size),
    "cost/train_flops_per_audio_second": Quantity(
        "training FLOP / audio s", "training FLOP / audio s", operations
    ),
    "cost/train_flops": Quantity("training FLOP", "arithmetic of one training run", operations),
    "cost/checkpoint_bytes": Quantity("checkpoint", "size of the checkpoint", size),
    "cost/cache_bytes": Quantity("cache on disk", "size of the cache", size),
    "cost/energy_joules": Quantity("energy", "energy of one training run", energy),
    "cost/trainable_parameters": Quantity("trainable", "trainable parameters", count),
    "cost/encoder_trainable_parameters": Quantity("of it in the encoder", "trainable in the encoder", count),
    "cost/parameters": Quantity("parameters", "parameters", count),
    "cost/steps": Quantity("steps", "optimizer steps", count),
    "cost/epochs": Quantity("epochs", "epochs", count),
    "cost/inference_parameters": Quantity("as shipped: parameters", "parameters as shipped", count),
    "cost/inference_bytes": Quantity("as shipped: size", "size as shipped", size),
    "cost/inference_flops_per_audio_second": Quantity(
        "FLOP / audio s", "inference FLOP / audio s", operations
    ),
    "cost/single_audio_seconds_per_second": Quantity(
        "prediction, one clip: audio s / s", "audio s / s, one clip at a time", rate, more=True
    ),
    "cost/single_audio_seconds_per_second_iqr": Quantity("its spread (IQR)", "spread of that speed", rate),
    "cost/inference_audio_seconds_per_second": Quantity(
        "prediction, in batches: audio s / s", "audio s / s, in batches", rate, more=True
    ),
    "cost/inference_audio_seconds_per_second_iqr": Quantity(
        "its spread (IQR)", "spread of that speed in batches", rate
    ),
    "cost/inference_batch_size": Quantity("utterances in such a batch", "utterances in a batch", count),
    "cost/inference_peak_memory_bytes": Quantity("prediction: peak memory", "memory of prediction", size),
    "cost/teacher_parameters": Quantity("teacher: parameters", "parameters of the teacher", count),
    "cost/teacher_flops_per_audio_second": Quantity(
        "teacher: FLOP / audio s", "FLOP / audio s of the teacher", operations
    ),
}


def quantity(name: str) -> Quantity:
    """The name and the number format of a cost; one that is not listed goes by its column."""
    words = name.removeprefix("cost/").replace("_", " ")
    return QUANTITIES.get(name) or Quantity(words, words, plain)


class ScoreWords:
    """The name and the number format of a score."""

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("test/").removeprefix("val/")
        plainly = self.name if self.name.startswith("recall/") else self.name.removesuffix(KNOWN)
        who = BY_KNOWN if plainly != self.name else ""
        self.share = plainly in SHARES or plainly.startswith(("recall/", "uar_"))
        kind, _, rest = plainly.replace("/", "_").partition("_")
        what = next((start for start in OF if rest.startswith(start)), "")
        more = f", {OF[what]}" if what else ""
        of = f"{KINDS[kind]} of {rest.removeprefix(what)}{more}" if rest and kind in KINDS else plainly
        title = TITLES.get(plainly, of)
        self.title = title + who
        self.short = SHORT.get(plainly, of if of != plainly else title) + who
        self.unit = "%" if self.share else ""
        self.points = "percentage points" if self.share else ""

    def text(self, value: float | None) -> str:
        """A value, without its unit: 61.3, or 0.678."""
        if not known(value):
            return MISSING
        if self.name == "kde_fallbacks":
            return count(value)
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


def _scaled(value: float | None, units: tuple[tuple[float, str], ...]) -> str:
    if not known(value):
        return MISSING
    factor, unit = next((each for each in units if abs(value) >= 0.9995 * each[0]), units[-1])
    scaled = value / factor
    digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
    text = f"{scaled:.{digits}f}"
    return f"{_signed(text.rstrip('0').rstrip('.') if '.' in text else text)} {unit}"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
