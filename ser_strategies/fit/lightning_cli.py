"""`fit`, `validate` and `test`, and `predict` on a corpus: LightningCLI in subclass mode."""

import atexit
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ser_strategies.common.errors import MistypedError
from ser_strategies.costs.meter import CostMeter
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.disturbance import chosen
from ser_strategies.encoder.checkpoints import RECORD, read_checkpoint
from ser_strategies.fit.beat import beats
from ser_strategies.fit.callbacks import BEST, LAST, RunCheckpoint, check_distinct, check_named, is_mistake
from ser_strategies.fit.help import short_help
from ser_strategies.fit.inference_meter import InferenceMeter
from ser_strategies.fit.mistakes import check_configs, explained, unwrapped
from ser_strategies.fit.noise import quiet
from ser_strategies.fit.record import PredictionTable, RunRecord
from ser_strategies.fit.robustness import score_disturbed
from ser_strategies.fit.scored import ScoredTable
from ser_strategies.fit.shorthand import completed, short_name
from ser_strategies.fit.together import ending_as_one
from ser_strategies.fit.trainer_options import EPOCHS, check_trainer, no_limit
from ser_strategies.strategies import STRATEGIES, AnnotatorFineTuning, Strategy
from ser_strategies.strategies.predicted import learns_raters

COMMANDS = ("fit", "validate", "test", "predict")
# What a model takes from the corpus, and what the option holds as long as nobody gives it.
LINKED = {"labels": None, "dimensions": ("activation", "valence", "dominance")}


