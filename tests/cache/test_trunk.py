"""The name of a cache: it changes with whatever could change what is stored, and with nothing else."""

import sys
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from ser_strategies.cache import trunk as trunks
from ser_strategies.cache.build import compute
from ser_strategies.cache.training import FrameCaching
from ser_strategies.cache.trunk import COMPUTED_IN, Trunk, describe_trunk
from ser_strategies.encoder import Encoder
from ser_strategies.encoder.identity import COMPUTED_BY
from tests.cache.conftest import (
    KIND,
    KINDS,
    WARNINGS,
    Clips,
    cached,
    clips,
    filled,
    fitted,
    lively,
    noise,
    several,
    sounds_of,
    store_of,
)

pytestmark = WARNINGS
CUTS = [(kind, cut) for kind in KINDS for cut in ((0, 4) if kind.endswith("prenorm") else (-1, 2))]


def digest(encoder: Encoder, cut: int = 2, **options: Any) -> str:
    return describe_trunk(encoder, cut, **({"stored": "float32"} | options)).digest


def reached(encoder: Encoder, cut: int) -> set[str]:
    """Names of the weights that what is stored depends on, by asking autograd."""
    encoder.model.requires_grad_(True)
    clip = noise(4_000)[None]
    values = encoder.lower(clip, torch.tensor([4_000]), cut).values
    values.sin().sum().backward()
    names = {name for name, weight in encoder.model.named_parameters() if weight.grad is not None}
    encoder.model.zero_grad()
    return names


@torch.no_grad()
def nudge(weight: torch.nn.Parameter) -> None:
    """Moves one number of a weight by as little as its format can tell."""
    flat = weight.view(-1)
    flat[len(flat) // 2] = torch.nextafter(flat[len(flat) // 2], torch.tensor(torch.inf))


# Below the last cut lies all of an encoder: of one family each time.
@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        pytest.param(kind, cut, marks=pytest.mark.further if cut == 4 and "wavlm" not in kind else ())
        for kind, cut in CUTS
    ],
)
def test_one_weight_below_the_cut_makes_another_cache_and_none_above_does(kind, cut):
    """Each family at every cut: at two with norms after its blocks, at two with norms before."""
    encoder = lively(kind)
    below, first = reached(encoder, cut), digest(encoder, cut)
    weights = dict(encoder.model.named_parameters())
    assert below < set(weights)
    for name in set(weights) - below:
        nudge(weights[name])
    assert digest(encoder, cut) == first
    seen = {first}
    for name in sorted(below):
        nudge(weights[name])
        seen.add(digest(encoder, cut))
    assert len(seen) == 1 + len(below)


def test_two_encoders_with_the_same_trunk_share_a_cache():
    one, other = lively(KIND), lively(KIND)
    other.identity = replace(other.identity, source="elsewhere", fingerprint="0" * 64)
    other.layerdrop, other.masking.time_probability = 0.5, 0.9
    for module in other.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.7
    assert digest(one) == digest(other)


def test_what_else_makes_another_cache():
    encoder = lively(KIND)
    first = digest(encoder)
    found = {
        "cut": digest(encoder, 3),
        "at the CNN": digest(encoder, -1),
        "format": digest(encoder, stored="bfloat16"),
        "other format": digest(encoder, stored="float16"),
        "layers": digest(encoder, layers=True),
        "max_seconds": digest(lively(KIND, max_seconds=2.0)),
        "other max_seconds": digest(lively(KIND, max_seconds=3.0)),
        "shape": digest(lively("wav2vec2-tiny-prenorm")),
    }
    identity = encoder.identity
    for change in ({"family": "hubert"}, {"revision": "a" * 40}, {"normalise": not identity.normalise}):
        encoder.identity = replace(identity, **change)
        found |= {name: digest(encoder) for name in change}
    encoder.identity = identity
    assert digest(encoder) == first
    assert len({first, *found.values()}) == 1 + len(found)


@pytest.mark.parametrize("name", COMPUTED_BY)
def test_a_setting_that_decides_what_weights_compute_makes_another_cache(name):
    encoder = lively(KIND)
    first, value = digest(encoder), getattr(encoder.model.config, name, None)
    changed = not value if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else 77
    # Past transformers' own checks of its configuration, which are not what is looked at here.
    encoder.model.config.__dict__[name] = changed
    assert digest(encoder) != first


