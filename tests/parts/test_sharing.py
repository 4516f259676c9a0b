"""Processes that train together learn what one with the whole batch would.

`python -m tests.parts.test_sharing <folder>` forks processes that take shares of batches, and writes what
came of them to found.pt there: everything is imported once.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_strategies.parts.adaptation import UNKNOWN, Adaptation, Contrast, MaskedView, UnitPrediction
from ser_strategies.parts.contrastive import ContrastiveObjective, GumbelQuantiser, sample_negatives
from ser_strategies.parts.sharing import processes, shared_count, shared_sum
from tests.parts.conftest import fixed_noise

SIZE, TOTAL = 6, 20
CLUSTERS = (4, 9)
SCALINGS = ("mean", "per_frame", "once")
# How many masked frames each of six clips has, and which clips each process takes. A clip with one masked
# frame has nothing to be told from; a process may get no masked frame at all, or nothing that can be told.
COUNTS = [5, 8, 1, 12, 0, 3]
SHARES = {
    "two": [[0, 1, 2], [3, 4, 5]],
    "two, uneven": [[3], [0, 1, 2, 4, 5]],
    "two, one without a masked frame": [[4], [0, 1, 2, 3, 5]],
    "two, one with nothing to be told": [[0, 1, 3, 4, 5], [2]],
    "three": [[0, 4], [1, 2], [3, 5]],
}


def whole_view() -> MaskedView:
    generator = torch.Generator().manual_seed(8)
    masked = torch.zeros(len(COUNTS), TOTAL, dtype=torch.bool)
    for row, count in enumerate(COUNTS):
        masked[row, torch.randperm(TOTAL, generator=generator)[:count]] = True
    rows = [row.nonzero()[:, 0] for row in masked]
    places = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    units = torch.stack([torch.randint(0, k, places.shape, generator=generator) for k in CLUSTERS], 2)
    hidden, features = (torch.randn(len(COUNTS), TOTAL, SIZE, generator=generator) for _ in range(2))
    return MaskedView(
        hidden,
        torch.ones_like(masked),
        masked,
        places,
        features,
        sample_negatives(masked, 7, generator),
        units.masked_fill((places < 0).unsqueeze(2), UNKNOWN),
    )


def share_of(view: MaskedView, clips: list[int]) -> MaskedView:
    """What a process has of a batch: some of its clips, with no more rows than they need."""
    some = MaskedView(*(values if values is None else values[clips] for values in view))
    rows = int(some.masked.sum(1).max())
    return some._replace(
        places=some.places[:, :rows],
        # The only masked frame of a clip has no others; what stands there must be some row.
        negatives=some.negatives[:, :rows].clamp(max=rows - 1),
        units=some.units[:, :rows],
    )


def adaptations() -> dict[str, Adaptation]:
    torch.manual_seed(4)
    objectives = {
        scaling: ContrastiveObjective(SIZE, SIZE, entries=5, code_size=8, projected_size=6, scaling=scaling)
        for scaling in SCALINGS
    }
    contrasts = {
        scaling: Contrast(objective, negatives=7, gumbel=(1.0, 0.5, 1.0))
        for scaling, objective in objectives.items()
    }
    return {**contrasts, "units": UnitPrediction(SIZE, CLUSTERS, hidden=5)}


class Found(NamedTuple):
    """What a process, or one alone, has after a step."""

    loss: Tensor
    gradients: dict[str, Tensor]
    sums: dict[str, Tensor]


def step(adaptation: Adaptation, view: MaskedView, *, average: bool) -> Found:
    """Forward, backward, and what DistributedDataParallel does with the gradients."""
    adaptation.zero_grad()
    hidden = view.hidden.clone().requires_grad_()
    result = adaptation(view._replace(hidden=hidden))
    result.loss.backward()
    gradients = {name: parameter.grad for name, parameter in adaptation.named_parameters()}
    if average:
        for gradient in gradients.values():
            torch.distributed.all_reduce(gradient)
            gradient /= torch.distributed.get_world_size()
        # Below, an encoder's parameters would get the same average.
        hidden.grad /= torch.distributed.get_world_size()
    found = {name: gradient.clone() for name, gradient in gradients.items()} | {"hidden": hidden.grad}
    return Found(result.loss.detach(), found, result.sums)


def plain(rank: int, clips: list[list[int]]) -> dict[str, Any]:
    """The two functions by themselves: sums of squares of this process's numbers."""
    numbers = torch.tensor([float(clip + 1) for clip in clips[rank]], requires_grad=True)
    weight = torch.tensor(3.0, requires_grad=True)
    total = shared_sum((weight * numbers**2).sum())
    (total / shared_count(torch.tensor(len(numbers)))).log().backward()
    torch.distributed.all_reduce(weight.grad)
    count = torch.tensor(len(numbers))
    return {
        "total": total.detach(),
        "count": shared_count(count),
        "own count": count,
        "weight": weight.grad / torch.distributed.get_world_size(),
        "numbers": numbers.grad / torch.distributed.get_world_size(),
        "vector": shared_sum(torch.full((2, 3), float(rank))),
        "processes": processes(),
    }


