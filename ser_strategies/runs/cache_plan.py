"""`cache estimate` and `cache build`: the cache that a configuration of `fit` would use."""

from typing import Any

from lightning.pytorch import Trainer

from ser_strategies.cache.build import estimate as estimate_build
from ser_strategies.cache.training import FrameCaching, request
from ser_strategies.costs.meter import CostMeter
from ser_strategies.fit.configured import Configured
from ser_strategies.fit.configured import configured as everything
from ser_strategies.fit.datafacts import unreadable_told
from ser_strategies.fit.record import RunRecord
from ser_strategies.fit.together import ending_as_one
from ser_strategies.strategies import Recognizer


def estimate(words: list[str]) -> None:
    """Prints what a build would cost.

    Args:
        words: What `fit` would be given.
    """
    configured, caching = _configured(words)
    model: Any = configured.model
    corpus: Any = configured.datamodule
    corpus.prepare_data()
    corpus.setup("fit")
    model.to(configured.trainer.strategy.root_device)
    wanted = request(corpus, caching.views, skips=corpus.skips_damaged)
    store = caching.store(model.encoder)
    for damage in store.open():
        print(damage)
    cost = estimate_build(store, model.encoder, wanted.sounds)
    present = len(set(wanted.sounds.keys)) - cost.utterances
    print(f"cache {store.folder}: {present:,} of the {len(set(wanted.sounds.keys)):,} sounds are there")
    if not cost.utterances:
        return
    print(
        f"missing: {cost.utterances:,} sounds, {cost.seconds / 3600:.2f} hours, {cost.needed / 1e9:.3f} GB "
        f"({cost.free / 1e9:.1f} GB free), about {cost.minutes:.1f} minutes on "
        f"{configured.trainer.strategy.root_device}"
    )


def build(words: list[str]) -> None:
    """Does what `fit` does before it trains, on as many devices, and nothing else.

    Args:
        words: What `fit` would be given.
    """
    configured, caching = _configured(words)
    trainer: Trainer = configured.trainer
    silent = [each for each in trainer.callbacks if not isinstance(each, (RunRecord, CostMeter))]  # type: ignore[attr-defined]
    trainer.callbacks = silent  # type: ignore[attr-defined]
    # A fit of no epochs: the cache is filled before the first, in all processes.
    trainer.fit_loop.max_epochs = 0
    trainer.loggers = []
    with ending_as_one(trainer):
        trainer.fit(configured.model, datamodule=configured.datamodule)
    if trainer.is_global_zero:
        store = caching.store(configured.model.encoder)
        store.open()
        print(f"cache {store.folder}: {len(store.keys()):,} sounds, {store.size() / 1e9:.3f} GB")
        for line in unreadable_told(configured.datamodule.unreadable):
            print(line)


def _configured(words: list[str]) -> tuple[Configured, FrameCaching]:
    configured = everything(words)
    model = configured.model
    if not isinstance(model, Recognizer) or model.caching is None:
        msg = f"{type(model).__name__} reads no cache: give --model CachedFineTuning."
        raise ValueError(msg)
    return configured, model.caching
