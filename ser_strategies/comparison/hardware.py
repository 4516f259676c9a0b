"""What a run ran on, in words."""

import platform
from pathlib import Path

import torch

CPUS = Path("/proc/cpuinfo")


def device_name(device: torch.device) -> str:
    """The name of a device, such as "NVIDIA H200" or "CPU AMD EPYC".

    Args:
        device: The device.
    """
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {_cpu()}" if device.type == "cpu" else device.type.upper()


def _cpu() -> str:
    if CPUS.exists():
        for line in CPUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
