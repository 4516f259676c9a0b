"""Distributions of ratings are those of DiffKDE, and are estimated once."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ser_strategies import DiffKDE
from ser_strategies.parts import rated_cells
from ser_strategies.parts.rated_cells import RatedCells


def some_ratings(utterances: int = 9) -> Tensor:
    """Ratings on a scale of five, by two raters or more; the last utterance has none."""
    chance = torch.Generator().manual_seed(0)
    ratings = torch.randint(0, 5, (utterances, 6, 2), generator=chance) / 2 - 1
    for row in range(utterances):
        ratings[row, 2 + row % 5 :] = torch.nan
    ratings[0, 0] = torch.nan  # whose place decides what the others draw
    ratings[-1] = torch.nan
    return ratings


class Counting(DiffKDE):
    """Remembers how many utterances it was asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(hard=True, seed=0, **options)
        self.asked: list[int] = []

    def estimate(self, ratings: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(len(ratings))
        return super().estimate(ratings)


def test_what_is_remembered_is_what_is_estimated_bit_for_bit_in_any_company() -> None:
    ratings = some_ratings()
    density = Counting()
    remembered = RatedCells(density)
    whole, lost = remembered(ratings)
    expected = DiffKDE(hard=True, seed=0)(ratings.double())
    assert torch.allclose(whole, expected, atol=1e-11, equal_nan=True)
    assert whole[-1].isnan().all()
    assert lost == density.fallbacks == 0
    for order in ([3], [5, 1], [8, 2, 0, 7]):
        among = ratings[order][:, : 6 if 8 in order else 5]  # narrower, as another batch may be
        for there in (remembered, RatedCells(DiffKDE(hard=True, seed=0))):  # looked up, and estimated anew
            assert torch.equal(there(among)[0].nan_to_num(9), whole[order].nan_to_num(9))
    assert density.asked == [9]
    remembered(torch.cat([ratings, ratings.flip(2), ratings.flip(2)]))
    assert density.asked == [9, 8]  # nothing said is the same either way round


@pytest.mark.parametrize("value", [-0.5, 0.0, 0.5])
def test_training_has_the_target_of_the_scores_where_all_agree_on_a_border(value: float) -> None:
    agreed = torch.full((1, 5, 2), value)
    expected = DiffKDE(hard=True, seed=0)(agreed.double())
    assert torch.allclose(RatedCells(DiffKDE(hard=True, seed=0))(agreed)[0], expected, atol=1e-11)
    assert 0.4 < expected.sum(2).topk(2).values.min() < 0.5  # in halves, but for the noise that is drawn


def test_utterances_without_a_bandwidth_are_counted_each_time() -> None:
    ratings = some_ratings()[1:4]
    density = Counting()
    real = density.estimate

    def second_lost(given: Tensor) -> tuple[Tensor, Tensor]:
        return real(given)[0], torch.tensor([False, True, False])

    density.estimate = second_lost  # type: ignore[method-assign]
    remembered = RatedCells(density)
    assert [int(remembered(ratings)[1]) for _ in range(2)] == [1, 1]
    assert int(remembered(ratings[[1, 1, 0]])[1]) == 2
    assert density.fallbacks == 0


def test_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rated_cells, "MOST", 5)
    density = Counting()
    remembered = RatedCells(density)
    ratings = some_ratings()
    first = remembered(ratings[:4])[0]
    assert torch.equal(remembered(ratings[:8])[0][:4], first)
    remembered(ratings[:8])
    assert density.asked == [4, 4, 4]
