"""Runs of a comparison as job arrays of SLURM, which outlive the command; imported on request."""

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ser_strategies.common.errors import MistypedError
from ser_strategies.common.files import write_text
from ser_strategies.comparison.ledger_cell import CELL, read_json
from ser_strategies.runs.cell import FAILED, FINISHED, Ended
from ser_strategies.runs.executors import CellExecutor, EngineError, Needs, Work
from ser_strategies.runs.order import Done, Order, Place, attempt_at
from ser_strategies.runs.plan import Cell
from ser_strategies.runs.processes import Processes, ended_by_sigterm

# In the folder of a run, the number of its job; in that of the comparison, what the jobs said.
JOB, LOGS = ".slurm", "slurm"
# Seconds between two looks at the queue, and before the end of its time in which a run ends in order.
LOOK, WARNING = 5.0, 90
# Seconds that SLURM has for an answer.
ANSWER = 60
LIMIT = re.compile(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):[0-9]+")  # days-hours:minutes:seconds
STATE = re.compile(r"JobState=(\S+)")
# Lightning takes a job of this name for a terminal, and leaves signals and requeueing to us.
AS_AT_A_TERMINAL = {"SLURM_JOB_NAME": "bash"}


class SlurmExecutor(CellExecutor):
    """Runs as job arrays of SLURM, on whose nodes the folder of the comparison is.

    Args:
        partition: That of SLURM's choice if None.
        time: Minutes of each job; a run that takes longer goes on in another, from its last epoch.
        cores: Of each run.
        gpus: Of each run, a whole number.
        memory: Gigabytes of each run; one that takes more has failed.
        at_once: Jobs of an array that may run at the same time.
        requeues: How often a run may go on in another job because its time was over.
        account: Whom to charge.
        qos: Quality of service.
    """

    lasting = True

    def __init__(
        self,
        *,
        partition: str | None = None,
        time: int = 240,
        cores: int = 1,
        gpus: int = 0,
        memory: float | None = None,
        at_once: int = 256,
        requeues: int = 10,
        account: str | None = None,
        qos: str | None = None,
    ) -> None:
        for name, value, least in (("time", time, 1), ("at_once", at_once, 1), ("requeues", requeues, 0)):
            if value < least:
                msg = f"{name} must be {least} or more, got {value}."
                raise MistypedError(msg)
        self.needs = Needs(cores, gpus, memory)
        self.time, self.at_once, self.requeues = time, at_once, requeues
        self._common = {"partition": partition, "account": account, "qos": qos}
        self._submitit = _submitit()
        self._waiting: list[_Task] = []
        self._jobs: dict[str, _Task] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def check(self, out: Path, needs: Sequence[Needs]) -> None:
        """Raises ValueError where SLURM is not there, or would not take such jobs; it is asked."""
        for program in ("sbatch", "squeue", "srun"):
            if shutil.which(program) is None:
                msg = f"there is no SLURM on this machine ({program} is not found): log in where there is."
                raise ValueError(msg)
        for each in needs:
            flags = [f"--{name}={value}" for name, value in _flags(self._parameters(each)).items()]
            answer = _ask("sbatch", "--test-only", *flags, "--wrap=true")
            if answer.returncode:
                lines = [line.rpartition("error: ")[2] for line in answer.stderr.splitlines() if line.strip()]
                reason = "; ".join(dict.fromkeys(lines)) or "no reason given"
                msg = f"SLURM would not take these runs ({reason}): see `sinfo`, and the options --slurm.…"
                raise ValueError(msg)
        most = _limit(self._common["partition"])
        if most is not None and self.time > most:
            msg = (
                f"the SLURM partition ends jobs after {most} minutes, got --slurm.time {self.time}: give "
                "that at most, since a run that takes longer goes on in another job."
            )
            raise ValueError(msg)

    def submit(  # type: ignore[override]
        self, work: Work, order: Order, /, *, needs: Needs, after: Sequence["Future[Done]"] = ()
    ) -> "Future[Done]":
        """Puts `work(order)` on the list of what `flush` submits; a job that is there already is awaited."""
        # A job that was requeued meets the lease of its earlier life.
        order = replace(order, patient=True, threads=max(1, int(needs.cores or 1)))
        task = _Task(Future(), SlurmWork(work, order), needs, tuple(after))
        self._waiting.append(task)
        return task.future

    def flush(self) -> None:
        """Submits what is on the list, an array for all that need and wait for the same."""
        waiting, self._waiting = self._waiting, []
        queued = _queue() if any((task.cell.folder / JOB).exists() for task in waiting) else {}
        arrays: dict[tuple[Needs, str], list[_Task]] = {}
        for task in waiting:
            known = _job_of(task)
            if known in queued:
                self._await({str(known): task})
                continue
            # Builders stand before those that wait for them, so that their jobs have numbers by then.
            if task.after:
                self._submit(arrays)
                arrays = {key: each for key, each in arrays.items() if not each}
            jobs = sorted(job for job, each in self._jobs.items() if each.future in task.after)
            arrays.setdefault((task.needs, "afterany:" + ":".join(jobs) if jobs else ""), []).append(task)
        self._submit(arrays)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Looks no longer; what was submitted goes on, and `scancel` ends it."""
        self._over.set()
        if self._watcher is not None and wait:
            self._watcher.join()

    def _submit(self, arrays: Mapping[tuple[Needs, str], "list[_Task]"]) -> None:
        for (needs, dependency), tasks in arrays.items():
            if not tasks:
                continue
            folder = tasks[0].cell.folder.parents[1] / LOGS
            executor = self._submitit.SlurmExecutor(folder, max_num_timeout=self.requeues)
            executor.update_parameters(
                **self._parameters(needs),
                array_parallelism=self.at_once,
                signal_delay_s=WARNING,
                stderr_to_stdout=True,
                additional_parameters={"requeue": True, **({"dependency": dependency} if dependency else {})},
            )
            jobs = executor.submit_array([task.work for task in tasks])
            found = {str(job.job_id): task for job, task in zip(jobs, tasks, strict=True)}
            for job, task in found.items():
                task.cell.folder.mkdir(parents=True, exist_ok=True)
                write_text(task.cell.folder / JOB, job)
            tasks.clear()
            self._await(found)

    def _parameters(self, needs: Needs) -> dict[str, Any]:
        named = {
            **self._common,
            "job_name": "ser-strategies",
            "time": self.time,
            "cpus_per_task": int(needs.cores or 1),
            "gres": f"gpu:{int(needs.gpus)}" if needs.gpus else None,
            "mem": f"{int(needs.memory * 1000)}MB" if needs.memory else None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _await(self, jobs: "Mapping[str, _Task]") -> None:
        with self._lock:
            self._jobs |= jobs
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="slurm", daemon=True)
            self._watcher.start()

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            try:
                queued = _queue()
            except (OSError, ValueError):  # SLURM's controller is busy or away: it will be back
                continue
            with self._lock:
                gone = {job: task for job, task in self._jobs.items() if job not in queued}
            for job, task in gone.items():
                with suppress(FileNotFoundError):
                    (task.cell.folder / JOB).unlink()
                _settle(job, task)
                with self._lock:
                    del self._jobs[job]


@dataclass(frozen=True)
class SlurmWork:
    """A run as a job: submitit calls it, and asks for what to begin again when the job's time is over."""

    work: Work
    order: Order

    def __call__(self) -> Done:
        """Does the run; SIGTERM ends it in order, so that it can be gone on with."""
        # SLURM sends its warning to all processes of a job, and it is for this one alone.
        processes = Processes(self.order.threads, deaf_to={signal.SIGUSR2})
        with ended_by_sigterm():
            return self.work(self.order, Place(processes, AS_AT_A_TERMINAL))

    def checkpoint(self) -> Any:
        """The same again: what there is of it is in its folder."""
        return _submitit().helpers.DelayedSubmission(self)


