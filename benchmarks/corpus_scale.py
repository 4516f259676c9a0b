"""What a corpus of 267,905 utterances costs before training starts, and in each worker: seconds and memory.

    python -m benchmarks.corpus_scale [--rows 5000 267905] [--batches 200] [--folder /tmp]

MSP-Podcast 2.0 made up: label files with as many rows, classes, splits and speakers as are published, 5.4
raters a row, and a sound of 2 to 11 s for each, nearly all of it a hole in a sparse file. Each size is
measured in a process of its own. The small corpus shows what Python and torch cost by themselves: what a
worker has to itself beyond that is what the size of the corpus costs it.
"""

import argparse
import multiprocessing
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from ser_strategies.data.protocol import load_card

SPEAKERS = {"Train": 2_220, "Development": 704, "Test1": 465, "Test2": 112, "Test3": 428}
UNKNOWN = 0.26  # of the training rows, which lack a speaker
CLASSES = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad"}  # what raters choose here
RATERS, RATINGS = 13_278, 5.4
MEAN, SHORTEST, LONGEST = 5.5, 2.0, 11.0  # seconds
MIB = 2**20
WORKERS = 2
# What is measured, with the format it is printed in and the goal.
MEASURES = {
    "constructor to splits, leaks, digest: s": (".2f", "< 10"),
    "sounds opened meanwhile": (",.0f", "not all"),
    "resident before: MiB": (",.0f", ""),
    "resident after: MiB": (",.0f", "< 1,536"),
    "most resident on the way: MiB": (",.0f", "< 1,536"),
    "first plan of an epoch: s": (".2f", "< 1"),
    "every other plan of an epoch: s": (".2f", "< 1"),
    "private memory of a worker: MiB": (",.0f", "as with few"),
    "all ratings: s": (".2f", "seconds"),
}


