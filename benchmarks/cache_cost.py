"""How the cost of a cache grows with the hours of sound: build, disk, an epoch's reading, memory.

    python -m benchmarks.cache_cost [--encoder random:wav2vec2-base] [--minutes 6 12 24 48]

Each size runs in a process of its own, whose memory is then its own. What is stored is the output of
the CNN in float32, the largest that one state can be, so that the cache outgrows the memory that
reading may keep.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.cached import Clips
from ser_strategies.cache.build import build
from ser_strategies.cache.training import FrameCaching, request
from ser_strategies.encoder import Encoder, freeze_cnn

SECONDS = 4.0


def main() -> None:
    """Prints one row per size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--minutes", type=float, nargs="+", default=[6, 12, 24, 48])
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(options.encoder, options.child)))
        return
    print(f"{options.encoder}, below: the CNN, float32, torch {torch.__version__}")
    headings = {
        "minutes": 8,
        "build s": 10,
        "MB": 8,
        "read s": 9,
        "MB/s": 8,
        "memory MB": 11,
        "grew by MB": 12,
    }
    print("".join(f"{heading:>{width}}" for heading, width in headings.items()))
    for minutes in options.minutes:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cache_cost"]
        child = subprocess.run(
            [*command, "--encoder", options.encoder, "--child", str(minutes)],
            capture_output=True,
            text=True,
            check=True,
        )
        row = json.loads(child.stdout.splitlines()[-1])
        print(
            f"{minutes:>8g}{row['build']:>10.1f}{row['size']:>8.0f}{row['read']:>9.2f}"
            f"{row['size'] / row['read']:>8.0f}{row['memory']:>11.0f}{row['grew']:>12.0f}"
        )


def _measure(source: str, minutes: float) -> dict[str, float]:
    corpus = Clips(round(minutes * 60 / SECONDS), SECONDS, 16)
    encoder = Encoder(source)
    freeze_cnn(encoder)
    with tempfile.TemporaryDirectory() as folder:
        caching = FrameCaching(folder=folder, stored="float32")
        store = caching.store(encoder)
        store.create()
        store.open()
        wanted = request(corpus, 0)
        start = time.perf_counter()
        build(store, encoder, wanted.sounds)
        built = time.perf_counter() - start
        store.open()
        before = _resident()
        corpus.use_frames({"train": store.frames(wanted.views["train"])})
        start = time.perf_counter()
        for batch in corpus.train_dataloader():
            assert batch.frames is not None
        read = time.perf_counter() - start
        after = _resident()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"build": built, "size": size / 1e6, "read": read, "memory": peak, "grew": after - before}


def _resident() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    main()
