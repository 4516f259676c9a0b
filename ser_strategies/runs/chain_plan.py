"""The plan of a chain: every stage of every fold and seed, where it goes, and what it starts from."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_strategies.common.errors import MistypedError
from ser_strategies.common.wording import did_you_mean
from ser_strategies.runs.chain_arguments import Wishes
from ser_strategies.runs.configuration import Stage, resolve
from ser_strategies.runs.links import Link, find_links, moved, real
from ser_strategies.runs.stages import StageFile, find_stages


@dataclass(frozen=True)
class Step:
    """A stage of one fold and seed.

    Args:
        stage: Name of the stage.
        fold: Its fold; None leaves it to the configuration.
        seed: Its seed; None leaves it to the configuration.
        folder: Where it goes.
        config: Its configuration, with the hand-offs of this fold and seed.
        portable: The same with names in place of the stages' folders, wherever those are.
        inputs: Where to find what it takes from earlier stages, by a name that holds wherever that is.
        sources: The stages that it takes something from.
        wanted: What later stages take from its folder.
        scores: Whether it is to be tested.
        late_data: Whether an earlier stage makes what its corpus is read from.
    """

    stage: str
    fold: int | None
    seed: int | None
    folder: Path
    config: dict[str, Any]
    portable: dict[str, Any]
    inputs: dict[str, Path]
    sources: frozenset[str]
    wanted: tuple[str, ...]
    scores: bool
    late_data: bool

    def __str__(self) -> str:
        """The stage, and of which fold and seed."""
        return f"{self.stage}{of(self.fold, self.seed)}"


def of(fold: int | None, seed: int | None) -> str:
    """How a fold and a seed stand behind a name.

    Args:
        fold: The fold, if one was asked for.
        seed: The seed, if one was asked for.
    """
    named = (("fold", fold), ("seed", seed))
    words = ", ".join(f"{name} {number}" for name, number in named if number is not None)
    return f" ({words})" if words else ""


def plan(wishes: Wishes) -> list[list[Step]]:
    """The stages of each fold and seed, in the order in which they run.

    Args:
        wishes: What is asked for.
    """
    files = find_stages(wishes.folder)
    names = [file.name for file in files]
    for name in wishes.special:
        if name not in names:
            msg = (
                f"--{name}. addresses no stage: expected one of {', '.join(names)}{did_you_mean(name, names)}"
            )
            raise MistypedError(msg)
    stages = [_resolve(file, wishes) for file in files]
    links = find_links(stages)
    rounds = []
    for fold in wishes.folds:
        for seed in wishes.seeds:
            place = _place(wishes.out, fold, seed)
            folders = {stage.name: place / stage.name for stage in stages}
            rounds.append(steps_of(stages, links, folders, fold, seed))
    return rounds


def _place(out: Path, fold: int | None, seed: int | None) -> Path:
    for name, number in (("fold", fold), ("seed", seed)):
        if number is not None:
            out /= f"{name}-{number}"
    return out


def _resolve(file: StageFile, wishes: Wishes) -> Stage:
    """A stage with the first fold and seed, which stand for all: others differ in these numbers only."""
    fold, seed = wishes.folds[0], wishes.seeds[0]
    words = ["--config", str(file.path), *wishes.common, *wishes.special.get(file.name, ())]
    default = Path("runs", wishes.folder.resolve().name, file.name)
    return resolve_numbered(file.name, [*words, *numbered_words(fold, seed)], default, fold)


def numbered_words(fold: int | None, seed: int | None) -> list[str]:
    """The words of `fit` for a fold and a seed.

    Args:
        fold: The fold, if one was asked for.
        seed: The seed, if one was asked for.
    """
    words = [] if fold is None else [f"--data.fold={fold}"]
    return words if seed is None else [*words, f"--seed_everything={seed}", f"--data.order_seed={seed}"]


def resolve_numbered(
    name: str, words: Sequence[str], default: Path, fold: int | None, option: str = "--fold"
) -> Stage:
    """A stage; says whose fault it is where a corpus has no folds.

    Args:
        name: What the stage is called.
        words: The words of `fit`, a fold among them.
        default: Its folder if its configuration names none.
        fold: The fold, if one was asked for.
        option: With which option.
    """
    try:
        return resolve(name, words, default)
    except MistypedError as error:
        if fold is not None and "has no option 'fold'" in str(error):
            msg = f"{error} Leave out {option}, or give a corpus with folds."
            raise MistypedError(msg) from error
        raise


def steps_of(
    stages: Sequence[Stage],
    links: dict[str, list[Link]],
    folders: dict[str, Path],
    fold: int | None,
    seed: int | None,
) -> list[Step]:
    """The stages of one fold and seed.

    Args:
        stages: What their files describe, in order.
        links: What each takes from earlier ones.
        folders: Where each goes.
        fold: The fold; None leaves it to the configuration.
        seed: The seed; None leaves it to the configuration.
    """
    said = {real(stage.said): str(folders[stage.name]) for stage in stages}
    names = {real(folder): f"<{name}>" for name, folder in folders.items()}
    steps = []
    for stage in stages:
        config = moved(_numbered(stage.config, fold, seed), said)
        config["trainer"]["default_root_dir"] = str(folders[stage.name])
        mine = links[stage.name]
        steps.append(
            Step(
                stage=stage.name,
                fold=fold,
                seed=seed,
                folder=folders[stage.name],
                config=config,
                portable=moved(config, names),
                inputs={f"{link.stage}/{link.path}": folders[link.stage] / link.path for link in mine},
                sources=frozenset(link.stage for link in mine),
                wanted=tuple(
                    sorted(
                        {link.path for each in links.values() for link in each if link.stage == stage.name}
                    )
                ),
                scores=stage.recognizes and stage is stages[-1],
                late_data=any(link.option.startswith("data.") for link in mine),
            )
        )
    return steps


def _numbered(config: dict[str, Any], fold: int | None, seed: int | None) -> dict[str, Any]:
    config = copy.deepcopy(config)
    if fold is not None:
        config["data"]["init_args"]["fold"] = fold
    if seed is not None:
        config["seed_everything"] = config["data"]["init_args"]["order_seed"] = seed
    return config
