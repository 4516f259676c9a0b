"""An ensemble of checkpoints: weighed on validation, scored on test once, written into a folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from lightning.pytorch import Trainer

from ser_strategies.common.errors import MistypedError, listed
from ser_strategies.common.files import (
    opened,
    read_parquet,
    whole_folder,
    write_json,
    write_result,
    write_table,
)
from ser_strategies.comparison.ledger_cell import PREDICTIONS, VALIDATED
from ser_strategies.comparison.stats.differences import Difference
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.splits import HeardGuard
from ser_strategies.encoder.checkpoints import RECORD, hash_of_weights, read_checkpoint, stamp_of
from ser_strategies.ensembles.blends import WEIGHTED, Blends, blend, gain_on_test, metrics_of
from ser_strategies.ensembles.members import line_up
from ser_strategies.ensembles.shared_costs import costs_together
from ser_strategies.ensembles.shipped import write_shipped
from ser_strategies.ensembles.weighing_rules import By, WeighingRule
from ser_strategies.fit.noise import quiet
from ser_strategies.fit.record import environment
from ser_strategies.fit.scored import ScoredTable
from ser_strategies.fit.shorthand import best_of
from ser_strategies.strategies import Recognizer, load_strategy
from ser_strategies.strategies.checkpointed import origins_of

Split = Literal["val", "test"]
LEARNED: tuple[Literal["train", "val"], ...] = ("train", "val")
FILES: dict[Split, str] = {"val": VALIDATED, "test": PREDICTIONS}


@dataclass(frozen=True)
class MadeEnsemble:
    """An ensemble that was weighed and scored."""

    folder: Path
    score: str
    weights: Mapping[str, float]  # of each member; the mean over classes where each has one of its own
    single: str  # the best member on validation
    val: Mapping[str, Mapping[str, float | None]]  # scores of the ensemble, mean, vote and best member
    test: Mapping[str, Mapping[str, float | None]]
    gain: Difference  # over the best member, on test
    gap: float | None  # how far the log loss on validation can be from the least, in nats
    optimism: float  # how much larger the gain is on validation
    costs: Mapping[str, Any]  # those of all members together, under the names of costs.json


class _Member(NamedTuple):
    name: str
    checkpoint: Path


class _Told(NamedTuple):
    """What is to be written beside the predictions."""

    score: str
    copy: bool
    brands: list[str]
    oracles: list[str]  # what members are told at test that a machine alone would not know


def ensemble(
    members: Sequence[str | Path],
    data: Corpus,
    out: str | Path = "runs/ensemble",
    *,
    by: By | None = None,
    class_wise: bool = False,
    score: str | None = None,
    seed: int = 0,
    copy: bool = False,
    overwrite: bool = False,
    accelerator: str = "auto",
    trust: str | tuple[str, ...] = (),
) -> MadeEnsemble:
    """Weighs checkpoints on the validation split of a corpus, and scores them together on its test split.

    What a run's folder says of either split is taken from there if it is of this checkpoint and these
    utterances; everything else is predicted. ValueError if members do not fit together, or one of them has
    heard what it is scored on.

    Args:
        members: Checkpoints, or folders of runs for their best.ckpt; two or more.
        data: The corpus that all of them were trained on.
        out: The folder to write, which `predict` and `load_ensemble` read.
        by: What the weights are the best by: log_loss, f1_macro or ua, or of dimensions ccc.
        class_wise: Weights of their own for each class or dimension.
        score: The score that gain is told in; None is ua, or ccc of dimensions alone.
        seed: Of the search for weights.
        copy: Take the members into the folder; else it says where they are.
        overwrite: Replace the ensemble that is there.
        accelerator: cpu, gpu or auto, for what is predicted.
        trust: Packages whose code the checkpoints may import.
    """
    quiet()
    out = Path(out).expanduser()
    if out.exists() and not overwrite:
        msg = f"{out} is there already: give --overwrite to replace it, or another --out."
        raise FileExistsError(msg)
    if overwrite and out.exists() and not (out / "ensemble.json").exists():
        msg = f"{out} is not the folder of an ensemble, so it is not replaced: give another --out."
        raise FileExistsError(msg)
    named = _named(members)
    data.setup("validate")
    data.setup("test")
    labels, dimensions = _outputs(named, data)
    name = score or ("ua" if labels else "ccc")
    score_named(name, labels, dimensions)
    brands = _check_heard(named, data)
    frames: dict[Split, dict[str, pd.DataFrame]] = {"val": {}, "test": {}}
    oracles: list[str] = []
    for member in named:
        for split, table in _tables(member, data, accelerator, trust, oracles).items():
            frames[split][member.name] = table
    outputs = line_up(frames["val"], "val"), line_up(frames["test"], "test")
    blends = blend(*outputs, WeighingRule(by, class_wise, seed), name)
    return _written(named, data, blends, out, _Told(name, copy, [*data.brands(), *brands], oracles))


def _named(members: Sequence[str | Path]) -> list[_Member]:
    """The checkpoints, each with a name of its own; ValueError for fewer than two that differ."""
    found: list[_Member] = []
    prints: dict[str, str] = {}
    for each in members:
        path = best_of(Path(each).expanduser())
        record = read_checkpoint(path)[RECORD]
        if "labels" not in record:
            msg = f"{path} is from {record['strategy']}, which predicts no emotion: leave it out."
            raise ValueError(msg)
        plain = path.resolve().parent.name if path.stem in {"best", "last"} else path.stem
        taken = {member.name for member in found}
        name = next(
            n for k in range(len(taken) + 1) if (n := f"{plain}-{k + 1}" if k else plain) not in taken
        )
        mine = hash_of_weights(path)
        if mine in prints:
            msg = f"{path} has the same weights as the member {prints[mine]}: name each member once."
            raise ValueError(msg)
        prints[mine] = name
        found.append(_Member(name, path))
    if len(found) < 2:
        got = listed(member.checkpoint for member in found) or "none"
        msg = f"expected two members or more, got {got}: there is nothing to weigh."
        raise MistypedError(msg)
    return found


def _outputs(members: Sequence[_Member], data: Corpus) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What all members predict; ValueError where one of them, or the corpus, has something else."""
    first = read_checkpoint(members[0].checkpoint)[RECORD]
    for member in members:
        record = read_checkpoint(member.checkpoint)[RECORD]
        for what, corpus in (("labels", data.labels), ("dimensions", data.dimensions)):
            theirs, mine = tuple(record[what]), tuple(first[what])
            expected = tuple(corpus) if theirs == mine else mine
            if (theirs and theirs != expected) or theirs != mine:
                whose = "the corpus" if theirs == mine else members[0].name
                order = " in another order" if sorted(theirs) == sorted(expected) else ""
                msg = (
                    f"the {what} of the member {member.name} are {', '.join(theirs) or 'none'}, those of "
                    f"{whose} {', '.join(expected) or 'none'}{order}: members must predict the same."
                )
                raise ValueError(msg)
    return tuple(first["labels"]), tuple(first["dimensions"])


