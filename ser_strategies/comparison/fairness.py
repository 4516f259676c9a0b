"""Fair comparisons: what strategies in one table must share, and the marks of those that do not."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

# What a difference would make of a comparison: one of tasks, labels or encoders, not of strategies.
TASK = {
    "task": "the task (corpus, labels, protocol)",
    "label_set": "what is predicted",
    "encoder_fingerprint": "the encoder they start from",
    "monitor": "the score that chooses the epoch",
    "mode": "the budget",
}
CELLS = "folds and seeds"
# What a difference makes of costs: not unfair in itself, but not the strategy's doing alone.
OF_COSTS = {"hardware": "hardware", "precision": "number format", "memory_kind": "kind of memory"}
SHOWN = 6


@dataclass(frozen=True)
class Mismatch:
    """A property in which compared strategies differ."""

    what: str  # in words
    found: Mapping[str, str]  # by strategy
    groups: tuple[tuple[str, ...], ...]  # the strategies that are alike, the largest group first

    def __str__(self) -> str:
        parts = [f"{', '.join(names)}: {self.found[names[0]]}" for names in self.groups[:SHOWN]]
        more = f"; and {len(self.groups) - SHOWN} more" if len(self.groups) > SHOWN else ""
        return f"{self.what} ({'; '.join(parts)}{more})"


def differences(runs: pd.DataFrame) -> list[Mismatch]:
    """Differences between finished runs that keep their strategies out of one table."""
    found = [_mismatch(words, _values(runs, column)) for column, words in TASK.items()]
    found.append(_mismatch("who is in which split (protocol digest)", _digests(runs)))
    found.append(_mismatch(CELLS, _cells(runs)))
    return [each for each in found if each is not None]


def cost_differences(runs: pd.DataFrame) -> list[Mismatch]:
    """Differences in how costs were measured: machine, number format, kind of memory."""
    found = [_mismatch(words, _values(runs, column)) for column, words in OF_COSTS.items()]
    return [each for each in found if each is not None]


def check(found: Sequence[Mismatch]) -> None:
    """Raises ValueError that names what differs between strategies."""
    if not found:
        return
    advice = "compare what is alike with .groups()"
    if any(each.what == CELLS for each in found):
        advice = "compare on what all have with .common()" + (f", {advice}" if len(found) > 1 else "")
    msg = (
        f"these strategies differ in more than their strategy: {'; '.join(map(str, found))}. Expected the "
        f"same for all in one table: {advice}, or allow it with allow_unfair=True, which marks them."
    )
    raise ValueError(msg)


def alike(runs: pd.DataFrame) -> list[tuple[str, ...]]:
    """Groups of strategies that may be compared, the largest first; folds and seeds are not looked at."""
    columns = [_values(runs, column) for column in TASK]
    keys: dict[Hashable, list[str]] = {}
    for name in names_of(runs):
        keys.setdefault(tuple(column[name] for column in columns), []).append(name)
    groups: list[tuple[str, ...]] = []
    for members in keys.values():
        groups += _by_digest(runs, members)
    return sorted(groups, key=len, reverse=True)


def common_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on folds and with seeds that all strategies have, each of those folds with each such seed.

    As many folds as possible, since they bring speakers; then as many seeds.
    """
    shared = set(_pairs(runs))
    for _, rows in runs.groupby("name", sort=False):
        shared &= set(_pairs(rows))
    folds_of: dict[int, set[int]] = {}
    for fold, seed in shared:
        folds_of.setdefault(seed, set()).add(fold)
    folds, seeds = _block(folds_of)
    keep = [fold in folds and seed in seeds for fold, seed in _pairs(runs)]
    return runs[keep].reset_index(drop=True)


def loneliest(runs: pd.DataFrame) -> str:
    """The strategy that shares least folds and seeds with the others."""
    cells = {name: set(_pairs(rows)) for name, rows in runs.groupby("name", sort=False)}
    return str(
        min(cells, key=lambda name: sum(len(cells[name] & cells[other]) for other in cells if other != name))
    )