def evaluate(rank: int) -> dict[str, Tensor]:
    """Batches in evaluation, of which one process has more than the other: nobody may wait for anybody."""
    view, losses = whole_view(), {}
    for name, adaptation in adaptations().items():
        adaptation.eval()
        for _ in range(1 + 2 * rank):
            losses[name] = adaptation(view).loss.detach()
    quantiser = GumbelQuantiser(SIZE, groups=2, entries=5, code_size=8).eval()
    mask = torch.ones(1, 4 + rank, dtype=torch.bool)
    quantiser(torch.randn(1, 4 + rank, SIZE), mask)
    torch.distributed.barrier()
    return losses


def take_part(rank: int, shares: list[list[list[int]]], store: Path) -> list[dict[str, Any]]:
    """What one of some processes has of each way to share the batch out."""
    torch.distributed.init_process_group(
        "gloo", f"file://{store}", timedelta(seconds=60), rank=rank, world_size=len(shares[0])
    )
    found = []
    for clips in shares:
        view = share_of(whole_view(), clips[rank])
        steps = {
            name: step(adaptation.train(), view, average=True)._asdict()
            for name, adaptation in adaptations().items()
        }
        found.append({**steps, "plain": plain(rank, clips), "eval": evaluate(rank)})
    torch.distributed.destroy_process_group()
    return found


def forked(act: Callable[[], Any], path: Path) -> int:
    """A process that writes what a function returns."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.save(act(), path)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def main(folder: Path) -> None:
    """All shares for two processes by the same two, and then those for three."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    F.gumbel_softmax = fixed_noise  # so that a frame draws the same in whatever process it is
    found: dict[str, list[Any]] = {}
    for world in (2, 3):
        shares = {name: clips for name, clips in SHARES.items() if len(clips) == world}
        store, paths = folder / f"store{world}", [folder / f"{world}-{rank}.pt" for rank in range(world)]
        children = [
            forked(partial(take_part, rank, list(shares.values()), store), path)
            for rank, path in enumerate(paths)
        ]
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(ended):
            raise SystemExit(f"{world} processes ended with {ended}")
        came = [torch.load(path) for path in paths]
        found |= {name: [each[number] for each in came] for number, name in enumerate(shares)}
    torch.save(found, folder / "found.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("together")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.parts.test_sharing", str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return torch.load(folder / "found.pt")


every_share = pytest.mark.parametrize("share", SHARES)


@every_share
def test_a_sum_and_a_count_are_those_of_all_processes(share, together):
    found = [each["plain"] for each in together[share]]
    for rank, each in enumerate(found):
        assert each["total"].item() == pytest.approx(3 * sum(n**2 for n in range(1, 7)), rel=1e-6)
        assert each["count"] == len(COUNTS)
        assert each["own count"] == len(SHARES[share][rank]), "what was given is not overwritten"
        assert each["vector"].tolist() == [[sum(range(len(found)))] * 3] * 2
        assert each["processes"] == len(found)


@every_share
def test_averaged_gradients_of_a_sum_are_those_of_one_process(share, together):
    weight, numbers = torch.tensor(3.0, requires_grad=True), torch.arange(1.0, 7.0, requires_grad=True)
    ((weight * numbers**2).sum() / 6).log().backward()
    for clips, each in zip(SHARES[share], together[share], strict=True):
        torch.testing.assert_close(each["plain"]["weight"], weight.grad)
        torch.testing.assert_close(each["plain"]["numbers"], numbers.grad[clips])


@every_share
@pytest.mark.parametrize("name", [*SCALINGS, "units"])
def test_loss_and_gradients_are_those_of_one_process_with_the_whole_batch(share, name, together, monkeypatch):
    monkeypatch.setattr(F, "gumbel_softmax", fixed_noise)
    alone = step(adaptations()[name].train(), whole_view(), average=False)
    assert alone.loss > 0.1
    for clips, each in zip(SHARES[share], together[share], strict=True):
        assert each[name]["loss"].item() == pytest.approx(alone.loss.item(), rel=1e-5)
        assert each[name]["gradients"].keys() == alone.gradients.keys()
        for parameter, gradient in each[name]["gradients"].items():
            expected = alone.gradients[parameter]
            expected = expected[clips] if parameter == "hidden" else expected
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6, msg=parameter)
    for what, expected in alone.sums.items():
        total = sum(each[name]["sums"][what] for each in together[share])
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6, msg=what)


@every_share
def test_in_evaluation_nobody_waits_for_the_other_and_each_has_its_own_loss(share, together, monkeypatch):
    monkeypatch.setattr(F, "gumbel_softmax", fixed_noise)
    for each in together[share]:
        for name, adaptation in adaptations().items():
            expected = adaptation.eval()(whole_view()).loss
            torch.testing.assert_close(each["eval"][name], expected.detach())


def test_alone_nothing_is_changed():
    values = torch.tensor([1.5, 2.5], requires_grad=True)
    assert processes() == 1
    assert shared_sum(values) is values
    count = torch.tensor(4)
    assert shared_count(count) == 4
    assert shared_count(count) is not count
    assert not shared_count(values).requires_grad


def test_frames_of_the_comparison_are_shared_out_whole():
    view = whole_view()
    for clips in SHARES.values():
        assert sorted(clip for share in clips for clip in share) == list(range(len(COUNTS)))
        parts = [share_of(view, share) for share in clips]
        assert sum(int((part.places >= 0).sum()) for part in parts) == sum(COUNTS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
