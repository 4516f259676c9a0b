"""What is to be done about a stage: run it, go on with it, test it, or leave it as it is; and why."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ser_strategies.runs.chain_plan import Step
from ser_strategies.runs.stamp import FINISHED, differences, read_stamp

# Gives what a stage's result depends on; it reads whole checkpoints, so it is asked only if that matters.
Facts = Callable[[], dict[str, Any]]
Action = Literal["run", "resume", "test", "skip"]
# What a run writes and a later stage, or a reader, could take for another run's.
RESULTS = ("*.ckpt", "fit.json", "val.json", "test.json")
TOLD = 3


class Decision(NamedTuple):
    """What to do, and why."""

    action: Action
    reason: str


def decide(
    step: Step,
    facts: Facts,
    *,
    overwrite: bool,
    pending: Collection[str] = (),
) -> Decision:
    """What to do about a stage.

    Args:
        step: The stage.
        facts: Gives what its result depends on.
        overwrite: Whether everything is to be run again.
        pending: Earlier stages that are still to be run, where this is only a rehearsal.

    Raises:
        FileExistsError: There is a run in its folder that is not of a chain.
    """
    if overwrite:
        return Decision("run", "--overwrite")
    stamp = read_stamp(step.folder)
    if stamp is None:
        check_foreign(step)
        return Decision("run", "it has not been run yet")
    waits = sorted(step.sources & set(pending))
    if waits:
        return Decision("run", f"it starts from {waits[0]}, unless that comes out the same as before")
    changes = differences(stamp, facts())
    if changes:
        more = f" and {len(changes) - TOLD} more" if len(changes) > TOLD else ""
        return Decision("run", f"{', '.join(changes[:TOLD])}{more}")
    results = new_results(step.folder, stamp["left_over"])
    if stamp["state"] != FINISHED and "fit.json" not in results:
        if "last.ckpt" in results:
            return Decision("resume", "it was stopped")
        return Decision("run", "it was stopped before its first checkpoint")
    needed = [*step.wanted, *(["best.ckpt"] if step.scores and "test.json" not in results else [])]
    gone = [name for name in needed if not (step.folder / name).exists()]
    if gone:
        return Decision("run", f"its {gone[0]} is gone")
    if step.scores and "test.json" not in results:
        return Decision("test", "it is trained, but not tested")
    return Decision("skip", "nothing has changed")


def check_foreign(step: Step) -> None:
    """Raises FileExistsError where a stage's folder holds a run that `run` knows nothing of.

    Args:
        step: The stage.
    """
    found = sorted(path.name for path in step.folder.glob("*.ckpt"))
    if found and read_stamp(step.folder) is None:
        msg = (
            f"{step.folder} holds a run that is not of a chain ({found[0]}, but no stage.json): give "
            f"--overwrite to replace it, or another --out."
        )
        raise FileExistsError(msg)


def results_in(folder: Path) -> dict[str, list[int]]:
    """The results in a folder, with what tells them from later ones of the same name.

    Args:
        folder: The folder of a stage.
    """
    found = sorted(path for pattern in RESULTS for path in folder.glob(pattern))
    stats = {path.name: path.stat() for path in found}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def new_results(folder: Path, left_over: dict[str, list[int]]) -> set[str]:
    """Names of the results that are not of an earlier run.

    Args:
        folder: The folder of a stage.
        left_over: What `results_in` gave when the stage was started.
    """
    return {name for name, stat in results_in(folder).items() if left_over.get(name) != stat}
