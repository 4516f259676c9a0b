"""What a run ran on, and whether it has the arithmetic of the number format that it was asked for."""

import platform
import time
from pathlib import Path

import torch

CPUS = Path("/proc/cpuinfo")
# The short format of each of the trainer's precisions that have one.
SHORT = {"bf16": torch.bfloat16, "16": torch.float16}
SIZE, TURNS = 256, 5


def device_name(device: torch.device) -> str:
    """The name of a device, such as "NVIDIA H200" or "CPU AMD EPYC"."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {_cpu()}" if device.type == "cpu" else device.type.upper()


def short_format_factor(device: torch.device, precision: str) -> float | None:
    """How many times as long a product of matrices takes in a run's short format as in float32.

    Far below 1 where the device has the arithmetic, far above where it makes it up in software. Measured,
    since no two systems tell it alike; None where a run computes in float32.
    """
    short = SHORT.get(precision.partition("-")[0])
    if short is None:
        return None
    best = dict.fromkeys((torch.float32, short), float("inf"))
    matrices = {dtype: torch.ones(SIZE, SIZE, dtype=dtype, device=device) for dtype in best}
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for _ in range(TURNS):
            for dtype, matrix in matrices.items():
                _wait(device)
                started = time.perf_counter()
                torch.mm(matrix, matrix)
                _wait(device)
                best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[short] / best[torch.float32]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu() -> str:
    if CPUS.exists():
        for line in CPUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
