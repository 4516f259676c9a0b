"""What a GPU makes of a fine-tuning step: how much of its arithmetic is used, and what each choice is worth.

    python -m benchmarks.gpu [--encoders random:wav2vec2-base random:wav2vec2-large random:wavlm-large]
    python -m benchmarks.gpu --self_test          everything once on the CPU, with tiny encoders

First the ceiling: a product of large bfloat16 matrices, and a copy. Then vanilla fine-tuning in
bf16-mixed on clips of 12 s, a row for each choice beside the default: "MFU" is the arithmetic of the
model (recomputed parts not counted twice) over the time and the ceiling. "Waits" are the places per
step at which the host waits for the GPU. Last, steps on batches of many lengths: how often a compiled
model is compiled anew. WavLM's attention against transformers' on a GPU is `python -m
benchmarks.wavlm_attention --device cuda`; here FlexAttention is held against it.
"""

import argparse
import copy
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from transformers import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from benchmarks.bare_loop import BATCH, fit
from benchmarks.clips import RATE, Clips
from benchmarks.flex import FlexGatedAttention
from ser_strategies.batch import Batch
from ser_strategies.costs.flops import count_flops
from ser_strategies.encoder.attention import GatedBiasAttention
from ser_strategies.fast.optimizer import use_fused
from ser_strategies.strategies import VanillaFineTuning

ENCODERS = ("random:wav2vec2-base", "random:wav2vec2-large", "random:wavlm-large")
TINY = ("random:wav2vec2-tiny", "random:wavlm-tiny-prenorm")
CLASSES = 4


class Choice(NamedTuple):
    """A way to take a step.

    Args:
        options: Of the strategy.
        compiled: Whether blocks are compiled.
        cudnn: Whether cuDNN tries its algorithms out.
        flat: Whether the convolutions get their weights in channels-last order.
        fused: Whether the optimizer's step is fused.
    """

    options: dict[str, Any]
    compiled: bool = False
    cudnn: bool = False
    flat: bool = False
    fused: bool = True


CHOICES = {
    "default": Choice({}),
    "plain (fast: false)": Choice({"fast": False}, fused=False),
    "optimizer not fused": Choice({}, fused=False),
    "cudnn.benchmark": Choice({}, cudnn=True),
    "channels-last CNN": Choice({}, flat=True),
    "compiled blocks": Choice({}, compiled=True),
    "recompute": Choice({"recompute": True}),
}


class Ceiling(NamedTuple):
    """What the device can do.

    Args:
        operations: Floating-point operations a second in a product of large matrices.
        bandwidth: Bytes a second read and written by a copy.
    """

    operations: float
    bandwidth: float


def ceiling(device: torch.device, size: int) -> Ceiling:
    """Measures the device.

    Args:
        device: It.
        size: Rows of the square matrices.
    """
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = seconds_of(lambda: left @ right, device)
    copied = seconds_of(lambda: left.clone(), device)
    return Ceiling(2 * size**3 / product, 2 * left.nbytes / copied)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """The median time of what is done, behind a few times that are not counted.

    Args:
        work: What to do.
        device: Where.
        repeats: How often.
    """
    spent = []
    for _ in range(repeats + 3):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[3:])


