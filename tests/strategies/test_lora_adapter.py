"""The adapter that LoRA fine-tuning writes is peft's own, and does there what it does here."""

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

from ser_strategies.encoder.sources import load_encoder
from ser_strategies.strategies import LoRAFineTuning
from tests.strategies.conftest import (
    KINDS,
    TOLERANCE,
    WARNINGS,
    batch,
    build,
    error,
    every_kind,
    fit,
    frames,
    published,
    stir,
)

pytestmark = WARNINGS
ONE = batch(8_000)
WAYS = {
    "plain": {},
    "everywhere": {
        "targets": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
        "alpha": 6.0,
    },
    "rank-stabilised": {"rank_stabilised": True, "rank": 3},
    "decomposed": {"decomposed": True},
    "dropped out": {"lora_dropout": 0.5},
}
CALLS_PROJECTIONS = [kind for kind in KINDS if not kind.startswith("wavlm")]


def trained(encoder, **options):
    model = build(LoRAFineTuning, encoder, **options)
    stir(model)
    return model


def heard(model):
    """The clip as transformers' feature extractor would hand it on."""
    clip = ONE.waveforms
    if not model.encoder.identity.normalise:
        return clip
    return (clip - clip.mean()) / torch.sqrt(clip.var(unbiased=False) + 1e-7)


@torch.no_grad()
def frames_of(stock, model):
    return stock.eval()(heard(model)).last_hidden_state[0]


def base(kind):
    return load_encoder(f"random:{kind}").model


def ways_in_turn(kinds):
    """Every way on each of the kinds, every other pair of them as a further case."""
    return pytest.mark.parametrize(
        ("kind", "way"),
        [
            pytest.param(kind, way, marks=pytest.mark.further if (number + turn) % 2 else ())
            for number, kind in enumerate(kinds)
            for turn, way in enumerate(WAYS)
        ],
    )


@ways_in_turn(CALLS_PROJECTIONS)
def test_peft_reads_the_adapter(kind, way, tmp_path):
    model = trained(kind, **WAYS[way])
    model.save_adapter(tmp_path / "adapter")
    expected = frames(model.encoder, ONE)
    adapted = PeftModel.from_pretrained(base(kind), str(tmp_path / "adapter"))
    assert error(frames_of(adapted, model), expected) < TOLERANCE
    assert error(frames_of(base(kind), model), expected) > 0.01
    assert error(frames_of(adapted.merge_and_unload(), model), expected) < TOLERANCE


@ways_in_turn([kind for kind in KINDS if kind.startswith("wavlm")])
def test_peft_reads_the_adapter_of_a_wavlm_and_merges_it(kind, way, tmp_path):
    model = trained(kind, **WAYS[way])
    model.save_adapter(tmp_path / "adapter")
    merged = PeftModel.from_pretrained(base(kind), str(tmp_path / "adapter")).merge_and_unload()
    expected = frames(model.encoder, ONE)
    assert error(frames_of(merged, model), expected) < TOLERANCE
    assert error(frames_of(base(kind), model), expected) > 0.01


@pytest.mark.parametrize("kind", ["wavlm-tiny", "wavlm-tiny-prenorm"])
def test_transformers_wavlm_reads_around_an_adapter_that_is_not_merged(kind, tmp_path):
    """If this fails, transformers has learned to call its projections, and our note about it may go."""
    model = trained(kind)
    model.save_adapter(tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(base(kind), str(tmp_path / "adapter"))
    assert torch.equal(frames_of(adapted, model), frames_of(base(kind), model))


@every_kind
def test_the_head_lies_beside_the_adapter(kind, tmp_path):
    model = trained(kind, labels=("angry", "calm", "glad", "sad"))
    model.save_adapter(tmp_path / "deep" / "adapter")
    names = {path.name for path in (tmp_path / "deep" / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "head.safetensors"} <= names
    path = tmp_path / "deep" / "adapter" / "head.safetensors"
    head = load_file(path)
    assert set(head) == {"head.1.weight", "head.1.bias", "objective.class_weights"}
    assert torch.equal(head["head.1.weight"], model.head[1].weight)
    with safe_open(path, "pt") as file:
        assert file.metadata()["labels"] == "angry,calm,glad,sad"


def test_adapter_and_head_together_give_the_logits(tmp_path):
    model = trained("wav2vec2-tiny")
    fit(model, batch(4_800, 3_200), batch(3_200, 4_800, seed=1))
    model.save_adapter(tmp_path)
    adapted = PeftModel.from_pretrained(base("wav2vec2-tiny"), str(tmp_path))
    head = load_file(tmp_path / "head.safetensors")
    pooled = frames_of(adapted, model).mean(0, keepdim=True)
    by_hand = pooled @ head["head.1.weight"].T + head["head.1.bias"]
    with torch.no_grad():
        assert error(by_hand, model.eval()(ONE.waveforms, ONE.lengths)) < TOLERANCE


def test_the_adapter_names_the_encoder_it_belongs_to(tmp_path):
    folder = published("hubert-tiny", tmp_path / "encoder")
    model = trained(str(folder))
    model.save_adapter(tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(base("hubert-tiny"), str(tmp_path / "adapter"))
    config = adapted.peft_config["default"]
    assert config.base_model_name_or_path == str(folder)
    assert config.inference_mode
    assert (config.r, set(config.target_modules)) == (4, {"q_proj", "v_proj"})


def test_writing_an_adapter_does_not_change_the_model(tmp_path):
    model = trained("wav2vec2-tiny")
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    expected = frames(model.encoder, ONE)
    model.save_adapter(tmp_path)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert torch.equal(frames(model.encoder, ONE), expected)
    assert not model.encoder.model.peft_config["default"].inference_mode


def test_a_target_that_matches_nothing_is_refused():
    with pytest.raises(
        ValueError, match=r"targets: 'q_pro' matches no linear layer: .* did you mean q_proj\?"
    ):
        build(LoRAFineTuning, "wav2vec2-tiny", targets=("v_proj", "q_pro"))
