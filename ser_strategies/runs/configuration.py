"""What `fit` would make of a stage's file and of the words given with it, without building the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ser_strategies.common.errors import MistypedError
from ser_strategies.data.corpora import CORPORA
from ser_strategies.fit.lightning_cli import StrategyCLI
from ser_strategies.fit.mistakes import check_configs, explained
from ser_strategies.strategies import STRATEGIES, Recognizer

# What says how to start a run, not what it is; `run` decides it for each start.
OF_A_START = ("config", "overwrite", "output", "ckpt_path")


@dataclass(frozen=True)
class Stage:
    """A stage as its file and the command line describe it.

    Args:
        name: What it is called.
        config: Its configuration, every option of it, as plain data.
        said: The folder that the file names as its own, by which later stages refer to it.
        recognizes: Whether it predicts emotion, so that it can be tested.
    """

    name: str
    config: dict[str, Any]
    said: Path
    recognizes: bool


class _Resolved(StrategyCLI):
    """Reads a configuration like `fit`; nothing is seeded, built or run."""

    def __init__(self, words: Sequence[str]) -> None:
        self.said: str | None = None
        super().__init__(["fit", *words])

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data, as a run writes it down."""
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        config: dict[str, Any] = yaml.safe_load(text)
        return config

    def before_instantiate_classes(self) -> None:
        """Remembers the folder that was given, before a default stands in its place."""
        config = self.config[self.subcommand]
        self.said = config.trainer.default_root_dir
        if config.ckpt_path is not None:
            msg = f"leave out ckpt_path ({config.ckpt_path}): a stage that was stopped goes on by itself."
            raise MistypedError(msg)
        config.overwrite = True  # no run is started, so a finished one in the same folder is not in the way
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Nothing: what an encoder starts from may not have been trained yet."""

    def _set_seed(self) -> None:
        """Nothing: each stage seeds its own process."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: each stage runs in its own process."""


def resolve(name: str, words: Sequence[str], default: Path) -> Stage:
    """A stage, as `fit` would understand it.

    Args:
        name: What it is called.
        words: The words of `fit` that describe it, such as `--config` and its file.
        default: Its folder if its configuration names none.
    """
    check_configs(words)
    with about(name), explained(STRATEGIES, CORPORA, words):
        resolved = _Resolved(words)
    config = {name: value for name, value in resolved.plain().items() if name not in OF_A_START}
    if config["trainer"]["fast_dev_run"] or config["trainer"]["enable_checkpointing"] is False:
        msg = (
            f"{name}: a stage of a chain must keep its checkpoints: leave out fast_dev_run and "
            f"enable_checkpointing; to try a chain out, give --trainer.limit_train_batches 2."
        )
        raise MistypedError(msg)
    module, _, kind_name = config["model"]["class_path"].rpartition(".")
    kind = getattr(import_module(module), kind_name)
    recognizes = isinstance(kind, type) and issubclass(kind, Recognizer)
    return Stage(name, config, Path(resolved.said or default), recognizes)


@contextmanager
def about(stage: str) -> Iterator[None]:
    """Says of a mistake in which stage it is.

    Args:
        stage: Its name.
    """
    try:
        yield
    except MistypedError as error:
        msg = f"{stage}: {error}"
        raise MistypedError(msg) from error
    except (ValueError, OSError, ImportError) as error:
        msg = f"{stage}: {error}"
        raise ValueError(msg) from error