def main() -> None:
    """Prints one row per measure and one column per size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 267_905])
    parser.add_argument("--batches", type=int, default=200, help="batches read before workers are measured")
    parser.add_argument("--folder", default=None, help="where the corpus is made, and removed")
    options = parser.parse_args()
    columns = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as root:
            seconds, _ = _apart(_timed, _make, root, rows)
            print(f"{rows:,} utterances made in {seconds:.0f} s", file=sys.stderr)
            columns.append(_apart(_measure, root, options.batches))
    print(f"{'':<42}" + "".join(f"{rows:>12,}" for rows in options.rows) + "  goal")
    for measure, (style, goal) in MEASURES.items():
        print(f"{measure:<42}" + "".join(f"{c[measure]:>12{style}}" for c in columns) + f"  {goal}")


def _apart(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives in a fresh process, so that nothing it leaves behind is measured elsewhere."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


# The corpus -------------------------------------------------------------------------------------------------


def _make(root: str, rows: int) -> None:
    folder = Path(root)
    (folder / "Audios").mkdir()
    (folder / "Labels").mkdir()
    rng = np.random.default_rng(0)
    published = [count.by for count in load_card("msp_podcast").counts if count.version == "2.0"]
    splits = _drawn(rng, next(by["official"] for by in published if "official" in by), rows)
    codes = _drawn(rng, next(by["code"] for by in published if "code" in by), rows)
    names = [f"MSP-PODCAST_{row // 100:04d}_{row % 100:04d}.wav" for row in range(rows)]
    spread = rng.lognormal(np.log(MEAN) - 0.08, 0.4, rows)
    _make_sounds(folder / "Audios", names, np.clip(spread, SHORTEST, LONGEST).tolist())
    means = rng.uniform(1, 7, (rows, 3)).round(6).tolist()
    with (folder / "Labels" / "labels_consensus.csv").open("w") as file:
        file.write("FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n")
        for name, code, split, mean in zip(names, codes, splits, means, strict=True):
            number = int(rng.integers(SPEAKERS[split]))
            known = split != "Train" or rng.random() >= UNKNOWN
            # Speakers of each split have numbers of their own.
            speaker = f"{10_000 * list(SPEAKERS).index(split) + number}" if known else "Unknown"
            gender = ("Female", "Male")[number % 2]
            file.write(f"{name},{code},{mean[0]},{mean[1]},{mean[2]},{speaker},{gender},{split}\n")
    _make_ratings(folder / "Labels" / "labels_detailed.csv", rng, names)


def _drawn(rng: np.random.Generator, counts: Any, rows: int) -> list[str]:
    shares = np.array(list(counts.values()), dtype=float)
    drawn: list[str] = rng.choice(list(counts), rows, p=shares / shares.sum()).tolist()
    return drawn


def _make_sounds(folder: Path, names: list[str], seconds: list[float]) -> None:
    for number, (name, length) in enumerate(zip(names, seconds, strict=True)):
        size = 2 * round(length * 16_000)
        kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
        header = (
            struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + kind + struct.pack("<4sI", b"data", size)
        )
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
        os.write(file, header)
        os.ftruncate(file, len(header) + size)
        os.pwrite(file, struct.pack("<I", number), size // 2)  # no two sound the same
        os.close(file)


def _make_ratings(path: Path, rng: np.random.Generator, names: list[str]) -> None:
    said = rng.choice(list(CLASSES.values()), (len(names), 8)).tolist()
    raters = rng.integers(RATERS, size=(len(names), 8)).tolist()
    points = rng.integers(1, 8, (len(names), 8)).tolist()
    counts = (5 + (rng.random(len(names)) < RATINGS - 5)).tolist()
    with path.open("w") as file:
        file.write("FileName,WorkerID,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom\n")
        for row, name in enumerate(names):
            for rater in range(counts[row]):
                word, point = said[row][rater], points[row][rater]
                worker = f"WORKER{raters[row][rater]:08d}"
                file.write(f'{name},{worker},{word},"{word},Concerned",{point},{8 - point},{point}\n')


# What is measured -------------------------------------------------------------------------------------------


@dataclass
class Opened:
    """Which files of a folder this process opens from now on, by Python or by libsndfile.

    Args:
        folder: The folder.
    """

    folder: Path
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        opening = soundfile.SoundFile.__init__

        def noted(sound: Any, file: Any, *arguments: Any, **options: Any) -> None:
            self.note(file)
            opening(sound, file, *arguments, **options)

        soundfile.SoundFile.__init__ = noted
        sys.addaudithook(lambda event, arguments: self.note(arguments[0]) if event == "open" else None)

    def note(self, file: Any) -> None:
        """Remembers a file, if it is in the folder."""
        if isinstance(file, str | Path) and str(file).startswith(f"{self.folder}/"):
            self.names.add(str(file))


def _measure(root: str, batches: int) -> dict[str, float]:
    # Workers are to be forked, as everywhere on Linux; a spawned process would spawn them.
    multiprocessing.set_start_method("fork", force=True)
    opened = Opened(Path(root) / "Audios")
    before = _status("VmRSS")
    corpus = MSPPodcast(root, workers=WORKERS)
    ready, facts = _timed(corpus.facts)
    found = [ready, len(opened.names), before, _status("VmRSS"), _status("VmHWM")]
    first, (loader, plan) = _timed(_first_plan, corpus)
    loader.sampler.set_epoch(1)
    other, again = _timed(list, loader.sampler)
    if len(again) != len(plan) or not facts["splits"]["train"]["utterances"]:
        raise AssertionError(facts)
    iterator = iter(loader)
    for _ in range(min(batches, len(plan))):
        next(iterator)
    private = max(_private(child.pid) for child in multiprocessing.active_children())
    del iterator, loader
    rating, _ = _timed(corpus.ratings)
    return dict(zip(MEASURES, [*found, first, other, private, rating], strict=True))


def _first_plan(corpus: MSPPodcast) -> tuple[Any, list[Any]]:
    loader = corpus.train_dataloader()
    return loader, list(loader.sampler)


def _status(name: str) -> float:
    """A figure in MiB that the kernel keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / MIB


def _private(process: int | None) -> float:
    """MiB that a process shares with no other."""
    lines = [line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]]
    kept = {"Private_Clean:", "Private_Dirty:"}
    return sum(int(line[1]) for line in lines if line[0] in kept) * 1024 / MIB


if __name__ == "__main__":
    main()
