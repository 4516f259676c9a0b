"""Builds that are killed, and builds side by side, each in a process of its own.

`main` writes found.json, which says what came of them. It runs in a process that has computed nothing, and
each build is a fork of that.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from ser_strategies.cache import build as building
from ser_strategies.cache.training import fill
from tests.cache.conftest import ALONE, contents, lively, noise, several, sounds_of, stamps, store_of

SHARD_BYTES = 5_000
POINTS = 6


def build(root: Path) -> None:
    """What `fit` does before it trains, on twenty clips."""
    building.SHARD_BYTES = SHARD_BYTES
    encoder = lively("wav2vec2-tiny")
    waves = [noise(length, length) for length in several(20, shortest=1_500, longest=4_000)]
    fill(store_of(root, encoder, 2), encoder, sounds_of(waves), ALONE)


def started(act: Callable[[], None]) -> int:
    """A process that does something."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return child


def ended(child: int) -> int:
    """0, the code it ended with, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(root: Path, finished: int, delay: float) -> int:
    """A build that is killed `delay` seconds after it has finished some shards, wherever it is by then."""

    def kill() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def act() -> None:
        count, real = 0, Path.replace

        def replace(path: Path, target: Any) -> Path:
            nonlocal count
            found = real(path, target)
            count += target.suffix == ".safetensors"
            if count == finished and target.suffix == ".safetensors":
                Thread(target=kill, daemon=True).start()
            return found

        Path.replace = replace  # type: ignore[assignment,method-assign]
        if not finished:
            Thread(target=kill, daemon=True).start()
        build(root)

    return ended(started(act))


def dies_within_a_write(root: Path, moment: str) -> int:
    """Kills a build in its third shard: with all bytes written, or just before it gets its name."""

    def act() -> None:
        count = 0
        real_sync, real_replace = os.fsync, Path.replace

        def die_at_the_third(here: str) -> None:
            nonlocal count
            if here == moment:
                count += 1
                if count == 3:
                    os.kill(os.getpid(), signal.SIGKILL)

        def sync(file: int) -> None:
            if ".safetensors." in Path(f"/proc/self/fd/{file}").readlink().name:
                die_at_the_third("sync")
            real_sync(file)

        def replace(path: Path, target: Any) -> Path:
            if target.suffix == ".safetensors":
                die_at_the_third("replace")
            return real_replace(path, target)

        os.fsync, Path.replace = sync, replace  # type: ignore[assignment,method-assign]
        build(root)

    return ended(started(act))


def after_a_kill(root: Path, ending: int) -> dict[str, Any]:
    """What a killed build left, and what came of going on."""
    (folder,) = root.iterdir() if root.exists() else (None,)
    done = stamps(root)
    left = [] if folder is None else [path.name for path in folder.iterdir() if path.suffix == ".partial"]
    resumed = ended(started(lambda: build(root)))
    (folder,) = root.iterdir()
    again = stamps(root)
    return {
        "ending": ending,
        "finished": len(done),
        "left": len(left),
        "resumed": resumed,
        "rewritten": [name for name, stamp in done.items() if again[name] != stamp],
        "contents": contents(folder),
    }


def main(place: Path) -> None:
    """Kills at six random moments, and twice in the middle of a write; then builds three times at once."""
    draw = random.Random(0)
    undisturbed = after_a_kill(place / "undisturbed", 0)
    written = sorted(stamp for _, stamp in stamps(place / "undisturbed").values())
    pace = (written[-1] - written[0]) / (len(written) - 1) / 1e9
    found: dict[str, Any] = {"undisturbed": undisturbed, "killed": [], "within": {}}
    for point in range(POINTS):
        root = place / f"killed{point}"
        ending = killed_after(root, point * len(written) // POINTS, draw.random() * pace)
        found["killed"].append(after_a_kill(root, ending))
    for moment in ("sync", "replace"):
        root = place / moment
        found["within"][moment] = after_a_kill(root, dies_within_a_write(root, moment))
    both = [started(lambda: build(place / "together")) for _ in range(3)]
    found["ended"] = [ended(child) for child in both]
    (folder,) = (place / "together").iterdir()
    found["together"] = contents(folder)
    (place / "found.json").write_text(json.dumps(found))
