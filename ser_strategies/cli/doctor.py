"""`doctor`: what is there of a corpus, what is wrong with it, what to do; exits with 1 on errors."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ser_strategies.cli.corpus_option import corpus_parser, parse_corpus
from ser_strategies.common.files import write_text
from ser_strategies.data.corpora.together import Together
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.examination import Report, examine
from ser_strategies.data.examining_together import examine_together
from ser_strategies.data.manifest.writing import check_not_read, write_manifest
from ser_strategies.data.recorded import RecordedCorpus

KINDS = (RecordedCorpus, Together)
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def run(command: str, arguments: list[str]) -> None:
    """Examines a corpus and reports; exits with 1 where something keeps it from being used."""
    parser = corpus_parser(
        command,
        "Tell what is there of a corpus, what is wrong with it and what to do. Exits with 1 on errors.",
        Corpus,  # type: ignore[type-abstract]
    )
    parser.add_argument(
        "--full", action="store_true", help="listen to every file, rather than read its header"
    )
    parser.add_argument(
        "--near-copies", action="store_true", help="listen for recordings that are in several files"
    )
    parser.add_argument("--threads", type=int, default=2 * (os.cpu_count() or 1), help="files read at a time")
    parser.add_argument(
        "--json", type=str | None, default=None, help="also write the report for programs; - prints only that"
    )
    parser.add_argument(
        "--manifest",
        type=str | None,
        default=None,
        help="also write the corpus as a .csv for --data Manifest",
    )
    corpus, options = parse_corpus(parser, arguments, KINDS)
    _check(options, corpus)
    alone = options.json == "-"
    console = Console(stderr=alone)
    with _progress(console) as begin, _silent_libraries():
        report = (examine_together if isinstance(corpus, Together) else examine)(
            corpus,
            full=options.full,
            near_copies=options.near_copies,
            threads=options.threads,
            begin=begin,
        )
    text = json.dumps(report.as_dict(), indent=2) + "\n"
    if alone:
        print(text, end="")
    else:
        show(report, console)
        if options.json is not None:
            write_text(Path(options.json), text)
    if options.manifest is not None:
        write_manifest(corpus, Path(options.manifest))
        root = quote(str(corpus.root))
        console.print(
            f"written: {options.manifest}, for --data Manifest --data.path {quote(options.manifest)} "
            f"--data.root {root}",
            markup=False,
            soft_wrap=True,
        )
    if not report.healthy:
        sys.exit(1)


def _check(options: Any, corpus: Corpus) -> None:
    """Raises ValueError for options that cannot be, before anything is looked at or written."""
    if options.threads < 1:
        msg = f"--threads must be at least 1, got {options.threads}."
        raise ValueError(msg)
    if options.json is not None and options.json != "-" and (Path(options.json).is_dir() or not options.json):
        msg = f"--json must name a file, got {options.json!r}."
        raise ValueError(msg)
    if options.manifest is not None and Path(options.manifest).suffix.lower() != ".csv":
        msg = f"--manifest must name a .csv file, got {options.manifest!r}."
        raise ValueError(msg)
    if options.manifest is not None and isinstance(corpus, Together):
        msg = "--manifest writes the table of one corpus: give each of --data.of by itself."
        raise ValueError(msg)
    for option, path in {"--json": options.json, "--manifest": options.manifest}.items():
        if path is not None:
            check_not_read(option, Path(path), corpus)


def show(report: Report, console: Console) -> None:
    """The report as tables."""
    console.print(f"[bold]{escape(report.corpus)}[/] in {escape(report.root)}", soft_wrap=True)
    console.print(
        f"{report.utterances:,} utterances in the label files, {report.sounds:,} with a sound, "
        f"{report.hours:,.2f} hours"
    )
    if any(split["utterances"] for split in report.splits.values()):
        console.print(_splits(report))
    for finding in report.findings:
        colour = COLOURS[finding.severity]
        count = f"{finding.count:,} " if finding.count > 1 and not finding.words[0].isdigit() else ""
        console.print(f"[{colour}]{finding.severity:>7}[/]  {count}{escape(finding.words)}", soft_wrap=True)
        if finding.examples:
            more = " ..." if finding.count > len(finding.examples) else ""
            console.print(f"         {escape(', '.join(finding.examples))}{more}", soft_wrap=True)
        console.print(f"         [dim]{escape(finding.advice)}[/]", soft_wrap=True)
    errors = sum(finding.severity == "error" for finding in report.findings)
    sick = f"[red]{errors} error{'s' if errors > 1 else ''}[/]"
    console.print(sick if errors else "[green]nothing keeps it from being used[/]")


def _splits(report: Report) -> Table:
    table = Table()
    table.add_column("split")
    for name in report.splits:
        table.add_column(name, justify="right")
    splits = list(report.splits.values())
    table.add_row("utterances", *(f"{split['utterances']:,}" for split in splits))
    table.add_row("hours", *(f"{split['hours']:.2f}" for split in splits))
    table.add_row("speakers", *("—" if s["speakers"] is None else f"{s['speakers']:,}" for s in splits))
    for label in splits[0]["classes"]:
        table.add_row(escape(label), *(f"{split['classes'][label]:,}" for split in splits))
    return table


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Sends what C libraries say of damaged files to nowhere: the report says it, and better."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int], Callable[[int], None]]]:
    with Progress(console=console, transient=True) as bar:

        def begin(total: int) -> Callable[[int], None]:
            task = bar.add_task("reading sounds", total=total)
            return lambda done: bar.advance(task, done)

        yield begin