def _check_heard(members: Sequence[_Member], data: Corpus) -> list[str]:
    """Refuses members that were trained on another split, or on what is scored here; gives brands."""
    guard = HeardGuard(allowed=data.allow_leakage)
    digest = data.facts()["digest"]
    for member in members:
        origins = origins_of(member.checkpoint)
        if not origins:
            msg = f"the member {member.name} does not say what it was trained on: train it with `fit`."
            raise ValueError(msg)
        for origin in origins:
            guard.check(data.splits, ("val", "test"), data.numberings(), f"the member {member.name}", origin)
        _check_split(member, data, digest, origins[0])
    return guard.brands


def _check_split(member: _Member, data: Corpus, digest: str, origin: Mapping[str, Any]) -> None:
    """Refuses a member of another split, by what it has heard and by the digest in its fit.json."""
    for kind, number in data.numberings().items():
        if kind not in origin:
            continue
        for split in LEARNED:
            theirs, mine = origin[kind][split], number(data.split(split))
            if set(theirs.tolist()) != set(mine.tolist()):
                lost = int((~torch.isin(mine, theirs)).sum())
                more = int((~torch.isin(theirs, mine)).sum())
                msg = (
                    f"the member {member.name} was trained on another split ({origin['splits']}): {more:,} "
                    f"of its {split} utterances are none of this corpus, and it lacks {lost:,} of these: "
                    "give the options of --data that all members were trained with."
                )
                raise ValueError(msg)
    told = _json(member.checkpoint.with_name("fit.json")).get("data") or {}
    if told.get("digest", digest) != digest:
        msg = (
            f"the member {member.name} was trained on {told['task']} with the digest {told['digest']}, and "
            f"this corpus has {digest}: give the options of --data that all members were trained with."
        )
        raise ValueError(msg)


