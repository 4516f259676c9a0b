"""What a GPU has drawn, by its own meter."""

from importlib import import_module
from typing import Any

import torch


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
