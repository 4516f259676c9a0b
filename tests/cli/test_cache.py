"""`cache`: what a build would cost, building, listing, verifying and pruning; and runs from stored frames."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from ser_strategies import Synthetic
from ser_strategies.cache import build as building
from ser_strategies.cli import main
from tests.cache.conftest import contents, flip, shards, stamps
from tests.cli.conftest import CPU, DEMO, ENCODER, SMALL, everything_in
from tests.cli.test_ddp import by_two_forks
from tests.contained import contained

pytestmark = pytest.mark.smoke

MODEL = ("--model=CachedFineTuning", f"--model.encoder={ENCODER}", "--model.cache=frames", *CPU)
RUN = (*MODEL, *SMALL)
CACHE = ("--cache", "frames")
# Utterances to train on and to validate with, of the twenty-four of `SMALL`.
STORED = 16
SHARD_BYTES = 30_000  # of several


@pytest.fixture(autouse=True)
def own_folder(here, monkeypatch):
    """Nothing is looked for, or left, in the user's home."""
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(here / "elsewhere"))


@pytest.fixture
def computed(monkeypatch):
    """How many sounds went through the encoder to be stored."""
    counts = []
    real = building._compute

    def compute(encoder, sounds, batch, trunk):
        counts.extend(batch)
        return real(encoder, sounds, batch, trunk)

    monkeypatch.setattr(building, "_compute", compute)
    return counts


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """A cache of several shards; look, do not touch."""
    place = tmp_path_factory.mktemp("master")
    with contained(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "SHARD_BYTES", SHARD_BYTES)
        patch.chdir(place)
        main(["cache", "build", *RUN])
    (folder,) = (place / "frames").iterdir()
    assert len(shards(folder)) > 2
    return folder


@pytest.fixture(scope="module")
def master_of_layers(tmp_path_factory):
    """A cache of another strategy on the same corpus, with the states of all layers; look, do not touch."""
    place = tmp_path_factory.mktemp("master")
    with contained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        layers = ("--model.layer_mix=true", "--model.top_blocks=0", "--model.stored=float32")
        main(["cache", "build", *RUN, *layers])
    (folder,) = (place / "frames").iterdir()
    return folder


@pytest.fixture
def built(master, here, monkeypatch):
    """The only cache there is, of several shards."""
    monkeypatch.setattr(building, "SHARD_BYTES", SHARD_BYTES)
    return shutil.copytree(master, here / "frames" / master.name)


@pytest.fixture
def other(master_of_layers, here):
    """The other cache beside it."""
    return shutil.copytree(master_of_layers, here / "frames" / master_of_layers.name)