def wait(device: torch.device) -> None:
    """Until the device has done what it was given.

    Args:
        device: It.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def made_up(clips: int, seconds: float, device: torch.device) -> Batch:
    """A batch of noise.

    Args:
        clips: How many.
        seconds: Of each.
        device: Where it goes, from pinned memory as a loader's does.
    """
    samples = round(seconds * RATE)

    def moved(tensor: Tensor) -> Tensor:
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    return Batch(
        waveforms=moved(torch.randn(clips, samples) / 10),
        lengths=moved(torch.full((clips,), samples)),
        ids=tuple(f"c{index}" for index in range(clips)),
        labels=moved(torch.arange(clips) % CLASSES),
    )


class Step:
    """Vanilla fine-tuning, a step at a time.

    Args:
        source: The encoder.
        choice: How.
        device: Where.
    """

    def __init__(self, source: str, choice: Choice, device: torch.device) -> None:
        self.device = device
        # What is fast on a CPU is nothing that a compiler sees through; there it only shows that it works.
        plain: dict[str, Any] = {"fast": False} if choice.compiled and device.type == "cpu" else {}
        self.model = VanillaFineTuning(source, num_classes=CLASSES, **choice.options, **plain).to(device)
        torch.backends.cudnn.benchmark = choice.cudnn
        if choice.flat:
            for layer in self.model.encoder.model.feature_extractor.conv_layers:
                # A one-dimensional convolution runs as one of height 1, whose channels may come last.
                weight = layer.conv.weight
                weight.data = (
                    weight.data.unsqueeze(2).contiguous(memory_format=torch.channels_last).squeeze(2)
                )
        if choice.compiled:
            for block in self.model.encoder.blocks:
                block.compile(dynamic=True)
        self.optimizer = torch.optim.AdamW(p for p in self.model.parameters() if p.requires_grad)
        if choice.fused:
            use_fused(self.optimizer)

    def __call__(self, batch: Batch) -> Tensor:
        """Loss, gradients and update, under autocast as Lightning does it.

        Args:
            batch: What to learn from.
        """
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = self.model.loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


@contextmanager
def counted_waits(device: torch.device) -> Iterator[list[warnings.WarningMessage]]:
    """Collects the places at which the host waits for the GPU.

    Args:
        device: Where; nothing waits for a CPU.
    """
    if device.type != "cuda":
        yield []
        return
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def measure(source: str, clips: int, seconds: float, steps: int, top: Ceiling, device: torch.device) -> None:
    """Prints a row for each choice.

    Args:
        source: The encoder.
        clips: In a batch.
        seconds: Of each.
        steps: How many are timed.
        top: What the device can do.
        device: It.
    """
    print(f"\n{source}, {clips} clips of {seconds:g} s, bf16-mixed")
    print(
        f"{'':<22}{'ms':>9}{'of default':>12}{'sound/s':>10}{'MFU':>8}{'peak GB':>9}{'waits':>7}{'loss':>9}"
    )
    usual, per_second = 0.0, 0.0
    for name, choice in CHOICES.items():
        torch.manual_seed(0)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = Step(source, choice, device)
        if name == "default":
            per_second = count_flops(step.model).train
        batch = made_up(clips, seconds, device)
        loss = step(batch)
        spent = seconds_of(lambda step=step, batch=batch: step(batch), device, steps)  # type: ignore[misc]
        usual = usual or spent
        with counted_waits(device) as found:
            step(batch)
        peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
        used = per_second * clips * seconds / spent / top.operations
        print(
            f"{name:<22}{1e3 * spent:>9.1f}{usual / spent:>12.2f}{clips * seconds / spent:>10.0f}{used:>8.1%}"
            f"{peak:>9.2f}{len(found):>7}{loss.item():>9.4f}",
            flush=True,
        )
        del step


class Watch(Callback):
    """Counts the host's waits between two steps of a fit."""

    FIRST, LAST = 4, 12

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stack = ExitStack()
        self.found: list[warnings.WarningMessage] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begins to watch behind the first steps, in which much is made for good."""
        if batch_idx == self.FIRST:
            self.found = self.stack.enter_context(counted_waits(self.device))

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends."""
        if batch_idx == self.LAST:
            self.stack.close()


def whole_fit(source: str, seconds: float, device: torch.device) -> None:
    """Prints how often the host waits in a step of `fit`, its loader, log and meter of costs included.

    Args:
        source: The encoder.
        seconds: Of each clip.
        device: Where.
    """
    watch = Watch(device)
    corpus = Clips(np.full(BATCH * (Watch.LAST + 2), seconds), BATCH, workers=2)
    where = "gpu" if device.type == "cuda" else "cpu"
    fit(corpus, source, [watch], Watch.LAST + 2, accelerator=where, precision="bf16-mixed")
    steps = Watch.LAST - Watch.FIRST + 1
    print(f"\n{source}: in {steps} steps of fit the host waits {len(watch.found)} times for the GPU")
    for place in sorted({f"{each.filename}:{each.lineno}" for each in watch.found}):
        print(f"  at {place}")