def run(command: str, arguments: list[str]) -> None:
    """Runs a LightningCLI command.

    Args:
        command: fit, validate, test or predict.
        arguments: The words after it.
    """
    if {"-h", "--help"} & set(arguments):
        print(short_help(command, arguments))
        return
    quiet()
    arguments = ["--help" if word == "--help-trainer" else word for word in completed(command, arguments)]
    check_configs(arguments)
    with explained(STRATEGIES, CORPORA, arguments), in_plain_words():
        StrategyCLI([command, *arguments])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            atexit.register(_leave_group)


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Makes one sentence of mistakes that are no built-in exceptions."""
    try:
        yield
    except SIGTERMException:
        sys.exit(
            128 + signal.SIGTERM
        )  # as a shell expects; Lightning's own exit code says that all went well
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        msg = f"the GPU is out of memory ({reason}): give a smaller --data.batch_size or batch_seconds."
        raise ValueError(msg) from error
    except (MisconfigurationException, RuntimeError) as error:
        if not is_mistake(error):
            raise
        raise ValueError(" ".join(str(error).split())) from error


def _leave_group() -> None:
    """Ends the threads of the process group while Python is whole: at its very end they could abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class StrategyCLI(LightningCLI):
    """LightningCLI with this library's defaults: where a run lives, and what is kept of it.

    Args:
        arguments: The words of the command line.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.started = time.perf_counter()
        self._asked = arguments[0]
        parsed_so: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            Strategy,
            Corpus,
            args=arguments,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=RunRecord,
            parser_kwargs=parsed_so | {self._asked: parsed_so},
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # of all runs, there
        """The one that is asked for: parsers of the others would take as long and be thrown away."""
        return {self._asked: super().subcommands()[self._asked]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options beside Lightning's, and what the model learns from the data."""
        parser.add_argument(
            "--overwrite", action="store_true", help="fit: replace a finished run in the same folder."
        )
        parser.add_argument(
            "--patience",
            type=int | None,
            default=None,
            help="fit: stop after so many validations without a better score.",
        )
        parser.add_argument(
            "--output", type=str | None, default=None, help="predict: the table to write, .csv or .parquet."
        )
        parser.add_argument(
            "--robustness",
            type=str | None,
            default=None,
            help="test: score under disturbances too: all, or some, as in noise-10,telephone.",
        )
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        # Of another corpus the raters are others; a trained model keeps its own.
        parser.link_arguments(
            "data.raters",
            "model.init_args.raters",
            compute_fn=lambda raters: self._trained_raters() or raters,
            apply_on="instantiate",
        )

    def _trained_raters(self) -> tuple[str, ...] | None:
        """The raters that the checkpoint at hand has learned; None where there is none."""
        path = self.config[self.subcommand].ckpt_path
        options = read_checkpoint(path)["hyper_parameters"] if path else {}
        return None if options.get("raters") is None else tuple(options["raters"])

    def before_instantiate_classes(self) -> None:
        """Fills in what was left open, so that the saved configuration shows what was run."""
        config = self.config[self.subcommand]
        config.trainer.enable_autolog_hparams = False  # RunRecord does so once every check has passed
        if self.subcommand != "fit":
            config.trainer.enable_checkpointing = False
            if self.subcommand != "predict":
                config.verbose = False  # RunRecord tells the scores, rounded, under plain names
        elif no_limit(config.trainer):
            config.trainer.max_epochs = EPOCHS
        check_trainer(str(self.subcommand), config.trainer)
        if self.subcommand == "fit":
            check_named(each.class_path for each in config.trainer.callbacks or [])
        if config.patience is not None and config.patience < 1:
            msg = f"--patience must be 1 or more, got {config.patience}: how many validations to wait."
            raise MistypedError(msg)
        if config.output is not None and self.subcommand == "fit":
            msg = "--output is an option of predict: fit writes into --trainer.default_root_dir."
            raise MistypedError(msg)
        if config.robustness is not None:
            if self.subcommand != "test":
                msg = f"--robustness is an option of test, which scores: {self.subcommand} does not take it."
                raise MistypedError(msg)
            chosen(config.robustness)
        for what, default in LINKED.items():
            given = config.model.init_args.get(what)
            if given is not None and tuple(given) != default:
                words = ", ".join(map(str, given))
                msg = f"--model.{what} ({words}) comes from the corpus: choose with the options of --data."
                raise ValueError(msg)
        name = config.model.class_path.rpartition(".")[2]
        learns = name == AnnotatorFineTuning.__name__ or learns_raters(
            config.model.init_args.get("objective")
        )
        if learns and "single_ratings" in config.data.init_args:
            config.data.init_args.single_ratings = True
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = f"runs/{short_name(name)}"
        if config.trainer.enable_model_summary is None:
            config.trainer.enable_model_summary = False  # RunRecord says in one line what trains
        config.trainer.use_distributed_sampler = False  # the corpora share themselves out, repeating nothing
        _apply_trainer_options(config, name)
        folder = Path(config.trainer.default_root_dir)
        file = next((each for each in (folder, *folder.parents) if each.exists() and not each.is_dir()), None)
        if file or not str(config.trainer.default_root_dir):
            where = "" if file is None else ", a file" if file == folder else f", and {file} is no folder"
            got = f"{str(config.trainer.default_root_dir)!r}{where}"
            msg = f"--trainer.default_root_dir must name a folder for the run, got {got}."
            raise MistypedError(msg)
        if self.subcommand == "fit":
            _check_folder(folder, resumed=config.ckpt_path is not None, overwrite=config.overwrite)
        else:
            config.ckpt_path = config.ckpt_path or str(folder / f"{BEST}.ckpt")
        if config.ckpt_path is not None:
            _check_checkpoint(config.ckpt_path, name)

    def instantiate_trainer(self, **keywords: Any) -> Trainer:
        """The trainer, with a record of the run, best.ckpt and last.ckpt, a CSV log and a progress bar."""
        config = self.config_init[self.subcommand].trainer
        folder = Path(config.default_root_dir)
        callbacks = list(config.callbacks or [])
        if self.subcommand == "fit":
            check_distinct(callbacks)
        keeps = config.enable_checkpointing is not False
        if config.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(RichProgressBar())
        if self.subcommand == "fit":
            callbacks.append(CostMeter(self.started))
        if self.subcommand == "fit" and keeps:
            callbacks.extend(self._checkpoints(folder))
        patience = self.config_init[self.subcommand].patience
        if self.subcommand == "fit" and patience is not None:
            if self.datamodule.protocol.trains_blindly:
                name = self.datamodule.protocol.name
                msg = f"--patience waits for validations, and nobody validates under {name}: leave it out."
                raise ValueError(msg)
            monitor, mode = self.model.monitor, self.model.monitor_mode
            callbacks.append(EarlyStopping(monitor, patience=patience, mode=mode))
        if self.subcommand != "predict":
            callbacks += [ScoredTable(), *beats()]
        if self.subcommand == "test":
            callbacks.append(InferenceMeter())
        if self.subcommand == "predict":
            output = self.config[self.subcommand].output or str(folder / "predictions.csv")
            callbacks.append(PredictionTable(output))
        logger = False if self.subcommand == "predict" else _with_csv(config.logger, folder)
        try:
            return super().instantiate_trainer(callbacks=callbacks, logger=logger, **keywords)
        except (TypeError, MisconfigurationException) as error:
            msg = f"the trainer cannot be set up so: {' '.join(str(error).split())}"
            raise ValueError(msg) from error

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; a constructor's mistake is told in its own words."""
        with unwrapped():
            super().instantiate_classes()

    def _set_seed(self) -> None:
        """Starts all random numbers from the seed, which must be one: `true` would draw another each time."""
        seed = self.config[self.subcommand].seed_everything
        if isinstance(seed, bool):
            got = str(seed).lower()
            msg = f"--seed_everything must be a whole number, so that a run can be repeated; got {got}."
            raise MistypedError(msg)
        if seed is not None and not 0 <= seed < 2**32:
            msg = f"--seed_everything must be from 0 to {2**32 - 1}, got {seed}."
            raise MistypedError(msg)
        super()._set_seed()

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs it, in one process or in several that end as one."""
        with ending_as_one(self.trainer), in_plain_words():
            super()._run_subcommand(subcommand)
            words = self.config[subcommand].robustness
            if words is not None:
                score_disturbed(self.trainer, self.model, self.datamodule, chosen(words))

    def _checkpoints(self, folder: Path) -> list[RunCheckpoint]:
        # Two, since Lightning's own `save_last` writes only when the best is written too.
        # Where nobody validates, the last epoch is the best.
        validates = self.config_init[self.subcommand].trainer.limit_val_batches != 0
        validates = validates and not self.datamodule.protocol.trains_blindly
        last = RunCheckpoint(dirpath=folder, filename=LAST, enable_version_counter=False)
        best = RunCheckpoint(
            dirpath=folder,
            filename=BEST,
            monitor=self.model.monitor if validates else None,
            mode=self.model.monitor_mode,
            enable_version_counter=False,
        )
        return [best, last]

    def _dump_config(self) -> None:
        """The configuration as plain data, for whatever saves it: not checked again, which takes as long."""
        if not hasattr(self, "config_dump"):
            text = self.parser.dump(
                self.config, skip_link_targets=False, skip_none=False, skip_validation=True
            )
            self.config_dump = yaml.safe_load(text)[self.subcommand]

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would merge a checkpoint's options into the configuration without a word."""


