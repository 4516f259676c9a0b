import json

import pytest
import torch
from torch import nn

from ser_strategies.encoder import EncoderIdentity
from ser_strategies.encoder.identity import fingerprint
from ser_strategies.encoder.sources import load_encoder
from tests.encoder.conftest import SIZES, stock

SIZE = "wav2vec2-tiny"


def mark(model: nn.Module, *, normalise: bool = True) -> str:
    return fingerprint(model, normalise=normalise)


@pytest.mark.parametrize("size", SIZES)
def test_the_same_encoder_has_the_same_fingerprint(size, drawn_anew):
    assert mark(stock(size)) == mark(stock(size))
    assert len(mark(stock(size))) == 64


def test_kinds_have_different_fingerprints():
    assert len({load_encoder(f"random:{size}").identity.fingerprint for size in SIZES}) == len(SIZES)


@pytest.mark.parametrize(
    "name",
    [
        "masked_spec_embed",
        "feature_extractor.conv_layers.0.conv.weight",
        "encoder.layers.3.attention.k_proj.bias",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    ],
)
def test_one_step_of_one_weight_changes_it(name):
    model = stock(SIZE)
    before = mark(model)
    weight = model.get_parameter(name).data.view(-1)
    weight[-1] = torch.nextafter(weight[-1], torch.tensor(torch.inf))
    assert mark(model) != before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_attention_heads", 2),
        ("do_stable_layer_norm", True),
        ("feat_extract_norm", "layer"),
        ("layer_norm_eps", 1e-6),
        ("hidden_act", "relu"),
        ("conv_stride", (5, 2, 2, 2, 2, 2, 1)),
        ("model_type", "hubert"),
    ],
)
def test_a_setting_that_changes_what_is_computed_changes_it(setting, value):
    model = stock(SIZE)
    before = mark(model)
    setattr(model.config, setting, value)
    assert mark(model) != before


@pytest.mark.parametrize(("setting", "value"), [("num_buckets", 160), ("max_bucket_distance", 400)])
def test_the_buckets_of_wavlm_change_it(setting, value):
    model = stock("wavlm-tiny")
    before = mark(model)
    setattr(model.config, setting, value)
    assert mark(model) != before


def test_normalisation_changes_it():
    assert mark(stock(SIZE), normalise=True) != mark(stock(SIZE), normalise=False)


@pytest.mark.parametrize(
    ("setting", "value"), [("hidden_dropout", 0.3), ("layerdrop", 0.0), ("vocab_size", 99)]
)
def test_what_does_not_matter_in_eval_mode_leaves_it_alone(setting, value):
    model = stock(SIZE)
    before = mark(model)
    setattr(model.config, setting, value)
    assert mark(model) == before


@pytest.mark.parametrize("size", SIZES)
def test_a_folder_has_the_fingerprint_of_the_model_it_was_saved_from_wherever_it_lies(folder, tmp_path, size):
    model = stock(size)
    path = folder(model)
    here = load_encoder(str(path)).identity
    there = load_encoder(str(path.rename(tmp_path / "moved"))).identity
    assert here.fingerprint == there.fingerprint == mark(model)
    assert here.source != there.source


def test_an_identity_survives_being_written_as_plain_data():
    identity = load_encoder("random:wavlm-tiny").identity
    assert EncoderIdentity.from_dict(json.loads(json.dumps(identity.as_dict()))) == identity


def test_an_identity_is_read_whatever_else_was_written_beside_it():
    identity = load_encoder("random:wavlm-tiny").identity
    assert EncoderIdentity.from_dict(identity.as_dict() | {"added_later": 1}) == identity
