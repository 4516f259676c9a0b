"""Processes of runs, started and awaited from several threads at once."""

from concurrent.futures import ThreadPoolExecutor

from ser_strategies.runs.processes import Processes


def test_every_thread_learns_how_its_own_process_has_ended(tmp_path):
    """Starting one asks for the exit codes of all: short runs on several threads meet there."""
    processes = Processes(threads=1)

    def work(number: int) -> list[int]:
        words = ["--version"] if number % 2 else ["no-such-command"]
        return [processes.run(words, tmp_path / f"{number}.txt", {}) for _ in range(12)]

    with ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(work, range(4)))
    assert codes == [[2] * 12, [0] * 12] * 2
