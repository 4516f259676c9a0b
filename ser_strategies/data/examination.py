"""The examination of a corpus: its contents, its problems, and advice on each."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

import pandas as pd

from ser_strategies.data.doubled import AT_ODDS, ONCE
from ser_strategies.data.facts import cautions, summary
from ser_strategies.data.inspection import PROBLEMS, AudioFacts, inspect_all
from ser_strategies.data.label_files import odd_encoding
from ser_strategies.data.leakage import find_leaks, is_declared
from ser_strategies.data.listing import SUFFIXES, files_in, identical
from ser_strategies.data.near_copies import copies_in, shared_copies
from ser_strategies.data.recorded import RecordedCorpus
from ser_strategies.data.rules import SPLITS
from ser_strategies.data.table import complete

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 5
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Finding:
    """A problem of a corpus, or a fact worth knowing."""

    check: str  # its name, for programs
    # An error keeps the corpus from being used as it is, a warning changes what is learned, a note is
    # worth knowing
    severity: Severity
    words: str  # one phrase
    count: int  # of files or utterances
    examples: tuple[str, ...]
    advice: str


@dataclass
class Report:
    """All findings on a corpus, the gravest first."""

    corpus: str  # the corpus and how it is labelled and split
    root: str
    utterances: int = 0  # utterances that the label files name
    sounds: int = 0  # those with a file
    hours: float = 0.0  # of those files
    splits: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing keeps the corpus from being used."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"healthy": self.healthy}


def examine(
    corpus: RecordedCorpus,
    *,
    full: bool = False,
    near_copies: bool = False,
    threads: int = 4,
    begin: Callable[[int], Progress] = lambda total: lambda done: None,
) -> Report:
    """Examines a corpus with the options that training would use, to the end whatever is found.

    `full` decodes every file instead of reading its header. `begin` is given the number of files to read, and
    returns what is told of progress. `near_copies` listens for recordings that are in several files.
    """
    report = Report(type(corpus).__name__, str(corpus.root))
    begun: list[Finding] = []
    try:
        try:
            table = corpus.annotated()
        except OSError as error:
            # What stops training need not stop looking.
            begun.append(Finding("incomplete", "error", str(error), 1, (), "Fetch the rest."))
            corpus.skips_damaged = True
            table = corpus.annotated()
    except (ValueError, OSError) as error:
        advice = "Correct that first; nothing else can be seen."
        report.findings.append(Finding("label-files", "error", str(error), 1, (), advice))
        return report
    corpus.skips_damaged = True
    present = table[table["bytes"].notna()]
    paths = [corpus.root / path for path in present["path"].unique()]
    sounds = inspect_all(paths, decode=full, threads=threads, progress=begin(len(paths)))
    report.utterances, report.sounds = len(table), len(present)
    report.hours = round(sum(sound.seconds or 0.0 for sound in sounds) / 3600, 3)
    report.findings = [
        *begun,
        *_missing(corpus, table),
        *_labels(corpus, table),
        *_extra(corpus, table),
        *_broken(corpus, sounds),
        *_repeated(corpus, present),
        *(_near_copies(corpus, begin) if near_copies else ()),
        *_splits(corpus, report),
    ]
    report.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return report


def _labels(corpus: RecordedCorpus, table: pd.DataFrame) -> Iterator[Finding]:
    known = corpus.codes()
    strange = table[table["code"].notna() & ~table["code"].isin(list(known))]
    if len(strange):
        advice = f"Correct the label files: expected one of {', '.join(sorted(known))}."
        values = tuple(f"{row.id}: {row.code}" for row in strange.head(SHOWN).itertuples())
        yield Finding("unknown-label", "error", "labels unknown to the corpus", len(strange), values, advice)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        names = tuple(repeated.head(SHOWN))
        advice = "Take the rows out that should not be there."
        yield Finding("repeated-id", "error", "utterances named twice", len(repeated), names, advice)
    odd = {path: how for path in corpus.label_files() if (how := odd_encoding(path)) is not None}
    if odd:
        advice = "Nothing, where names and text look right; where they do not, save the file as UTF-8."
        names = tuple(f"{path.relative_to(corpus.root)} ({how})" for path, how in list(odd.items())[:SHOWN])
        words = "label files in an unexpected encoding"
        yield Finding("label-encoding", "note", words, len(odd), names, advice)
    yield from _dimensions(corpus, table)
    differences = corpus.differences()
    if differences:
        advice = "See whether the corpus is complete, and which release it is."
        words = "counts that differ from the published ones"
        yield Finding(
            "not-as-published", "warning", words, len(differences), tuple(differences[:SHOWN]), advice
        )


def _dimensions(corpus: RecordedCorpus, table: pd.DataFrame) -> Iterator[Finding]:
    if corpus.card.scale is None:
        return
    low, high = corpus.card.scale
    for name in filter(table.columns.__contains__, corpus.dimensions):
        outside = table[(table[name] < low) | (table[name] > high)]
        if len(outside):
            values = tuple(f"{row['id']}: {row[name]:g}" for _, row in outside.head(SHOWN).iterrows())
            words = f"values of {name} outside the scale from {low:g} to {high:g}"
            advice = "Correct the label files: they may be on another scale, or in another order."
            yield Finding("dimension-scale", "warning", words, len(outside), values, advice)


def _missing(corpus: RecordedCorpus, table: pd.DataFrame) -> Iterator[Finding]:
    card = corpus.card
    absent = table[table["bytes"].isna()]
    expected = {**card.damaged, **card.absent}
    for name in absent["id"][absent["id"].isin(list(expected))]:
        reason = f"known to be unusable: {expected[name]}"
        yield Finding("known-damage", "note", reason, 1, (name,), "Nothing: it is left out, and counted.")
    if len(absent):
        words = f"{len(absent):,} of {len(table):,} sounds are missing"
        advice = f"Fetch the rest ({card.request}), or train on what is there with --data.damaged skip."
        # Those that are known to be missing from the published corpus are no reason to stop.
        severity: Severity = "error" if len(absent[~absent["id"].isin(list(expected))]) else "note"
        yield Finding(
            "missing-sound", severity, words, len(absent), tuple(absent["path"].head(SHOWN)), advice
        )


def _extra(corpus: RecordedCorpus, table: pd.DataFrame) -> Iterator[Finding]:
    named = set(table["path"])
    extra, macos = [], []
    for folder in sorted({str(PurePosixPath(path).parent) for path in named}):
        for name, _ in sorted(files_in(corpus.root / folder)):
            path = str(PurePosixPath(folder) / name)
            if name.startswith("._"):
                macos.append(path)
            elif path not in named and PurePosixPath(name).suffix.lower() in SUFFIXES:
                extra.append(path)
    if extra:
        advice = "Nothing, if they are meant to be there: they are not used."
        words = "sounds that no label file names"
        yield Finding("extra-sound", "warning", words, len(extra), tuple(extra[:SHOWN]), advice)
    if macos:
        words = "files that macOS left beside others"
        yield Finding("macos", "note", words, len(macos), tuple(macos[:SHOWN]), "Nothing: they are ignored.")


def _broken(corpus: RecordedCorpus, sounds: list[AudioFacts]) -> Iterator[Finding]:
    for key, problem in PROBLEMS.items():
        found = [sound for sound in sounds if key in sound.problems]
        if found:
            names = tuple(_shown(corpus, sound) for sound in found[:SHOWN])
            words = f"sounds: each {problem.words}"
            yield Finding(key, problem.severity, words, len(found), names, problem.advice)


def _shown(corpus: RecordedCorpus, sound: AudioFacts) -> str:
    name = sound.path.removeprefix(f"{corpus.root}/")
    return f"{name} ({sound.detail})" if sound.detail else name


def _repeated(corpus: RecordedCorpus, present: pd.DataFrame) -> Iterator[Finding]:
    files = present.drop_duplicates("path")  # of a long recording there may be many parts
    keys = identical(corpus.root, files)
    groups = [" = ".join(group["id"].head(3)) for _, group in files.groupby(keys) if len(group) > 1]
    if groups:
        advice = "See whether their labels agree; splits that share one are refused."
        words = "sounds that occur more than once"
        yield Finding("identical-sound", "warning", words, len(groups), tuple(groups[:SHOWN]), advice)


def _near_copies(corpus: RecordedCorpus, begin: Callable[[int], Progress]) -> Iterator[Finding]:
    try:
        rows = complete(corpus.table(), corpus.card.name)
    except (ValueError, OSError):
        return  # which is told below
    copies = copies_in(rows, corpus.root, corpus.waveform, progress=begin(len(rows)))
    groups = [" = ".join(group["id"].head(3)) for _, group in rows.groupby(copies)]
    if groups:
        shared = shared_copies(rows.assign(split=corpus.assign(rows)), copies)
        told = "; ".join(shared) or "no two splits share any"
        advice = f"Leave one of each, as --data.doubled drop does: {told}."
        words = "recordings that are in several files, coded, louder or cut otherwise"
        yield Finding("near-copy", "warning", words, len(groups), tuple(groups[:SHOWN]), advice)


def _splits(corpus: RecordedCorpus, report: Report) -> Iterator[Finding]:
    name = corpus.protocol.name
    try:
        table = complete(corpus.table(), corpus.card.name)
        if corpus.label_map is not None:
            table, _ = corpus.label_map.apply(table)
        table["split"] = corpus.assign(table)
    except (ValueError, OSError) as error:
        yield Finding("protocol", "error", str(error), 1, (), "Correct that, or choose another protocol.")
        return
    for reason in (ONCE, AT_ODDS):
        if count := corpus.dropped.get(reason):
            advice = "Nothing: --data.doubled drop leaves them out, counted in every result."
            yield Finding("doubled", "note", f"left out: {reason}", count, (), advice)
    report.splits = {split: summary(table[table["split"] == split], corpus.labels) for split in SPLITS}
    for split in SPLITS:
        if not report.splits[split]["utterances"] and split in corpus.protocol.splits:
            words = f"the {split} split of {name} is empty"
            yield Finding("empty-split", "error", words, 1, (), "Fetch the rest, or choose other splits.")
    for caution in cautions(table, corpus.labels, corpus.protocol.rule.folds):
        yield Finding(caution.check, "warning", caution.words, 1, (), caution.advice)
    report.corpus = corpus.task
    # However many there are: this is where there is time for it.
    keys = identical(corpus.root, table[table["bytes"] > 0]).reindex(table.index)
    for leak in find_leaks(table.assign(audio=keys)):
        declared = is_declared(leak, corpus.protocol.shares)
        advice = (
            f"{name} is published so; every result says it."
            if declared
            else f"{corpus.alternatives([leak])}."
        )
        yield Finding("leak", "note" if declared else "error", str(leak), leak.count, leak.examples, advice)
