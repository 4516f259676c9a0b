"""Faults by injection: each command is stopped at a file it is about to touch, then given again.

    python -m benchmarks.faults [--commands fit predict] [--kinds killed full unreadable] [--points 100]
    python -m benchmarks.faults --soak 30

A command runs once undisturbed, and the times it opens, writes, renames, makes or deletes a file in its
folder are counted, in all of its processes. Then it is stopped at these points, all or evenly chosen ones:
killed as by the system (`killed`), its disk full from there on, with half of what it wrote (`full`), or one
file or folder not to be read (`unreadable`). Whatever comes of that, the same command given once more, an
hour later, must end well, with the scores and the files of the undisturbed run. A fault that is no kill must
be told in a sentence, or change nothing. What a kill leaves is a copy of the folder at that moment, so that
one run has all of them; points that leave the same are tried once.

`--soak` gives random commands with random faults to one folder for so many minutes (`soak.py`).
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faulted import COMMANDS, Command, fresh, prepare, run, verdict
from benchmarks.injected import KINDS, Fault
from benchmarks.soak import soak
from tests.programs import Ended


class Tried:
    """The faults of one command and kind, in a folder of its own.

    Args:
        root: Where folders are made; `ready` is there, what the command begins with.
        command: The command.
        kind: What goes wrong.
    """

    def __init__(self, root: Path, command: Command, kind: str) -> None:
        self.root, self.command, self.kind = root, command, kind
        self.whole, self.place, self.kept = root / "whole", root / "place", root / "kept"
        shutil.rmtree(self.kept, ignore_errors=True)
        self.kept.mkdir()
        fresh(root / "ready", self.place)
        kept = str(self.kept) if kind == "killed" else ""
        ended, self.points = self._disturbed(0, kept)
        assert ended.code == 0, ended.err
        shutil.rmtree(self.whole, ignore_errors=True)
        self.place.rename(self.whole)

    def faults(self, points: int) -> Iterator[tuple[int, str]]:
        """Each point that is tried, and what went wrong."""
        if self.kind == "killed":
            left = sorted(self.kept.iterdir())
            for each in chosen(left, points):
                fresh(each, self.place)
                yield int(each.name[:5]), verdict("killed", None, self.place, self.command, self.whole)
            return
        for point in chosen(range(1, self.points + 1), points):
            fresh(self.root / "ready", self.place)
            ended, _ = self._disturbed(point)
            yield point, verdict(self.kind, ended, self.place, self.command, self.whole)

    def _disturbed(self, at: int, kept: str = "") -> tuple[Ended, int]:
        count = self.root / "points"
        count.unlink(missing_ok=True)
        ended = run(self.place, self.command.words, Fault(str(self.place), self.kind, at, str(count), kept))
        return ended, count.stat().st_size if count.exists() else 0


def chosen(all_of_them: Sequence[Any], points: int) -> list[Any]:
    """So many of them, evenly."""
    last = len(all_of_them) - 1
    places = sorted({round(k * last / max(points - 1, 1)) for k in range(points)})
    return [all_of_them[place] for place in places if 0 <= place <= last]


def examine(name: str, kinds: Sequence[str], points: int, out: Callable[[str], None]) -> int:
    """All faults of one command; how many ended badly."""
    bad = 0
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        prepare(root / "ready", COMMANDS[name])
        for kind in kinds:
            tried, ended = Tried(root, COMMANDS[name], kind), Counter[str]()
            for point, wrong in tried.faults(points):
                ended["badly" if wrong else "well"] += 1
                if wrong:
                    out(f"  {name}, {kind} at {point} of {tried.points}: {wrong}")
            states = f", {len(list(tried.kept.iterdir()))} different" if kind == "killed" else ""
            out(f"| {name} | {kind} | {tried.points}{states} | {sum(ended.values())} | {ended['badly']} |")
            bad += ended["badly"]
    return bad


def main() -> int:
    """Prints a line for each command and kind of fault, and what ended badly; the exit code tells of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--seed", type=int, default=0, help="of the soak")
    asked = parser.parse_args()
    show = partial(print, flush=True)
    if asked.soak is not None:
        counts = soak(asked.soak, asked.seed, show)
        show(json.dumps(counts, indent=2))
        return int(bool(counts["wrong"]))
    show("| command | fault | points | tried | ended badly |\n|---|---|---|---|---|")
    return min(sum(examine(name, asked.kinds, asked.points, show) for name in asked.commands), 1)


if __name__ == "__main__":
    sys.exit(main())