def refusal(capsys, *words: str) -> tuple[int, str]:
    """How a command ends that must fail, and its one sentence."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("error: ")] == said.splitlines()[:1], said
    return stop.value.code, said.splitlines()[0]


# What a build would cost, and building ----------------------------------------------------------------------


def test_an_estimate_gives_numbers_and_writes_nothing(here, capsys):
    main(["cache", "estimate", *RUN])
    said = capsys.readouterr().out
    assert everything_in(here) == set()
    assert f"0 of the {STORED} sounds are there" in said
    found = re.search(
        r"missing: (\d+) sounds, ([\d.]+) hours, ([\d.]+) GB \(([\d.]+) GB free\), about ([\d.]+) minutes",
        said,
    )
    assert found, said
    sounds, hours, size, free, _ = map(float, found.groups())
    corpus = Synthetic(speakers=3, utterances_per_speaker=8)
    seconds = sum(corpus.split(split)["seconds"].sum() for split in ("train", "val"))
    assert sounds == STORED
    assert hours == pytest.approx(seconds / 3_600, abs=0.005)
    assert size == pytest.approx(seconds * 50 * 64 * 2 / 1e9, abs=0.0005)
    disk = os.statvfs(here)
    assert free == pytest.approx(disk.f_bavail * disk.f_frsize / 1e9, rel=0.05)


def test_a_build_is_all_that_a_run_needs_and_no_run_and_a_run_builds_what_is_missing(here, computed, capsys):
    main(["cache", "build", *RUN])
    said = capsys.readouterr().out
    (folder,) = (here / "frames").iterdir()
    assert f"cache frames/{folder.name}: {STORED} sounds, 0.00" in said
    assert len(computed) == STORED
    assert {path.name for path in here.iterdir()} == {"frames"}
    assert not [path for path in here.rglob("*") if path.suffix in {".ckpt", ".csv", ".yaml"}]
    files, before = stamps(folder), contents(folder)
    computed.clear()

    main(["fit", *RUN])
    main(["test", *RUN])
    scores = json.loads((here / "runs/cached/test.json").read_text())["metrics"]
    assert 0 <= scores["test/ua"] <= 1

    # Where a finished run is, and all is there: neither is touched.
    kept = contents(here / "runs/cached")
    main(["cache", "build", *RUN])
    assert contents(here / "runs/cached") == kept
    found = contents(folder)
    capsys.readouterr()
    main(["cache", "estimate", *RUN])
    assert (
        capsys.readouterr().out == f"cache frames/{folder.name}: {STORED} of the {STORED} sounds are there\n"
    )
    assert contents(folder) == found
    assert {name: found[name] for name in before if name.endswith(".safetensors")} == {
        name: each for name, each in before.items() if name.endswith(".safetensors")
    }
    assert contents(here / "runs/cached") == kept
    assert computed == []
    assert stamps(folder) == files

    # Another run finds them too; one that needs others builds those.
    other = ["--seed_everything=3", "--model.head=mlp", "--model.pooling=attentive", "--data.batch_size=3"]
    main(["fit", *RUN, *other, "--trainer.default_root_dir=runs/other"])
    assert computed == []
    main(["fit", *RUN, "--model.top_blocks=all", "--trainer.default_root_dir=runs/all"])
    assert len(computed) == STORED
    assert stamps(folder) == files
    assert len(list((here / "frames").iterdir())) == 2


def test_the_example_says_what_building_it_costs_and_builds(here, capsys):
    words = ["--config", str(DEMO / "cached.yaml"), *SMALL[1:], *CPU]
    main(["cache", "estimate", *words])
    assert f"missing: {STORED} sounds" in capsys.readouterr().out
    assert everything_in(here) == set()
    main(["cache", "build", *words])
    assert f"{STORED} sounds" in capsys.readouterr().out
    assert len(shards(here / "runs/cache")) == 1


@pytest.mark.parametrize("action", ["estimate", "build"])
def test_a_strategy_that_reads_no_cache_is_refused(action, refused):
    said = refused("cache", action, "--model=PartialFineTuning", f"--model.encoder={ENCODER}", *SMALL, *CPU)
    assert said == "error: PartialFineTuning reads no cache: give --model CachedFineTuning."


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(here, monkeypatch, capsys):
    monkeypatch.setattr(building, "RESERVE", 10**18)
    code, said = refusal(capsys, "cache", "build", *RUN)
    assert code == 1
    assert re.search(
        r"the cache needs 0\.00 GB more in frames/\w{16}, where [\d.]+ GB are free: give another", said
    )
    assert shards(here) == []


# Listing, verifying, pruning --------------------------------------------------------------------------------


@pytest.mark.usefixtures("other")
def test_caches_are_listed_with_what_they_hold(built, capsys):
    main(["cache", "list", *CACHE])
    lines = sorted(capsys.readouterr().out.splitlines(), key=lambda line: "layers" in line)
    assert len(lines) == 2
    assert lines[0].startswith(f"{built.name}  wav2vec2 ")
    assert "1 blocks, bfloat16: 16 sounds, 0.00" in lines[0]
    assert "4 blocks and all layers, float32: 16 sounds, 0.0" in lines[1]
    assert all(line.endswith("GB, used 0 days ago") for line in lines)
    main(["cache", "list", built.name, *CACHE])
    assert capsys.readouterr().out.splitlines() == lines[:1]


def test_no_caches_are_none(here, capsys):
    main(["cache", "list"])
    assert capsys.readouterr().out == f"no caches in {here / 'elsewhere'}\n"
    main(["cache", "verify", *CACHE])
    main(["cache", "prune", "--yes", *CACHE])
    assert "0 caches deleted" in capsys.readouterr().out
    assert everything_in(here) == set()


def test_verify_says_that_all_is_in_order(built, capsys):
    before = contents(built)
    main(["cache", "verify", *CACHE])
    assert capsys.readouterr().out == f"{built.name}: {STORED} sounds in order, 0 files damaged\n"
    assert contents(built) == before


def test_verify_names_what_is_damaged_and_ends_with_1_and_a_build_mends_it(built, capsys):
    before = contents(built)
    flipped, truncated = shards(built)[:2]
    flip(flipped, -20)
    truncated.write_bytes(truncated.read_bytes()[:-1])
    (built / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main(["cache", "verify", *CACHE])
    assert stop.value.code == 1
    said = capsys.readouterr().out.splitlines()
    damaged = [line for line in said if line.startswith("damaged: ")]
    assert len(damaged) == 2
    for path in (flipped, truncated):
        assert sum(path.name in line for line in damaged) == 1
    assert [line for line in said if line.startswith("foreign: ")] == [
        f"foreign: {Path('frames') / built.name / 'mine.txt'} is no file of a cache; it is never read"
    ]
    assert re.fullmatch(rf"{built.name}: \d+ sounds in order, 2 files damaged", said[-1])
    assert {path.name for path in built.glob("*.damaged")} == {
        f"{p.name}.damaged" for p in (flipped, truncated)
    }

    main(["cache", "build", *RUN])
    after = contents(built)
    assert {name: after[name] for name in before} == before
    main(["cache", "verify", *CACHE])


@pytest.mark.parametrize(
    "first", [["list", *CACHE], ["estimate", *RUN], ["prune", *CACHE]], ids=lambda it: it[0]
)
def test_damage_is_named_whoever_finds_it(first, built, capsys):
    path = shards(built)[0]
    path.write_bytes(path.read_bytes()[:100])
    main(["cache", *first])
    code = 0
    try:
        main(["cache", "verify", *CACHE])
    except SystemExit as stop:
        code = stop.code
    said = "".join(capsys.readouterr())
    assert path.name in said, (
        f"{first[0]} set a damaged file aside and told nobody (verify ended with {code})"
    )


@pytest.fixture
def strange(built):
    """A folder beside the cache that some other version wrote, and somebody put a file into."""
    folder = built.parent / "0123456789abcdef"
    folder.mkdir()
    (folder / "cache.json").write_text('{"cut": 3}')
    (folder / "old.safetensors").write_bytes(b"frames")
    (folder / "mine.txt").write_text("mine")
    return folder


def test_a_folder_that_is_no_cache_of_this_version_is_named_and_stops_nothing(
    built, strange, capsys, computed
):
    before = contents(strange)
    line = f"not a cache of this version: frames/{strange.name} (its cache.json is of another version, or of "
    main(["cache", "list", *CACHE])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(line)
    assert said[1].startswith(f"{built.name}  wav2vec2 ")
    with pytest.raises(SystemExit) as stop:
        main(["cache", "verify", *CACHE])
    assert stop.value.code == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(line)
    assert said[1:] == [f"{built.name}: {STORED} sounds in order, 0 files damaged"]
    main(["cache", "verify", built.name, *CACHE])
    main(["cache", "build", *RUN])
    assert computed == []
    assert contents(strange) == before


def test_prune_leaves_what_it_does_not_understand_unless_it_is_named(built, strange, capsys):
    before = contents(strange)
    main(["cache", "prune", "--yes", *CACHE])
    said = capsys.readouterr().out
    assert f"not a cache of this version: frames/{strange.name}" in said
    assert "1 caches deleted" in said
    assert not built.exists()
    assert contents(strange) == before
    main(["cache", "prune", strange.name, *CACHE])
    main(["cache", "prune", strange.name, "--yes", "--older_than=1", *CACHE])
    assert contents(strange) == before
    main(["cache", "prune", strange.name, strange.name, "--yes", *CACHE])
    assert (
        f"foreign: frames/{strange.name}/mine.txt is no file of a cache; it stays" in capsys.readouterr().out
    )
    assert [path.name for path in strange.iterdir()] == ["mine.txt"]


def test_prune_leaves_files_that_are_none_of_a_cache(built, capsys):
    (built / "mine.txt").write_text("mine")
    main(["cache", "prune", "--yes", *CACHE])
    assert f"foreign: frames/{built.name}/mine.txt is no file of a cache; it stays" in capsys.readouterr().out
    assert [path.name for path in built.iterdir()] == ["mine.txt"]
    main(["cache", "list", *CACHE])
    assert capsys.readouterr().out == "no caches in frames\n"


def test_prune_says_what_would_go_and_deletes_it_if_told(built, capsys):
    size = sum(path.stat().st_size for path in shards(built))
    before = contents(built)
    main(["cache", "prune", *CACHE])
    said = capsys.readouterr().out
    assert f"frames/{built.name} ({STORED} sounds, {size / 1e9:.3f} GB)" in said
    assert f"1 caches with {size / 1e9:.3f} GB would go: give --yes to delete them" in said
    assert contents(built) == before
    main(["cache", "prune", *CACHE, "--yes"])
    assert "1 caches deleted" in capsys.readouterr().out
    assert not built.exists()


def test_prune_spares_what_was_used_of_late(built, other, capsys):
    long_ago = built.joinpath("cache.json").stat().st_mtime - 40 * 86_400
    os.utime(built / "cache.json", (long_ago, long_ago))
    main(["cache", "list", built.name, *CACHE])
    assert "used 40 days ago" in capsys.readouterr().out
    main(["cache", "prune", *CACHE, "--older_than=41", "--yes"])
    assert built.exists()
    # A run that uses it again makes it young.
    main(["cache", "build", *RUN])
    main(["cache", "prune", *CACHE, "--older_than=30", "--yes"])
    assert built.exists()
    os.utime(built / "cache.json", (long_ago, long_ago))
    main(["cache", "prune", *CACHE, "--older_than=30", "--yes"])
    assert not built.exists()
    assert other.exists()


def test_prune_deletes_what_was_set_aside_though_the_cache_stays(built):
    path = shards(built)[0]
    before = contents(built)
    flip(path, -1)
    with pytest.raises(SystemExit):
        main(["cache", "verify", *CACHE])
    main(["cache", "build", *RUN])
    assert contents(built) != before
    main(["cache", "prune", *CACHE, "--older_than=1", "--yes"])
    assert contents(built) == before


# Words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["cache"], ["cache", "--help"], ["cache", "-h"]])
def test_help_shows_every_action(words, capsys):
    main(words)
    said = capsys.readouterr().out
    for action in ("estimate", "build", "list", "verify", "prune"):
        assert f"\n  {action} " in said


def test_an_unknown_action_is_refused(refused):
    assert refused("cache", "dance") == (
        "error: cache has no action 'dance': expected one of estimate, build, list, verify, prune."
    )


@pytest.mark.parametrize("action", ["list", "verify", "prune"])
def test_an_unknown_name_is_refused(action, built, capsys):
    code, said = refusal(capsys, "cache", action, "0000", *CACHE)
    assert (code, said) == (1, f"error: no cache 0000 in frames: expected one of {built.name}.")


@pytest.mark.parametrize(
    "words",
    [["list", "--yes"], ["verify", "--all"], ["prune", "--older_than=old"], ["prune", "--older_than"]],
)
def test_a_mistyped_option_ends_with_2(words, capsys):
    code, said = refusal(capsys, "cache", *words)
    assert code == 2
    assert said.startswith("error: ")


# Runs -------------------------------------------------------------------------------------------------------


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_cached_run_goes_on_from_its_last_checkpoint_as_if_never_stopped(here, computed):
    words = [*MODEL, *SMALL[:-1], "--data.batch_size=3"]
    main(["fit", *words, "--trainer.max_epochs=2", "--trainer.default_root_dir=whole"])
    main(["fit", *words, "--trainer.max_epochs=1", "--trainer.default_root_dir=broken"])
    last = here / "broken/last.ckpt"
    main(
        [
            "fit",
            *words,
            "--trainer.max_epochs=2",
            "--trainer.default_root_dir=broken",
            f"--ckpt_path={last}",
            "--seed_everything=9",
        ]
    )
    assert len(computed) == STORED
    expected = weights(here / "whole/last.ckpt")
    found = weights(last)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    scores = [
        json.loads((here / folder / "fit.json").read_text())["metrics"] for folder in ("whole", "broken")
    ]
    assert scores[0] == scores[1]


def test_a_byte_that_changes_in_the_middle_of_a_run_is_one_sentence(built, capsys, monkeypatch):
    from ser_strategies.strategies import CachedFineTuning

    real = CachedFineTuning.on_train_batch_end

    def spoil(model, *arguments):
        for path in shards(built):
            for position in range(path.stat().st_size - 4_000, path.stat().st_size, 50):
                flip(path, position)
        return real(model, *arguments)

    monkeypatch.setattr(CachedFineTuning, "on_train_batch_end", spoil)
    code, said = refusal(capsys, "fit", *RUN, "--data.batch_size=2", "--trainer.num_sanity_val_steps=0")
    assert code == 1
    assert (
        "was changed since the run began, so its frames are not read: start again, and it is rebuilt." in said
    )


def build_and_train(words):
    building.SHARD_BYTES = SHARD_BYTES
    for command in (["cache", "build"], ["fit"]):
        main([*command, *words])


def test_two_processes_build_the_shards_of_one_and_train_from_them(built, tmp_path):
    two = tmp_path / "two"
    two.mkdir()
    words = (*RUN, "--trainer.devices=2", "--trainer.default_root_dir=run")
    ended = by_two_forks(two, words, build_and_train)
    assert ended.code == 0, ended
    (folder,) = (two / "frames").iterdir()
    assert contents(folder) == contents(built)
    assert "Warning" not in ended.err
    assert json.loads((two / "run/fit.json").read_text())["metrics"]["val/loss"] > 0