class _Task(NamedTuple):
    """A run that is to be submitted, or has been."""

    future: "Future[Done]"
    work: SlurmWork
    needs: Needs
    after: tuple["Future[Done]", ...]

    @property
    def cell(self) -> Cell:
        return self.work.order.cell


def _settle(job: str, task: _Task) -> None:
    """Gives the future of a job that is no longer in the queue what became of it."""
    now = attempt_at(task.cell)
    if now.status in {FINISHED, FAILED} and now != task.work.order.before:
        facts = read_json(task.cell.folder / CELL, missing={})
        task.future.set_result(Done(Ended(str(now.status), facts.get("error")), facts.get("seconds") or 0.0))
        return
    answer = _ask("scontrol", "show", "job", job)
    found = STATE.search(answer.stdout)
    state = found[1] if found else "unknown"
    logs = task.cell.folder.parents[1] / LOGS
    msg = f"its SLURM job {job} is gone, in the state {state}; see {logs}/{job}_0_log.out"
    task.future.set_exception(EngineError(msg))


def _limit(partition: str | None) -> int | None:
    """The minutes that a job may take there; None where there is no limit, or it is not told."""
    answer = _ask(
        "sinfo", "--noheader", "--format=%P %l", *([f"--partition={partition}"] if partition else [])
    )
    for line in answer.stdout.splitlines():
        name, _, limit = line.strip().partition(" ")
        if (partition or name.endswith("*")) and (found := LIMIT.fullmatch(limit)):
            days, hours, minutes = (int(each or 0) for each in found.groups())
            return (24 * days + hours) * 60 + minutes
    return None


def _job_of(task: _Task) -> str | None:
    try:
        return (task.cell.folder / JOB).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _queue() -> dict[str, str]:
    """The states of this user's jobs that are not over, by number."""
    answer = _ask("squeue", "--me", "--noheader", "--array", "--format=%i %T")
    if answer.returncode:
        raise ValueError(answer.stderr)
    return {line.split()[0]: line.split()[1] for line in answer.stdout.splitlines() if line.strip()}


def _ask(*words: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=ANSWER, check=False)
    except subprocess.TimeoutExpired as error:
        msg = f"SLURM does not answer `{' '.join(words[:2])}`: see whether its controller is up with `sinfo`."
        raise ValueError(msg) from error


def _flags(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in parameters.items()}


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        msg = 'submitit is not installed: pip install "ser-strategies[slurm]"'
        raise MistypedError(msg) from error
    return submitit
