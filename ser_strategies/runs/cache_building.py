"""Caches that the workers of an executor build: plan and lock are of this process, shards are theirs."""

import heapq
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ser_strategies.cache.build import Estimate, check_room, expected_bytes, missing_shards, typical
from ser_strategies.cache.store import Damage, FrameStore
from ser_strategies.cache.training import Request, left_out, request, telling, to_compare, warn_of
from ser_strategies.cache.worker import Portion, Recipe, Worker, portion
from ser_strategies.data.corpus import Corpus
from ser_strategies.fit.frame_cache import CacheEstimate, caching_of
from ser_strategies.runs.crew import Crew, LostWorkError
from ser_strategies.runs.executors import CellExecutor
from ser_strategies.strategies import Strategy


class Build(NamedTuple):
    """What is to be built, and who can."""

    store: FrameStore
    wanted: Request
    recipe: Recipe

    def portions(self, corpus: Corpus, shards: Sequence[Sequence[int]]) -> Iterator[Portion]:
        """The sounds of each shard."""
        return (portion(self.wanted, corpus, shard) for shard in shards)


def build_on(
    executor: CellExecutor, strategy: Strategy, corpus: Corpus, device: str, *, shown: bool = False
) -> FrameStore:
    """Fills the cache that a strategy would read, shard by shard, with the workers of an executor.

    A build that is stopped goes on with the shards that are missing. Shards are those of every other
    executor, to the last bit, on the same kind of device.

    Args:
        executor: Where, such as LocalExecutor(jobs=4) or RayExecutor(gpus=1).
        strategy: A strategy that reads a cache, such as CachedFineTuning; its constructor's arguments go to
            the workers, not its weights.
        corpus: The corpus; its `unreadable` says what could not be read.
        device: The kind of device that workers compute on: cpu or cuda.
        shown: Whether to show progress on the terminal.
    """
    build = _planned(strategy, corpus, device)
    store, sounds = build.store, build.wanted.sounds
    executor.check(store.folder, [executor.needs])
    store.create()
    with store.building():
        warn_of([*store.open(), *store.verify(set(sounds.keys))])
        missing = missing_shards(store, sounds)
        check_room(store, sounds, missing)
        if missing:
            with _crew(executor, build, len(missing)) as crew:
                with telling(store, sounds, shown=shown) as progress:
                    for seconds in crew.each(Worker.build, build.portions(corpus, missing)):
                        progress(seconds)
                store.look_again()
                few = to_compare(store, sounds)
                list(crew.each(Worker.compare, build.portions(corpus, [few] if few else [])))
    left_out(corpus, build.wanted, store)
    return store


def estimate_on(
    executor: CellExecutor, strategy: Strategy, corpus: Corpus, device: str
) -> tuple[CacheEstimate, int]:
    """What a build would cost there, from trying a batch on all workers at once; and how many they are."""
    build = _planned(strategy, corpus, device)
    store, sounds = build.store, build.wanted.sounds
    folder = next(path for path in (store.folder, *store.folder.parents) if path.exists())
    executor.check(folder, [executor.needs])
    damage: list[Damage] = store.open()
    shards = missing_shards(store, sounds)
    missing = [position for shard in shards for position in shard]
    minutes, workers = None, 0
    if shards:
        with _crew(executor, build, len(shards)) as crew:
            workers = crew.count
            tried = build.portions(corpus, [typical(missing, sounds)] * workers)
            rate = sum(crew.each(Worker.seconds, tried)) / workers
        minutes = time_of([rate * sum(sounds.seconds[p] for p in shard) for shard in shards], workers) / 60
    cost = Estimate(
        utterances=len(missing),
        seconds=sum(sounds.seconds[position] for position in missing),
        needed=sum(expected_bytes(sounds.seconds[position], store.trunk) for position in missing),
        free=shutil.disk_usage(folder).free,
        minutes=minutes,
    )
    return CacheEstimate(store, len(set(sounds.keys)), cost, damage, device), workers


def time_of(tasks: Sequence[float], workers: int) -> float:
    """Seconds that tasks take which go, in this order, to whoever is free first."""
    free = [0.0] * workers
    for task in tasks:
        heapq.heappush(free, heapq.heappop(free) + task)
    return max(free)


def _planned(strategy: Strategy, corpus: Corpus, device: str) -> Build:
    caching = caching_of(strategy)
    corpus.prepare_data()
    corpus.setup("fit")
    wanted = request(corpus, caching.views, skips=corpus.skips_damaged)
    store = caching.store(strategy.encoder)
    options: dict[str, Any] = dict(strategy.hparams)
    return Build(store, wanted, Recipe(type(strategy), options, corpus, store.digest, device))


@contextmanager
def _crew(executor: CellExecutor, build: Build, most: int) -> Iterator[Crew]:
    try:
        with executor.crew(build.recipe, most) as crew:
            yield crew
    except LostWorkError as error:
        msg = (
            f"{error}; finished shards stay in {build.store.folder}, and the same command goes on from there."
        )
        raise ValueError(msg) from error