def _tables(
    member: _Member, data: Corpus, accelerator: str, trust: str | tuple[str, ...], oracles: list[str]
) -> dict[Split, pd.DataFrame]:
    """What a member says of both splits: as its folder has it, if that is true of it, else anew.

    Adds to `oracles` what it was told at test that a machine alone would not know.
    """
    stored = {split: _stored(member, data, split) for split in FILES}
    found = {split: table for split, table in stored.items() if table is not None}
    if "test" in found:
        oracles += _json(member.checkpoint.with_name("test.json")).get("oracles") or ()
    if len(found) == len(FILES):
        return found
    strategy = load_strategy(member.checkpoint, trust=trust)
    assert isinstance(strategy, Recognizer)
    for split in FILES:
        if split not in found:
            print(f"predicting the {split} split with {member.name}", flush=True)
            found[split] = _predicted(strategy, data, split, accelerator)
            oracles += strategy.oracles("test") if split == "test" else ()
    return found


def _stored(member: _Member, data: Corpus, split: Split) -> pd.DataFrame | None:
    """The table of a run's folder, if it is of this checkpoint and of all utterances of this split."""
    try:
        table = read_parquet(member.checkpoint.with_name(FILES[split]))
    except (OSError, ValueError):
        return None
    whose = {"checkpoint": stamp_of(member.checkpoint), "digest": data.facts()["digest"]}
    mine = set(data.split(split)["id"]) - set(data.unreadable)
    same = all(table.attrs.get(name) == value for name, value in whose.items())
    return table if same and "id" in table and set(table["id"]) == mine else None


def _predicted(strategy: Recognizer, data: Corpus, split: Split, accelerator: str) -> pd.DataFrame:
    table = ScoredTable(writes=False)
    trainer = Trainer(
        accelerator=accelerator,
        precision=strategy.required_precision,  # type: ignore[arg-type]  # one of the Literal's words
        devices=1,
        logger=False,
        callbacks=[table],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    evaluate = trainer.validate if split == "val" else trainer.test
    evaluate(strategy, datamodule=data, verbose=False)
    return table.rows


def _written(
    members: Sequence[_Member],
    data: Corpus,
    blends: Blends,
    out: Path,
    told: _Told,
) -> MadeEnsemble:
    """Writes the folder, whole or not at all."""
    score = told.score
    facts = blends.as_dict(score)
    gain = gain_on_test(blends, score)
    costs = costs_together([[_json(each.checkpoint.with_name("costs.json"))] for each in members])
    made = MadeEnsemble(
        folder=out,
        score=score,
        weights=facts["weights"],
        single=blends.single,
        val=facts["val"],
        test=facts["test"],
        gain=gain,
        gap=blends.weights.gap,
        optimism=blends.optimism(score),
        costs=costs,
    )
    about = data.facts() | {"brands": list(dict.fromkeys(told.brands))}
    with whole_folder(out) as unfinished:
        write_table(unfinished / VALIDATED, blends.val[WEIGHTED])
        write_table(unfinished / PREDICTIONS, blends.test[WEIGHTED])
        outputs = {"labels": list(blends.labels), "dimensions": list(blends.dimensions)}
        scored = {
            "metrics": metrics_of(blends.test[WEIGHTED], "test"),
            "oracles": list(dict.fromkeys(told.oracles)),
        }
        write_result(unfinished / "test.json", {"checkpoint": None, **outputs, "data": about, **scored})
        write_result(unfinished / "costs.json", costs)
        write_json(unfinished / "environment.json", environment())
        extra = {
            "gain": asdict(gain),
            "optimism": made.optimism,
            "digest": about["digest"],
            "task": about["task"],
        }
        write_shipped(
            unfinished,
            {each.name: each.checkpoint for each in members},
            blends.weights,
            outputs | facts | extra,
            copy=told.copy,
            final=out,
        )
    return made


def _json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return opened(facts, path) if isinstance(facts, dict) else {}
