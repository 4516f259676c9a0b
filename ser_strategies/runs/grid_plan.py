"""The plan of a comparison: every strategy on every fold with every seed, each named by what it would do."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ser_strategies.common.errors import MistypedError
from ser_strategies.comparison.ledger import CELLS
from ser_strategies.comparison.stats.clusters import counted
from ser_strategies.runs.arms import Arm, find_arms
from ser_strategies.runs.chain_plan import Step, numbered_words, resolve_numbered, steps_of
from ser_strategies.runs.configuration import Stage, about
from ser_strategies.runs.data_prints import DataPrint, DataPrints
from ser_strategies.runs.grid_arguments import Wishes
from ser_strategies.runs.hashes import hash_of
from ser_strategies.runs.links import Link, find_links, moved, real, texts
from ser_strategies.runs.stamp import without_ignored

ONLY_STAGE = "run"
CACHES = "cache"
QUIET = ("--trainer.enable_progress_bar=false",)


@dataclass(frozen=True)
class Cell:
    """A strategy on a fold with a seed.

    Args:
        hash: Equal for what would do the same.
        kind: Equal for the same strategy with the same options, on whatever fold with whatever seed.
        name: What the strategy is called.
        strategy: Its class; of a chain those of its stages.
        fold: The fold; None where the corpus has none.
        seed: The seed.
        mode: What the fine-tuning may spend, in words.
        folder: Where it goes.
        steps: Its stages.
        cache: The folder of the cache that it shares with others; None if it uses none.
    """

    hash: str
    kind: str
    name: str
    strategy: str
    fold: int | None
    seed: int
    mode: str
    folder: Path
    steps: tuple[Step, ...]
    cache: str | None

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.name}{fold}, seed {self.seed}"

    @property
    def facts(self) -> dict[str, Any]:
        """What its cell.json says of it before it is run."""
        return {
            "name": self.name,
            "strategy": self.strategy,
            "fold": self.fold,
            "seed": self.seed,
            "mode": self.mode,
            "stages": [str(step.folder.relative_to(self.folder)) for step in self.steps],
        }


def plan(wishes: Wishes, prints: DataPrints) -> list[Cell]:
    """All cells; those with the same seed and fold stand together, so that the table fills evenly.

    Args:
        wishes: What is asked for.
        prints: Remembers the corpora that it reads.

    Raises:
        ValueError: Something of it could not be run, compared or told apart.
    """
    arms = find_arms(wishes)
    found: list[list[Cell]] = []
    for arm in arms:
        resolved = _Resolved(arm, wishes, prints)
        found.append([resolved.cell(fold, seed) for seed in wishes.seeds for fold in resolved.folds])
    known: dict[str, str] = {}
    for cells in found:
        other = known.setdefault(cells[0].hash, cells[0].name)
        if other != cells[0].name:
            msg = (
                f"{other} and {cells[0].name} are the same in all that matters: leave one out, or change it."
            )
            raise MistypedError(msg)
    cells = [cell for each in found for cell in each]
    order = {arm.name: index for index, arm in enumerate(arms)}
    return sorted(cells, key=lambda cell: (wishes.seeds.index(cell.seed), cell.fold or 0, order[cell.name]))


class _Resolved:
    """A strategy whose words are understood.

    Args:
        arm: The strategy.
        wishes: What is asked for.
        prints: Remembers corpora.
    """

    def __init__(self, arm: Arm, wishes: Wishes, prints: DataPrints) -> None:
        self.arm, self.wishes, self.prints = arm, wishes, prints
        folds = wishes.folds
        first = folds[0] if isinstance(folds, tuple) else None
        self.stages = [self._stage(index, first) for index in range(len(arm.stages))]
        self.links: dict[str, list[Link]] = find_links(self.stages) if len(self.stages) > 1 else {}
        last = self.stages[-1]
        if not last.recognizes:
            msg = (
                f"{arm.name}: {_kind(last.config)} predicts no emotion, so it has no score: let a "
                "fine-tuning follow, in the folder of a chain."
            )
            raise MistypedError(msg)
        facts = self._look(last.config)
        if not facts.has_test:
            msg = f"{arm.name}: {facts.task} has no test split, on which strategies are compared."
            raise ValueError(msg)
        self.folds: Sequence[int | None] = folds if isinstance(folds, tuple) else (None,)
        if folds == "all" and facts.folds > 1:
            self.folds = tuple(range(1, facts.folds + 1))

    def cell(self, fold: int | None, seed: int) -> Cell:
        """The strategy on a fold with a seed.

        Args:
            fold: The fold; None leaves it to the configuration.
            seed: The seed.
        """
        digest = self._hash(fold, seed)
        folder = self.wishes.out / CELLS / digest
        steps = self._steps(folder, fold, seed)
        init = steps[-1].config["data"].get("init_args", {})
        model = steps[-1].config["model"]["init_args"]
        return Cell(
            hash=digest,
            kind=_digest([self._kind(step) for step in steps]),
            name=self.arm.name,
            strategy=" → ".join(_kind(step.config) for step in steps),
            fold=init.get("fold"),
            seed=seed,
            mode=mode_of(steps[-1].config),
            folder=folder,
            steps=steps,
            cache=model.get("cache"),
        )

    def _stage(self, index: int, fold: int | None) -> Stage:
        name, words = self.arm.stages[index]
        label = f"{self.arm.name}/{name}" if name else self.arm.name
        default = self.arm.default / name
        numbered = numbered_words(fold, self.wishes.seeds[0])
        stage = resolve_numbered(label, [*words, *QUIET, *numbered], default, fold, "--folds")
        stage = Stage(name or ONLY_STAGE, stage.config, stage.said, stage.recognizes)
        options = stage.config["model"]["init_args"]
        named = [word.split("=")[0] for word in words if word.startswith("--")]
        if "cache" in options and not any(word.endswith(".cache") for word in named):
            # Its own, so that what it costs to build is seen, and not what another run has left.
            options["cache"] = str(self.wishes.out / CACHES)
        return stage

    def _steps(self, folder: Path, fold: int | None, seed: int) -> tuple[Step, ...]:
        if len(self.stages) > 1:
            folders = {stage.name: folder / stage.name for stage in self.stages}
            return tuple(steps_of(self.stages, self.links, folders, fold, seed))
        # Alone, it takes nothing from itself: only what its trainer writes moves with its folder.
        (stage,) = self.stages
        nowhere = replace(stage, said=folder / ONLY_STAGE)
        (step,) = steps_of([nowhere], {stage.name: []}, {stage.name: folder}, fold, seed)
        if not Path.cwd().resolve().is_relative_to(real(stage.said)):
            trainer = moved(step.config["trainer"], {real(stage.said): str(folder)})
            step = replace(step, config={**step.config, "trainer": trainer})
        return (step,)

    def _hash(self, fold: int | None, seed: int) -> str:
        """Of configurations as far as they matter, what they start from, and who is in which split."""
        cache = {real(self.wishes.out / CACHES): "<cache>"}
        facts = []
        for step in self._steps(self.wishes.out / CELLS / "any", fold, seed):
            data = None if step.late_data else self._look(step.config).as_dict()
            config = moved(without_ignored(step.portable), cache)
            facts.append({"configuration": config, "data": data, "files": _files(step)})
        return _digest(facts)

    def _kind(self, step: Step) -> dict[str, Any]:
        """What a stage does whatever the fold and the seed, and from what."""
        places = {real(self.wishes.out / CACHES): "<cache>"}
        config: dict[str, Any] = moved(without_ignored(step.portable), places)
        config.pop("seed_everything")
        options = config["data"].get("init_args", {})
        for name in ("fold", "order_seed"):
            options.pop(name, None)
        found = None if step.late_data else self._look(step.config)
        # Which sounds are used is the same for all folds, unless labels are drawn for each seed.
        sounds = found.sounds if found and options.get("train_share", 1) == 1 else None
        return {
            "configuration": config,
            "files": _files(step),
            "labels": found.labels if found else None,
            "sounds": sounds,
        }

    def _look(self, config: dict[str, Any]) -> DataPrint:
        with about(self.arm.name):
            return self.prints.take(config["data"])


def mode_of(config: dict[str, Any]) -> str:
    """What a fine-tuning may spend, in words; strategies with different ones are not put in one table.

    Args:
        config: Its configuration.
    """
    trainer = config["trainer"]
    steps, epochs, time = (trainer.get(name) for name in ("max_steps", "max_epochs", "max_time"))
    limits = []
    if time is not None:
        limits.append(f"{time} (d:h:m:s)" if isinstance(time, str) else f"{time}")
    if steps is not None and steps >= 0:
        limits.append(counted(steps, "step"))
    if epochs is not None and epochs >= 0:
        limits.append(counted(epochs, "epoch"))
    words = " or ".join(limits) or "no limit"
    patience = config.get("patience")
    return words if patience is None else f"{words}, stopped after {patience} validations without a better"


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _files(step: Step) -> dict[str, str]:
    """A hash of each file or folder that a model is made from: another under the same name is another."""
    named = {option: text for option, text in texts(step.config["model"]["init_args"]) if option != "cache"}
    inner = {str(path) for path in step.inputs.values()}
    paths = {option: Path(text).expanduser() for option, text in named.items() if text and text not in inner}
    return {option: hash_of(path) for option, path in paths.items() if path.exists()}


def _kind(config: dict[str, Any]) -> str:
    return str(config["model"]["class_path"]).rpartition(".")[2]
