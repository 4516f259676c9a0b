"""What every test shares: no network, a seed, Ctrl-C, one thread (fastest for tensors this small)."""

import os
import signal

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores Ctrl-C for what it starts in the background, and every process would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def single_threaded():
    """Two threads that wait for each other on shared cores are ten times slower than one."""
    import torch  # after the environment is set

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(1)
