"""A recogniser as an ONNX graph: sound in, probabilities and dimensions out, for programs without Python."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ser_strategies.common.errors import first_line
from ser_strategies.common.files import copy_file
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.comparison.stats.aligned import PROBABILITY
from ser_strategies.costs.inference import as_shipped
from ser_strategies.encoder.frames import whole_clips
from ser_strategies.fit.noise import quiet
from ser_strategies.fit.shorthand import best_of
from ser_strategies.strategies import Recognizer, load_strategy

NEEDED = ("onnx", "onnxscript", "onnxruntime")
SUFFIX = ".onnx"
LONGEST = 600  # seconds of sound that a graph takes
# Clips on which the graph and the model are compared, in seconds, and what rounding may make of them.
TRIED, TOLERANCE = (0.31, 1.0, 2.7), 1e-4


class ExportedGraph(NamedTuple):
    """An exported recogniser."""

    file: Path
    labels: tuple[str, ...]  # of the columns of the output `probabilities`
    dimensions: tuple[str, ...]  # of those of the output `dimensions`
    difference: float  # the largest between the graph's answers and the model's, on clips of several lengths


def export_onnx(
    checkpoint: str | Path, file: str | Path, *, trust: str | tuple[str, ...] = ()
) -> ExportedGraph:
    """Writes the recogniser of a checkpoint, adapters merged, as a graph that onnxruntime and others run.

    Its input `waveform`, (1, samples) in float32, is mono sound at 16 kHz as it is: the graph normalises it
    where the encoder wants that. Its outputs are `probabilities`, (1, classes), and `dimensions`, (1,
    dimensions), as far as the model has them; which is which stands in the metadata of the file. It is tried
    before it is written: what it says of clips of several lengths must be what the model says. Weights beyond
    two gigabytes lie in a second file beside it.

    Args:
        checkpoint: A .ckpt, or the folder of a run, whose best.ckpt is taken.
        file: A new file that ends in .onnx.
        trust: Packages whose code the checkpoint may import.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        FileExistsError: Something is there already.
        ValueError: The checkpoint predicts nothing, or its model cannot be drawn as a graph.
        ModuleNotFoundError: A package of the extra `onnx` is missing.
    """
    target = _target(file)
    _check_packages()
    path = best_of(checkpoint)
    model = load_strategy(path, trust=trust).cpu()
    if not isinstance(model, Recognizer):
        msg = f"{path} is from {type(model).__name__}, which predicts no emotion: export its encoder."
        raise ValueError(msg)
    quiet()
    with torch.no_grad(), as_shipped(model), TemporaryDirectory() as made:
        clip, drawn = OneClip(model).eval(), Path(made) / target.name
        _draw(clip, drawn, path)
        difference = _difference(clip, drawn)
        if not difference <= TOLERANCE:  # NaN neither
            msg = f"the graph of {path} says other things than the model (by {difference:.2g}): not written."
            raise ValueError(msg)
        # The weights first, if they have a file of their own: a graph that is there is whole.
        for each in sorted(Path(made).iterdir(), key=lambda each: each.name == target.name):
            copy_file(each, target.with_name(each.name))
    return ExportedGraph(target, clip.labels, clip.dimensions, difference)


class OneClip(nn.Module):
    """A recogniser that is asked of one clip, whole.

    Args:
        model: The recogniser.
    """

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model
        said = self._said(torch.zeros(1, SAMPLE_RATE))
        self.labels = tuple(name for name in model.labels if f"{PROBABILITY}{name}" in said)
        self.dimensions = tuple(name for name in model.dimensions if name in said)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        found = (("probabilities", self.labels), ("dimensions", self.dimensions))
        return [name for name, columns in found if columns]

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """Probabilities and dimensions of one clip, (1, samples)."""
        said = self._said(waveform)
        columns = ([f"{PROBABILITY}{label}" for label in self.labels], list(self.dimensions))
        return tuple(torch.stack([said[name] for name in names], 1) for names in columns if names)

    def _said(self, waveform: Tensor) -> dict[str, Tensor]:
        lengths = torch.full((1,), waveform.shape[1], dtype=torch.int64)
        with whole_clips():
            said: dict[str, Tensor] = self.model.objective.predict(self.model(waveform, lengths))
        return said


def _target(file: str | Path) -> Path:
    target = Path(file).expanduser()
    if target.suffix != SUFFIX:
        msg = f"{target} must end in {SUFFIX}, as in model{SUFFIX}."
        raise ValueError(msg)
    if target.exists():
        msg = f"{target} is there already: name a file that is not, such as {target.stem}-2{SUFFIX}."
        raise FileExistsError(msg)
    if not target.parent.is_dir():
        msg = f"there is no folder {target.parent} for {target.name}: make it first."
        raise FileNotFoundError(msg)
    return target


def _check_packages() -> None:
    for name in NEEDED:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            msg = f"a graph needs the package {name}: pip install 'ser-strategies[onnx]'."
            raise ModuleNotFoundError(msg, name=name) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without torch's notes on packages that are not installed, and on what it has renamed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _draw(clip: OneClip, file: Path, checkpoint: Path) -> None:
    least = clip.model.encoder.receptive_field
    samples = torch.export.Dim("samples", min=least, max=LONGEST * SAMPLE_RATE)
    with _silent():
        try:
            program: Any = torch.onnx.export(
                clip,
                (torch.randn(1, SAMPLE_RATE),),
                dynamo=True,
                dynamic_shapes=({1: samples},),
                input_names=["waveform"],
                output_names=clip.outputs,
                verbose=False,
            )
        except (RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error.__cause__ or error)
            msg = f"{checkpoint} cannot be drawn as a graph: {reason}"
            raise ValueError(msg) from error
        program.model.metadata_props.update(_metadata(clip, least))
        program.save(str(file))


def _metadata(clip: OneClip, least: int) -> dict[str, str]:
    """What whoever runs it has to know; nothing of where it was made."""
    return {
        "labels": json.dumps(clip.labels),
        "dimensions": json.dumps(clip.dimensions),
        "sampling_rate": str(SAMPLE_RATE),
        "least_samples": str(least),
        "strategy": type(clip.model).__name__,
        "encoder": clip.model.encoder.identity.fingerprint,
        "ser_strategies": version("ser-strategies"),
    }


def _difference(clip: OneClip, file: Path) -> float:
    """The largest between what onnxruntime makes of the graph and what the model says."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # not that a processor has few cores, or no GPU
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    generator = torch.Generator().manual_seed(0)
    for seconds in TRIED:
        sound = 0.1 * torch.randn(1, int(seconds * SAMPLE_RATE), generator=generator)
        try:
            said = session.run(None, {"waveform": sound.numpy()})
        except Exception as error:  # whose classes are no exceptions of Python's
            msg = f"the graph cannot be run: {first_line(error)}"
            raise ValueError(msg) from error
        for mine, theirs in zip(clip(sound), said, strict=True):
            apart = (mine - torch.from_numpy(theirs)).abs().max().item()
            largest = max(largest, apart) if apart == apart else float("nan")  # NaN stays
    return largest
