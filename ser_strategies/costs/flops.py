"""Arithmetic of a strategy for each second of sound, by torch's counter, on a small made-up batch."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from torch.utils.module_tracker import ModuleTracker

from ser_strategies.batch import Batch
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.costs.inference import as_shipped
from ser_strategies.encoder import Encoder, compression_of, restored_modes
from ser_strategies.parts.adaptation import UNKNOWN
from ser_strategies.parts.annotator_objective import Annotators
from ser_strategies.parts.sharing import alone
from ser_strategies.strategies import Pretraining, Recognizer, Strategy

CLIPS, SECONDS = 2, 2.0
RATERS = 5  # of each clip


class Flops(NamedTuple):
    """Floating-point operations for each second of sound; a multiplication and an addition are two."""

    train: float  # of a training step, forwards and backwards; from stored frames where training is
    # Of a prediction from sound, adapters merged; None where nothing is predicted.
    inference: float | None
    teacher: float | None = None  # of the encoder that a student was made of, to run it; None without one


def count_flops(model: Strategy) -> Flops:
    """What a training step and a prediction take, on the device where the model is; it is left as it was.

    Products of matrices, those of attention among them, and convolutions are counted; what is done element by
    element is not. Clips are 2 s long, or as long as the encoder takes.
    """
    with _undisturbed(model), sdpa_kernel(SDPBackend.MATH), alone():
        batch = _made_up(model)
        seconds = float(batch.lengths.sum()) / SAMPLE_RATE
        learnt_from = _as_trained_on(model, batch)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if isinstance(getattr(model, "objective", None), Annotators):
            with torch.no_grad():  # distributions of ratings are estimated once, and looked up in every epoch
                model.loss_of(learnt_from)
        train = _count(lambda: torch.autograd.grad(model.loss_of(learnt_from), trained, allow_unused=True))
        heard = _moved(batch, next(model.parameters()).device)
        with torch.no_grad(), as_shipped(model):
            model.eval()
            inference = None
            if isinstance(model, Recognizer):
                inference = _count(lambda: model(heard.waveforms, heard.lengths)) / seconds
            teacher = _of_teacher(model.encoder, heard)
        return Flops(train / seconds, inference, None if teacher is None else teacher / seconds)


def _of_teacher(encoder: Encoder, batch: Batch) -> float | None:
    """What the encoder takes that a student was made of: the same, with more of the same blocks."""
    made = compression_of(encoder)
    if made is None:
        return None
    sound, blocks = (batch.waveforms, batch.lengths), encoder.block_count
    whole, below = _count(lambda: encoder(*sound)), _count(lambda: encoder.lower(*sound, 0))
    return below + (whole - below) / blocks * float(made["of"])


def _count(work: Callable[[], object]) -> int:
    mapping = {torch.ops.aten.convolution_backward: _backward_flops}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    # Its own tracker hooks into every module, to tell them apart, and cannot bear torch.autograd.grad.
    counter.mod_tracker = _Whole()
    with counter:
        work()
    return int(counter.get_total_flops())


class _Whole(ModuleTracker):
    """Counts for the whole alone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _backward_flops(
    grad: Sequence[int],
    sound: Sequence[int],
    weight: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    *rest: Any,
    out_shape: object = None,
) -> int:
    """Of a convolution's gradients: for its input and for its weights as much each as forwards.

    torch's own formula counts the weights of a grouped convolution as if it had one group: 16 times what the
    positional convolution of an encoder takes.
    """
    wanted = rest[-1]
    forwards = conv_flop_count(list(sound), list(weight), list(grad), transposed)
    return forwards * (bool(wanted[0]) + bool(wanted[1]))


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Puts back what a forward pass may change: generators, modes, buffers, and blocks skipped at random."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    encoder: Any = getattr(model, "encoder", None)
    layerdrop = getattr(encoder, "layerdrop", None)
    if layerdrop is not None:
        encoder.layerdrop = 0.0
    device = next(model.parameters()).device
    try:
        with (
            restored_modes(model),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            yield
    finally:
        if layerdrop is not None:
            encoder.layerdrop = layerdrop
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _made_up(model: Strategy) -> Batch:
    """Noise with every kind of target, on the CPU."""
    samples = round(SECONDS * SAMPLE_RATE)
    if model.encoder.max_samples is not None:
        samples = min(samples, model.encoder.max_samples)
    classes, dimensions = len(getattr(model, "labels", ())), len(getattr(model, "dimensions", ()))
    return Batch(
        waveforms=0.1 * torch.randn(CLIPS, samples),
        lengths=torch.full((CLIPS,), samples),
        ids=tuple(f"made up {number}" for number in range(CLIPS)),
        labels=torch.arange(CLIPS) % max(classes, 1),
        soft_labels=torch.full((CLIPS, classes), 1 / max(classes, 1)),
        dimensions=torch.rand(CLIPS, dimensions),
        raters=torch.zeros(CLIPS, RATERS, dtype=torch.int64),
        ratings=torch.rand(CLIPS, RATERS, dimensions),
    )


def _as_trained_on(model: Strategy, batch: Batch) -> Any:
    """A batch as the strategy's training steps get it: with frames in place of sound, or with masks."""
    device = next(model.parameters()).device
    if isinstance(model, Pretraining):
        return _masked(model, batch, device)
    moved = _moved(batch, device)
    caching = getattr(model, "caching", None)
    if caching is None:
        return moved
    encoder = model.encoder
    with restored_modes(encoder), torch.no_grad():
        encoder.eval()
        frames = encoder.lower(moved.waveforms, moved.lengths, encoder.cut, layers=caching.layers)
    stored = torch.stack(frames.layers, 2) if caching.layers else frames.values
    return moved._replace(
        waveforms=torch.zeros(CLIPS, 0, device=device), frames=stored, frame_counts=frames.mask.sum(1)
    )


def _masked(model: Pretraining, batch: Batch, device: torch.device) -> Any:
    live = model.targets if model.target_source is not None and model.target_source.live else None
    # Units and frames that were made before know nothing of these clips; a teacher that listens does.
    made = model.unit_table, model.targets
    model.unit_table, model.targets = None, live
    try:
        masked = model.on_before_batch_transfer(batch, 0)
    finally:
        model.unit_table, model.targets = made
    if model.target_source is not None:
        shape = (*masked.masked.shape, *model.target_source.shape(model.encoder))
        masked = masked._replace(targets=torch.zeros(shape))
    if model.unit_source is not None:
        places = masked.places[:, :, None].expand(-1, -1, len(model.unit_source.clusters))
        masked = masked._replace(units=torch.where(places >= 0, 0, UNKNOWN))
    return _moved(masked._replace(batch=_moved(masked.batch, device)), device)


def _moved(batch: Any, device: torch.device) -> Any:
    """A named tuple with its tensors on a device."""
    return batch._replace(
        **{name: value.to(device) for name, value in batch._asdict().items() if isinstance(value, Tensor)}
    )
