"""What libraries say that is no news to a user."""

import logging
import warnings

# Each is true, known and no news to the user; the reason stands beside it.
NOISE = (
    "LightningCLI's args parameter is intended",  # the front door hands the arguments over on purpose
    ".*does not have many workers.*",  # `--data.workers` is the user's choice
    ".*Checkpoint directory .* exists and is not empty.*",  # RunRecord has already decided about that
    ".*module\\(s\\) in eval mode at the start of training.*",  # frozen means eval mode, on purpose
    ".*You have overridden `on_before_batch_transfer`.*",  # the strategy's is the one that is meant
    ".*isinstance\\(treespec, LeafSpec\\).*",  # between Lightning and torch
    ".*Be aware that when using `ckpt_path`, callbacks used.*",  # scoring needs no checkpoint callback
    ".*dataloader is not resumable.*",  # BatchPlan skips what an interrupted epoch has had
    ".*Couldn't infer the batch indices.*",  # the table goes by utterance, not by batch index
    ".*It is recommended to use `self.log.*sync_dist=True.*",  # scores are already those of all processes
    ".*The number of training batches .* is smaller than the logging interval.*",  # epochs are logged anyway
    ".*optimizer_\\{step,zero_grad\\}.*",  # that a step comes after several batches is what was asked for
    "The `srun` command is available on your system.*",  # a process on a login node is meant to be one
    ".*You're using the WeightAveraging callback, but.*",  # what is scored is the average that was kept
)


def quiet() -> None:
    """Leaves Lightning its warnings, less those that are no news, and takes its advertisements."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
