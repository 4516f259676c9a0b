"""How much memory is free for a run."""

from pathlib import Path

import torch

MEMINFO, STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process may have in all, with those it has; None where nobody tells.

    Args:
        device: What trains.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    available, resident = _kilobytes(MEMINFO, "MemAvailable:"), _kilobytes(STATUS, "VmRSS:")
    return None if available is None or resident is None else 1024 * (available + resident)


def _kilobytes(path: Path, name: str) -> int | None:
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
