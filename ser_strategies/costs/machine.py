"""The machine of a run: its name, memory and energy, and how well it computes in short number formats."""

import platform
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

CPUS = Path("/proc/cpuinfo")
# The short format of each of the trainer's precisions that have one.
SHORT = {"bf16": torch.bfloat16, "16": torch.float16}
SIZE, TURNS = 256, 5
STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")
HIGH_WATER = "VmHWM:"


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


class Peak(NamedTuple):
    """The most memory held at once."""

    used: int | None
    reserved: int | None  # bytes that torch has taken from the GPU; None on the CPU
    # "cuda" for memory of the GPU, "resident" for the process' own in main memory.
    kind: Literal["cuda", "resident"]


def forget_peak(device: torch.device, *, process: bool = False) -> None:
    """Starts anew on a GPU; if `process`, in main memory as well, which Linux alone can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif process:
        with suppress(OSError):
            FORGET.write_text("5", encoding="ascii")


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


class EnergyMeter:
    """The meter of a GPU, through NVML; it tells nothing where there is no GPU, no meter or no `pynvml`.

    It is the whole GPU's: what else runs there is in it, what the rest of the machine draws is not.
    """

    def __init__(self, device: torch.device) -> None:
        self._library: Any = None
        self._handle: Any = None
        if device.type != "cuda":
            return
        try:
            library: Any = import_module("pynvml")
        except ImportError:
            return
        try:
            library.nvmlInit()
            # By its name of its own: numbers are counted anew within CUDA_VISIBLE_DEVICES.
            name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._handle = library.nvmlDeviceGetHandleByUUID(name)
        except library.NVMLError:
            return
        self._library = library

    def read(self) -> float | None:
        """Joules since the driver was loaded; None where nobody counts."""
        if self._library is None:
            return None
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._library.NVMLError:
            return None
