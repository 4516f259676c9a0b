"""A ledger like that of a real comparison: plausible scores and costs; a failed run, a missing cost."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from ser_strategies.comparison.ledger import write_cell, write_comparison

LABELS = ("anger", "happiness", "neutral", "sadness")
# Which classes are taken for which: rows are true, columns are said.
CONFUSABLE = np.array(
    [[0.0, 0.9, 0.3, -0.6], [0.7, 0.0, 0.5, -0.2], [-0.4, 0.3, 0.0, 0.7], [-0.9, -0.3, 0.8, 0.0]]
)
START = "f4efe23f045e70e97390cf12881cb0831f56c2a6a27d534d35f82b80940544bb"


@dataclass(frozen=True)
class Arm:
    """A strategy of the made-up comparison.

    Args:
        strategy: Its class.
        skill: How far the right class stands out.
        fit: Seconds of `fit`, of every stage.
        trainable: Parameters that train; encoder: those of them in the encoder.
    """

    strategy: str
    skill: float
    fit: tuple[float, ...]
    trainable: int
    encoder: int
    moved: float
    memory: float
    step: float
    cache: float | None = None
    precision: str = "32-true"
    stages: tuple[str, ...] = (".",)


ARMS = {
    "vanilla": Arm("VanillaFineTuning", 1.95, (412,), 90_177_284, 90_175_744, 0.082, 3.9e9, 1430),
    "partial": Arm("PartialFineTuning", 1.72, (236,), 21_265_156, 21_263_616, 0.061, 2.6e9, 810),
    "lora": Arm("LoRAFineTuning", 1.84, (318,), 298_500, 294_912, 0.034, 3.1e9, 1105),
    "mixed-precision": Arm(
        "MixedPrecisionFineTuning",
        1.4,
        (148,),
        21_265_156,
        21_263_616,
        0.060,
        1.5e9,
        505,
        precision="bf16-mixed",
    ),
    "cached": Arm("CachedFineTuning", 1.71, (92,), 21_265_156, 21_263_616, 0.062, 1.7e9, 240, cache=41.0),
    "tapt": Arm(
        "VanillaFineTuning",
        2.10,
        (530, 415),
        90_177_284,
        90_175_744,
        0.085,
        4.3e9,
        1445,
        stages=("1-adapt", "2-finetune"),
    ),
    "frozen": Arm("PartialFineTuning", 0.95, (61,), 3_076, 0, 0.0, 0.9e9, 190),
}


@dataclass(frozen=True)
class Grid:
    """How large the made-up comparison is, and what is wrong with it."""

    arms: tuple[str, ...] = tuple(ARMS)
    folds: int = 5
    seeds: int = 3
    speakers: int = 20
    utterances: int = 40
    failed: tuple[str, int, int] | None = ("vanilla", 3, 1)
    no_memory: str | None = "lora"
    gender: bool = True
    speaker: bool = True
    dimensions: bool = False


def build(folder: Path, grid: Grid = Grid(), **changes) -> Path:  # frozen
    """Writes a ledger as `compare` would."""
    grid = replace(grid, **changes)
    write_comparison(
        folder,
        {
            "started": "2026-11-21T09:30:00+00:00",
            "words": [
                "compare",
                "examples/*.yaml",
                "--data",
                "IEMOCAP",
                "--folds",
                "all",
                "--seeds",
                str(grid.seeds),
            ],
            "names": list(grid.arms),
            "folds": list(range(1, grid.folds + 1)),
            "seeds": list(range(grid.seeds)),
            "options": {"mode": "epochs"},
            "package": "0.1.0",
        },
    )
    people = corpus(grid)
    for name in grid.arms:
        for fold in range(1, grid.folds + 1):
            for seed in range(grid.seeds):
                _cell(folder, grid, people, name, fold, seed)
    return folder


def corpus(grid: Grid) -> pd.DataFrame:
    """Everybody's utterances, with the fold that tests them and how hard they are."""
    draw = np.random.default_rng(7)
    count = grid.speakers * grid.utterances
    speaker = np.repeat(np.arange(grid.speakers), grid.utterances)
    return pd.DataFrame(
        {
            "id": [f"Ses{s // 2 + 1:02}_{'FM'[s % 2]}_{i:03}" for i, s in enumerate(speaker)],
            "label": draw.choice(LABELS, count, p=(0.22, 0.28, 0.3, 0.2)),
            "speaker": [f"Ses{s // 2 + 1:02}{'FM'[s % 2]}" for s in speaker],
            "gender": np.where(speaker % 2, "male", "female"),
            "session": [f"Ses{s // 2 + 1:02}" for s in speaker],
            "dialogue": None,
            "seconds": np.round(draw.gamma(4.0, 1.1, count) + 0.6, 2),
            "fold": speaker * grid.folds // grid.speakers + 1,
            # Some speakers, and some utterances, are hard whatever the strategy is.
            "ease": draw.normal(0, 0.45, grid.speakers)[speaker] + draw.normal(0, 0.8, count),
        }
    )


