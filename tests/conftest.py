"""What every test shares: no network, a seed, Ctrl-C, one thread (fastest for tensors this small)."""

import gc
import inspect
import itertools
import os
import signal

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores Ctrl-C for what it starts in the background, and every process would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Imports and the collection of thousands of tests make no garbage, and looking for it takes a fifth of them.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Refuses tests of which no case is run each time: a case is `further` only beside another."""
    if config.args_source is not config.ArgsSource.TESTPATHS:
        return  # a part of the suite was asked for
    found = {}
    for item in items:
        found.setdefault(item.nodeid.partition("[")[0], []).append(item.get_closest_marker("further") is None)
    if alone := [test for test, each_time in found.items() if not any(each_time)]:
        msg = f"all cases are marked as further ones: leave the mark off one of {', '.join(alone)}."
        raise pytest.UsageError(msg)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """From now on garbage is looked for, but not among all that was imported, which stays."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()  # or libraries that count what is left at the end complain of a leak


@pytest.fixture(scope="session", autouse=True)
def single_threaded():
    """Two threads that wait for each other on shared cores are ten times slower than one."""
    import torch  # after the environment is set

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def found_out_once():
    """What is drawn for `random:<size>` and what is installed are the same for all tests."""
    from tests.drawn import drawn_once, listed_once

    with drawn_once(), listed_once():
        yield


@pytest.fixture(scope="session")
def new_folders(tmp_path_factory):
    """Names of folders that no test has had yet."""
    place = tmp_path_factory.mktemp("each")
    return (place / str(number) for number in itertools.count())


@pytest.fixture
def tmp_path(new_folders):
    """A folder of the test's own; to number one among thousands, pytest would list them all each time."""
    folder = next(new_folders)
    folder.mkdir()
    return folder


@pytest.fixture
def drawn_anew(monkeypatch):
    """For what is about drawing itself."""
    from ser_strategies.encoder import sources

    monkeypatch.setattr(sources, "_draw", inspect.unwrap(sources._draw))


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.default_generator.manual_seed(1)  # `torch.manual_seed` notes for each kind of GPU the whole stack
