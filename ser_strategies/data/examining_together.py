"""The examination of several corpora put together: each by itself, and what lies between them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ser_strategies.data.corpora.together import Together
from ser_strategies.data.examination import SEVERITIES, SHOWN, Finding, Progress, Report, examine
from ser_strategies.data.facts import summary
from ser_strategies.data.listing import identical, sizes_of
from ser_strategies.data.near_copies import copies_in, shared_copies
from ser_strategies.data.recorded import RecordedCorpus
from ser_strategies.data.rules import SPLITS

HERE = Path("/")  # the sounds of several corpora are named by whole paths


def examine_together(
    corpus: Together,
    *,
    full: bool = False,
    near_copies: bool = False,
    threads: int = 4,
    begin: Callable[[int], Progress] = lambda total: lambda done: None,
) -> Report:
    """Examines each of several corpora, and what they share; see `examine`.

    Made-up corpora, which have no files, count for their utterances alone.
    """
    recorded = {name: each for name, each in corpus.members.items() if isinstance(each, RecordedCorpus)}
    report = Report(
        type(corpus).__name__, ", ".join(f"{name}: {each.root}" for name, each in recorded.items())
    )
    for name, member in recorded.items():
        found = examine(member, full=full, threads=threads, begin=begin)
        report.utterances += found.utterances
        report.sounds += found.sounds
        report.hours = round(report.hours + found.hours, 3)
        report.findings += [replace(each, words=f"{name}: {each.words}") for each in found.findings]
    if report.healthy:
        report.findings += _between(corpus, report, near_copies, begin)
    report.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return report


def _between(
    corpus: Together, report: Report, near_copies: bool, begin: Callable[[int], Progress]
) -> Iterator[Finding]:
    try:
        table = corpus.everything()
    except (ValueError, OSError) as error:
        yield Finding("together", "error", str(error), 1, (), "Correct that first.")
        return
    report.corpus = corpus.task
    report.splits = {split: summary(table[table["split"] == split], corpus.labels) for split in SPLITS}
    for reason, count in corpus.dropped.items():
        advice = "Nothing, or a label_map for that corpus; it is counted in every result."
        yield Finding("left-out", "note", f"utterances left out, {reason}", count, (), advice)
    for each in corpus.dimensions:
        for name, rows in table.groupby("corpus", sort=False):
            if lacking := int(rows[each].isna().sum()):
                words = f"utterances of {name} without {each}"
                advice = "Nothing: they take no part in its loss and its score."
                yield Finding("missing-dimension", "note", words, lacking, (), advice)
    files = table[table["path"].notna()]
    yield from _shared(files)
    if near_copies:
        copies = copies_in(files, HERE, corpus.waveform, progress=begin(len(files)))
        groups = [" = ".join(group["id"].head(3)) for _, group in files.groupby(copies)]
        if groups:
            told = "; ".join(shared_copies(files, copies)) or "no two splits share any"
            words = "recordings that are in several files, coded, louder or cut otherwise"
            advice = f"Leave one of each: {told}."
            yield Finding("near-copy", "warning", words, len(groups), tuple(groups[:SHOWN]), advice)


def _shared(files: pd.DataFrame) -> Iterator[Finding]:
    """Files that are in several corpora; those within one are told by that one."""
    once = files.drop_duplicates("path")
    keys = identical(HERE, once.assign(bytes=sizes_of(HERE, once["path"])))
    groups = [group for _, group in once.groupby(keys) if group["corpus"].nunique() > 1]
    if not groups:
        return
    leaks = any(group["split"].nunique() > 1 for group in groups)
    names = tuple(" = ".join(group["id"].head(3)) for group in groups[:SHOWN])
    words = "sounds that several corpora have" + (", in different splits" if leaks else "")
    advice = "Leave them out of one of these corpora: what one trains on, another may test on."
    yield Finding("shared-sound", "error" if leaks else "warning", words, len(groups), names, advice)
