"""DiffKDE against the equations in numpy and scipy, in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.optimize import brentq
from scipy.stats import gaussian_kde
from torch import Tensor

from ser_strategies import DiffKDE
from ser_strategies.parts import density

RATERS = 7
SEED = 5


def some_ratings(batch: int = 5, raters: int = RATERS, seed: int = 0) -> Tensor:
    """Ratings of which the first utterance has all, and each further one some fewer."""
    chance = np.random.default_rng(seed)
    centres = chance.uniform(-0.6, 0.6, (batch, 1, 2))
    values = np.clip(centres + chance.normal(0, [0.25, 0.4], (batch, raters, 2)), -1, 1)
    for row in range(batch):
        values[row, chance.permutation(raters)[: min(row, raters - 2)]] = np.nan
    return torch.tensor(values)


def reference_observations(ratings: np.ndarray, count: int) -> np.ndarray:
    """Means of random subsets and noise, one observation at a time."""
    chance = np.random.default_rng([SEED, 0])
    sizes, noise = chance.random(count), chance.random((count, 2))
    keys = np.random.default_rng([SEED, 1]).random((len(ratings), count))
    there = np.flatnonzero(~np.isnan(ratings[:, 0]))
    spread = ratings[there].std(axis=0, ddof=1)
    drawn = []
    for each in range(count):
        size = 1 + int(sizes[each] * len(there))
        chosen = sorted(there, key=lambda rater, each=each: keys[rater, each])[:size]
        edge = 0.5 * spread + np.finfo(np.float32).eps
        drawn.append(ratings[chosen].mean(axis=0) + (2 * noise[each] - 1) * edge)
    return np.clip(np.array(drawn), -1, 1)


def reference_counts(drawn: np.ndarray, grid: int, temperature: float | None) -> np.ndarray:
    if temperature is None:
        return np.histogram2d(*drawn.T, bins=grid, range=[[-1, 1], [-1, 1]])[0]
    step = 2 / grid
    centres = -1 + step * (np.arange(grid) + 0.5)
    apart = drawn[:, :, None] - centres
    shares = 1 / (1 + np.exp(-temperature * (apart + step / 2))) - 1 / (
        1 + np.exp(-temperature * (apart - step / 2))
    )
    return np.einsum("oi,oj->ij", shares[:, 0], shares[:, 1])


def reference_density(counts: np.ndarray, observations: int) -> np.ndarray:
    """The diffusion estimator by recursion, with scipy's cosine transform and its root finder."""
    grid = len(counts)
    waves = dctn(counts / observations)
    waves[0] /= 2
    waves[:, 0] /= 2
    squares, numbers = waves**2, np.arange(grid)

    def psi(i: int, j: int, t: float) -> float:
        if i + j <= 4:
            together = abs(psi(i + 1, j, t) + psi(i, j + 1, t))
            constant = (1 + 2.0 ** -(i + j + 1)) / 3
            odd = np.prod(np.arange(1, 2 * i, 2.0)) * np.prod(np.arange(1, 2 * j, 2.0))
            t = (constant * odd / (np.pi * observations * together)) ** (1 / (2 + i + j))
        weights = np.where(numbers == 0, 1.0, 0.5) * np.exp(-(np.pi**2) * numbers**2 * t)
        sign = (-1) ** (i + j)
        form = (weights * numbers ** (2.0 * j)) @ squares @ (weights * numbers ** (2.0 * i))
        return float(sign * np.pi ** (2 * (i + j)) * form)

    def gamma(t: float) -> float:
        total = psi(0, 2, t) + psi(2, 0, t) + 2 * psi(1, 1, t)
        wanted = (2 * np.pi * observations * total) ** (-1 / 3)
        return (t - wanted) / wanted

    root = brentq(lambda t: t - gamma(t), 0, 0.1, xtol=1e-15)
    psi02, psi20, psi11 = psi(0, 2, root), psi(2, 0, root), psi(1, 1, root)
    rest = 4 * np.pi * observations * (psi11 + np.sqrt(psi02 * psi20))
    columns = (psi02**0.75 / (rest * psi20**0.75)) ** (1 / 3)
    rows = (psi20**0.75 / (rest * psi02**0.75)) ** (1 / 3)
    kernel = np.outer(
        np.exp(-((np.pi * numbers) ** 2) * rows / 2), np.exp(-((np.pi * numbers) ** 2) * columns / 2)
    )
    smooth = waves * kernel
    smooth[0] *= 2
    smooth[:, 0] *= 2
    found = idctn(smooth) * (grid / 2) ** 2
    return np.where(found > 0, found, np.finfo(np.float64).eps)


def pooled(found: np.ndarray, cells: int = 4) -> np.ndarray:
    side = len(found) // cells
    blocks = found.reshape(cells, side, cells, side).mean(axis=(1, 3))
    return blocks / blocks.sum()


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64], ids=["32", "64"])
def test_density_is_that_of_the_equations(hard: bool, wide: torch.dtype) -> None:
    ratings = some_ratings()
    kde = DiffKDE(hard=hard, seed=SEED)
    found, cells = kde.density(ratings.to(wide)), kde(ratings.to(wide))
    for row, each in enumerate(ratings.numpy()):
        # Rounded first where the ratings are, or another point of the grid could count an observation.
        drawn = reference_observations(each.astype(np.float32 if wide == torch.float32 else np.float64), 200)
        expected = reference_density(reference_counts(drawn, 64, None if hard else 8.0), 200)
        tolerance = 1e-4 if wide == torch.float32 else 1e-9
        assert np.abs(found[row].numpy() - expected).max() < tolerance
        assert np.abs(cells[row].numpy() - pooled(expected)).max() < tolerance / 10
    assert kde.fallbacks == 0


