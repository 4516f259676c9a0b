"""The costs of a prediction, measured when a test is over, into the costs.json of the run that was tested."""

import json
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ser_strategies.batch import Batch
from ser_strategies.common.errors import first_line
from ser_strategies.common.files import CHECKSUMS, opened, write_result
from ser_strategies.costs.inference import measured
from ser_strategies.costs.meter import COSTS
from ser_strategies.strategies import Recognizer

# There once a run has been measured.
MEASURED = "inference_audio_seconds_per_second"


class InferenceMeter(Callback):
    """Adds to costs.json, beside the checkpoint that is tested, what a prediction takes; see docs/costs.md.

    The first test of a run is measured; costs that are there stay as they are.
    """

    def __init__(self) -> None:
        self._biggest: Batch | None = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the biggest batch."""
        size = batch.waveforms.numel()
        if self._biggest is None or size > self._biggest.waveforms.numel():
            self._biggest = batch

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures, before test.json says that all is done."""
        batch, self._biggest = self._biggest, None
        folder = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path(trainer.default_root_dir)
        costs = _unmeasured(folder)
        if batch is None or costs is None or not isinstance(pl_module, Recognizer):
            return
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        try:
            found = measured(pl_module, batch, trainer.precision_plugin.forward_context)
        except Exception as error:  # scores must not be lost for want of a figure
            first = first_line(error)
            msg = f"the speed of predictions could not be measured ({first}): {COSTS} leaves it out"
            warnings.warn(msg, stacklevel=2)
            return
        write_result(folder / COSTS, costs | found)


def _unmeasured(folder: Path) -> dict[str, Any] | None:
    """The costs of a run; None if there are none, or predictions are among them, or they are under a seal."""
    if any((above / CHECKSUMS).exists() for above in (folder, folder.parent)):
        return None
    try:
        costs = json.loads((folder / COSTS).read_text("utf-8"))
        costs = opened(costs, folder / COSTS) if isinstance(costs, dict) else {MEASURED: None}
    except (OSError, ValueError):
        return None
    return None if MEASURED in costs else costs
