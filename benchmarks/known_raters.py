"""Whether made-up raters are found again: their biases, and the distributions that they make.

    python -m benchmarks.known_raters [--seeds 3] [--steps 400] [--encoder starter] [--disagreement 3]

For each seed a corpus of its own (`Synthetic`, ten speakers of 30 utterances, five of twelve raters each,
whose biases are known), and a frozen encoder, whose pooled frames are computed once. On
them the head and the objective of `AnnotatorFineTuning` are trained, for raters and for what there is to
compare with, by the same steps. A rater's bias is found as what the model says of them, less what it says
of all, over the test utterances. Scores are of the test split, after the last step.

What ends in "distribution" has distribution_weight 1, other raters 0; "with spread" has variance_weight 1.
"""

import argparse
import statistics
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from ser_strategies import AnnotatorFineTuning, Synthetic
from ser_strategies.batch import Batch

DIMENSIONS: Any = ("activation", "valence")
SHARES, SPREAD = "distribution", "with spread"
OF_RATERS = tuple(
    f"raters{spread}{shares}" for spread in ("", f" {SPREAD}") for shares in ("", f", {SHARES}")
)
KINDS = (*OF_RATERS, "one-hot", "cells", "votes", "consensus")
POOL, ENOUGH = 12, 50


def main() -> None:
    """Prints one row for each kind and score: the mean over seeds and its 95 % interval."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--encoder", default="random:wav2vec2-tiny")
    parser.add_argument("--disagreement", type=float, default=0.0, help="of raters at weak clips")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(options.seeds):
        for name, value in _of_seed(seed, options).items():
            found.setdefault(name, []).append(value)
            print(f"seed {seed}: {name[0]}, {name[1]} {value:.3f}", flush=True)
    print(f"{options.seeds} seeds, {options.steps} steps: mean [95 % interval]")
    for name, values in found.items():
        print(f"{name[0]:<60}{name[1]:<18}{_interval(values)}")


def _of_seed(seed: int, options: argparse.Namespace) -> dict[tuple[str, str], float]:
    corpus: Any = Synthetic(
        speakers=10,
        utterances_per_speaker=30,
        seed=seed,
        rater_pool=POOL,
        rater_disagreement=options.disagreement,
        dimensions=DIMENSIONS,
        single_ratings=True,
        batch_size=400,
    )
    models = {kind: _model(kind, corpus, seed, options.encoder) for kind in options.kinds}
    first = next(iter(models.values()))
    train, test = (_pooled(first, loader) for loader in (corpus.train_dataloader(), corpus.test_dataloader()))
    scores: dict[tuple[str, str], float] = {}
    for kind, model in models.items():
        _train(model, *train, options.steps)
        metric = model.objective.scores()
        metric.update(model.head(test[0]), test[1])
        said = {name: value.item() for name, value in metric.compute().items()}
        for name in ("tvd", "tvd_known", "jsd", "jsd_known", "ccc", "ccc_known", "ccc_individual"):
            if name in said:
                scores[kind, name] = said[name]
        for name, value in zip(DIMENSIONS, _spreads(model, *test), strict=True):
            scores[kind, f"spread {name}"] = value
        if model.objective.by_rater:
            for name, value in zip(DIMENSIONS, _recovered(model, corpus, *test, train[1]), strict=True):
                scores[kind, f"bias {name}"] = value
        if kind == "consensus":
            # As a regressor tells it: one point, and no spread.
            rated = model.objective.targets(test[1].ratings)
            point = model.objective.votes(model.objective.read(model.head(test[0])).means.unsqueeze(1))
            scores["consensus, a point", "tvd"] = ((rated - point).abs().sum((1, 2)) / 2).mean().item()
    for other in ("consensus", "consensus, a point"):
        for kind in OF_RATERS:
            if {(kind, "tvd_known"), (other, "tvd")} <= set(scores):
                for name in ("tvd", "tvd_known"):
                    scores[f"{kind} - {other}", name] = scores[kind, name] - scores[other, "tvd"]
    return scores


def _model(kind: str, corpus: Any, seed: int, encoder: str) -> Any:
    torch.manual_seed(seed)
    options: Any = {"predicts": kind.replace(",", " ").partition(" ")[0], "width": 64}
    options |= {"raters": corpus.raters, "dimensions": DIMENSIONS}
    if kind in OF_RATERS:
        weights = {"variance_weight": SPREAD in kind, "distribution_weight": kind.endswith(SHARES)}
        options |= {name: float(given) for name, given in weights.items()}
    return AnnotatorFineTuning(encoder, pooling="mean+std", **options)


def _spreads(model: Any, pooled: Tensor, batch: Batch) -> list[float]:
    """Correlation of predicted and rated spreads, for each dimension; NaN where all are predicted alike."""
    assert batch.ratings is not None
    rated = model.objective.rated(batch.ratings.double())
    said = model.objective.read(model.head(pooled)).spreads.numpy()
    true = [rated[f"rated/spread/{name}"].numpy() for name in DIMENSIONS]
    alike = np.ptp(said, axis=0) < 1e-6
    return [np.nan if alike[k] else float(np.corrcoef(said[:, k], each)[0, 1]) for k, each in enumerate(true)]


@torch.no_grad()
def _pooled(model: Any, loader: Any) -> tuple[Tensor, Batch]:
    model.eval()
    (batch,) = loader
    parts = []
    for rows in torch.split(torch.arange(len(batch.ids)), 20):
        lengths = batch.lengths[rows]
        frames = model.encoder(batch.waveforms[rows, : int(lengths.max())], lengths)
        parts.append(model.pool(frames.values, frames.mask))
    pooled = torch.cat(parts)
    return (pooled - pooled.mean(0)) / pooled.std(0).clamp(min=1e-3), batch


def _train(model: Any, pooled: Tensor, batch: Batch, steps: int) -> None:
    model.train()
    trained = [*model.head.parameters(), *model.objective.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randperm(len(pooled))[:32]
        assert batch.raters is not None
        assert batch.ratings is not None
        part = batch._replace(raters=batch.raters[rows], ratings=batch.ratings[rows])
        optimizer.zero_grad()
        model.objective.loss(model.head(pooled[rows]), part).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def _recovered(model: Any, corpus: Any, pooled: Tensor, _: Batch, train: Batch) -> list[float]:
    """Correlation of found and true biases of raters with enough ratings, for each dimension."""
    each = model.objective.read(model.head(pooled)).each
    found = (each - each.mean(1, keepdim=True)).mean(0).numpy()
    assert train.raters is not None
    counts = np.bincount(train.raters[train.raters >= 0].numpy(), minlength=len(corpus.raters))
    true = corpus.rater_biases()[list(DIMENSIONS)].to_numpy()
    assert (counts >= ENOUGH).all(), counts
    return [float(np.corrcoef(found[:, index], true[:, index])[0, 1]) for index in (0, 1)]


def _interval(values: list[float]) -> str:
    if np.isnan(values).any():
        return "—"
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


if __name__ == "__main__":
    main()
