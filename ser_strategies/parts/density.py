"""DiffKDE: from the ratings of an utterance to a distribution over cells of a plane, with gradients.

Kernel density estimation by diffusion (Botev, Grotowski and Kroese, 2010), as Tavernor, El-Tawil and Mower
Provost, The whole is bigger than the sum of its parts (2024), make it differentiable. One deviation: the
root that fixes the bandwidth is found by bisection in the number format of the ratings, at least float32,
and is a constant to the gradient.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ser_strategies.common.errors import check_range

WIDEST = 0.1  # the bandwidth t is sought from 0 to this, on a plane of size 1
BISECTIONS = {torch.float32: 24, torch.float64: 44}  # as many as the format can tell apart
# What is rated and noise: equal ratings are still spread by as much as this.
SMALLEST_NOISE = float(torch.finfo(torch.float32).eps)
DIMENSIONS = 2


class Draws(NamedTuple):
    """Random numbers in [0, 1) behind the observations, of each utterance, or the same for all (batch 1)."""

    size: Tensor  # of the subset of raters, (batch, observations)
    keys: Tensor  # by which raters are chosen, (batch, observations, raters)
    noise: Tensor  # (batch, observations, 2)


class DiffKDE(nn.Module):
    """Ratings to a distribution over n x n cells, with gradients, on any device.

    Each of `observations` is the mean of a random subset of an utterance's raters, plus noise as wide as the
    ratings are spread. They are counted on a grid, and the counts are smoothed in the cosine domain by the
    bandwidth that diffusion suggests. Where no bandwidth solves its equation, that of the normal reference
    rule is taken (Scott, 1992), and counted in `fallbacks`.

    Args:
        cells: Cells along each dimension.
        grid: Points of the grid along each dimension, a multiple of cells.
        observations: Observations drawn for each utterance.
        temperature: How steep the borders of grid points are: the higher, the less they blur.
        hard: Count each observation at one grid point, without gradients: for targets and scores.
        seed: What the observations are drawn from, the same for each call and utterance, so that ratings say
            all of their distribution; null draws anew from torch's generator.
    """

    fallbacks: Tensor
    """Utterances for which no bandwidth was found, of all so far, in int64."""

    def __init__(
        self,
        cells: int = 4,
        *,
        grid: int = 64,
        observations: int = 200,
        temperature: float = 8.0,
        hard: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_range("cells", cells, 2)
        check_range("observations", observations, 2)
        check_range("temperature", temperature, 1e-3)
        if grid < cells or grid % cells:
            msg = (
                f"the {grid} points of the estimator's grid must be a multiple of cells, got {cells} cells: "
                "choose other cells, such as 4 or 8, or another grid."
            )
            raise ValueError(msg)
        self.cells, self.grid, self.observations = cells, grid, observations
        self.temperature, self.hard, self.seed = temperature, hard, seed
        self.register_buffer("fallbacks", torch.zeros((), dtype=torch.int64), persistent=False)
        self._tables: dict[tuple[torch.device, torch.dtype], Draws] = {}
        self._bases: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def forward(self, ratings: Tensor) -> Tensor:
        """The distribution of ratings (batch, raters, 2) from -1 to 1: (batch, cells, cells), sum 1.

        Absent ratings are NaN. An utterance without any has a distribution of NaN. Rows are cells of the
        first dimension, columns those of the second, from -1 to 1.
        """
        shares, lost = self.estimate(ratings)
        self.fallbacks += lost.sum()
        return shares

    def estimate(self, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and for which utterances no bandwidth was found, (batch,); they are not counted."""
        density, found = self._densities(ratings)
        side = self.grid // self.cells
        pooled = density.view(-1, self.cells, side, self.cells, side).mean((2, 4))
        return pooled / pooled.sum((1, 2), keepdim=True), ~found

    def density(self, ratings: Tensor) -> Tensor:
        """The density of ratings (batch, raters, 2) at the points of the grid, (batch, grid, grid)."""
        return self._densities(ratings)[0]

    def _densities(self, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Densities, (batch, grid, grid), and of which of them the bandwidth was found."""
        if ratings.dim() != DIMENSIONS + 1 or ratings.shape[2] != DIMENSIONS:
            msg = f"DiffKDE takes ratings of shape (batch, raters, 2), got {tuple(ratings.shape)}."
            raise ValueError(msg)
        with torch.autocast(ratings.device.type, enabled=False):
            wide = ratings if ratings.dtype == torch.float64 else ratings.float()
            known = ~wide.isnan().any(2)
            drawn = observe(wide, known, self._draw(wide))
            basis = self._basis(wide)
            counts = self._count(drawn) / self.observations
            waves = basis.mT @ counts @ basis
            rows, columns, found = self._bandwidths(waves, drawn)
            powers = _waves(waves)[1]
            faded = [torch.exp(-(math.pi**2) * t.unsqueeze(1) * powers / 2) for t in (rows, columns)]
            kernel = faded[0].unsqueeze(2) * faded[1].unsqueeze(1)
            # The inverse transform has plain cosines; the basis has twice these but for the first wave.
            cosines = torch.cat([basis[:, :1], basis[:, 1:] / 2], 1) / 2
            density = cosines @ (waves * kernel) @ cosines.mT
            smallest = torch.finfo(density.dtype).eps
            density = torch.where(density > 0, density, smallest)
            return density.masked_fill(~known.any(1)[:, None, None], torch.nan), found

    def _draw(self, ratings: Tensor) -> Draws:
        batch, raters, _ = ratings.shape
        count = self.observations
        if self.seed is None:
            shapes = (batch, count), (batch, count, raters), (batch, count, DIMENSIONS)
            return Draws(*(torch.rand(shape, device=ratings.device, dtype=ratings.dtype) for shape in shapes))
        key = (ratings.device, ratings.dtype)
        table = self._tables.get(key)
        if table is None or table.keys.shape[2] < raters:
            # A rater's place decides their numbers, however many places there are.
            chance = np.random.default_rng([self.seed, 0])
            size, noise = chance.random(count), chance.random((count, 2))
            keys = np.random.default_rng([self.seed, 1]).random((raters, count)).T
            table = Draws(*(torch.from_numpy(each).to(ratings).unsqueeze(0) for each in (size, keys, noise)))
            self._tables[key] = table
        return table._replace(keys=table.keys[:, :, :raters])

    def _basis(self, ratings: Tensor) -> Tensor:
        """Waves at the points of the grid, (points, waves): 1 for the first, twice a cosine for others."""
        key = (ratings.device, ratings.dtype)
        if key not in self._bases:
            points = torch.arange(self.grid, dtype=torch.float64) + 0.5
            basis = 2 * torch.cos(math.pi * points.unsqueeze(1) * torch.arange(self.grid) / self.grid)
            basis[:, 0] = 1
            self._bases[key] = basis.to(device=ratings.device, dtype=ratings.dtype)
        return self._bases[key]

    def _count(self, drawn: Tensor) -> Tensor:
        """Observations (batch, observations, 2) at each point of the grid, (batch, grid, grid)."""
        if self.hard:
            places = ((drawn.detach() + 1) * (self.grid / 2)).long().clamp(0, self.grid - 1)
            flat = places[:, :, 0] * self.grid + places[:, :, 1]
            counts = torch.zeros(len(drawn), self.grid**2, dtype=drawn.dtype, device=drawn.device)
            counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=drawn.dtype))
            return counts.view(-1, self.grid, self.grid)
        edges = torch.linspace(-1, 1, self.grid + 1, dtype=drawn.dtype, device=drawn.device)
        below = torch.sigmoid(self.temperature * (drawn.unsqueeze(3) - edges))
        shares = below[..., :-1] - below[..., 1:]
        return shares[:, :, 0].mT @ shares[:, :, 1]

    def _bandwidths(self, waves: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bandwidths along rows and columns, and whether they were found, (batch,); `diffusion_times`."""
        squares = waves.square()
        with torch.no_grad():
            root, found = solve(squares, self.observations)
            spread = (drawn.var(1) / 4).clamp(min=(0.5 / self.grid) ** 2)
            reference = spread * self.observations ** (-1 / 3)
        # Anything with a bandwidth, since what is not taken must still have a gradient.
        solvable = torch.where(found[:, None, None], squares, torch.ones_like(squares))
        rows, columns = diffusion_times(solvable, root, self.observations)
        return torch.where(found, rows, reference[:, 0]), torch.where(found, columns, reference[:, 1]), found


def observe(ratings: Tensor, known: Tensor, draws: Draws) -> Tensor:
    """Observations from ratings (batch, raters, 2), of whom some are known: (batch, observations, 2).

    Each is the mean of a random subset, which is as likely to have one rater as all of them, plus noise that
    is uniform over one standard deviation of the ratings.
    """
    values = ratings.masked_fill(~known.unsqueeze(2), 0.0)
    count = known.sum(1)
    size = (1 + (draws.size * count.unsqueeze(1)).floor()).clamp(max=count.clamp(min=1).unsqueeze(1))
    choosing = known.unsqueeze(1)
    if len(draws.size) == 1 and bool((known == known[:1]).all()):
        # The same numbers choose among the same raters, who may be all of a corpus, thousands: once for all.
        size, choosing = size[:1], choosing[:1]
    chosen: Tensor = choosing
    if ratings.shape[1] > 1:
        keys = draws.keys.masked_fill(~choosing, 2.0)
        last = keys.sort(2).values.gather(2, size.long().unsqueeze(2) - 1)
        chosen = (keys <= last) & choosing
    means = (chosen.to(values.dtype) / size.unsqueeze(2)) @ values
    centre = values.sum(1, keepdim=True) / count.clamp(min=1)[:, None, None]
    apart = (values - centre).masked_fill(~known.unsqueeze(2), 0.0)
    variance = apart.square().sum(1) / (count - 1).clamp(min=1).unsqueeze(1)
    # The root's slope is infinite at zero.
    spread = torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)
    noise = (draws.noise - 0.5) * (spread + 2 * SMALLEST_NOISE).unsqueeze(1)
    return (means + noise).clamp(-1, 1)


