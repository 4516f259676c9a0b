"""Everything that `fit` would use, and nothing run."""

from collections.abc import Sequence

from ser_strategies.data.corpora import CORPORA
from ser_strategies.fit.lightning_cli import StrategyCLI, quiet
from ser_strategies.fit.mistakes import check_configs, explained
from ser_strategies.fit.shorthand import with_full_names
from ser_strategies.strategies import STRATEGIES


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