def test_smooth_data_give_the_shape_that_scipy_finds() -> None:
    chance = np.random.default_rng(1)
    drawn = np.clip(chance.normal([0.1, -0.2], [0.2, 0.35], (1000, 2)), -1, 1)
    kde = DiffKDE(hard=True, seed=0, observations=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(density, "observe", lambda ratings, known, draws: torch.tensor(drawn).unsqueeze(0))
        found = kde(torch.zeros(1, 2, 2, dtype=torch.float64))[0].numpy()
    centres = -1 + (np.arange(64) + 0.5) / 32
    points = np.stack(np.meshgrid(centres, centres, indexing="ij")).reshape(2, -1)
    expected = pooled(gaussian_kde(drawn.T)(points).reshape(64, 64))
    assert 0.5 * np.abs(found - expected).sum() < 0.05


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = some_ratings(batch=3)
    kde = DiffKDE(seed=SEED)
    weights = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    roots: list[Any] = []
    real: Callable[..., Any] = density.solve

    def remember(*arguments: Any) -> Any:
        roots[:] = roots or [real(*arguments)]
        return roots[0]  # the root is a constant to the gradient

    monkeypatch.setattr(density, "solve", remember)
    moved = ratings.clone().requires_grad_()
    (kde(moved) * weights).sum().backward()
    assert moved.grad is not None
    step = 1e-6
    for place in torch.nonzero(~ratings.isnan()).tolist():
        ends = []
        for sign in (1, -1):
            other = ratings.clone()
            other[tuple(place)] += sign * step
            ends.append((kde(other) * weights).sum().item())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert moved.grad[tuple(place)].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert (moved.grad[ratings.isnan()] == 0).all()


def test_a_distribution_is_that_of_its_ratings_alone() -> None:
    kde = DiffKDE(hard=True, seed=SEED)
    ratings = some_ratings()
    together = kde(ratings)
    padded = torch.cat([ratings, torch.full((5, 9, 2), torch.nan, dtype=torch.float64)], 1)
    assert torch.allclose(kde(padded), together, atol=1e-12)
    for row in range(5):
        assert torch.allclose(kde(ratings[row : row + 1])[0], together[row], atol=1e-12)
    assert torch.allclose(together.sum((1, 2)), torch.ones(5, dtype=torch.float64))
    nobody = kde(torch.full((1, 2, 2), torch.nan))
    assert nobody.isnan().all()
    before = torch.random.get_rng_state()
    kde(ratings)
    assert torch.equal(before, torch.random.get_rng_state())
    fresh = DiffKDE(hard=True)
    assert not torch.equal(fresh(ratings), fresh(ratings))


def test_where_no_bandwidth_solves_its_equation_one_is_stated_and_counted() -> None:
    ratings = some_ratings(batch=1)
    kde = DiffKDE(seed=SEED, temperature=1.0)  # nothing but blur
    moved = ratings.clone().requires_grad_()
    found = kde(moved)
    assert kde.fallbacks == 1
    drawn = reference_observations(ratings[0].numpy(), 200)
    waves = dctn(reference_counts(drawn, 64, 1.0))
    rows, columns = (
        np.exp(-((np.pi * np.arange(64)) ** 2) * variance / 4 * 200 ** (-1 / 3) / 2)
        for variance in drawn.var(axis=0, ddof=1)
    )
    expected = pooled(idctn(waves * np.outer(rows, columns)))
    assert np.abs(found[0].detach().numpy() - expected).max() < 1e-9
    found.square().sum().backward()
    assert moved.grad is not None
    assert moved.grad.isfinite().all()


@pytest.mark.parametrize("ratings", [[[0.5, -1.0]], [[0.2, 0.2]] * 4, [[1.0, 1.0], [-1.0, -1.0]]])
def test_one_rater_equal_ratings_and_the_ends_of_the_scale(ratings: list[list[float]]) -> None:
    for hard in (False, True):
        given = torch.tensor([ratings], requires_grad=True)
        found = DiffKDE(hard=hard, seed=0)(given)
        assert found.isfinite().all()
        if hard:
            cells = {tuple(min(int((value + 1) * 2), 3) for value in each) for each in ratings}
            assert sum(found[0, row, column].item() for row, column in cells) > 0.25
        else:
            found.square().sum().backward()
            assert given.grad is not None
            assert given.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"grid": 62}, (1, 2, 2), "the 62 points of the estimator's grid must be a multiple of cells, got 4"),
        ({}, (1, 2, 3), r"of shape \(batch, raters, 2\), got \(1, 2, 3\)"),
    ],
)
def test_mistakes_are_one_sentence(options: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffKDE(**options)(torch.zeros(shape))
