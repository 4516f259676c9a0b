import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import pairwise_distances
from torch import Tensor

from ser_strategies.units import kmeans as clustering
from ser_strategies.units.kmeans import KMeans, fit_kmeans
from ser_strategies.units.stream import Chunks, Nearest, assign


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(frames: int, clusters: int, spread: float, size: int = 16) -> Tensor:
    which = torch.randint(clusters, (frames,), generator=torch.Generator().manual_seed(1))
    return spread * normal(clusters, size, seed=2)[which] + normal(frames, size, seed=3)


def correlated_noise(frames: int, size: int = 24) -> Tensor:
    """Noise that remembers what was, of a few strong directions and many weak ones, far from zero."""
    noise = normal(frames, size, seed=4)
    for index in range(1, frames):
        noise[index] += 0.9 * noise[index - 1]
    return noise @ (normal(size, size, seed=5) * torch.linspace(2, 0.1, size)) + 30


def whole(frames: Tensor) -> Chunks:
    return lambda: [(0, frames)]


def cut(frames: Tensor, lengths: Iterable[int]) -> list[tuple[int, Tensor]]:
    """Chunks of these lengths, over and over."""
    chunks, start, lengths = [], 0, list(lengths)
    while start < len(frames):
        length = lengths[len(chunks) % len(lengths)]
        chunks.append((start, frames[start : start + length]))
        start += length
    return chunks


def by_hand(frames: Tensor, centres: Tensor) -> tuple[np.ndarray, float]:
    """Nearest centres and inertia, from all differences in float64."""
    x, c = frames.double().numpy(), centres.double().numpy()
    distances = np.stack([np.square(x - centre).sum(axis=1) for centre in c], axis=1)
    return distances.argmin(axis=1), distances.min(axis=1).sum()


def same(a: KMeans, b: KMeans) -> None:
    assert a.centres.equal(b.centres)
    assert a.counts.equal(b.counts)
    assert a.passes == b.passes
    assert a.inertia == pytest.approx(b.inertia, rel=1e-12)


