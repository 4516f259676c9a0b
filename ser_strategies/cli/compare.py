"""`compare`: strategies on the same folds with the same seeds, and a report of accuracy against cost."""

from importlib import import_module

from ser_strategies.common.compatibility import check_torch
from ser_strategies.runs.grid_arguments import read_words


def run(command: str, arguments: list[str]) -> None:
    """Runs a grid and reports it; exits with 1 where a run has failed.

    Args:
        command: compare.
        arguments: The words after it.
    """
    wishes = read_words(command, arguments)
    # A report needs neither torch nor Lightning, which take seconds and much memory to import.
    if not wishes.report:
        print(f"planning the comparison in {wishes.out} (loading torch takes some seconds) ...", flush=True)
        check_torch()
    part = import_module(f"ser_strategies.runs.{'reporting' if wishes.report else 'work'}")
    part.perform(wishes)
