"""Commands run in the process of the tests, and change nothing of it that outlives them."""

import contextlib
import logging
import os
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Puts back what a command changes for the whole process: warnings, logging, seeds, environment."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, environment = [logger.level for logger in loggers], dict(os.environ)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors on shared cores
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    os.environ.clear()
    os.environ.update(environment)