def lengths(source: str, device: torch.device) -> None:
    """Prints how often blocks are compiled over batches of many lengths.

    Args:
        source: The encoder.
        device: Where.
    """
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    step = Step(source, Choice({}, compiled=True), device)
    compiled = []
    for seconds in (4.0, 2.0, 3.3, 5.1, 2.7, 1.3):
        step(made_up(4, seconds, device))
        compiled.append(counters["stats"]["unique_graphs"])
    print(f"\n{source}: graphs compiled after each of six lengths: {compiled}")


def flexible(frames: int, device: torch.device) -> None:
    """Prints FlexAttention beside `scaled_dot_product_attention` with the same bias: one large layer.

    Args:
        frames: Of each clip.
        device: Where.
    """
    large = device.type == "cuda"
    config = WavLMConfig(hidden_size=1024, num_attention_heads=16) if large else WavLMConfig()
    torch.manual_seed(0)
    original = WavLMAttention(config.hidden_size, config.num_attention_heads).to(device)
    kinds: dict[str, nn.Module] = {
        "bias as a matrix": GatedBiasAttention(copy.deepcopy(original), fast=large),
        "FlexAttention": FlexGatedAttention(copy.deepcopy(original), compiled=large),
    }
    hidden = torch.randn(8 if large else 2, frames, config.hidden_size, device=device)
    print(f"\nWavLM attention, {frames} frames, {hidden.shape[0]} clips, training")
    print(f"{'':<18}{'ms':>9}{'peak GB':>9}{'apart':>10}{'gradients':>11}")
    reference: list[Tensor] = []
    for name, module in kinds.items():
        given = hidden.clone().requires_grad_()

        def work(module: nn.Module = module, given: Tensor = given) -> list[Tensor]:
            mixed = torch.autocast(device.type, dtype=torch.bfloat16) if large else nullcontext()
            # FlexAttention has no backward pass on a CPU; values are all that can be held against each other.
            with mixed, torch.set_grad_enabled(large):
                values = module(given)[0]
            if not large:
                return [values]
            wanted = [
                given,
                *(module.get_parameter(f"{part}.weight") for part in ("q_proj", "rel_attn_embed")),
            ]
            return [values.detach(), *torch.autograd.grad(values.square().mean(), wanted)]

        found = work()
        reference = reference or found
        if large:
            torch.cuda.reset_peak_memory_stats()
        spent = seconds_of(work, device, 10)
        peak = torch.cuda.max_memory_allocated() / 1e9 if large else float("nan")
        values, *gradients = (
            float((mine - other).norm() / other.norm()) for mine, other in zip(found, reference, strict=True)
        )
        furthest = f"{max(gradients):.1e}" if gradients else "-"
        print(f"{name:<18}{1e3 * spent:>9.2f}{peak:>9.2f}{values:>10.1e}{furthest:>11}", flush=True)


def main() -> None:
    """Prints the ceiling and a table for each encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--self_test", action="store_true", help="everything once on the CPU")
    options = parser.parse_args()
    if not options.self_test and not torch.cuda.is_available():
        parser.error("there is no GPU: give --self_test to see that the script works")
    device = torch.device("cpu" if options.self_test else "cuda")
    name = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {name if options.self_test else torch.cuda.get_device_name()}")
    top = ceiling(device, 512 if options.self_test else 8192)
    print(f"ceiling: {top.operations / 1e12:.2f} TFLOP/s in bfloat16, {top.bandwidth / 1e9:.0f} GB/s")
    if options.self_test:
        options.encoders, options.clips, options.seconds, options.steps = TINY, 2, 1.0, 1
    for source in options.encoders:
        measure(source, options.clips, options.seconds, options.steps, top, device)
    whole_fit(options.encoders[0], options.seconds, device)
    lengths(options.encoders[-1], device)
    flexible(49 if options.self_test else 599, device)


if __name__ == "__main__":
    main()
