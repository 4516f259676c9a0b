"""What artefacts say, as plain data: the same when they are made and whenever they are read."""

import json
from pathlib import Path
from typing import Any

import torch

from ser_strategies import Encoder, load_strategy

# Alike for all, so that no frame is padding; numbers of a frame and frames of a clip that are kept.
SAMPLES, KEPT = 8_000, 8


def sounds() -> tuple[torch.Tensor, torch.Tensor]:
    """Two clips of half a second, of sines."""
    time = torch.arange(SAMPLES, dtype=torch.float64) / 16_000
    pitches = torch.tensor([[110.0, 230.0, 1_900.0], [190.0, 410.0, 2_700.0]], dtype=torch.float64)
    clips = torch.sin(2 * torch.pi * pitches[:, :, None] * time).mean(1) * torch.sin(20 * time)
    return clips.float(), torch.full((2,), SAMPLES)


def answers(checkpoint: str) -> dict[str, Any]:
    """What a checkpoint says of the clips, and what its encoder makes of them.

    Of frames the first numbers are kept, in the mean over the clip.
    """
    with torch.no_grad():
        said = load_strategy(checkpoint)(*sounds())
        frames = Encoder(checkpoint).eval()(*sounds()).values
    return {"said": _kept(said), "frames": _kept(frames)}


def _kept(values: torch.Tensor) -> list[list[float]]:
    means = values.mean(1) if values.dim() == 3 else values
    kept: list[list[float]] = means[:, :KEPT].tolist()
    return kept


def scores(run: Path) -> dict[str, dict[str, float]]:
    """All scores that a run has left: of its last epoch, the best that chose its checkpoint, val and test."""
    found: dict[str, dict[str, float]] = {}
    for path in (run / f"{name}.json" for name in ("fit", "val", "test")):
        if path.exists():
            facts = json.loads(path.read_text("utf-8"))
            found[path.stem] = facts["metrics"]
            if "best" in facts:
                found[path.stem]["best"] = facts["best"]["score"]
    return found


def figures(comparison: Path) -> list[list[str]]:
    """The rows of the table of a report, cell by cell."""
    lines = (comparison / "report.md").read_text("utf-8").partition("\n## Table\n")[2].strip().splitlines()
    table = [line for line in lines[: lines.index("")] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
