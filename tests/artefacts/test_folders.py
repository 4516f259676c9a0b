"""Folders that earlier versions have written: caches, units, chains, comparisons, configurations."""

import contextlib
import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_strategies import __version__
from ser_strategies.cli import main
from tests.artefacts.answers import figures, scores
from tests.artefacts.conftest import HERE
from tests.contained import contained

# What docs/changelog.md says of what a version has left. "caches": they and units are built anew, once, since
# other code computes them. "runs": chains and comparisons are run again, since options are new or others.
ANNOUNCED: dict[str, set[str]] = {"v0.1": {"caches"}}
CHAIN = shlex.split(
    "run chain --seed 0,1 --out runs/chain --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--2-finetune.model.mask_time_minimum=2"  # the default of then
)
CONFIGURATIONS = sorted(HERE.glob("v*/configurations/*.yaml"))


def said(*words: str) -> list[str]:
    """The lines that a command writes."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main(list(words))
        except SystemExit as end:  # --print_config ends so
            assert end.code == 0  # noqa: PT017  # an end, not an error
    return out.getvalue().splitlines()


def content(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_every_byte_of_a_cache_is_in_order(artefacts):
    (cache,) = Path("cache").iterdir()
    assert said("cache", "verify", "--cache", "cache") == [
        f"{cache.name}: 8 sounds in order, 0 files damaged"
    ]


@pytest.mark.parametrize(
    ("command", "run", "folder"), [("fit", "cached", "cache"), ("validate", "ptapt", "runs/ptapt/units")]
)
def test_what_is_stored_is_found_and_stays_as_it_is(command, run, folder, artefacts):
    before, expected = content(folder), artefacts.expected["runs"][run]
    last = "--overwrite" if command == "fit" else f"--ckpt_path=runs/{run}/best.ckpt"
    main([command, "--config", f"runs/{run}/config.yaml", last])
    after = content(folder)
    assert {path: after[path] for path in before} == before
    if artefacts.same_libraries and artefacts.same_processor:
        stores = {Path(path).parent for path in after}
        assert len(stores) == (2 if "caches" in ANNOUNCED[artefacts.version] else 1)
        assert len(after) == len(stores) * len(before)
    what = "fit" if command == "fit" else "val"
    assert scores(Path("runs", run))[what] == pytest.approx(expected[what], abs=artefacts.tolerance)


def test_a_chain_goes_on_where_it_was_stopped(artefacts):
    if not artefacts.same_libraries:
        pytest.skip("options of another torch's optimizers are other options")
    before = content("runs/chain")
    first, *decisions, last = said(*CHAIN, "--dry_run")
    assert first == "chain chain: 1-adapt, 2-finetune; runs in runs/chain"
    assert last == "nothing was run (--dry_run)"
    written = artefacts.environment["ser-strategies"]
    if written != __version__:
        # Another version runs a chain again, whatever else there is to say.
        why = f" runs: ser-strategies changed {written} -> {__version__}"
        assert all(why in line for line in decisions[::2])
    elif "runs" in ANNOUNCED[artefacts.version]:
        assert all(" runs: " in line for line in decisions)
    else:
        assert decisions == [
            "1-adapt (seed 0) is skipped: nothing has changed",
            "2-finetune (seed 0) is skipped: nothing has changed",
            "1-adapt (seed 1) is skipped: nothing has changed",
            "2-finetune (seed 1) goes on: it was stopped",
        ]
    assert content("runs/chain") == before


def test_a_comparison_has_nothing_left_to_do(artefacts):
    if not artefacts.same_libraries:
        pytest.skip("options of another torch's optimizers are other options")
    (words,) = json.loads(Path("comparison/comparison.json").read_text("utf-8"))["commands"]
    before = content("comparison")
    lines = said(*words, "--model.mask_time_minimum=2", "--dry_run")
    left = 4 if "runs" in ANNOUNCED[artefacts.version] else 0
    grid = "comparing lora, partial: 2 strategies x 1 fold x 2 seeds, 4 runs"
    assert f"{grid}, {left} to do; in comparison" in lines
    assert content("comparison") == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between matplotlib and pyparsing
def test_a_comparison_is_reported_with_the_same_figures(artefacts):
    folder, before = Path("comparison"), json.loads(Path("comparison/report.json").read_text("utf-8"))
    for name in ("report.md", "report.json", "table.csv"):
        (folder / name).unlink()
    main(["compare", "--report", "comparison"])
    assert figures(folder) == artefacts.expected["comparison"]
    numbers = dict(numbers_in(json.loads((folder / "report.json").read_text("utf-8"))))
    for name, number in numbers_in(before):
        assert numbers[name] == pytest.approx(number, rel=1e-9), name


def numbers_in(facts: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in plain data, with its place."""
    if isinstance(facts, (dict, list)):
        for key, each in facts.items() if isinstance(facts, dict) else enumerate(facts):
            yield from numbers_in(each, f"{name}/{key}")
    elif isinstance(facts, (int, float)):
        yield name, facts


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_saved_configuration_means_what_it_did(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contained():
        resolved = yaml.safe_load("\n".join(said("fit", "--config", str(path), "--print_config")))
    changed = dict(differences(yaml.safe_load(path.read_text("utf-8")), resolved))
    assert changed == {}


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """What is not any more, or is something else; options that are new are no difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key, each in before.items():
            yield from differences(each, now.get(key, "nothing"), f"{name}.{key}".lstrip("."))
    elif before != now:
        yield name, (before, now)
