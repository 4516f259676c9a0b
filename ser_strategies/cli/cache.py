"""`cache`: estimate, build, list, verify and prune what frozen encoders make of sounds."""

import sys
from collections.abc import Sequence
from typing import Any

from ser_strategies.cache.store import (
    ForeignFolder,
    FrameStore,
    as_folder,
    caches,
    days_unused,
    default_folder,
    look,
    remove,
    remove_damaged,
)
from ser_strategies.common.errors import PROGRAM, CommandParser, MistypedError

ACTIONS = {
    "estimate": "what building the cache of a configuration would cost, before anything is written",
    "build": "build what the cache of a configuration lacks",
    "list": "the caches that there are",
    "verify": "read every byte and compare checksums; damaged files are set aside",
    "prune": "delete caches, and files that were set aside",
}


def run(command: str, arguments: list[str]) -> None:
    """Runs one action on caches."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return
    action, *words = arguments
    if action in {"estimate", "build"}:
        (_estimate if action == "estimate" else _build)(words)
    elif action in ACTIONS:
        _manage(action, words)
    else:
        msg = f"cache has no action {action!r}: expected one of {', '.join(ACTIONS)}."
        raise MistypedError(msg)


def _estimate(words: list[str]) -> None:
    from ser_strategies.fit.frame_cache import configured, estimate_with

    made = configured(words)
    found = estimate_with(made.trainer, made.model, made.datamodule)
    for damage in found.damage:
        print(damage)
    missing = found.missing
    print(
        f"cache {found.store.folder}: {found.sounds - missing.utterances:,} of the {found.sounds:,} sounds "
        f"are there"
    )
    if missing.utterances:
        print(
            f"missing: {missing.utterances:,} sounds, {missing.seconds / 3600:.2f} hours, "
            f"{missing.needed / 1e9:.3f} GB ({missing.free / 1e9:.1f} GB free), "
            f"about {missing.minutes:.1f} minutes on {found.device}"
        )


def _build(words: list[str]) -> None:
    from ser_strategies.costs.meter import CostMeter
    from ser_strategies.fit.frame_cache import build_with, configured
    from ser_strategies.fit.outcome import unreadable_told
    from ser_strategies.fit.record import RunRecord

    made = configured(words)
    trainer: Any = made.trainer
    trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, (RunRecord, CostMeter))]
    trainer.loggers = []
    store = build_with(trainer, made.model, made.datamodule)
    if trainer.is_global_zero:
        print(f"cache {store.folder}: {len(store.keys()):,} sounds, {store.size() / 1e9:.3f} GB")
        for line in unreadable_told(made.datamodule.unreadable):
            print(line)


def _manage(action: str, words: list[str]) -> None:
    parser = CommandParser(prog=f"{PROGRAM} cache {action}", description=f"{ACTIONS[action]}.")
    parser.add_argument("names", nargs="*", help="names of caches, as `list` shows them; none means all")
    parser.add_argument(
        "--cache", default=str(default_folder()), help="folder of all caches (default: %(default)s)"
    )
    if action == "prune":
        parser.add_argument(
            "--older_than", type=float, default=0.0, metavar="DAYS", help="only those not used for so long"
        )
        parser.add_argument("--yes", action="store_true", help="delete, rather than say what would go")
    options = parser.parse_args(words)
    found, odd = caches(as_folder(options.cache))
    stores = {store.folder.name: store for store in found}
    strange = {each.folder.name: each for each in odd}
    names = [*stores, *strange]
    unknown = [name for name in options.names if name not in names]
    if unknown:
        msg = f"no cache {unknown[0]} in {options.cache}: expected one of {', '.join(names) or 'none'}."
        raise ValueError(msg)
    wanted = dict.fromkeys(options.names or names)
    chosen = [stores[name] for name in wanted if name in stores]
    aside = [strange[name] for name in wanted if name in strange]
    for each in aside:
        what = f"not a cache of this version: {each.folder} ({each.reason})"
        print(f"{what}; it is never read, and pruned only if it is named")
    if action == "list":
        _list(chosen, options.cache, empty=not names)
    elif action == "verify":
        _verify(chosen, strange=len(aside))
    else:
        _prune(chosen, aside if options.names else [], options)


def _list(stores: list[FrameStore], root: str, *, empty: bool) -> None:
    if empty:
        print(f"no caches in {root}")
        return
    for cache in map(look, stores):
        for damage in cache.damage:
            print(damage)
        trunk = cache.store.trunk
        below = "the CNN" if trunk.cut < 0 else f"{trunk.cut} blocks"
        print(
            f"{cache.store.folder.name}  {trunk.family} {trunk.weights[:8]}, {below}"
            f"{_layers(trunk.layers)}, {trunk.stored}: {cache.utterances:,} sounds, "
            f"{cache.size / 1e9:.3f} GB, used {cache.days:.0f} days ago"
        )


def _layers(stored: bool | Sequence[int]) -> str:
    if isinstance(stored, bool):
        return " and all layers" if stored else ""
    return f", layers {' and '.join(map(str, stored))} alone"


def _verify(stores: list[FrameStore], *, strange: int) -> None:
    wrong = strange
    for store in stores:
        damage = [*store.open(), *store.verify()]
        foreign = look(store).foreign
        wrong += len(damage)
        for file in damage:
            print(file)
        for path in foreign:
            print(f"foreign: {path} is no file of a cache; it is never read")
        print(f"{store.folder.name}: {len(store.keys()):,} sounds in order, {len(damage)} files damaged")
    if wrong:
        sys.exit(1)


def _prune(stores: list[FrameStore], strange: list[ForeignFolder], options: Any) -> None:
    going = [cache for cache in map(look, stores) if cache.days >= options.older_than]
    old = [each.folder for each in strange if days_unused(each.folder) >= options.older_than]
    folders = [*(cache.store.folder for cache in going), *old]
    total = sum(cache.size for cache in going)
    for cache in going:
        for damage in cache.damage:
            print(damage)
    for cache in going:
        print(f"{cache.store.folder} ({cache.utterances:,} sounds, {cache.size / 1e9:.3f} GB)")
    for folder in old:
        print(f"{folder} (unknown contents)")
    if not options.yes:
        print(f"{len(folders)} caches with {total / 1e9:.3f} GB would go: give --yes to delete them")
        return
    freed = sum(map(remove_damaged, stores))
    for folder in folders:
        for path in remove(folder):
            print(f"foreign: {path} is no file of a cache; it stays")
    print(f"{len(folders)} caches deleted, {(total + freed) / 1e9:.3f} GB freed")


def _help() -> str:
    actions = "\n".join(f"  {name:<10}{what}" for name, what in ACTIONS.items())
    return f"""usage: {PROGRAM} cache <action> [options]

What the frozen part of an encoder makes of each sound, for CachedFineTuning.

actions:
{actions}

examples:
  {PROGRAM} cache estimate --config examples/cached.yaml
  {PROGRAM} cache build --config examples/cached.yaml --trainer.devices 4
  {PROGRAM} cache list
  {PROGRAM} cache prune --older_than 30 --yes"""