def solve(squares: Tensor, observations: int) -> tuple[Tensor, Tensor]:
    """The bandwidth t at which t = gamma(t), by bisection, and whether it lies between 0 and 0.1, (batch,).

    `squares` are the squared coefficients (batch, waves, waves), the first of each half as large as the
    others'.
    """
    low = torch.zeros(len(squares), dtype=squares.dtype, device=squares.device)
    high = torch.full_like(low, WIDEST)
    found = (_distance(squares, low, observations) > 0) & (_distance(squares, high, observations) < 0)
    for _ in range(BISECTIONS[squares.dtype]):
        middle = (low + high) / 2
        right = _distance(squares, middle, observations) > 0
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return (low + high) / 2, found


def diffusion_times(squares: Tensor, root: Tensor, observations: int) -> tuple[Tensor, Tensor]:
    """Bandwidths along rows and along columns, (batch,) each, from the root that `solve` finds."""
    by_row, mixed, by_column = _psi(squares, root, observations).unbind(1)
    together = 4 * math.pi * observations * (mixed + (by_row * by_column).sqrt())
    ratio = (by_row / by_column) ** 0.75
    return (1 / (together * ratio)) ** (1 / 3), (ratio / together) ** (1 / 3)


def _distance(squares: Tensor, time: Tensor, observations: int) -> Tensor:
    """How far t lies above gamma(t), (batch,): above zero below the root."""
    by_row, mixed, by_column = _psi(squares, time, observations).unbind(1)
    wanted = (2 * math.pi * observations * (by_row + by_column + 2 * mixed)) ** (-1 / 3)
    return time - (time - wanted) / wanted


