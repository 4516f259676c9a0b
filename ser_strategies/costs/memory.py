"""The most memory that a run has held at once."""

import sys
from pathlib import Path
from typing import Literal, NamedTuple

import torch

STATUS = Path("/proc/self/status")
HIGH_WATER = "VmHWM:"


class Peak(NamedTuple):
    """The most memory held at once."""

    used: int | None
    reserved: int | None  # bytes that torch has taken from the GPU; None on the CPU
    # "cuda" for memory of the GPU, "resident" for the process' own in main memory.
    kind: Literal["cuda", "resident"]


def forget_peak(device: torch.device) -> None:
    """Starts anew on a GPU; a process cannot forget how large it once was."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> Peak:
    """The most memory held so far."""
    if device.type == "cuda":
        used, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return Peak(used, reserved, "cuda")
    return Peak(resident_peak(), None, "resident")


def resident_peak() -> int:
    """Bytes of this process in main memory at most, by the system's own high-water mark.

    Processes that it started are not counted.
    """
    if STATUS.exists():
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith(HIGH_WATER):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info()._asdict()["peak_wset"])
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
