"""What is claimed of speed and memory, in one go: every ratio against its baseline in the same run.

    python -m benchmarks            a quick look with small encoders, in under five minutes; `make bench`
    python -m benchmarks --full     with encoders of base size, as in benchmarks/results: more than an hour

Ratios are stated so that more is better, but for the bare loop, growth and start-up, where 1 is the
aim. The quick look shows that all of it works and where it stands; a tiny encoder on a busy machine is
not what the results are quoted from.
"""

import argparse
import subprocess
import sys
import time

QUICK = (
    "benchmarks.trainer_baseline --encoder random:wav2vec2-tiny --steps 8",
    "benchmarks.bare_loop --encoders random:wav2vec2-tiny",
    "benchmarks.wavlm_attention --what layer --layer_steps 3",
    "benchmarks.seed_claim --encoder random:wav2vec2-tiny --steps 8",
    "benchmarks.growth --minutes 3",
    "benchmarks.startup --repeats 2",
    "benchmarks.gpu --self_test",
)
FULL = (
    "benchmarks.trainer_baseline",
    "benchmarks.bare_loop",
    "benchmarks.wavlm_attention",
    "benchmarks.seed_claim",
    "benchmarks.fast_paths",
    "benchmarks.floor",
    "benchmarks.recompute",
    "benchmarks.growth",
    "benchmarks.startup",
    "benchmarks.estimate",
    "benchmarks.cached",
)


def main() -> None:
    """Runs one after the other; ends with the first exit code that is not zero."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="base-sized encoders")
    options = parser.parse_args()
    started, failed = time.perf_counter(), 0
    for words in FULL if options.full else QUICK:
        print(f"\n== python -m {words}", flush=True)
        ended = subprocess.run([sys.executable, "-m", *words.split()], check=False)
        failed = failed or ended.returncode
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    sys.exit(failed)


if __name__ == "__main__":
    main()
