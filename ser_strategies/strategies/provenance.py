"""The training and selection data of a checkpoint and its ancestors."""

from pathlib import Path
from typing import Any

from ser_strategies.encoder.checkpoints import RECORD, read_checkpoint
from ser_strategies.encoder.starter import STARTER


def origins_of(checkpoint: str | Path) -> list[dict[str, Any]]:
    """For each training behind a checkpoint, its utterances, as its corpus noted them."""
    origins: list[dict[str, Any]] = []
    for state in read_checkpoint(checkpoint).values():
        # Lightning keeps what a corpus says of itself under the name of its class.
        if isinstance(state, dict) and "heard" in state:
            known = {name: state[name] for name in ("splits", "heard", "content") if name in state}
            origins += [known, *state.get("origins", ())]
    return origins


def check_teacher(teacher: str) -> None:
    """Refuses a teacher that never learned emotion, as far as can be known."""
    learned = bool(teacher) and teacher != STARTER and not teacher.startswith("random:")
    if teacher.endswith(".ckpt"):
        learned = "labels" in read_checkpoint(teacher)[RECORD]
    if not learned:
        msg = (
            f"teacher must be a checkpoint of a strategy that predicts emotion, such as "
            f"runs/ptapt/1-teacher/best.ckpt, got {teacher!r}."
        )
        raise ValueError(msg)
