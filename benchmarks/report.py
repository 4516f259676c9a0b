"""How long the report of a large comparison takes, and how much memory: 1,015 runs, by default.

    python -m benchmarks.report [--seeds 29] [--folds 5] [--speakers 10] [--utterances 553]

The ledger is made up, of the size of IEMOCAP's: seven strategies on five folds with 29 seeds, each run
with 1,106 predictions. What is timed is `ser-strategies compare --report` as a process of its own,
start-up included; beside it a report of one seed in the same run.
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.comparison.conftest import ARMS, build


def main() -> None:
    """Prints one row for each number of runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("seeds", 29), ("folds", 5), ("speakers", 10), ("utterances", 553)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{'runs':>6}{'predictions':>13}{'seconds':>9}{'peak MiB':>10}")
    for seeds in (1, options.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = build(
                Path(place) / "runs",
                seeds=seeds,
                folds=options.folds,
                speakers=options.speakers,
                utterances=options.utterances,
                failed=None,
            )
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "ser_strategies", "compare", "--report", str(folder)],
                stdout=subprocess.DEVNULL,
                check=True,
            )
            seconds = time.perf_counter() - started
        runs = len(ARMS) * options.folds * seeds
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # the largest child so far
        rows = len(ARMS) * options.speakers * options.utterances * seeds
        print(f"{runs:>6,}{rows:>13,}{seconds:>9.1f}{peak:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