def _block(folds_of: Mapping[int, set[int]]) -> tuple[set[int], set[int]]:
    """The folds and seeds of the best whole block: from each seed's folds on, whoever has them all joins."""
    best: tuple[set[int], set[int]] = (set(), set())
    candidates = {frozenset(a & b) for a in folds_of.values() for b in folds_of.values()}
    for folds in sorted(candidates, key=lambda each: (len(each), sorted(each))):
        seeds = {seed for seed, mine in folds_of.items() if folds <= mine}
        if folds and (len(folds), len(seeds)) > (len(best[0]), len(best[1])):
            best = set(folds), seeds
    return best


def names_of(runs: pd.DataFrame) -> list[str]:
    """The strategies, each once."""
    return list(dict.fromkeys(runs["name"]))


def _by_digest(runs: pd.DataFrame, members: Collection[str]) -> list[tuple[str, ...]]:
    """Strategies whose digests agree on every fold that both have."""
    groups: list[tuple[list[str], dict[int, str]]] = []
    for name in members:
        mine = _digests_of(runs, name)
        for names, known in groups:
            if all(known.get(fold, digest) == digest for fold, digest in mine.items()):
                names.append(name)
                known.update(mine)
                break
        else:
            groups.append(([name], dict(mine)))
    return [tuple(names) for names, _ in groups]


def _digests(runs: pd.DataFrame) -> dict[str, str]:
    """A word for the digests of each strategy: those that agree where both have a fold share it."""
    words: dict[str, str] = {}
    for group in _by_digest(runs, names_of(runs)):
        every = {fold: digest for name in group for fold, digest in _digests_of(runs, name).items()}
        first = ", ".join(str(every[fold]) for fold in sorted(every)[:2]) + "…" * (len(every) > 2)
        words |= dict.fromkeys(group, first)
    return words


def _digests_of(runs: pd.DataFrame, name: str) -> dict[int, str]:
    rows = runs[runs["name"] == name]
    found: dict[int, set[str]] = {}
    for fold, digest in zip(rows["fold"].fillna(0), rows["digest"], strict=True):
        found.setdefault(int(fold), set()).add(str(digest))
    return {fold: " and ".join(sorted(digests)) for fold, digests in found.items()}


def _cells(runs: pd.DataFrame) -> dict[str, str]:
    """The folds and seeds of each strategy; a strategy that lacks some says which."""
    every = dict.fromkeys(_pairs(runs))
    words = {}
    for name in names_of(runs):
        mine = set(_pairs(runs[runs["name"] == name]))
        lacking = [_cell_words(pair) for pair in every if pair not in mine]
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        words[name] = f"without {', '.join(lacking[:3])}{more}" if lacking else f"all {len(every)}"
    return words


def _pairs(runs: pd.DataFrame) -> list[tuple[int, int]]:
    folds, seeds = runs["fold"].fillna(0), runs["seed"].fillna(-1)
    return [(int(fold), int(seed)) for fold, seed in zip(folds, seeds, strict=True)]


def _cell_words(pair: tuple[int, int]) -> str:
    fold, seed = pair
    return f"fold {fold} seed {seed}" if fold else f"seed {seed}"


def _values(runs: pd.DataFrame, column: str) -> dict[str, str]:
    """The value of each strategy in a column; several values count as one of their own."""
    found = {}
    for name in names_of(runs):
        values = dict.fromkeys(str(v) for v in runs.loc[runs["name"] == name, column] if not pd.isna(v))
        short = [value[:16] for value in values] if column == "encoder_fingerprint" else list(values)
        found[name] = " and ".join(short) or "unknown"
    return found


def _mismatch(what: str, found: Mapping[str, str]) -> Mismatch | None:
    groups: dict[str, list[str]] = {}
    for name, value in found.items():
        groups.setdefault(value, []).append(name)
    if len(groups) < 2 and " and " not in next(iter(groups), ""):
        return None
    ordered = sorted(groups.values(), key=len, reverse=True)
    return Mismatch(what, dict(found), tuple(tuple(names) for names in ordered))
