"""Files of a run beside its checkpoints: configuration, surroundings, scores, predictions."""

import math
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from ser_strategies.common.errors import PROGRAM
from ser_strategies.common.files import copy_file, write_json, write_result, write_table, write_text
from ser_strategies.data.manifest.writing import check_not_read
from ser_strategies.fit.callbacks import BEST, RunCheckpoint, is_mistake
from ser_strategies.fit.outcome import (
    data_facts,
    result_name,
    rows_told,
    score_lines,
    score_words,
    told,
    unreadable_told,
)
from ser_strategies.fit.together import told_elsewhere
from ser_strategies.strategies import Predictions, Recognizer, Strategy

PACKAGES = ("ser-strategies", "torch", "torchaudio", "lightning", "transformers", "peft", "jsonargparse")


class RunRecord(SaveConfigCallback):
    """Writes config.yaml, environment.json and the scores into the folder of the run.

    Nothing is written before training has passed every check, so that a mistake leaves nothing behind.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Waits: Lightning's own callback would write here, before the strategy has looked at the data."""
        self.validated: dict[int, float] = {}
        self.metrics: dict[str, float | None] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a run that is gone on with says of the epochs before, even if there is none left."""
        return {"validated": dict(self.validated), "metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The same, from a checkpoint."""
        self.validated, self.metrics = dict(state_dict["validated"]), dict(state_dict["metrics"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()
        self.seconds: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes down what is about to run, on what, and where."""
        _check_validation(trainer)
        data = data_facts(trainer)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            text = self.parser.dump(self.config, skip_none=False, skip_validation=True)
            write_text(folder / "config.yaml", text)
            write_json(folder / "environment.json", environment())
            for logger in trainer.loggers:
                logger.log_hyperparams(dict(pl_module.hparams))
            counts = parameter_counts(pl_module)
            trained, total = counts["trainable_parameters"], counts["parameters"]
            print(
                f"{type(pl_module).__name__} trains {trained:,} of {total:,} parameters "
                f"({trained / total:.1%}); run folder: {folder}"
            )
            print("\n".join(told(data)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock: whatever is found out of a trained model is no part of training it."""
        self.seconds = time.perf_counter() - self.started

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores of the last and the best epoch, and what the best has to give beside them."""
        kept = [c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
        best = next((each for each in kept if each.filename == BEST), None)
        score = None if best is None or best.best_model_score is None else best.best_model_score.item()
        epoch = next((epoch for epoch, value in self.validated.items() if value == score), None)
        seconds = time.perf_counter() - self.started if self.seconds is None else self.seconds
        facts = {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(seconds, 3),
            "best": {"monitor": best.monitor if best else None, "score": score, "epoch": epoch},
            **parameter_counts(pl_module),
            **data_facts(trainer),
            **(_of_strategy(pl_module) if isinstance(pl_module, Strategy) else {}),
        }
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            for line in unreadable_told(facts.get("data", {}).get("unreadable", {})):
                print(line)
            last = folder / "last.ckpt"
            if best is not None and not best.best_model_path and last.exists():
                copy_file(last, folder / "best.ckpt")
                print("validation never ran, so best.ckpt is a copy of last.ckpt")
            if isinstance(pl_module, Strategy) and best is not None and best.best_model_path:
                pl_module.write_best(best.best_model_path, folder)
            # Last, since it says that the rest is there.
            scores = _scores(trainer) if trainer.callback_metrics else {"metrics": self.metrics}
            write_result(folder / "fit.json", facts | scores)
            if (folder / "best.ckpt").exists():
                print("\n".join(_ending(facts["best"], folder / "best.ckpt", pl_module)))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes away what a run that never wrote a checkpoint has left, since nothing can go on from it."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            root = Path(trainer.default_root_dir)
            mistake = isinstance(exception, (ValueError, OSError)) or is_mistake(exception)
            mistake = mistake or told_elsewhere() is not None
            if mistake and not list(root.glob("*.ckpt")):
                for name in ("config.yaml", "environment.json", "val.parquet"):
                    (root / name).unlink(missing_ok=True)
                for logger in trainer.loggers:
                    if isinstance(logger, CSVLogger):
                        shutil.rmtree(logger.log_dir, ignore_errors=True)
                        Path(logger.log_dir).mkdir(parents=True, exist_ok=True)
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger) or not trainer.is_global_zero:
                continue
            folder = Path(logger.log_dir).resolve()
            while folder.is_dir() and not any(folder.iterdir()) and folder != Path.cwd():
                folder.rmdir()
                folder = folder.parent

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `validate` writes the scores, during `fit` tells the one that chooses the best epoch."""
        monitor = getattr(pl_module, "monitor", None)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and monitor in trainer.callback_metrics:
            self.validated[trainer.current_epoch] = trainer.callback_metrics[monitor].item()
            self.metrics = _scores(trainer)["metrics"]
            if trainer.is_global_zero:
                names = dict.fromkeys((monitor, "val/loss"))
                known = {name: trainer.callback_metrics[name].item() for name in names}
                words = ", ".join(score_words(*each) for each in known.items())
                print(f"epoch {trainer.current_epoch}: validation {words}", flush=True)
        if trainer.state.fn == "validate":
            self._write_evaluation(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the scores of the test split."""
        self._write_evaluation(trainer, pl_module, "test")

    def _write_evaluation(self, trainer: Trainer, model: LightningModule, stage: Any) -> None:
        checkpoint = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        facts: dict[str, Any] = {"checkpoint": str(checkpoint) if checkpoint else None}
        data = data_facts(trainer)
        if not trainer.is_global_zero:
            return
        if isinstance(model, Recognizer):
            confusion = model.confusion(stage)
            facts |= {
                "encoder": model.encoder.identity.as_dict(),
                "labels": list(model.labels),
                "dimensions": list(model.dimensions),
                "confusion": None if confusion is None else confusion.tolist(),
                **_conditions(model, stage),
            }
        folder = checkpoint.parent if checkpoint else Path(trainer.default_root_dir)
        name = result_name(folder, stage, data["data"]) if data else stage
        scores = _scores(trainer)
        write_result(folder / f"{name}.json", facts | data | scores)
        notes = model.notes(stage) if isinstance(model, Recognizer) else []
        print("\n".join([*told(data), *(f"note: {n}" for n in notes), *score_lines(scores["metrics"])]))
        for line in rows_told(facts.get("conditions", {}).get("otherwise", {})):
            print(line)
        print(f"written to {folder / f'{name}.json'}")


class PredictionTable(BasePredictionWriter):
    """Writes one row per utterance: id, path, probabilities and dimensions, and the likeliest label.

    The table is a .csv or .parquet file; without `output` it is only in `rows`. An utterance that could not
    be read has a row, too, with the reason in a column `error`, which exists only where it is needed.
    """

    def __init__(self, output: str | Path | None) -> None:
        super().__init__(write_interval="epoch")
        self.output = None if output is None else Path(output)
        self.rows = pd.DataFrame()
        if self.output is not None and self.output.suffix not in {".csv", ".parquet"}:
            msg = f"--output must end in .csv or .parquet, got {output}."
            raise ValueError(msg)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks that the table does not take the place of what the corpus is read from."""
        super().setup(trainer, pl_module, stage)
        if self.output is not None:
            check_not_read("--output", self.output, getattr(trainer, "datamodule", None) or self)

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gathers the rows of all processes and writes them at once."""
        rows = prediction_rows(predictions)
        data = data_facts(trainer)
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        # Batches go by duration and to several processes; the table keeps the order of the corpus.
        split = getattr(getattr(trainer, "datamodule", None), "split", None)
        if split is not None:
            listed = split("test")
            names = zip(listed["id"], listed["path"].fillna(""), strict=True)
            position = {each: index for index, each in enumerate(names)}
            unreadable = data["data"]["unreadable"] if data else {}
            rows += [
                {"id": name, "path": path, "error": unreadable[name]}
                for name, path in position
                if name in unreadable
            ]
            rows.sort(key=lambda row: position[row["id"], row["path"]])
        self.rows = pd.DataFrame(rows)
        if getattr(getattr(trainer, "datamodule", None), "window", None) is not None:
            for column, values in enumerate((listed["start"], listed["end"]), start=2):
                self.rows.insert(column, values.name, values.to_numpy())
        if trainer.is_global_zero and self.output is not None:
            write_table(self.output, self.rows)
            notes = pl_module.notes("test") if isinstance(pl_module, Recognizer) else []
            print("\n".join([*told(data), *(f"note: {note}" for note in notes)]))


def prediction_rows(predictions: Sequence[Predictions]) -> list[dict[str, Any]]:
    """One dictionary per utterance."""
    rows = []
    for batch in predictions:
        columns = {name: values.tolist() for name, values in batch.columns.items()}
        for index, name in enumerate(batch.ids):
            row: dict[str, Any] = {"id": name, "path": batch.paths[index] if batch.paths else ""}
            row |= {column: values[index] for column, values in columns.items()}
            chances = {
                c.removeprefix("probability/"): row[c] for c in columns if c.startswith("probability/")
            }
            if chances:
                row["label"] = max(chances, key=chances.__getitem__)
            rows.append(row)
    return rows


def environment() -> dict[str, Any]:
    """Facts that a result depends on beside its configuration."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "packages": {name: version(name) for name in PACKAGES} | {"torch": torch.__version__},
    }


def parameter_counts(model: LightningModule) -> dict[str, int]:
    """Numbers of trainable and of all parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {
        "trainable_parameters": sum(size for size, trains in sizes if trains),
        "parameters": sum(size for size, _ in sizes),
    }


def _of_strategy(model: Strategy) -> dict[str, Any]:
    return {"encoder": model.encoder.identity.as_dict(), **model.report()}


def _conditions(model: Recognizer, stage: str) -> dict[str, Any]:
    """What the model was told beside the sound, and its scores where it is told otherwise; if anything."""
    if not model.conditions:
        return {}
    facts = model.conditions_told(stage)
    if stage == "test":
        facts["otherwise"] = {row: _finite(scores) for row, scores in model.dropped.items()}
    return {"conditions": facts, "oracles": model.oracles(stage)}


def _scores(trainer: Trainer) -> dict[str, Any]:
    """The logged metrics; one that is not a number (a class that does not occur) is missing, not zero."""
    values = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {"metrics": _finite(values)}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _check_validation(trainer: Trainer) -> None:
    """Raises ValueError where validation is wanted and would never come."""
    batches, every = trainer.num_training_batches, float(trainer.val_check_batch or 0)
    epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
    # Without check_val_every_n_epoch batches are counted across epochs.
    counted = batches * epochs if trainer.check_val_every_n_epoch is None else batches
    if trainer.enable_validation and 0 <= counted < every:
        msg = (
            f"--trainer.val_check_interval is {every:g} batches, but there are {counted}, so the run would "
            f"never validate: give {counted} or less, or --trainer.limit_val_batches 0 to train without."
        )
        raise ValueError(msg)


def _ending(best: dict[str, Any], checkpoint: Path, model: LightningModule) -> list[str]:
    """The best epoch, and what to do next."""
    epoch = "" if best["epoch"] is None else f" in epoch {best['epoch']}"
    score = (
        "" if best["score"] is None else f"validation {score_words(best['monitor'], best['score'])}{epoch}, "
    )
    lines = [f"best: {score}in {checkpoint}"]
    if isinstance(model, Recognizer):
        lines += [
            f"next: {PROGRAM} test --ckpt_path {checkpoint.parent}",
            f"      {PROGRAM} predict --ckpt_path {checkpoint.parent} recording.wav",
        ]
    else:
        lines.append(f"next: {PROGRAM} fit --model LoRAFineTuning --model.encoder {checkpoint} --data ...")
    return lines
