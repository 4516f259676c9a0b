"""Memory, energy and names of devices."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ser_strategies.comparison.summary import IN_SOFTWARE
from ser_strategies.costs import machine
from ser_strategies.costs.machine import (
    EnergyMeter,
    device_name,
    forget_peak,
    peak_memory,
    resident_peak,
    short_format_factor,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
# A process of bare Python, in which nothing is large but what it takes.
BARE = """
import runpy, sys, types
sys.modules["torch"] = types.SimpleNamespace(device=object, bfloat16=None, float16=None)
peak = runpy.run_path(sys.argv[1])["resident_peak"]
before = peak()
taken = bytearray(100_000_000)
taken[::4096] = b"x" * len(taken[::4096])
del taken
print(before, peak())
"""


FACTOR = """
import torch
from ser_strategies.costs.machine import short_format_factor
print(short_format_factor(torch.device("cpu"), "bf16-mixed"))
"""


def test_only_a_run_in_a_short_format_is_asked_whether_the_machine_has_its_arithmetic():
    assert short_format_factor(CPU, "32-true") is None
    assert 0 < short_format_factor(CPU, "bf16-mixed") < float("inf")
    assert 0 < short_format_factor(CPU, "16-mixed") < float("inf")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only there can its arithmetic be turned off")
def test_a_processor_without_the_arithmetic_is_found_out():
    without = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    ran = subprocess.run(
        [sys.executable, "-c", FACTOR], env=without, capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) > IN_SOFTWARE


def test_the_peak_is_what_was_held_once_by_this_process_and_not_by_the_one_that_started_it():
    ran = subprocess.run([sys.executable, "-c", BARE, machine.__file__], capture_output=True, text=True)
    before, after = map(int, ran.stdout.split())
    assert 100_000_000 < after < before + 110_000_000
    if machine.STATUS.exists():
        assert before < 60_000_000 < resident_peak()


def test_on_the_cpu_the_peak_is_that_of_the_process():
    assert peak_memory(CPU) == (resident_peak(), None, "resident")


def test_without_linux_the_peak_is_that_of_getrusage(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "STATUS", tmp_path / "nowhere")
    usage = SimpleNamespace(ru_maxrss=123)
    monkeypatch.setattr("resource.getrusage", lambda who: usage)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert resident_peak() == 123 * 1024
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert resident_peak() == 123


def test_on_a_gpu_the_peak_is_torchs(monkeypatch):
    said = {"max_memory_allocated": 7, "max_memory_reserved": 9}
    for name, value in said.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    forget_peak(GPU)
    forget_peak(CPU)
    assert asked == [GPU]
    assert peak_memory(GPU) == (7, 9, "cuda")


class Nvml:
    """A meter that has counted 5 J when it is first read, and 12.5 J more whenever it is read again."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, *, broken=""):
        self.broken, self.millijoules, self.asked = broken, 5_000, None

    def nvmlInit(self):  # noqa: N802
        if self.broken == "init":
            raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        self.asked = name
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        assert handle == "handle"
        if self.broken == "read":
            raise self.NVMLError
        before, self.millijoules = self.millijoules, self.millijoules + 12_500
        return before


@pytest.fixture
def nvml(monkeypatch):
    def installed(library):
        monkeypatch.setitem(sys.modules, "pynvml", library)
        facts = SimpleNamespace(uuid="1234-abcd")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
        return library

    return installed


def test_energy_is_that_of_the_gpu_by_its_own_name(nvml):
    library = nvml(Nvml())
    meter = EnergyMeter(GPU)
    first, second = meter.read(), meter.read()
    assert (first, second - first) == (5.0, 12.5)
    assert library.asked == "GPU-1234-abcd"


@pytest.mark.parametrize("broken", ["init", "read"])
def test_a_meter_that_does_not_work_tells_nothing(broken, nvml):
    nvml(Nvml(broken=broken))
    assert EnergyMeter(GPU).read() is None


def test_without_the_library_or_a_gpu_nothing_is_told(nvml, monkeypatch):
    nvml(Nvml())
    assert EnergyMeter(CPU).read() is None

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(machine, "import_module", missing)
    assert EnergyMeter(GPU).read() is None


def test_devices_have_names(monkeypatch):
    assert device_name(CPU).startswith("CPU ")
    assert len(device_name(CPU)) > len("CPU ")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert device_name(GPU) == "NVIDIA H200"
