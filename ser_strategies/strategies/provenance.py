"""What a checkpoint was trained and chosen on, its own ancestors included."""

from pathlib import Path
from typing import Any

from ser_strategies.encoder.checkpoints import read_checkpoint


def origins_of(checkpoint: str | Path) -> list[dict[str, Any]]:
    """For each training behind a checkpoint, which utterances it heard, as its corpus wrote it down.

    Args:
        checkpoint: A .ckpt file.
    """
    origins: list[dict[str, Any]] = []
    for state in read_checkpoint(checkpoint).values():
        # Lightning keeps what a corpus says of itself under the name of its class.
        if isinstance(state, dict) and "heard" in state:
            origins += [{"splits": state["splits"], "heard": state["heard"]}, *state.get("origins", ())]
    return origins
