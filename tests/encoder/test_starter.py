"""`starter`: its files are those of a plain transformers encoder, and its card tells the truth about them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import HubertModel

from ser_strategies.cli import main
from ser_strategies.encoder import Encoder, load_quantiser
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.encoder.starter import STARTER, starter_card, starter_folder
from ser_strategies.runs import presets
from tests.encoder.conftest import noise

WEIGHTS = starter_folder() / "model.safetensors"


def test_frames_are_those_of_transformers_with_the_same_file():
    """Each clip alone, as a plain script would load and hear it."""
    model = HubertModel.from_pretrained(starter_folder(), dtype=torch.float32).eval()
    lengths = torch.tensor([24_000, 9_000])
    sound = torch.nn.utils.rnn.pad_sequence([noise(n, n) for n in lengths.tolist()], batch_first=True)
    encoder = Encoder(STARTER).eval()
    with torch.no_grad():
        found = encoder(sound, lengths, layers=True)
        for row, length in enumerate(lengths.tolist()):
            plain = sound[row, :length]
            plain = (plain - plain.mean()) / torch.sqrt(plain.var(correction=0) + 1e-7)
            expected = model(plain[None], output_hidden_states=True)
            count = expected.last_hidden_state.shape[1]
            assert found.mask[row].sum() == count
            torch.testing.assert_close(
                found.values[row, :count], expected.last_hidden_state[0], atol=2e-4, rtol=1e-4
            )
            for ours, theirs in zip(found.layers[:-1], expected.hidden_states[:-1], strict=True):
                torch.testing.assert_close(ours[row, :count], theirs[0], atol=2e-3, rtol=1e-4)


def test_the_file_is_small_half_and_whole():
    assert sum(path.stat().st_size for path in starter_folder().iterdir() if path.is_file()) < 8_000_000
    with safe_open(WEIGHTS, framework="np") as weights:
        found = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118  # no mapping
    assert {value.dtype for value in found.values()} == {np.dtype("float16")}
    assert all(np.isfinite(value).all() for value in found.values())
    assert set(found) == set(load_encoder(STARTER).model.state_dict())


def test_the_card_says_what_the_file_is_and_the_command_prints_it(capsys):
    card, loaded = starter_card(), load_encoder(STARTER)
    assert card["fingerprint"] == loaded.identity.fingerprint
    assert card["parameters"] == sum(weight.numel() for weight in loaded.model.parameters())
    assert 1e6 < card["parameters"] < 4e6
    assert card["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert card["frames_per_second"] == 16_000 / np.prod(loaded.model.config.conv_stride)
    assert card["hours_heard"] == pytest.approx(sum(card["hours_by_synthesiser"].values()), abs=0.02)
    assert (loaded.identity.source, loaded.identity.revision) == (STARTER, None)
    main(["card"])
    assert json.loads(capsys.readouterr().out) == card


def test_what_it_has_not_is_said():
    with pytest.raises(ValueError, match="has no revisions"):
        load_encoder(STARTER, "main")
    assert load_quantiser(STARTER) == {}


def test_presets_know_it_by_its_name():
    assert presets.STARTER == STARTER
    assert presets.Start(STARTER, "runs").recipe == presets.FROM_STARTER
