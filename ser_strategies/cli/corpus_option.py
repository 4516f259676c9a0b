"""The option `--data` of commands that read a corpus without a model."""

from collections.abc import Iterable
from typing import Any

from jsonargparse import ArgumentParser

from ser_strategies.common.errors import PROGRAM, MistypedError
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.recorded import RecordedCorpus
from ser_strategies.fit.mistakes import explained, unwrapped
from ser_strategies.fit.safe import check_words


def corpus_parser(command: str, description: str, kind: type[Corpus] = RecordedCorpus) -> ArgumentParser:
    """A parser that takes `--data` and its options, to which a command adds its own."""
    parser = ArgumentParser(
        prog=f"{PROGRAM} {command}", description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_subclass_arguments(kind, "data", required=True, help="the corpus, such as CREMAD")
    return parser


def parse_corpus(
    parser: ArgumentParser, arguments: list[str], kinds: tuple[type[Corpus], ...] = (RecordedCorpus,)
) -> tuple[Any, Any]:
    """The corpus, which is of one of these kinds, and the other options."""
    recorded = [kind for kind in CORPORA if issubclass(kind, kinds)]
    given = {word.split("=")[0] for word in arguments}
    if not given & {"--data", "--data.help", "--help", "-h"}:
        msg = (
            f"--data is missing: expected one of {_names(recorded)}, and what it needs, such as --data.root."
        )
        raise MistypedError(msg)
    check_words(arguments)
    with explained((), recorded, arguments):
        options = parser.parse_args(arguments)
    with unwrapped():
        corpus = parser.instantiate_classes(options).data
    if not isinstance(corpus, kinds):
        msg = f"{type(corpus).__name__} has no files to look at: expected one of {_names(recorded)}."
        raise MistypedError(msg)
    return corpus, options


def _names(kinds: Iterable[type[Corpus]]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)