def predictions(people: pd.DataFrame, grid: Grid, name: str, fold: int, seed: int) -> pd.DataFrame:
    """What a strategy says of the test split of a fold."""
    rows = people[people["fold"] == fold].reset_index(drop=True)
    draw = np.random.default_rng(crc32(f"{name}/{fold}/{seed}".encode()))
    truth = rows["label"].map(LABELS.index).to_numpy()
    skill = ARMS[name].skill + rows["ease"].to_numpy() + draw.normal(0, 0.03)
    logits = CONFUSABLE[truth] + draw.normal(0, 0.75, (len(rows), 4))
    logits[np.arange(len(rows)), truth] += skill
    logits *= 1.6  # surer of itself than right, as networks are
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    frame = rows[["id", "label", "speaker", "gender", "session", "dialogue", "seconds"]].copy()
    if not grid.gender:
        frame["gender"] = None
    if not grid.speaker:
        frame["speaker"] = None
    if grid.dimensions:
        frame["true/valence"] = rows["ease"] + truth - 1.5
        frame["valence"] = frame["true/valence"] * 0.6 + draw.normal(0, 0.5, len(rows))
    for index, label in enumerate(LABELS):
        frame[f"probability/{label}"] = chances[:, index].astype("float32")
    return frame


def _cell(folder: Path, grid: Grid, people: pd.DataFrame, name: str, fold: int, seed: int) -> None:
    arm = ARMS[name]
    cell = folder / "cells" / f"{crc32(f'{name}/{fold}/{seed}'.encode()):08x}"
    facts = {
        "name": name,
        "strategy": arm.strategy,
        "fold": fold,
        "seed": seed,
        "words": ["fit", "--model", arm.strategy],
        "error": None,
        "started": "2026-11-21T09:31:00+00:00",
        "seconds": sum(arm.fit) + 9.0,
        "git": {"commit": "3d0be3a", "dirty": False},
        "mode": "epochs",
        "stages": list(arm.stages),
    }
    if (name, fold, seed) == grid.failed:
        error = "the GPU is out of memory (tried to allocate 1.2 GiB): give a smaller --data.batch_size."
        write_cell(cell, facts | {"status": "failed", "error": error})
        return
    draw = np.random.default_rng(crc32(f"cost/{name}/{fold}/{seed}".encode()))
    table = predictions(people, grid, name, fold, seed)
    score = _ua(table)
    for stage, seconds in zip(arm.stages, arm.fit, strict=True):
        place = cell / stage
        place.mkdir(parents=True, exist_ok=True)
        last = stage == arm.stages[-1]
        costs = _costs(
            arm, name, grid, float(seconds * draw.normal(1, 0.03)), fold, seed, score if last else None
        )
        _write(place / "costs.json", costs)
        _write(place / "environment.json", {"gpus": [], "processor": "x86_64", "cores": 2, "packages": {}})
        best = {"monitor": "val/ua", "score": score + 0.02} if last else {"monitor": "val/loss", "score": 2.1}
        _write(place / "fit.json", {"epochs": 15, "steps": 450, "seconds": seconds, "best": best})
    table.to_parquet(place / "test.parquet", index=False)
    _write(place / "test.json", _test(table, people, grid, fold, score, chain=len(arm.stages) > 1))
    if name != "frozen":
        _write(place / "test-robustness.json", _robustness(name, score))
    if name == "lora":  # others are of a version that kept no predictions under disturbances
        _disturbed(table, draw).to_parquet(place / "test-robustness.parquet", index=False)
    write_cell(cell, facts | {"status": "finished"})


def _ua(table: pd.DataFrame) -> float:
    said = table[[f"probability/{label}" for label in LABELS]].to_numpy().argmax(axis=1)
    right = said == table["label"].map(LABELS.index).to_numpy()
    return float(pd.Series(right).groupby(table["label"]).mean().mean())


