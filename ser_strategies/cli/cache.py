"""`cache`: estimate, build, list, verify and prune what frozen encoders make of sounds."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from ser_strategies.common.errors import PROGRAM, CommandParser, MistypedError, counted

PLACES = ("local", "ray")
JOBS_ARE_LOCAL = "--jobs is for --on local: give that too, or say what a worker takes, as in --ray.cores 2."
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
    words, place = _place(words)
    from ser_strategies.fit.frame_cache import configured, estimate_with

    if place is None:
        made = configured(words)
        found = estimate_with(made.trainer, made.model, made.datamodule)
        where = found.device
    else:
        from ser_strategies.runs.cache_building import estimate_on

        with _on(place, words) as (executor, made, device):
            found, workers = estimate_on(executor, made.model, made.datamodule, device)
        where = f"{counted(workers, 'worker')} of {place[0]} ({device})"
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
            f"about {missing.minutes:.1f} minutes on {where}"
        )


def _build(words: list[str]) -> None:
    words, place = _place(words)
    from ser_strategies.fit.outcome import unreadable_told

    if place is None:
        made, store = _build_here(words)
        if not made.trainer.is_global_zero:
            return
    else:
        from ser_strategies.runs.cache_building import build_on

        with _on(place, words) as (executor, made, device):
            shown = made.trainer.progress_bar_callback is not None
            store = build_on(executor, made.model, made.datamodule, device, shown=shown)
    print(f"cache {store.folder}: {len(store.keys()):,} sounds, {store.size() / 1e9:.3f} GB")
    for line in unreadable_told(made.datamodule.unreadable):
        print(line)


def _build_here(words: list[str]) -> tuple[Any, FrameStore]:
    from ser_strategies.costs.meter import CostMeter
    from ser_strategies.fit.frame_cache import build_with, configured
    from ser_strategies.fit.record import RunRecord

    made = configured(words)
    trainer: Any = made.trainer
    trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, (RunRecord, CostMeter))]
    trainer.loggers = []
    return made, build_with(trainer, made.model, made.datamodule)


def _place(words: Sequence[str]) -> tuple[list[str], tuple[str, list[str]] | None]:
    """The words of `fit`, and where the work goes with its options; None is this process."""
    from ser_strategies.runs.arguments import share_out

    own, options = share_out(words, lambda group: group[2:] in PLACES)
    parser = CommandParser(prog=f"{PROGRAM} cache", add_help=False)
    parser.add_argument("--on", choices=PLACES)
    parser.add_argument("--jobs", type=int)
    known, rest = parser.parse_known_args(own)
    other = next((name for name in options.special if name != known.on), None)
    if other is not None or (known.jobs is not None and known.on != "local"):
        name, word = (other, options.special[other][0][2:]) if other else ("local", "")
        msg = f"--{name}.{word} is for --on {name}: give that too." if other else JOBS_ARE_LOCAL
        raise MistypedError(msg)
    if known.on is None:
        return list(words), None
    special = list(options.special.get(known.on, ()))
    jobs = [] if known.jobs is None else [f"--jobs={known.jobs}"]
    return [*rest, *options.common], (known.on, [*special, *jobs])


@contextmanager
def _on(place: tuple[str, list[str]], words: Sequence[str]) -> Iterator[tuple[Any, Any, str]]:
    """An executor, what a configuration would use, and the kind of device that workers have."""
    from ser_strategies.fit.frame_cache import configured
    from ser_strategies.runs.engines import engine

    executor = engine(*place)
    try:
        if place[0] == "local":
            made = configured(words)
            device = made.trainer.strategy.root_device.type
        else:  # this machine only plans, whatever its own devices
            made = configured([*words, "--trainer.accelerator=cpu", "--trainer.devices=1"])
            device = "cuda" if executor.needs.gpus else "cpu"
        yield executor, made, device
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


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
        cache = look(store)  # which opens it, once: what is set aside then is named
        damage = [*cache.damage, *store.verify()]
        wrong += len(damage)
        for file in damage:
            print(file)
        for path in cache.foreign:
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
  {PROGRAM} cache build --config examples/cached.yaml --on local --jobs 8
  {PROGRAM} cache build --config examples/cached.yaml --on ray --ray.gpus 1
  {PROGRAM} cache list
  {PROGRAM} cache prune --older_than 30 --yes"""