@pytest.mark.parametrize("field", [field.name for field in fields(Trunk)])
def test_every_fact_of_a_trunk_is_in_its_name(field):
    trunk = describe_trunk(lively(KIND), 2, stored="float32")
    value = getattr(trunk, field)
    other = {bool: not value, int: 77, str: "other", dict: {"torch": "0"}, type(None): 77}[type(value)]
    assert replace(trunk, **{field: other}).digest != trunk.digest


@pytest.fixture
def fresh_code():
    trunks._code.cache_clear()
    yield
    trunks._code.cache_clear()


@pytest.mark.usefixtures("fresh_code")
@pytest.mark.parametrize("page", COMPUTED_IN)
def test_editing_what_computes_makes_another_cache(page, monkeypatch):
    encoder = lively(KIND)
    first, real = digest(encoder), trunks.getsource
    trunks._code.cache_clear()
    assert digest(encoder) == first
    monkeypatch.setattr(
        trunks, "getsource", lambda module: real(module) + "# edited\n" * (module.__name__ == page)
    )
    trunks._code.cache_clear()
    assert digest(encoder) != first


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_another_version_of_a_library_makes_another_cache(library, monkeypatch):
    encoder = lively(KIND)
    first, real = digest(encoder), trunks.version
    monkeypatch.setattr(trunks, "version", lambda name: "0.0.1" if name == library else real(name))
    assert digest(encoder) != first


def ours(function: Any, *arguments: Any) -> set[str]:
    """Modules of this library of which anything runs in a call."""
    modules: set[str] = set()

    def look(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            modules.add(frame.f_globals.get("__name__", ""))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return {name for name in modules if name.startswith("ser_strategies.")}


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_all_code_of_ours_that_computes_frames_is_in_the_name(kind, layers, root):
    encoder = lively(kind, max_seconds=0.2)
    trunk = describe_trunk(encoder, 2, stored="bfloat16", layers=layers)
    waves, lengths = torch.stack([noise(4_000), noise(4_000, 1)]), torch.tensor([4_000, 100])
    ran = ours(compute, encoder, waves, lengths, trunk)
    assert "ser_strategies.encoder.encoder" in ran
    # What describes a trunk computes nothing of it.
    assert ran - {"ser_strategies.cache.trunk"} <= set(COMPUTED_IN)


# Sharing ----------------------------------------------------------------------------------------------------


def test_runs_folds_seeds_and_heads_share_a_cache_and_compute_nothing_twice(root, computed):
    lengths = several(16)
    folds = ["ttttttttvvvveeee", "eeeevvvvtttttttt", "ttttttttvvvveeee"]
    short = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    for seed, splits in enumerate(folds):
        torch.manual_seed(seed)
        fitted(cached(layerdrop=0.1 * seed), Clips(lengths, splits, order_seed=seed), **short)
    assert len(computed) == 16
    other_heads = {
        "pooling": "attentive",
        "head": "mlp",
        "objective": "both",
        "dimensions": ("activation", "valence"),
    }
    fitted(cached(**other_heads, mask_time_probability=0.5), Clips(lengths, folds[1]), **short)
    assert len(computed) == len(set(computed)) == 16
    assert len(list(root.iterdir())) == 1

    fitted(cached(top_blocks=3), Clips(lengths, folds[0]), **short)
    fitted(cached(layer_mix=True), Clips(lengths, folds[0]), **short)
    assert len(list(root.iterdir())) == 3
    assert len(computed) == 16 + 12 + 12


def test_the_same_sound_under_another_name_is_stored_once(root, computed):
    encoder, wave = lively(KIND), noise(5_000)
    corpus = clips()
    corpus.waveform = lambda utterance: wave.numpy()
    rows = corpus.split("train")
    keys = corpus.sound_keys(rows)
    assert len(keys) == len(rows) > 1
    assert len(set(keys)) == 1
    store = filled(store_of(root, encoder, 2), encoder, sounds_of([wave] * len(keys), keys))
    assert len(computed) == 1
    frames = store.frames([keys])
    assert len(frames) == len(keys)
    assert torch.equal(frames.read(0, 0)[0], frames.read(len(keys) - 1, 0)[0])


def test_the_folder_is_the_option_or_the_environment_or_the_users_own(tmp_path, monkeypatch):
    encoder = cached().encoder
    assert FrameCaching(folder="~/frames").store(encoder).folder.parent.name == "frames"
    assert "~" not in str(FrameCaching(folder="~/frames").store(encoder).folder)
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "there"))
    assert FrameCaching().store(encoder).folder.parent == tmp_path / "there"
    monkeypatch.delenv("SER_STRATEGIES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert FrameCaching().store(encoder).folder.parent == tmp_path / "xdg" / "ser_strategies" / "frames"
