"""Every strategy learns what it learned when curves.json was written, loss by loss."""

import json

import pytest
import torch

from ser_strategies.strategies import STRATEGIES
from tests.contained import contained
from tests.losses.curves import RUNS, curve
from tests.losses.write import CURVES
from tests.processor import roundings

WRITTEN = json.loads(CURVES.read_text("utf-8"))
# How far losses may be apart, as a part of them, where another torch or processor rounds otherwise. With the
# instructions of AVX2 and of SSE they came to 3e-6 of those of AVX-512. Brain floats have three digits, and a
# processor either has their arithmetic or not: 1.4e-3 there. A frame
# between two clusters of P-TAPT's teacher may fall to the other one: 1.1e-3.
ROUGH = {"mixed-precision", "ptapt"}
ELSEWHERE = {name: 1e-2 if name in ROUGH else 1e-4 for name in RUNS}
CHANGED = (
    "learning has changed: if that was meant, docs/changelog.md says what and why, and "
    "`python -m tests.losses.write` writes the curves anew"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all runs go, since some start from others."""
    return tmp_path_factory.mktemp("losses")


@pytest.fixture(scope="module")
def same_roundings():
    """Whether numbers come out here as they did there, to the last bit."""
    return WRITTEN["torch"] == torch.__version__.split("+")[0] and WRITTEN["processor"] == roundings()


# Each strategy has one that is looked at every time.
MORE = {"vanilla-dimensions", "tapt-units"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.further if name in MORE else ()) for name in RUNS]
)
def test_losses_are_what_they_were(name, folder, same_roundings, monkeypatch):
    monkeypatch.chdir(folder)
    with contained():  # on one thread: more of them add up in another order
        found = curve(name)
    expected = WRITTEN["curves"][name]
    if same_roundings:
        assert found == expected, CHANGED
    assert found["train"] == pytest.approx(expected["train"], rel=ELSEWHERE[name]), CHANGED
    assert found["val"] == pytest.approx(expected["val"], rel=ELSEWHERE[name]), CHANGED


def test_every_strategy_has_a_curve():
    shown = {words[0].removeprefix("--model=") for words in RUNS.values()}
    each_time = {words[0].removeprefix("--model=") for name, words in RUNS.items() if name not in MORE}
    assert shown == each_time == {strategy.__name__ for strategy in STRATEGIES}
    assert set(WRITTEN["curves"]) == set(RUNS)
