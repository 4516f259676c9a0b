"""What training from stored frames gains: steps, epochs and building, each against the bare limit beside it.

    python -m benchmarks.cached [--encoder random:wav2vec2-base] [--clips 48] [--seconds 4] [--device cpu]

Bare steps are a loop in torch: forward, backward, AdamW, on tensors that are there already. Our epochs
are `Trainer.fit` with everything that belongs to it: reading, checking, batching, head, optimizer,
logging. Runs alternate, so that a noisy machine slows all of them, and ratios are of medians.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from ser_strategies.cache.build import Sounds, build, compute
from ser_strategies.cache.store import FrameStore
from ser_strategies.cache.trunk import describe_trunk
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Sound
from ser_strategies.encoder import Encoder, Frames, freeze_cnn, train_top_blocks
from ser_strategies.fit.noise import quiet
from ser_strategies.strategies import CachedFineTuning, PartialFineTuning, VanillaFineTuning

RATE = 16_000
TOP = 3


class Clips(Corpus):
    """Noise of one length, made up in memory: reading costs what a copy costs."""

    labels = ("a", "b")

    def __init__(self, clips: int, seconds: float, batch_size: int) -> None:
        super().__init__(batch_size=batch_size)
        self.clips, self.seconds = clips, seconds

    def table(self) -> pd.DataFrame:
        """All train, but for one batch that validates."""
        split = [
            "val" if index < self.batch_size else "train" for index in range(self.clips + self.batch_size)
        ]
        labels = [self.labels[index % 2] for index in range(len(split))]
        ids = [f"c{index}" for index in range(len(split))]
        return pd.DataFrame({"id": ids, "split": split, "seconds": self.seconds, "label": labels})

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """Always the same noise for the same id."""
        rng = np.random.default_rng(int(utterance["id"][1:]))
        return (rng.standard_normal(round(self.seconds * RATE)) / 10).astype(np.float32)


class Epochs(Callback):
    """Seconds of each training epoch, without what comes before and after."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Stops it."""
        _wait(pl_module.device)
        self.seconds.append(time.perf_counter() - self.start)


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    quiet()
    name = platform.processor() or platform.machine()
    if options.device != "cpu":
        name = torch.cuda.get_device_name()
    print(f"{options.encoder}, clips of {options.seconds:g} s, batches of {options.batch_size}, float32")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}\n")
    bare = _bare_steps(options)
    _epochs(options, bare)
    _building(options)


def _bare_steps(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a bare step: full, vanilla, partial, from stored frames."""
    device = torch.device(options.device)
    sound = torch.randn(options.batch_size, round(options.seconds * RATE), device=device) / 10
    lengths = torch.full((options.batch_size,), sound.shape[1], device=device)
    labels = torch.arange(options.batch_size, device=device) % 2
    steps: dict[str, Callable[[], None]] = {}
    for kind in ("full", "vanilla", "partial", "stored"):
        encoder = Encoder(options.encoder).to(device)
        if kind == "vanilla":
            freeze_cnn(encoder)
        elif kind != "full":
            train_top_blocks(encoder, TOP)
        stored = encoder.lower(sound, lengths, encoder.cut) if kind == "stored" else None
        steps[kind] = _step(encoder, stored, sound, lengths, labels)
    seconds = _medians(steps, options.repeats, device)
    print(f"{'bare step':<12}{'s':>9}{'full / this':>13}{'vanilla / this':>16}")
    for kind, spent in seconds.items():
        print(f"{kind:<12}{spent:>9.3f}{seconds['full'] / spent:>13.2f}{seconds['vanilla'] / spent:>16.2f}")
    print()
    return seconds


def _step(
    encoder: Encoder, stored: Frames | None, sound: Tensor, lengths: Tensor, labels: Tensor
) -> Callable[[], None]:
    head = nn.Linear(encoder.size, 2).to(sound.device)
    parameters = [p for p in (*encoder.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step() -> None:
        frames = encoder(sound, lengths) if stored is None else encoder.upper(stored, encoder.cut)
        loss = nn.functional.cross_entropy(head(frames.values.mean(1)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _epochs(options: argparse.Namespace, bare: dict[str, float]) -> None:
    """Our epochs against bare steps."""
    batches = options.clips // options.batch_size
    common: dict[str, Any] = {"num_classes": 2, "labels": Clips.labels}
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, tuple[str, Any]] = {
            "full": ("full", lambda: VanillaFineTuning(options.encoder, train_cnn=True, **common)),
            "vanilla": ("vanilla", lambda: VanillaFineTuning(options.encoder, **common)),
            "partial": ("partial", lambda: PartialFineTuning(options.encoder, top_blocks=TOP, **common)),
            "cached": (
                "stored",
                lambda: CachedFineTuning(
                    options.encoder, top_blocks=TOP, stored="float32", cache=folder, **common
                ),
            ),
        }
        seconds = {name: _fit(make(), options) for name, (_, make) in kinds.items()}
    print(f"{'our epoch':<12}{'s':>9}{'full / this':>13}{'of the bare limit':>19}")
    for name, (kind, _) in kinds.items():
        limit = batches * bare[kind] / seconds[name]
        print(f"{name:<12}{seconds[name]:>9.3f}{seconds['full'] / seconds[name]:>13.2f}{limit:>19.1%}")
    print()


def _fit(model: Any, options: argparse.Namespace) -> float:
    epochs = Epochs()
    trainer = Trainer(
        accelerator="cpu" if options.device == "cpu" else "gpu",
        devices=1,
        max_epochs=options.repeats + 1,
        callbacks=[epochs],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=Clips(options.clips, options.seconds, options.batch_size))
    return statistics.median(epochs.seconds[1:])  # the first warms up


def _building(options: argparse.Namespace) -> None:
    """Our build against a bare loop of batches through the trunk."""
    device = torch.device(options.device)
    corpus = Clips(options.clips, options.seconds, options.batch_size)
    encoder = Encoder(options.encoder).to(device)
    train_top_blocks(encoder, TOP)
    encoder.eval()
    rows = corpus.split("train")
    sounds = [corpus.waveform(row) for row in rows.to_dict("records")]  # type: ignore[arg-type]
    trunk = describe_trunk(encoder, encoder.cut, stored="bfloat16")

    def bare() -> None:
        for start in range(0, len(sounds), options.batch_size):
            batch = torch.from_numpy(np.stack(sounds[start : start + options.batch_size])).to(device)
            lengths = torch.full((len(batch),), batch.shape[1], device=device)
            compute(encoder, batch, lengths, trunk).values.cpu()

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = FrameStore(Path(folder), trunk)
            store.create()
            store.open()
            wanted = Sounds(list(rows["id"]), rows["seconds"].tolist(), sounds.__getitem__, lambda p: str(p))
            build(store, encoder, wanted, batch_seconds=options.batch_size * options.seconds)

    seconds = _medians({"bare": bare, "ours": ours}, options.repeats, device)
    hours = options.clips * options.seconds / 3600
    print(f"{'building':<12}{'s':>9}{'hours of sound an hour':>24}")
    for name, spent in seconds.items():
        print(f"{name:<12}{spent:>9.3f}{hours / (spent / 3600):>24,.0f}")
    print(f"ours reaches {seconds['bare'] / seconds['ours']:.1%} of the bare forward")


def _medians(works: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(spent[1:]) for name, spent in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