def _waves(waves: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the waves in a sum over squared coefficients, and their squared numbers, (waves,)."""
    numbers = torch.arange(waves.shape[-1], dtype=waves.dtype, device=waves.device)
    weights = torch.full_like(numbers, 0.5)
    weights[0] = 1
    return weights, numbers.square()


def _psi(squares: Tensor, time: Tensor, observations: int) -> Tensor:
    """Estimates of psi(0, 2), psi(1, 1) and psi(2, 0) at a time t: (batch, 3).

    Those of each order decide at which time those of the order below are taken, from order 5, at t, down to
    order 2. The second index is of rows. Signs are left out: those of one order have the same.
    """
    weights, powers = _waves(squares)
    times = time.unsqueeze(1).expand(-1, 6)
    for order in (5, 4, 3, 2):
        index = torch.arange(order + 1, device=squares.device)
        decay = weights * torch.exp(-(math.pi**2) * powers * times.unsqueeze(2))  # (batch, order + 1, waves)
        along = powers.unsqueeze(0) ** index.unsqueeze(1)  # (order + 1, waves)
        left, right = decay * along.flip(0), decay * along
        values = ((left @ squares) * right).sum(2) * math.pi ** (2 * order)
        if order == 2:
            break
        below = torch.tensor(
            [(1 + 2.0**-order) / 3 * _odd(i) * _odd(order - 1 - i) for i in range(order)],
            dtype=squares.dtype,
            device=squares.device,
        )
        together = values[:, 1:] + values[:, :-1]
        times = (below / (math.pi * observations * together)) ** (1 / (order + 1))
    return values


def _odd(count: int) -> float:
    """The product of the first odd numbers: 1, 1, 3, 15, ..."""
    return float(math.prod(range(1, 2 * count, 2)))
