"""A comparison on a SLURM cluster: several jobs work on one grid, and share it out among themselves.

    pip install "ser-strategies[slurm]"
    python examples/slurm.py --jobs 8 --partition gpu --gpus 1 --hours 12 -- \
        examples/vanilla.yaml examples/lora.yaml --data CREMAD --data.root ~/CREMA-D --folds all --seeds 5 \
        --out runs/crema

Every job runs the same `ser-strategies compare`, in a folder that all of them see, and takes runs that no
other has taken. One that is ended by the scheduler leaves the rest to the others, or to the next submission
of the same command. `--cluster local` tries it out on this machine.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import submitit


def compare(words: list[str]) -> int:
    """What a job does."""
    return subprocess.run([sys.executable, "-m", "ser_strategies", "compare", *words], check=False).returncode


def main() -> None:
    """Submits the jobs, waits for them, and writes the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4, help="jobs that share the grid")
    parser.add_argument(
        "--cluster", default=None, help="slurm, or local to try it out; default: what is here"
    )
    parser.add_argument("--partition", default=None)
    parser.add_argument("--gpus", type=int, default=1, help="of each job")
    parser.add_argument("--cores", type=int, default=8, help="of each job")
    parser.add_argument("--hours", type=float, default=24.0, help="limit of each job")
    parser.add_argument("--logs", default="runs/slurm", help="folder of the jobs' logs")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="-- and the words of `compare`")
    options = parser.parse_args()
    words = [word for word in options.words if word != "--"]
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    shared.add_argument("--out")
    out = shared.parse_known_args(words)[0].out
    if out is None:
        parser.error("name the folder that all jobs see: -- ... --out runs/mine")
    executor = submitit.AutoExecutor(folder=options.logs, cluster=options.cluster)
    executor.update_parameters(
        name="compare",
        timeout_min=int(60 * options.hours),
        gpus_per_node=options.gpus,
        cpus_per_task=options.cores,
    )
    if executor.cluster == "slurm" and options.partition:
        executor.update_parameters(slurm_partition=options.partition)
    jobs = [executor.submit(compare, words) for _ in range(options.jobs)]
    print(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {Path(options.logs).resolve()}")
    codes = [job.result() for job in jobs]
    sys.exit(compare(["--report", out]) or max(codes))


if __name__ == "__main__":
    main()