class Meeting:
    """Processes, played by threads, that sum tensors as all_reduce does."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=20)
        self.given: dict[int, Tensor] = {}

    def reduce(self, rank: int) -> Callable[[Tensor], Tensor]:
        def total(tensor: Tensor) -> Tensor:
            self.given[rank] = tensor
            self.barrier.wait()
            # In another order on each rank, as a ring sums.
            ranks = [(rank + step) % self.barrier.parties for step in range(self.barrier.parties)]
            summed = sum(self.given[other] for other in ranks[1:]) + self.given[rank]
            self.barrier.wait()
            return summed

        return total


def fit_on_ranks(shares: list[list[tuple[int, Tensor]]], *arguments, **options) -> list[KMeans | ValueError]:
    """What each rank returns or raises."""
    meeting = Meeting(len(shares))

    def fit(rank: int) -> KMeans | ValueError:
        try:
            return fit_kmeans(lambda: shares[rank], *arguments, reduce=meeting.reduce(rank), **options)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(fit, range(len(shares))))


# How well it fits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "clusters"),
    [
        *((data, 8) for data in ("far blobs", "near blobs", "correlated noise")),
        ("far blobs", 64),
        pytest.param("near blobs", 64, marks=pytest.mark.further),
        ("correlated noise", 64),
    ],
)
def test_inertia_is_within_two_percent_of_scikit_learn(data, clusters):
    frames = {
        "far blobs": lambda: blobs(4000, clusters, 6.0),
        "near blobs": lambda: blobs(4000, clusters, 1.0),
        "correlated noise": lambda: correlated_noise(4000),
    }[data]()
    reference = SklearnKMeans(clusters, n_init=4, random_state=0).fit(frames.numpy()).inertia_
    for seed in range(3):
        assert fit_kmeans(whole(frames), clusters, seed=seed).inertia <= 1.02 * reference


@pytest.mark.parametrize("passes", [0, 1, 20])
def test_inertia_and_counts_are_those_of_the_centres_returned(passes):
    frames = correlated_noise(2000)
    fit = fit_kmeans(whole(frames), 32, passes=passes)
    ids, inertia = by_hand(frames, fit.centres)
    assert fit.inertia == pytest.approx(inertia, rel=1e-9)
    assert fit.counts.numpy().tolist() == np.bincount(ids, minlength=32).tolist()
    assert fit.passes <= passes
    assert (fit.centres.dtype, fit.counts.dtype) == (torch.float32, torch.int64)


def test_each_pass_moves_the_centres_to_the_mean_of_their_frames():
    frames = blobs(500, 5, 2.0)
    before, after = (fit_kmeans(whole(frames), 5, passes=passes, tolerance=0) for passes in (1, 2))
    ids, _ = by_hand(frames, before.centres)
    means = [frames.double()[ids == cluster].mean(dim=0) for cluster in range(5)]
    torch.testing.assert_close(after.centres, torch.stack(means).float(), rtol=1e-6, atol=1e-6)


def test_passes_are_reported_and_never_make_it_worse():
    seen = []
    fit = fit_kmeans(
        whole(correlated_noise(2000)), 16, tolerance=0, passes=50, progress=lambda *args: seen.append(args)
    )
    numbers, inertias = zip(*seen, strict=True)
    assert numbers == tuple(range(fit.passes + 1))
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(inertias))
    assert inertias[-1] == fit.inertia


def test_stops_where_it_gains_too_little():
    seen = []
    fit_kmeans(
        whole(correlated_noise(2000)), 16, passes=99, tolerance=0.01, progress=lambda _, i: seen.append(i)
    )
    gains = [1 - later / earlier for earlier, later in pairwise(seen)]
    assert len(gains) < 99
    assert gains[-1] <= 0.01
    assert all(gain > 0.01 for gain in gains[:-1])


def test_one_cluster_is_the_mean():
    frames = correlated_noise(700)
    fit = fit_kmeans(whole(frames), 1)
    torch.testing.assert_close(fit.centres[0], frames.double().mean(dim=0).float())
    assert fit.inertia == pytest.approx(700 * frames.double().numpy().var(axis=0).sum(), rel=1e-9)
    assert fit.counts.tolist() == [700]


def test_as_many_clusters_as_frames_leave_no_distance():
    frames = normal(40, 6)
    fit = fit_kmeans(whole(frames), 40)
    assert fit.inertia == pytest.approx(0, abs=1e-10)
    assert fit.counts.tolist() == [1] * 40


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats_are_taken_for_what_they_are(dtype):
    frames = blobs(600, 6, 3.0).to(dtype)
    fit = fit_kmeans(whole(frames), 6)
    ids, inertia = by_hand(frames, fit.centres)
    assert fit.inertia == pytest.approx(inertia, rel=1e-9)
    assert assign(frames, fit.centres).tolist() == ids.tolist()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e12])
def test_units_do_not_matter(scale):
    frames = blobs(600, 6, 3.0)
    plain, scaled = fit_kmeans(whole(frames), 6), fit_kmeans(whole(frames * scale), 6)
    assert scaled.counts.tolist() == plain.counts.tolist()
    assert scaled.inertia == pytest.approx(plain.inertia * scale**2, rel=1e-5)


def test_a_few_huge_frames_do_not_blur_the_others():
    frames = blobs(600, 6, 3.0)
    frames[::100] += 1e6
    fit = fit_kmeans(whole(frames), 12)
    ids, inertia = by_hand(frames, fit.centres)
    assert fit.inertia == pytest.approx(inertia, rel=1e-3)
    assert fit.counts.tolist() == np.bincount(ids, minlength=12).tolist()


# Not how it is cut, nor who has it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "batch"), [([1], 13), ([7, 300, 50], 13), ([7, 300, 50], 256), ([64], 4096), ([5000], 256)]
)
def test_the_cut_of_the_frames_changes_no_bit(lengths, batch):
    """Chunks that are smaller and larger than a batch, that fit into it and that do not."""
    frames = correlated_noise(800)
    same(fit_kmeans(lambda: cut(frames, lengths), 24, batch=batch), fit_kmeans(whole(frames), 24))


def test_the_order_of_the_chunks_changes_no_bit():
    frames = correlated_noise(1500)
    same(
        fit_kmeans(lambda: reversed(cut(frames, [31, 100])), 24),
        fit_kmeans(lambda: cut(frames, [64]), 24),
    )


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("clusters", [1, 24])
def test_the_number_of_ranks_changes_no_bit(world, clusters):
    frames = correlated_noise(1500)
    utterances = cut(frames, [31, 100, 5])
    # Not frame 0 on rank 0, and unequal shares.
    shares = [utterances[1 + rank :: world] for rank in range(world)]
    shares[-1] = [*shares[-1], utterances[0]]
    alone = fit_kmeans(whole(frames), clusters, sample=300)
    for fit in fit_on_ranks(shares, clusters, sample=300):
        same(fit, alone)


def test_frames_right_between_centres_change_no_bit_either():
    # On a grid nearly every frame is as far from one centre as from another.
    frames = torch.cartesian_prod(*[torch.arange(6.0)] * 3) * 0.1 + 5
    frames = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))]
    alone = fit_kmeans(whole(frames), 7)
    same(fit_kmeans(lambda: cut(frames, [1, 9]), 7, batch=10), alone)
    utterances = cut(frames, [5])
    for fit in fit_on_ranks([utterances[rank::3] for rank in range(3)], 7):
        same(fit, alone)


def test_empty_clusters_are_the_same_on_all_ranks():
    frames = normal(5, 8).repeat(40, 1)
    alone = fit_kmeans(whole(frames), 9)
    utterances = cut(frames, [7])
    for fit in fit_on_ranks([utterances[rank::2] for rank in range(2)], 9):
        same(fit, alone)


def test_the_seed_decides_and_nothing_else():
    frames = correlated_noise(1500)
    state = torch.get_rng_state()
    first = fit_kmeans(whole(frames), 24, seed=3)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    same(fit_kmeans(whole(frames), 24, seed=3), first)
    assert not fit_kmeans(whole(frames), 24, seed=4).centres.equal(first.centres)


def test_the_precision_that_a_program_has_chosen_changes_no_bit():
    frames = correlated_noise(1000)
    plain = fit_kmeans(whole(frames), 24)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same(fit_kmeans(whole(frames), 24), plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


# The sample -------------------------------------------------------------------------------------------------


def test_seeds_are_frames_of_the_set():
    frames = normal(3000, 4)
    seeds = fit_kmeans(lambda: cut(frames, [77]), 20, passes=0, sample=50).centres
    assert all((frames == seed).all(dim=1).any() for seed in seeds)


def test_the_sample_is_one_frame_of_each_stretch():
    frames = torch.arange(1000.0).unsqueeze(1)
    drawn = clustering.FrameStream(lambda: cut(frames, [33]), 64, lambda tensor: tensor).draw(100, seed=5)
    assert (drawn.flatten() // 10).tolist() == list(range(100))
    assert len({int(number) % 10 for number in drawn}) > 5
    everything = clustering.FrameStream(whole(frames), 64, lambda tensor: tensor).draw(1000, seed=5)
    assert everything.equal(frames)


# Clusters without frames ------------------------------------------------------------------------------------


def test_fewer_distinct_frames_than_clusters():
    distinct = normal(5, 8)
    fit = fit_kmeans(whole(distinct.repeat(40, 1)), 9)
    assert sorted(fit.counts.tolist()) == [0] * 4 + [40] * 5
    assert fit.inertia == pytest.approx(0, abs=1e-9)
    assert {tuple(centre.tolist()) for centre in fit.centres} == {tuple(x.tolist()) for x in distinct}
    assert fit.passes <= 3


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_all_frames_the_same(value):
    fit = fit_kmeans(whole(torch.full((50, 4), value)), 3)
    assert fit.counts.tolist() == [50, 0, 0]
    assert fit.centres.equal(torch.full((3, 4), value))


def test_a_centre_that_loses_its_frames_starts_again_elsewhere(monkeypatch):
    frames = blobs(1000, 8, 6.0)
    draw, calls = clustering.Seeds.__call__, []

    def astray(seeds: clustering.Seeds, centres: Tensor | None, wanted: int) -> Tensor:
        calls.append(wanted)
        drawn = draw(seeds, centres, wanted)
        if centres is None:
            drawn[[2, 5, 6]] = 1e3 + torch.arange(3.0).unsqueeze(1)
        return drawn

    monkeypatch.setattr(clustering.Seeds, "__call__", astray)
    fit = fit_kmeans(whole(frames), 8)
    assert calls[:2] == [8, 3]
    assert (fit.counts > 0).all()
    monkeypatch.undo()
    assert fit.inertia < fit_kmeans(whole(frames), 7).inertia


def test_duplicates_do_not_keep_a_rare_frame_from_its_centre():
    frames = torch.cat([torch.zeros(990, 3), torch.ones(9, 3), torch.full((1, 3), 5.0)])
    fit = fit_kmeans(whole(frames), 3)
    assert sorted(fit.counts.tolist()) == [1, 9, 990]


# What it refuses --------------------------------------------------------------------------------------------


def test_more_clusters_than_frames():
    with pytest.raises(
        ValueError, match=r"at least 1,001 frames for 1,001 clusters, got 1,000: .* fewer clust"
    ):
        fit_kmeans(whole(normal(1000, 2)), 1001)


@pytest.mark.parametrize("option", ["clusters", "batch"])
def test_numbers_below_one(option):
    with pytest.raises(ValueError, match=rf"{option} must be at least 1, got 0\."):
        fit_kmeans(whole(normal(10, 2)), **{"clusters": 2, option: 0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_frames_that_are_no_numbers_are_named(value):
    frames = normal(1000, 4)
    frames[612, 3] = frames[800, 0] = value
    with pytest.raises(ValueError, match=r"finite frames, got NaN or infinity in 2, here first in frame 612"):
        fit_kmeans(lambda: cut(frames, [50]), 4, batch=70)
    with pytest.raises(ValueError, match=r"NaN or infinity in frame 12 of 200"):
        assign(frames[600:800], frames[:4])


def test_all_ranks_stop_where_one_has_frames_that_are_no_numbers():
    frames = normal(100, 4)
    frames[60, 3] = math.nan
    errors = fit_on_ranks([cut(frames, [50])[rank:][:1] for rank in range(2)], 4)
    assert [type(error) for error in errors] == [ValueError] * 2
    assert "here first in frame 60" not in str(errors[0])
    assert "here first in frame 60" in str(errors[1])


@pytest.mark.parametrize("starts", [(0, 60), (0, 40), (0, 0), (1, 51)])
def test_frames_with_gaps_or_repetitions(starts):
    chunks = [(start, normal(50, 2)) for start in starts]
    with pytest.raises(ValueError, match="numbered 0 to 99 over all processes"):
        fit_kmeans(lambda: chunks, 3)


def test_chunks_that_come_only_once():
    once = iter([(0, normal(50, 2))])
    with pytest.raises(ValueError, match=r"same 50 frames in each pass, got 0: let `chunks` start"):
        fit_kmeans(lambda: once, 3)


def test_no_frames_at_all():
    with pytest.raises(ValueError, match="expected frames in every process, got none"):
        fit_kmeans(list, 3)


# Memory -----------------------------------------------------------------------------------------------------


def most_held(frames: int) -> tuple[int, int]:
    """Chunks, and bytes of all tensors, held at once while frames come from a generator."""
    alive, peak, most_bytes = 0, 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def chunks() -> Iterator[tuple[int, Tensor]]:
        nonlocal alive, peak, most_bytes
        for first in range(0, frames, 50):
            chunk = normal(50, 8, seed=first)
            weakref.finalize(chunk, gone)
            alive += 1
            peak = max(peak, alive)
            if first % 1000 == 0:
                stores = [one.untyped_storage() for one in gc.get_objects() if type(one) is Tensor]
                most_bytes = max(most_bytes, sum({s.data_ptr(): s.nbytes() for s in stores}.values()))
            yield first, chunk
            del chunk

    fit_kmeans(chunks, 4, sample=500, batch=200, passes=2, tolerance=0)
    return peak, most_bytes


def test_memory_does_not_grow_with_the_frames():
    gc.collect()
    gc.freeze()  # so that only what is made from here on is looked through and counted
    few, many = most_held(3000), most_held(9000)
    assert many[0] == few[0] <= 8
    assert many[1] <= 1.1 * few[1]


# Assignment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("batch", [1, 100, 4096])
def test_ids_are_those_of_all_distances_in_float64(offset, batch):
    centres = 3 * normal(50, 32) + offset
    # Also frames as good as right between two centres, which float32 cannot tell from each other.
    between = (centres[:-1] + centres[1:]) / 2 + 1e-6 * normal(49, 32, seed=8)
    frames = torch.cat([normal(900, 32, seed=9) * 3 + offset, between, centres])
    expected, _ = by_hand(frames, centres)
    assert assign(frames, centres, batch).tolist() == expected.tolist()
    reference = pairwise_distances(frames.double().numpy(), centres.double().numpy(), metric="sqeuclidean")
    assert (reference.argmin(axis=1) == expected).mean() > 0.99


def test_float32_alone_would_err():
    centres = normal(2, 512) * 1e-3 + normal(1, 512, seed=1) * 100
    frames = centres.mean(dim=0) + 1e-4 * normal(2000, 512, seed=2)
    expected, _ = by_hand(frames, centres)
    naive = (centres.square().sum(dim=1) - 2 * frames @ centres.T).argmin(dim=1).numpy()
    assert (naive != expected).any()
    assert assign(frames, centres).tolist() == expected.tolist()


def test_of_equally_near_centres_the_first_is_taken():
    centres = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    frames = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-3.0, 0.1], [0.0, 5.0], [-1.0, 1.0]])
    assert assign(frames, centres).tolist() == [0, 0, 1, 3, 1]


def test_a_frame_far_beyond_the_centres_and_centres_far_apart():
    centres = torch.cat([normal(20, 16), normal(1, 16) * 1e7])
    frames = torch.cat([normal(200, 16, seed=2), normal(20, 16, seed=3) * 1e7])
    assert assign(frames, centres).tolist() == by_hand(frames, centres)[0].tolist()


@pytest.mark.parametrize("centres", [torch.zeros(3, 4), torch.full((1, 4), 7.0)])
def test_centres_that_are_all_the_same(centres):
    assert assign(normal(20, 4), centres).tolist() == [0] * 20


def test_no_frames_get_no_ids():
    ids = assign(torch.zeros(0, 4), normal(3, 4))
    assert (ids.shape, ids.dtype) == ((0,), torch.int64)


def test_gradients_play_no_part():
    frames = normal(20, 4).requires_grad_()
    assert not assign(frames, normal(3, 4).requires_grad_()).requires_grad
    assert not fit_kmeans(whole(frames), 2).centres.requires_grad


@pytest.mark.parametrize(("offset", "copies"), [(0.0, 1), (100.0, 1), (0.0, 3)])
def test_few_frames_are_in_doubt(monkeypatch, offset, copies):
    doubted = 0
    decide = Nearest._decide

    def counted(nearest: Nearest, frames: Tensor, near: Tensor) -> Tensor:
        nonlocal doubted
        doubted += len(frames)
        return decide(nearest, frames, near)

    monkeypatch.setattr(Nearest, "_decide", counted)
    # Noise in which everything is as far from everything: real frames are in doubt far less often.
    frames = normal(3000, 768) + offset
    assign(frames, frames[:64].repeat(copies, 1))
    assert 0 < doubted < 0.1 * 3000


# On a GPU ---------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives():
    frames = correlated_noise(3000)
    cpu, fits = fit_kmeans(whole(frames), 64), []
    before = torch.get_float32_matmul_precision()
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(precision == "medium")
        try:
            fits.append(fit_kmeans(whole(frames.cuda()), 64, batch=512))
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_float32_matmul_precision(before)
    same(*fits)
    assert fits[0].inertia == pytest.approx(cpu.inertia, rel=0.02)
    ids, _ = by_hand(frames, cpu.centres)
    assert assign(frames.cuda(), cpu.centres.cuda()).tolist() == ids.tolist()