def _apply_trainer_options(config: Namespace, name: str) -> None:
    strategy = next((kind for kind in STRATEGIES if kind.__name__ == name), None)
    for option in strategy.trainer_options if strategy else ():
        if config.trainer.get(option) is None:
            config.trainer[option] = config.model.init_args[option]


def _check_folder(folder: Path, *, resumed: bool, overwrite: bool) -> None:
    kept = [name for name in (BEST, LAST) if (folder / f"{name}.ckpt").exists()]
    if kept and not resumed and not overwrite:
        msg = (
            f"{folder} already holds a run ({kept[0]}.ckpt): give --overwrite to replace it, "
            f"--ckpt_path {folder / f'{LAST}.ckpt'} to go on with it, or another --trainer.default_root_dir."
        )
        raise FileExistsError(msg)


def _check_checkpoint(path: str, name: str) -> None:
    trained = read_checkpoint(path)[RECORD]["strategy"]
    if trained != name:
        msg = (
            f"{path} is from {trained}, but --model is {name}: give --model {trained}, "
            f"or start {name} from it with --model.encoder {path}."
        )
        raise ValueError(msg)


def _with_csv(logger: Any, folder: Path) -> list[Logger] | bool:
    """The user's loggers and a CSV log beside the checkpoints; none at all if the user said false."""
    if logger is False:
        return False
    given = (
        [logger] if isinstance(logger, Logger) else list(logger) if isinstance(logger, (list, tuple)) else []
    )
    if any(isinstance(each, CSVLogger) for each in given):
        return given
    return [*given, CSVLogger(save_dir=folder, name="logs")]
