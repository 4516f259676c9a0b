"""What runs on engines in tests: runs that are no trainings, and a corpus that ends those that are."""

import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ser_strategies.cli import main as front
from ser_strategies.common.files import write_json
from ser_strategies.comparison.ledger import write_cell
from ser_strategies.data.corpus import Corpus
from ser_strategies.runs.cell import FINISHED, RUNNING, Ended
from ser_strategies.runs.grid import GridWork, done
from ser_strategies.runs.order import Order, attempt_at
from ser_strategies.runs.plan import Cell, Step

# A small training, which is the same wherever it is.
TRAINED = (
    *("compare", "--strategies", "frozen", "--data=Synthetic", "--data.speakers=10"),
    *("--data.utterances_per_speaker=4", "--epochs=1", "--trainer.accelerator=cpu", "--out=out"),
)
# What a ledger tells of the machine and of times, and the checksums of that.
OF_MACHINE = re.compile(
    r"(?!audio_seconds$|.*flops).*(seconds|per_second|_ms_|memory).*|started|updated|commands|checksum"
)


def tiny(name, seed=0, seconds=0.0):
    """A cell whose run sleeps."""
    folder = Path("out/cells") / f"{name}-{seed}"
    model = {"class_path": "Vanilla", "init_args": {"seconds": seconds}}
    config = {"model": model, "trainer": {"max_epochs": 1}, "data": {}}
    names = {
        "stage": "run",
        "fold": None,
        "seed": seed,
        "folder": folder,
        "config": config,
        "portable": config,
    }
    step = Step(**names, inputs={}, sources=frozenset(), wanted=(), scores=True, late_data=False)
    return Cell(name, None, seed, folder, (step,), f"{name}-{seed}", name)


def sleep(order, lease, place):
    """A run: tells when it begins and ends, and who is at it beside it."""
    cell = order.cell
    mark = cell.folder / "at-work"
    told("begins", cell)
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        who = int(mark.read_text() or 0)
        if who and Path(f"/proc/{who}").exists():
            told("twice", cell)
    mark.write_text(str(os.getpid()))
    write_cell(cell.folder, {**cell.facts, "status": RUNNING})
    ends = time.monotonic() + cell.steps[-1].config["model"]["init_args"]["seconds"]
    try:
        while (
            time.monotonic() < ends
        ):  # in steps, since an engine interrupts Python, not what Python waits for
            time.sleep(0.1)
    finally:
        mark.unlink()
    for name in ("fit.json", "test.json", "costs.json"):
        write_json(cell.folder / name, {})
    pd.DataFrame({"id": ["a"]}).to_parquet(cell.folder / "test.parquet")
    lease.check()
    write_cell(cell.folder, {**cell.facts, "status": FINISHED, "started": f"{time.time()}"})
    told("ends", cell)
    return Ended(FINISHED)


def told(what, cell):
    with Path("out/told").open("a") as file:  # a line is one write
        file.write(f"{what} {cell.hash}\n")


def what_was_told(what):
    lines = Path("out/told").read_text().splitlines() if Path("out/told").exists() else []
    return sorted(line.split()[1] for line in lines if line.startswith(what))


class Quiet:
    """Watches a grid, and says nothing."""

    def __init__(self):
        self.where = {}

    def started(self, cell, where):
        self.where[cell.hash] = where

    def ended(self, cell, how, seconds):
        pass

    def left(self, cell):
        pass


def grid_of(cells, executor, act=sleep):
    """A grid of what is left of these cells."""
    todo = [cell for cell in cells if not done(cell, retry=False)]
    orders = [(Order(cell, str(Path.cwd()), attempt_at(cell), act=act), executor.needs) for cell in todo]
    return GridWork(orders, executor, Quiet(), cells)


def ledger(out="out"):
    """All that a comparison and its runs tell, by name of file, but for the machine and times."""
    facts = [Path(out, "comparison.json"), *Path(out, "cells").glob("*/*.json")]
    told = {path: json.loads(path.read_text()) for path in facts}
    texts = [*Path(out).rglob("*.yaml"), *Path(out).rglob("metrics.csv")]
    told |= {path: path.read_text() for path in texts}
    told |= {path: pd.read_parquet(path).to_dict() for path in Path(out).rglob("*.parquet")}
    return {
        str(path.relative_to(out)): without_machine(content)
        for path, content in told.items()
        if path.name not in {"environment.json", "checksums.json"}
    }


def without_machine(content):
    if isinstance(content, dict):
        return {
            key: without_machine(each) for key, each in content.items() if not OF_MACHINE.fullmatch(str(key))
        }
    return [without_machine(each) for each in content] if isinstance(content, list) else content


def ledger_here(*words):
    """The ledger of `TRAINED` on this machine."""
    Path("here").mkdir()
    with contextlib.chdir("here"):
        front([*TRAINED, *words])
        return ledger()


class Faulty(Corpus):
    """Noise, until a sound is read.

    Args:
        how: What happens then: hangs, dies or eats; or stalls, which it does in the second epoch.
        order_seed: Of the order of training.
    """

    dimensions = ()

    def __init__(self, *, how: str = "hangs", order_seed: int = 0) -> None:
        super().__init__(batch_size=4, order_seed=order_seed)
        self.labels, self.how, self.heard = ("anger", "neutral"), how, 0

    def table(self):
        return pd.DataFrame(
            [
                {"id": f"{split}_{index}", "split": split, "seconds": 0.5, "label": self.labels[index % 2]}
                for split in ("train", "val", "test")
                for index in range(4)
            ]
        )

    def waveform(self, utterance):
        self.heard += utterance["id"].startswith("train")
        if self.how == "stalls" and self.heard <= 4:
            return np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        held = [np.ones(2**27, np.uint8) for _ in range(24)] if self.how == "eats" else []
        time.sleep(600)
        return np.zeros(8000, np.float32), held


def main(engine, names, seconds):
    """A command that gives a grid to an engine."""
    from ser_strategies.runs.engines import engine as made

    grid_of([tiny(name, 0, float(seconds)) for name in names.split(",")], made(engine, [])).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
