"""The plan: every arm on every fold with every seed, a cell each, and the stages that it runs through."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ser_strategies.common.errors import MistypedError, counted
from ser_strategies.comparison.ledger import CELLS, read_comparison
from ser_strategies.data.disturbance import chosen
from ser_strategies.runs.arguments import ONE, CompareArguments, Folds, RunArguments
from ser_strategies.runs.arms import Arm, chain_arm, find_arms
from ser_strategies.runs.fingerprints import (
    PLACES,
    DataPrint,
    DataPrints,
    digest,
    hash_of,
    without_ignored,
)
from ser_strategies.runs.stages import Link, Stage, about, find_links, moved, real, resolve, texts

ONLY_STAGE = "run"
CACHES = "cache"
QUIET = ("--trainer.enable_progress_bar=false",)


@dataclass(frozen=True)
class Step:
    """A stage of one fold and seed."""

    stage: str
    fold: int | None  # None leaves it to the configuration
    seed: int | None  # None leaves it to the configuration
    folder: Path
    config: dict[str, Any]  # with the hand-offs of this fold and seed
    portable: dict[str, Any]  # the same with names in place of the stages' folders, wherever those are
    # Paths taken from earlier stages, by a name that holds wherever they are.
    inputs: dict[str, Path]
    sources: frozenset[str]  # stages that it takes something from
    wanted: tuple[str, ...]  # paths that later stages take from its folder
    scores: bool  # it is to be tested
    late_data: bool  # an earlier stage makes what its corpus is read from
    robustness: tuple[str, ...] = ()  # disturbances under which it is tested too; none changes what it is

    def __str__(self) -> str:
        """The stage, and of which fold and seed."""
        named = (("fold", self.fold), ("seed", self.seed))
        words = ", ".join(f"{name} {number}" for name, number in named if number is not None)
        return f"{self.stage} ({words})" if words else self.stage

    @property
    def strategy(self) -> str:
        """The class of its strategy."""
        return str(self.config["model"]["class_path"]).rpartition(".")[2]


@dataclass(frozen=True)
class Cell:
    """An arm on a fold with a seed."""

    name: str
    fold: int | None  # None where the corpus has none, or the configuration decides
    seed: int | None  # None where the configuration decides
    folder: Path
    steps: tuple[Step, ...]
    hash: str = ""  # in a comparison, equal for what would do the same
    kind: str = ""  # in a comparison, equal for the same arm with the same options on any fold with any seed

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.name}{fold}, seed {self.seed}"

    @property
    def cache(self) -> str | None:
        """The folder of the cache that it shares with others; None if it uses none."""
        cache: str | None = self.steps[-1].config["model"]["init_args"].get("cache")
        return cache

    @property
    def facts(self) -> dict[str, Any]:
        """The facts in its cell.json before it is run."""
        return {
            "name": self.name,
            "strategy": " → ".join(step.strategy for step in self.steps),
            "fold": self.fold,
            "seed": self.seed,
            "mode": mode_of(self.steps[-1].config),
            "stages": [str(step.folder.relative_to(self.folder)) for step in self.steps],
        }


@dataclass(frozen=True)
class ReadArm:
    """An arm whose words are understood: its stages, and what each takes from earlier ones."""

    stages: tuple[Stage, ...]
    links: Mapping[str, list[Link]]

    def steps(self, folders: Mapping[str, Path], fold: int | None, seed: int | None) -> tuple[Step, ...]:
        """The stages of a fold and seed, each in a folder of its own."""
        said = {real(stage.said): str(folders[stage.name]) for stage in self.stages}
        names = {real(folder): f"<{name}>" for name, folder in folders.items()}
        return tuple(self._step(stage, folders, said, names, fold, seed) for stage in self.stages)

    def _step(
        self,
        stage: Stage,
        folders: Mapping[str, Path],
        said: Mapping[Path, str],
        names: Mapping[Path, str],
        fold: int | None,
        seed: int | None,
    ) -> Step:
        config = moved(_numbered(stage.config, fold, seed), said)
        config["trainer"]["default_root_dir"] = str(folders[stage.name])
        mine = self.links[stage.name]
        wanted = {link.path for links in self.links.values() for link in links if link.stage == stage.name}
        return Step(
            stage=stage.name,
            fold=fold,
            seed=seed,
            folder=folders[stage.name],
            config=config,
            portable=moved(config, names),
            inputs={f"{link.stage}/{link.path}": folders[link.stage] / link.path for link in mine},
            sources=frozenset(link.stage for link in mine),
            wanted=tuple(sorted(wanted)),
            scores=stage.recognizes and stage is self.stages[-1],
            late_data=any(link.option.startswith("data.") for link in mine),
        )

    def cell_steps(self, folder: Path, fold: int | None, seed: int | None) -> tuple[Step, ...]:
        """The same within one folder; a stage that is alone has it to itself."""
        if len(self.stages) > 1:
            return self.steps({stage.name: folder / stage.name for stage in self.stages}, fold, seed)
        # Alone, it takes nothing from itself: only what its trainer writes moves with its folder.
        (stage,) = self.stages
        nowhere = replace(self, stages=(replace(stage, said=folder / ONLY_STAGE),))
        (step,) = nowhere.steps({stage.name: folder}, fold, seed)
        if not Path.cwd().resolve().is_relative_to(real(stage.said)):
            trainer = moved(step.config["trainer"], {real(stage.said): str(folder)})
            step = replace(step, config={**step.config, "trainer": trainer})
        return (step,)


def plan_chain(asked: RunArguments, prints: DataPrints) -> list[Cell]:
    """The cells of a chain, fold by fold and seed by seed."""
    arm = chain_arm(asked)
    # The first fold and seed stand for all: others differ in these numbers only.
    stages = _read(arm, asked.folds, asked.seeds[0], "--fold", lambda stage: stage)
    read = ReadArm(stages, find_links(stages))
    cells = []
    with about(stages[-1].name):
        folds = _folds(asked.folds, stages[-1], prints)
    for fold in folds:
        for seed in asked.seeds:
            levels = [
                f"{name}-{number}" for name, number in (("fold", fold), ("seed", seed)) if number is not None
            ]
            place = asked.out.joinpath(*levels)
            folders = {stage.name: place / stage.name for stage in read.stages}
            cells.append(Cell(arm.name, fold, seed, place, read.steps(folders, fold, seed)))
    return cells


def plan_grid(asked: CompareArguments, prints: DataPrints) -> list[Cell]:
    """The cells of a comparison; those of a seed and fold stand together, so that the table fills evenly."""
    arms = find_arms(asked)
    known: dict[str, str] = {}
    cells: list[Cell] = []
    for arm in arms:
        found = _GridArm(arm, asked, prints).cells()
        other = known.setdefault(found[0].hash, arm.name)
        if other != arm.name:
            msg = f"{other} and {arm.name} are the same in all that matters: leave one out, or change it."
            raise MistypedError(msg)
        cells += found
    seeds: dict[int | None, int] = {seed: index for index, seed in enumerate(asked.seeds)}
    order = {arm.name: index for index, arm in enumerate(arms)}
    return sorted(cells, key=lambda cell: (seeds[cell.seed], cell.fold or 0, order[cell.name]))


class _GridArm:
    """An arm of a comparison."""

    def __init__(self, arm: Arm, asked: CompareArguments, prints: DataPrints) -> None:
        self.arm, self.asked, self.prints = arm, asked, prints
        self.formerly = False
        self.caches = {real(asked.out / CACHES): "<cache>"}
        quiet = replace(arm, stages=tuple(each._replace(words=(*each.words, *QUIET)) for each in arm.stages))
        label = lambda stage: f"{arm.name}/{stage}" if stage else arm.name  # noqa: E731
        stages = _read(quiet, asked.folds, asked.seeds[0], "--folds", label)
        self.read = ReadArm(stages, find_links(stages) if len(stages) > 1 else {stages[0].name: []})
        for stage, (_, words) in zip(self.read.stages, arm.stages, strict=True):
            options = stage.config["model"]["init_args"]
            if "cache" in options and not any(word.split("=")[0].endswith(".cache") for word in words):
                # Its own, so that what it costs to build is seen, and not what another run has left.
                options["cache"] = str(asked.out / CACHES)
        last = self.read.stages[-1]
        if not last.recognizes:
            kind = last.config["model"]["class_path"].rpartition(".")[2]
            msg = (
                f"{arm.name}: {kind} predicts no emotion, so it has no score: let a fine-tuning follow, "
                "in the folder of a chain."
            )
            raise MistypedError(msg)
        facts = self._look(last.config)
        if not facts.has_test:
            msg = f"{arm.name}: {facts.task} has no test split, on which strategies are compared."
            raise ValueError(msg)
        # A comparison that an earlier version began is gone on with as it was.
        kinds = {each.get("kind") for each in (read_comparison(asked.out).get("cells") or {}).values()}
        self.formerly = True
        self.formerly = self._kind(asked.seeds[0]) in kinds

    def cells(self) -> list[Cell]:
        """The arm on every fold with every seed."""
        with about(self.arm.name):
            folds = _folds(self.asked.folds, self.read.stages[-1], self.prints)
        return [self._cell(fold, seed) for seed in self.asked.seeds for fold in folds]

    def _cell(self, fold: int | None, seed: int) -> Cell:
        found = self._hash(fold, seed)
        folder = self.asked.out / CELLS / found
        steps = self.read.cell_steps(folder, fold, seed)
        named = steps[-1].config["data"].get("init_args", {}).get("fold")
        kind = self._kind(seed)
        if self.asked.robustness is not None:
            steps = (*steps[:-1], replace(steps[-1], robustness=tuple(chosen(self.asked.robustness))))
        return Cell(self.arm.name, named, seed, folder, steps, found, kind)

    def _hash(self, fold: int | None, seed: int) -> str:
        """Of configurations as far as they matter, what they start from, and who is in which split."""
        facts = []
        for step in self.read.cell_steps(self.asked.out / CELLS / "any", fold, seed):
            data = None if step.late_data else self._look(step.config)
            config = self._options(step, data)
            known = data.as_dict() if data else None
            facts.append({"configuration": config, "data": known, "files": _files(step)})
        return digest(facts)

    def _kind(self, seed: int) -> str:
        """The hash of the arm with its options, apart from fold and seed."""
        fold = None if self.asked.folds == "all" else self.asked.folds[0]
        steps = self.read.cell_steps(self.asked.out / CELLS / "any", fold, seed)
        return digest([self._kind_of(step) for step in steps])

    def _kind_of(self, step: Step) -> dict[str, Any]:
        """The computation of a stage and its inputs, apart from fold and seed."""
        data = None if step.late_data else self._look(step.config)
        # Which sounds are used is the same for all folds, unless labels are drawn for each seed.
        drawn = step.config["data"].get("init_args", {}).get("train_share", 1) != 1
        config = self._options(step, None if drawn else data)
        config.pop("seed_everything")
        for name in ("fold", "order_seed"):
            config["data"].get("init_args", {}).pop(name, None)
        return {
            "configuration": config,
            "files": _files(step),
            "labels": data.labels if data else None,
            "sounds": data.sounds if data and not drawn else None,
        }

    def _options(self, step: Step, data: DataPrint | None) -> dict[str, Any]:
        """The options of a stage that matter; where its data lie does not if it is known what they are."""
        config: dict[str, Any] = moved(without_ignored(step.portable), self.caches)
        for name in PLACES if data and data.anywhere else ():
            config["data"].get("init_args", {}).pop(name, None)
        return config

    def _look(self, config: dict[str, Any]) -> DataPrint:
        with about(self.arm.name):
            found = self.prints.take(config["data"])
        return found.as_formerly() if self.formerly else found


def _read(arm: Arm, folds: Folds, seed: int | None, option: str, label: Any) -> tuple[Stage, ...]:
    """Reads the words of an arm with its first fold and seed, as `fit` would."""
    fold = None if folds == "all" else folds[0]
    numbered = [] if fold is None else [f"--data.fold={fold}"]
    numbered += [] if seed is None else [f"--seed_everything={seed}", f"--data.order_seed={seed}"]
    stages = []
    for name, words in arm.stages:
        try:
            stage = resolve(label(name), [*words, *numbered], arm.default / name)
        except MistypedError as error:
            if fold is not None and "has no option 'fold'" in str(error):
                msg = f"{error} Leave out {option}, or give a corpus with folds."
                raise MistypedError(msg) from error
            raise
        stages.append(replace(stage, name=name or ONLY_STAGE))
    return tuple(stages)


def _folds(folds: Folds, last: Stage, prints: DataPrints) -> Sequence[int | None]:
    if folds != "all":
        return folds
    count = prints.take(last.config["data"]).folds
    return tuple(range(1, count + 1)) if count > 1 else ONE


def _numbered(config: dict[str, Any], fold: int | None, seed: int | None) -> dict[str, Any]:
    config = copy.deepcopy(config)
    if fold is not None:
        config["data"]["init_args"]["fold"] = fold
    if seed is not None:
        config["seed_everything"] = config["data"]["init_args"]["order_seed"] = seed
    return config


def mode_of(config: dict[str, Any]) -> str:
    """The budget of a fine-tuning in words; strategies with different ones are not put in one table."""
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


def _files(step: Step) -> dict[str, str]:
    """A hash of each file or folder that a model is made from: another under the same name is another."""
    named = {option: text for option, text in texts(step.config["model"]["init_args"]) if option != "cache"}
    inner = {str(path) for path in step.inputs.values()}
    paths = {option: Path(text).expanduser() for option, text in named.items() if text and text not in inner}
    return {option: hash_of(path) for option, path in paths.items() if path.exists()}
