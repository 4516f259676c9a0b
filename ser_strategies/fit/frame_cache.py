"""What a configuration of `fit` would use; the cache that its strategy would read, estimated and built."""

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from ser_strategies.cache.build import Estimate
from ser_strategies.cache.build import estimate as estimate_build
from ser_strategies.cache.store import Damage, FrameStore
from ser_strategies.cache.training import FrameCaching, request
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.fit.lightning_cli import StrategyCLI
from ser_strategies.fit.mistakes import check_configs, explained
from ser_strategies.fit.noise import quiet
from ser_strategies.fit.shorthand import with_full_names
from ser_strategies.fit.together import ending_as_one
from ser_strategies.fit.trainer_options import planned_trainer
from ser_strategies.strategies import STRATEGIES, Recognizer, Strategy


class Configured(StrategyCLI):
    """Model, corpus and trainer of a configuration of `fit`."""

    def _run_subcommand(self, subcommand: str) -> None:
        del subcommand


def configured(words: Sequence[str]) -> Configured:
    """Model, corpus and trainer for the words of `fit`; a mistake in them raises `MistypedError`."""
    quiet()
    words = with_full_names(words)
    check_configs(words)
    with explained(STRATEGIES, CORPORA, words):
        # No run is started, so a finished one in the same folder is not in the way.
        return Configured(["fit", *words, "--overwrite"])


class CacheEstimate(NamedTuple):
    """A cache, and what is missing of it."""

    store: FrameStore
    sounds: int  # in the whole cache
    missing: Estimate  # cost of building the rest
    damage: list[Damage]
    device: str  # that would compute it


def estimate_cache(
    strategy: Strategy, data: Corpus, trainer: Mapping[str, Any] | None = None
) -> CacheEstimate:
    """What a build would cost; nothing is written.

    Args:
        strategy: A strategy that reads a cache, such as CachedFineTuning.
        data: The corpus.
        trainer: Options of the trainer, such as accelerator.
    """
    planned, _ = planned_trainer(strategy, trainer or {})
    return estimate_with(planned, deepcopy(strategy), copy(data))


def estimate_with(trainer: Trainer, strategy: Strategy, data: Corpus) -> CacheEstimate:
    """The same on the trainer's device, to which the strategy goes."""
    caching = caching_of(strategy)
    data.prepare_data()
    data.setup("fit")
    device = trainer.strategy.root_device
    strategy.to(device)
    wanted = request(data, caching.views, skips=data.skips_damaged)
    store = caching.store(strategy.encoder)
    damage = store.open()
    missing = estimate_build(store, strategy.encoder, wanted.sounds)
    return CacheEstimate(store, len(set(wanted.sounds.keys)), missing, damage, str(device))


def build_cache(strategy: Strategy, data: Corpus, trainer: Mapping[str, Any] | None = None) -> FrameStore:
    """Does what a fit does before it trains, and nothing else; gives the cache.

    Args:
        strategy: A strategy that reads a cache, such as CachedFineTuning.
        data: The corpus; its `unreadable` says what could not be read.
        trainer: Options of the trainer, such as accelerator.
    """
    planned, _ = planned_trainer(strategy, {"enable_checkpointing": False, **(trainer or {})})
    return build_with(planned, strategy, data)


def build_with(trainer: Trainer, strategy: Strategy, data: Corpus) -> FrameStore:
    """The same in all processes of a trainer, which must not have begun."""
    caching = caching_of(strategy)
    # A fit of no epochs: the cache is filled before the first.
    trainer.fit_loop.max_epochs = 0
    with ending_as_one(trainer):
        trainer.fit(strategy, datamodule=data)
    store = caching.store(strategy.encoder)
    store.open_written()
    return store


def caching_of(strategy: Strategy) -> FrameCaching:
    """The way a strategy keeps frames; ValueError where it keeps none."""
    if not isinstance(strategy, Recognizer) or strategy.caching is None:
        msg = f"{type(strategy).__name__} reads no cache: give --model CachedFineTuning."
        raise ValueError(msg)
    return strategy.caching