def _costs(
    arm: Arm, name: str, grid: Grid, seconds: float, fold: int, seed: int, score: float | None
) -> dict:
    first = fold == 1 and seed == 0
    cache = 0.0 if arm.cache is None else arm.cache if first else 0.4
    load = 6.5
    train, validation = (seconds - load) * 0.88, (seconds - load) * 0.12
    seconds += cache
    trace = []
    for epoch in range(15):
        at = (epoch + 1) / 15 * (seconds - load - cache)
        grown = 1 - np.exp(-(epoch + 1) / 3.2)
        value = None if score is None else 0.25 + (score - 0.23) * grown
        trace.append({"epoch": epoch, "step": 30 * (epoch + 1), "seconds": at, "val/ua": value})
    return {
        "trainable_parameters": arm.trainable,
        "parameters": 94_374_212,
        "encoder_trainable_parameters": arm.encoder,
        "encoder_moved": arm.moved,
        "encoder_tensors_still": 0,
        "frozen_tensors_moved": 0,
        "fit_seconds": seconds,
        "train_seconds": train,
        "validation_seconds": validation,
        "cache_build_seconds": cache,
        "load_seconds": load,
        "steps": 450,
        "epochs": 15,
        "step_ms_median": arm.step,
        "step_ms_iqr": arm.step * 0.07,
        "audio_seconds": 32_400.0,
        "audio_seconds_per_second": 32_400.0 / train,
        "peak_memory_bytes": None if name == grid.no_memory else arm.memory,
        "peak_memory_reserved_bytes": None,
        "memory_kind": "resident",
        "train_flops_per_audio_second": 7.1e9 * (0.4 + arm.step / 1430),
        "inference_flops_per_audio_second": 7.1e9,
        "checkpoint_bytes": 4 * (94_374_212 if arm.trainable > 5e7 else arm.trainable),
        "cache_bytes": 1.9e9 if arm.cache else 0,
        "energy_joules": None,
        "wait_ms_median": 2.1,
        "device": "CPU Intel(R) Xeon(R) Platinum 8480+",
        "processes": 1,
        "threads": 1,
        "resumed": False,
        "partial": False,
        "precision": arm.precision,
        "skipped": 0,
        "short": 2,
        "capped": 5,
        "out_of_memory": 0,
        "trace": trace,
    }


def _test(
    table: pd.DataFrame, people: pd.DataFrame, grid: Grid, fold: int, score: float, *, chain: bool
) -> dict:
    identity = {
        "source": "facebook/wav2vec2-base",
        "revision": "0b5b8e8",
        "family": "wav2vec2",
        "normalise": True,
    }
    identity |= (
        {"fingerprint": "ab" * 32, "origin": START} if chain else {"fingerprint": START, "origin": None}
    )
    sizes = {"test": len(table), "val": len(table), "train": len(people) - 2 * len(table)}
    return {
        "checkpoint": None,
        "encoder": identity,
        "labels": list(LABELS),
        "dimensions": ["valence"] if grid.dimensions else [],
        "data": {
            "task": f"IEMOCAP/4-class/session-{grid.folds}fold-v1" + f"/fold-{fold}" * (grid.folds > 1),
            "words": "One session tests, the next validates, the others train; no speaker is in two of them.",
            "digest": f"{crc32(f'{grid.folds}/{fold}'.encode()):016x}",
            "splits": {
                split: {
                    "utterances": size,
                    "hours": round(size * 4.5 / 3600, 3),
                    "speakers": max(1, size // grid.utterances),
                    "without_class": 0,
                    "classes": {},
                }
                for split, size in sizes.items()
            },
            "brands": [],
            "differences": [],
            "dropped": {},
            "left_out": 0,
            "unchecked": [],
            "unreadable": {},
        },
        "metrics": {
            "test/ua": score,
            "test/wa": score - 0.01,
            "test/f1_macro": score - 0.005,
            "test/loss": 1.1,
        },
    }


DISTURBED = {"noise-10": ("noise, 10 dB below the speech", 0.8), "telephone": ("telephone", 0.9)}


def _disturbed(table: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    said = [f"probability/{label}" for label in LABELS]
    parts = []
    for noise, each in enumerate(DISTURBED, 1):
        chances = table[said] + draw.gamma(1.0, 0.3 * noise, (len(table), len(said)))
        parts.append(chances.div(chances.sum(axis=1), axis=0).assign(id=table["id"], disturbance=each))
    return pd.concat(parts, ignore_index=True)


def _robustness(name: str, score: float) -> dict:
    withstood = 1 - crc32(name.encode()) % 7 / 100
    scores = {each: {"test/ua": score * part * withstood} for each, (_, part) in DISTURBED.items()}
    words = {each: said for each, (said, _) in DISTURBED.items()}
    return {"task": "t", "seed": 0, "words": words, "scores": {"clean": {"test/ua": score}} | scores}


def _write(path: Path, facts: dict) -> None:
    path.write_text(json.dumps(facts), encoding="utf-8")


@pytest.fixture(scope="session")
def shared_ledger(tmp_path_factory) -> Path:
    """Seven strategies, five folds, three seeds; a run failed, a cost is missing. Not to be changed."""
    return build(tmp_path_factory.mktemp("ledger") / "iemocap")


@pytest.fixture(scope="session")
def small_ledger(tmp_path_factory) -> Path:
    """Three strategies on one fold with two seeds, all whole. Not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "runs"
    return build(folder, arms=("vanilla", "lora", "frozen"), folds=1, seeds=2, failed=None, speakers=8)
