"""What the table of a corpus costs at internet scale: seconds and bytes a row, from the file to the batches.

    python -m benchmarks.table_scale [--rows 267905 2700000] [--parts]

A table made up with the columns of a large corpus (id, label, speaker, gender, session, recording, start,
end, seconds, split, three dimensions) is written as parquet and, in a process of its own, read, completed,
split, checked for leaks, described (digest included), and made into an epoch's batches. Seconds are those of
a processor, which other work on the machine does not change. There are no sounds: what they cost is in
`corpus_scale`. `--parts` prints where the seconds go.
"""

import argparse
import cProfile
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ser_strategies.data.corpus import Corpus

LABELS = ("anger", "happiness", "neutral", "sadness")
DIMENSIONS = ("activation", "valence", "dominance")
GOAL = "2.7 M rows: < 60 s, < 4 GiB"
MIB = 2**20


class Rows(Corpus):
    """A table without sounds.

    Args:
        path: The parquet file.
    """

    labels = LABELS
    dimensions = DIMENSIONS

    def __init__(self, path: str) -> None:
        super().__init__(batch_size=32, batch_seconds=200.0)
        self.path = path

    def table(self) -> pd.DataFrame:
        """Reads it."""
        text = {pa.string(): pd.StringDtype("pyarrow")}
        table: pd.DataFrame = parquet.read_table(self.path).to_pandas(types_mapper=text.get)
        return table

    def waveform(self, utterance: Any) -> Any:
        """Nothing to hear."""
        raise NotImplementedError


def make(path: Path, rows: int) -> None:
    """Writes a table of so many rows: recordings of a hundred utterances, each speaker in one split."""
    rng = np.random.default_rng(0)
    recording = np.arange(rows) // 100
    speaker = recording // 5
    split = np.array(["train", "train", "train", "train", "train", "train", "val", "test"])[speaker % 8]
    start = (np.arange(rows) % 100) * 12.0
    seconds = np.clip(rng.lognormal(np.log(5.5) - 0.08, 0.4, rows), 2.0, 11.0).round(3)
    columns: dict[str, Any] = {
        "id": pa.array([f"MSP-PODCAST_{row // 100:06d}_{row % 100:04d}" for row in range(rows)]),
        "label": pa.array(np.array(LABELS)[rng.integers(4, size=rows)]),
        "speaker": pa.array([f"speaker {each}" for each in speaker]),
        "gender": np.array(["female", "male"])[speaker % 2],
        "recording": pa.array([f"podcast {each}" for each in recording]),
        "session": pa.array([f"podcast {each}" for each in recording]),
        "start": start,
        "end": start + seconds,
        "seconds": seconds,
        "split": split,
        **{name: rng.uniform(1, 7, rows).round(6) for name in DIMENSIONS},
    }
    parquet.write_table(pa.table(columns), path)


def measure(path: str, *, parts: bool) -> dict[str, float]:
    """Seconds of a processor that each step takes, and the most memory, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    profile = cProfile.Profile()
    if parts:
        profile.enable()
    corpus = Rows(path)
    took = {}
    start = time.process_time()
    corpus.setup("fit")
    took["splits"] = time.process_time() - start
    start = time.process_time()
    facts = corpus.facts()
    took["facts"] = time.process_time() - start
    start = time.process_time()
    plan = corpus.plan_batches("train", shuffle=True)
    batches = list(plan)
    took["plan"] = time.process_time() - start
    start = time.process_time()
    plan.set_epoch(1)
    again = list(plan)
    took["again"] = time.process_time() - start
    assert len(batches) == len(again)
    assert not facts["brands"], facts["brands"]
    if parts:
        profile.disable()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(each["utterances"] for each in facts["splits"].values())
    return {"rows": rows, **took, "before": before / 1024, "most": after / 1024}


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[267_905, 2_700_000])
    parser.add_argument("--parts", action="store_true", help="print where the seconds go")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, parts=options.parts)))
        return
    print(f"goal: {GOAL}")
    print(
        f"{'rows':>12}{'splits s':>10}{'facts s':>10}{'plan s':>10}{'next plan s':>12}{'us a row':>10}"
        f"{'most MiB':>10}{'bytes a row':>12}"
    )
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            make(path, rows)
            command = [sys.executable, "-m", "benchmarks.table_scale", "--measure", str(path)]
            words = [*command, *(["--parts"] if options.parts else [])]
            ran = subprocess.run(words, check=True, stdout=subprocess.PIPE)
        found = json.loads(ran.stdout)
        total = sum(found[name] for name in ("splits", "facts", "plan", "again"))
        print(
            f"{rows:>12,}{found['splits']:>10.1f}{found['facts']:>10.1f}{found['plan']:>10.1f}"
            f"{found['again']:>12.1f}{total / rows * 1e6:>10.1f}{found['most']:>10,.0f}"
            f"{(found['most'] - found['before']) * MIB / rows:>12,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
