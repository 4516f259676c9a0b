"""`prepare`: the sound of a corpus of films, as FLAC files beside them."""

import os
import sys
from pathlib import Path

from rich.progress import Progress

from ser_strategies.cli.corpus_option import corpus_parser, parse_corpus
from ser_strategies.data.audio import CHANNEL_RULES
from ser_strategies.data.video import extract_all

SHOWN = 10


def run(command: str, arguments: list[str]) -> None:
    """Extracts what is not there yet; exits with 1 where a film gave no sound that should have."""
    parser = corpus_parser(
        command, "Extract the sound of films as 16 kHz FLAC beside them. Safe to interrupt and to run again."
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="films read at a time")
    corpus, options = parse_corpus(parser, arguments)
    name = type(corpus).__name__
    if options.processes < 1:
        msg = f"--processes must be at least 1, got {options.processes}."
        raise ValueError(msg)
    films = corpus.clips_to_prepare()
    if not films:
        print(f"{name} in {corpus.root} has no films to prepare.")
        return
    with Progress(transient=True) as bar:
        task = bar.add_task("extracting sound", total=len(films))
        channel = CHANNEL_RULES[corpus.channels]
        done = extract_all(
            films,
            channel=channel,
            processes=options.processes,
            progress=lambda count: bar.advance(task, count),
        )
    print(f"{done.written:,} sounds written, {done.kept:,} were there, {len(done.failed):,} films failed")
    for film, reason in list(done.failed.items())[:SHOWN]:
        print(f"  {film}: {reason}")
    if len(done.failed) > SHOWN:
        print(f"  and {len(done.failed) - SHOWN:,} more")
    if any(corpus.id_of_clip(Path(film)) not in corpus.card.damaged for film in done.failed):
        known = ", ".join(corpus.card.damaged) or "none"
        print(f"known to be damaged: {known}; to train without the others: --data.damaged skip")
        sys.exit(1)
