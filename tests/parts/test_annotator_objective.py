"""The model of raters: its losses by hand, its scores by numpy over the whole set, and what it refuses."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.parts.annotator_objective import Annotators, cell_names
from ser_strategies.parts.density import DiffKDE

DIMENSIONS = ("activation", "valence")
RATERS = ("a", "b", "c", "d", "e")
WIDTH = 6
KINDS = ("raters", "one-hot", "cells", "votes", "consensus")


def objective(predicts: str = "raters", **options: Any) -> Annotators:
    torch.manual_seed(0)
    made = Annotators(DIMENSIONS, RATERS, **({"predicts": predicts, "width": WIDTH} | options))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape))
    return made.eval()


def rated(count: int = 12, seed: int = 1) -> tuple[Tensor, Batch]:
    """Outputs, and utterances of two to four raters of whom one in five is unknown."""
    chance = np.random.default_rng(seed)
    raters, ratings = np.full((count, 4), -1), np.full((count, 4, 2), np.nan)
    for row in range(count):
        several = chance.integers(2, 5)
        who = np.sort(chance.permutation(len(RATERS))[:several])
        raters[row, :several] = np.where(chance.random(several) < 0.2, -1, who)
        ratings[row, :several] = chance.uniform(-1, 1, (1, 2)) * 0.5 + chance.uniform(-0.5, 0.5, (several, 2))
    raters[0] = -1  # nobody is known
    batch = Batch(
        torch.zeros(count, 10),
        torch.full((count,), 10),
        tuple(f"u{row}" for row in range(count)),
        raters=torch.tensor(raters),
        ratings=torch.tensor(ratings, dtype=torch.float32),
    )
    outputs = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return outputs, batch


def said_by_hand(model: Annotators, outputs: Tensor, rater: int) -> np.ndarray:
    """What one rater says of each utterance, unit by unit, in numpy."""
    parts = model.model
    values = np.zeros((len(outputs), 2))
    for index, layers in enumerate(parts.branches.layers):
        hidden = outputs.numpy().astype(np.float64)
        if model.predicts == "one-hot":
            hidden = hidden + parts.people[rater].detach().numpy()
        hidden = np.maximum(hidden, 0)
        for layer in (layers[0], layers[2]):
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            hidden = np.maximum(hidden @ weight.T + bias, 0)
        units = parts.consensus if model.predicts == "consensus" else parts.units
        place = rater if model.predicts == "raters" else 0
        weight, bias = units.weight[place, index].detach().numpy(), units.bias[place, index].item()
        values[:, index] = hidden @ weight + bias
    return values


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def exact(ratings: np.ndarray) -> np.ndarray:
    """`DiffKDE`, which has a test of its own, of one utterance."""
    density = DiffKDE(grid=128, hard=True, seed=0)
    return density(torch.tensor(ratings, dtype=torch.float64).unsqueeze(0))[0].numpy()


def recall(pairs: list[tuple[int, int]]) -> float:
    by = defaultdict(list)
    for true, found in pairs:
        by[true].append(true == found)
    return float(np.mean([np.mean(each) for each in by.values()]))


def expected_scores(model: Annotators, outputs: Tensor, batch: Batch) -> dict[str, float]:
    """Every score from whole arrays, utterance by utterance."""
    each = np.stack([said_by_hand(model, outputs, rater) for rater in range(len(RATERS))], 1)
    raters, ratings = batch.raters.numpy(), batch.ratings.numpy().astype(np.float64)
    places = np.linspace(-1, 1, 4)
    scores: dict[str, float] = {}
    for end in ("", "_known"):
        cells, means, rated_cells, rated_means, single, rated_single = [], [], [], [], [], []
        for row in range(len(outputs)):
            there = ~np.isnan(ratings[row, :, 0])
            known = there & (raters[row] >= 0)
            if end and not known.any():
                continue
            chosen = each[row][raters[row, known]] if end else each[row]
            if end:  # absent raters keep their places, which decide their random numbers
                padded = np.full((4, 2), np.nan)
                padded[known] = chosen
                cells.append(exact(padded))
            else:
                cells.append(exact(chosen))
            means.append(chosen.mean(0))
            rated_cells.append(exact(ratings[row]))
            rated_means.append(ratings[row, there].mean(0))
            single += list(each[row][raters[row, known]])
            rated_single += list(ratings[row, known])
        p, q = np.array(cells).reshape(-1, 16), np.array(rated_cells).reshape(-1, 16)
        middle = (p + q) / 2
        scores[f"tvd{end}"] = np.mean(0.5 * np.abs(p - q).sum(1))
        scores[f"jsd{end}"] = np.mean(
            [
                0.5 * np.sum(a * np.log2(a / m)) + 0.5 * np.sum(b * np.log2(b / m))
                for a, b, m in zip(p, q, middle, strict=True)
            ]
        )
        likeliest = list(zip(q.argmax(1).tolist(), p.argmax(1).tolist(), strict=True))
        scores[f"uar_cell{end}"] = recall(likeliest)
        scores[f"uar_activation{end}"] = recall([(a // 4, b // 4) for a, b in likeliest])
        scores[f"uar_valence{end}"] = recall([(a % 4, b % 4) for a, b in likeliest])
        marginal = np.stack([p.reshape(-1, 4, 4).sum(2) @ places, p.reshape(-1, 4, 4).sum(1) @ places], 1)
        of = {"ccc": (means, rated_means), "ccc_marginals": (marginal, rated_means)}
        if end:
            of["ccc_individual"] = (single, rated_single)
        for name, (found, true) in of.items():
            values = [ccc(np.array(found)[:, index], np.array(true)[:, index]) for index in (0, 1)]
            names = [f"{name}{mine}" for mine in ("", "_activation", "_valence")]
            tail = "" if name == "ccc_individual" else end
            scores |= dict(zip([f"{each}{tail}" for each in names], [np.mean(values), *values], strict=True))
    return scores


@pytest.mark.parametrize("predicts", ["raters", "one-hot"])
def test_scores_are_those_of_numpy_over_the_whole_set_however_it_comes(predicts: str) -> None:
    model = objective(predicts)
    outputs, batch = rated()
    expected = expected_scores(model, outputs, batch)
    for sizes in ([12], [1, 4, 7]) if predicts == "raters" else ([1, 4, 7],):
        # Two processes, each with some of the batches, add their states up.
        both = [model.scores(), model.scores()]
        start = 0
        for number, size in enumerate(sizes):
            part = slice(start, start + size)
            mine = batch._replace(raters=batch.raters[part], ratings=batch.ratings[part])
            both[number % 2].update(outputs[part], mine)
            start += size
        if len(sizes) > 1:
            for name, metric in both[0].named_children():
                other = getattr(both[1], name)
                for state, reduce in metric._reductions.items():
                    stacked = torch.stack([getattr(metric, state), getattr(other, state)])
                    setattr(metric, state, reduce(stacked))
        found = {name: value.item() for name, value in both[0].compute().items()}
        assert set(expected) <= set(found)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-6), name
        assert found["kde_fallbacks"] == 0
    both[0].reset()
    assert both[0].shares.sums.sum() == both[0].known_shares.confusion.sum() == 0


def test_scores_of_one_and_the_same_distribution_are_the_best_and_of_others_the_worst() -> None:
    metric = objective().scores().shares
    certain = torch.zeros(2, 4, 4)
    certain[0, 0, 0] = certain[1, 3, 1] = 1
    metric.update(certain, certain)
    assert metric.compute()["tvd"] == metric.compute()["jsd"] == 0
    assert metric.compute()["uar_cell"] == 1
    metric.reset()
    metric.update(certain, certain.flip(0))
    scores = {name: value.item() for name, value in metric.compute().items()}
    assert scores == {"tvd": 1, "jsd": 1, "uar_cell": 0, "uar_activation": 0, "uar_valence": 0}


def test_single_ratings_cost_their_distance_from_concordance_and_the_distribution_its_cross_entropy() -> None:
    outputs, batch = rated()
    known = batch.raters >= 0
    each = np.stack([said_by_hand(objective(), outputs, rater) for rater in range(5)], 1)
    said = np.array([each[row, batch.raters[row, place]] for row, place in known.nonzero().tolist()])
    true = batch.ratings[known].numpy()
    expected = sum(1 - ccc(said[:, index], true[:, index]) for index in (0, 1))
    found = objective(distribution_weight=0.0).loss(outputs, batch)
    assert found.item() == pytest.approx(expected, abs=1e-5)
    steady = DiffKDE(seed=0)
    crossed = []
    for row in range(1, len(outputs)):  # nobody is known of the first
        values = torch.full((4, 2), torch.nan)
        values[known[row]] = torch.tensor(each[row][batch.raters[row, known[row]]], dtype=torch.float32)
        predicted = steady(values.unsqueeze(0))[0].detach().numpy()
        crossed.append(-np.sum(exact(batch.ratings[row].numpy()) * np.log(predicted + 1e-8)))
    found = objective(distribution_weight=2.0).loss(outputs, batch)
    assert found.item() == pytest.approx(expected + 2 * np.mean(crossed), abs=1e-4)


def test_heads_beside_the_raters_cost_what_the_formulas_say() -> None:
    outputs, batch = rated()
    plain = {"individual_weight": 0.0, "distribution_weight": 0.0}
    means = batch.ratings.nanmean(1).numpy()
    model = objective(consensus_weight=1.0, **plain)
    found = model.model.consensus.alone(model.model.branches(outputs)).detach().numpy()
    expected = sum(1 - ccc(found[:, index], means[:, index]) for index in (0, 1))
    assert model.loss(outputs, batch).item() == pytest.approx(expected, abs=1e-5)
    assert model.read(outputs).consensus.numpy() == pytest.approx(found, abs=1e-6)
    model = objective(variance_weight=1.0, **plain)
    known = batch.raters >= 0
    costs = []
    with torch.no_grad():
        said = model.model.said(outputs, batch.raters)
        logarithms = model.model.variances(model.model.branches(outputs), batch.raters)
    for row, place in known.nonzero().tolist():
        there = batch.ratings[row][~batch.ratings[row, :, 0].isnan()]
        target = torch.distributions.Normal(there.mean(0), there.std(0))
        of_rater = torch.distributions.Normal(said[row, place], (logarithms[row, place] / 2).exp())
        costs.append(torch.distributions.kl_divergence(target, of_rater).sum().item())
    assert model.loss(outputs, batch).item() == pytest.approx(np.mean(costs), rel=1e-4)
    all_of_them = model.model.variances(model.model.branches(outputs)).exp().mean(1).sqrt()
    reading = model.read(outputs)
    assert reading.spreads.numpy() == pytest.approx(all_of_them.detach().numpy(), rel=1e-5)
    # Then the distribution is the mean of all raters' Gaussians, or of those who are known.
    sizes = (model.model.variances(model.model.branches(outputs)) / 2).exp().detach().numpy()
    row = int(known.sum(1).argmax())

    def mixed(raters: list[int]) -> np.ndarray:
        shares = []
        for rater in raters:
            sides = [
                np.diff(norm.cdf([-np.inf, -0.5, 0, 0.5, np.inf], mean, size))
                for mean, size in zip(reading.each[row, rater].numpy(), sizes[row, rater], strict=True)
            ]
            shares.append(np.outer(*sides))
        return np.mean(shares, axis=0)

    assert reading.cells[row].numpy() == pytest.approx(mixed([0, 1, 2, 3, 4]), abs=1e-6)
    heard = batch.raters[row][known[row]].tolist()
    found = model.judge(outputs, batch).known_cells
    assert found[row].numpy() == pytest.approx(mixed(heard), abs=1e-6)
    # And that is what learns the distribution.
    crossed = [
        -np.sum(exact(batch.ratings[row].numpy()) * np.log(found[row].numpy() + 1e-8))
        for row in range(1, len(outputs))  # nobody is known of the first
    ]
    alone = model.loss(outputs, batch).item()
    both = objective(variance_weight=1.0, individual_weight=0.0, distribution_weight=2.0)
    assert both.loss(outputs, batch).item() == pytest.approx(alone + 2 * np.mean(crossed), abs=1e-4)


def test_baselines_cost_and_say_what_the_formulas_say() -> None:
    outputs, batch = rated()
    for predicts in ("cells", "votes"):
        model = objective(predicts)
        logits = model.model.logits(outputs).detach()
        if predicts == "cells":
            targets = np.stack([exact(each.numpy()).ravel() for each in batch.ratings])
        else:
            targets = np.zeros((len(outputs), 16))
            for row, each in enumerate(batch.ratings.numpy()):
                there = each[~np.isnan(each[:, 0])]
                for x, y in np.minimum((there + 1) * 2, 3).astype(int):
                    targets[row, 4 * x + y] += 1 / len(there)
        expected = -np.mean(np.sum(targets * logits.log_softmax(1).numpy(), 1))
        assert model.loss(outputs, batch).item() == pytest.approx(expected, abs=1e-5)
        cells = logits.double().softmax(1).view(-1, 4, 4)
        assert torch.allclose(model.read(outputs).cells, cells)
        centres = torch.linspace(-1, 1, 4, dtype=torch.float64)
        assert torch.allclose(model.read(outputs).means[:, 0], cells.sum(2) @ centres)
    model = objective("consensus")
    found = said_by_hand(model, outputs, 0)
    reading = model.read(outputs)
    assert reading.means.numpy() == pytest.approx(found, abs=1e-5)
    spread = model.model.log_spreads.exp().detach().numpy()
    below = norm.cdf((np.array([-0.5, 0, 0.5]) - found[3, 0]) / spread[0])
    assert reading.cells[3].sum(1).numpy() == pytest.approx(np.diff(below, prepend=0, append=1), abs=1e-5)
    ratings, means = batch.ratings.numpy(), batch.ratings.nanmean(1).numpy()
    expected = sum(1 - ccc(found[:, index], means[:, index]) for index in (0, 1))
    likely = ((ratings - found[:, None]) / spread) ** 2 / 2 + np.log(spread)
    assert model.loss(outputs, batch).item() == pytest.approx(expected + np.nanmean(likely), abs=1e-5)
    scores = model.scores()
    scores.update(outputs, batch)
    known = ~np.isnan(ratings[:, :, 0])
    repeated = np.broadcast_to(found[:, None], ratings.shape)
    value = np.mean([ccc(repeated[known][:, index], ratings[known][:, index]) for index in (0, 1)])
    assert scores.compute()["ccc_individual"].item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("predicts", KINDS)
def test_everything_gets_a_gradient_and_validation_draws_nothing(predicts: str) -> None:
    extra = {
        "raters": {"consensus_weight": 1.0, "variance_weight": 1.0},
        "one-hot": {"consensus_weight": 1.0},
    }
    model = objective(predicts, **extra.get(predicts, {})).train()
    outputs, batch = rated()
    outputs.requires_grad_()
    model.loss(outputs, batch).backward()
    assert {name for name, each in model.named_parameters() if each.grad is None} == set()
    assert all(each.grad.isfinite().all() for each in model.parameters())
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()
    model.eval()
    before = torch.random.get_rng_state()
    assert model.loss(outputs, batch) == model.loss(outputs, batch)
    model.scores().update(outputs.detach(), batch)
    assert torch.equal(before, torch.random.get_rng_state())
    nobody = batch._replace(raters=torch.full_like(batch.raters, -1))
    assert model.train().loss(outputs, nobody).isfinite()
    # Of the first of twelve nobody is known; what learns no raters asks for none.
    assert (model.counted(batch), model.counted(nobody)) == ((11, 0) if model.by_rater else (12, 12))


def test_predictions_have_mean_spread_cells_and_each_rater_by_name() -> None:
    outputs, _ = rated(count=70)  # more than are read at once
    columns = objective(rater_columns=True, consensus_weight=1.0).predict(outputs)
    each = np.stack([said_by_hand(objective(consensus_weight=1.0), outputs, rater) for rater in range(5)], 1)
    assert columns["valence"].numpy() == pytest.approx(each[:, :, 1].mean(1), abs=1e-5)
    assert columns["spread/activation"].numpy() == pytest.approx(each[:, :, 0].std(1, ddof=1), abs=1e-5)
    assert columns["rater/d/valence"].numpy() == pytest.approx(each[:, 3, 1], abs=1e-5)
    cells = torch.stack([columns[name] for name in cell_names(4)], 1)
    assert cells[69].view(4, 4).numpy() == pytest.approx(exact(each[69]), abs=1e-4)
    assert "consensus/activation" in columns
    assert not any(name.startswith("rater/") for name in objective().predict(outputs))


def test_raters_of_another_corpus_are_unknown_and_the_order_of_names_does_not_matter() -> None:
    outputs, batch = rated()
    model, other = objective(), objective()
    names = ("x", *reversed(RATERS), "y")
    other.meet(names, learning=True)
    moved = batch._replace(raters=torch.where(batch.raters < 0, -1, 5 - batch.raters))
    assert other.loss(outputs, moved).item() == pytest.approx(model.loss(outputs, batch).item(), abs=1e-6)
    other.meet(("x", "y"), learning=False)
    strangers = batch._replace(raters=batch.raters.clamp(-1, 1))
    scores = other.scores()
    scores.update(outputs, strangers)
    found = scores.compute()
    assert found["tvd"].isfinite()
    assert found["tvd_known"].isnan()
    with pytest.raises(ValueError, match="none of the model's 5 raters, but x: train another"):
        other.meet(("x", "y"), learning=True)


def test_raters_begin_with_the_consensus_that_was_learned() -> None:
    taught, model = objective("consensus"), objective()
    outputs, _ = rated()
    model.take_consensus(taught.state_dict())
    reading = model.read(outputs)
    for rater in range(len(RATERS)):
        assert torch.allclose(reading.each[:, rater], taught.read(outputs).means, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"dimensions": (*DIMENSIONS, "dominance")},
            "over two dimensions, got activation, valence, dominance",
        ),
        (
            {"raters": ()},
            "was told of none: give it utterances to train on that two raters rated",
        ),
        ({"predicts": "rater"}, "predicts must be one of raters, .* did you mean raters"),
        (
            {"predicts": "cells", "variance_weight": 1.0},
            "variance_weight goes with predicts raters, got cells",
        ),
        (
            {"predicts": "votes", "consensus_weight": 1.0},
            "consensus_weight goes with predicts raters or one-hot",
        ),
        ({"select_by": "ua"}, "select_by must be one of tvd"),
    ],
)
def test_mistakes_are_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Annotators(**({"dimensions": DIMENSIONS, "raters": RATERS} | options))


def test_batches_without_ratings_or_with_others_are_refused() -> None:
    _, batch = rated()
    with pytest.raises(ValueError, match=r"needs single ratings: give the corpus --data.single_ratings true"):
        objective().check(batch._replace(ratings=None))
    with pytest.raises(ValueError, match=r"of shape \(batch, raters, 2\), got \(12, 4, 1\)"):
        objective().check(batch._replace(ratings=batch.ratings[:, :, :1]))
    with pytest.raises(ValueError, match="names rater 5, expected up to 4"):
        objective().check(batch._replace(raters=batch.raters + 1))
