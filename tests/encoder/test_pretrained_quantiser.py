"""The quantiser and projections of a checkpoint, wherever transformers or this library put them."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Wav2Vec2ForPreTraining, WavLMModel

from ser_strategies import TAPT
from ser_strategies.encoder import Encoder, load_quantiser
from ser_strategies.encoder.checkpoints import FORMAT, RECORD
from ser_strategies.encoder.families import random_shape
from tests.encoder.conftest import save_checkpoint, stir, stock
from tests.encoder.test_sources import COMMIT, publish

KINDS = ["wav2vec2-tiny", "wav2vec2-tiny-prenorm"]
NAMES = {
    "quantizer.codevectors",
    "quantizer.weight_proj.weight",
    "quantizer.weight_proj.bias",
    "project_q.weight",
    "project_q.bias",
    "project_hid.weight",
    "project_hid.bias",
}


def pretrained(kind: str = "wav2vec2-tiny", **settings: Any) -> Wav2Vec2ForPreTraining:
    """transformers' model with weights of its own, and another shape than the default's."""
    config = random_shape(kind).config
    config.update(
        {"num_codevectors_per_group": 24, "codevector_dim": 32, "proj_codevector_dim": 16} | settings
    )
    torch.manual_seed(3)
    model = Wav2Vec2ForPreTraining(config)
    stir(model)
    return model.eval()


def parts(model: Wav2Vec2ForPreTraining) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("wav2vec2.")}


def write(model: Any, path: Path, how: str = "safetensors") -> Path:
    """A folder in transformers' format, its weights in one of the ways that it may hold them."""
    model.save_pretrained(path, **({"max_shard_size": "6KB"} if how.endswith("shards") else {}))
    (path / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 16000}')
    if how.startswith("bin"):
        to_bin(path)
    found = {"safetensors": ".safetensors", "bin": ".bin"}[how.split()[0]]
    files = [file for file in path.iterdir() if file.suffix in {".safetensors", ".bin"}]
    assert {file.suffix for file in files} == {found}
    assert (len(files) > 3) == how.endswith("shards")
    return path


def to_bin(path: Path) -> None:
    """The same files as torch wrote them before there was safetensors."""
    for file in path.glob("*.safetensors"):
        name = file.name.replace("model", "pytorch_model", 1).replace(".safetensors", ".bin")
        torch.save(load_file(file), path / name)
        file.unlink()
    for index in path.glob("*.index.json"):
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (path / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def learnt(model: TAPT) -> dict[str, Tensor]:
    """Weights of the objective of a TAPT."""
    return dict(model.adaptation.objective.state_dict())


WAYS = ["safetensors", "safetensors shards", "bin", "bin shards"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_a_pretraining_model_gives_exactly_its_quantiser_and_projections(kind, way, tmp_path):
    model = pretrained(kind)
    folder = write(model, tmp_path / "published", way)
    found = load_quantiser(str(folder))
    assert found.keys() == NAMES
    assert_equal(found, parts(model))


@pytest.mark.parametrize("way", WAYS)
def test_tapt_goes_on_with_the_weights_of_the_folder(way, tmp_path):
    model = pretrained()
    folder = write(model, tmp_path / "published", way)
    adapted = TAPT(str(folder))
    assert_equal(learnt(adapted), parts(model))
    assert_equal(dict(adapted.encoder.model.state_dict()), dict(model.wav2vec2.state_dict()))
    assert all(value.requires_grad for value in adapted.adaptation.parameters())


def test_fresh_weights_are_drawn_in_place_of_those_that_are_there_if_they_are_asked_for(tmp_path):
    model = pretrained()
    adapted = TAPT(str(write(model, tmp_path / "published")), fresh_quantiser=True)
    assert learnt(adapted).keys() == NAMES
    assert not torch.equal(learnt(adapted)["quantizer.codevectors"], model.quantizer.codevectors)


def test_a_relative_path_and_half_precision_are_read_as_they_are(tmp_path, monkeypatch):
    model = pretrained().half()
    write(model, tmp_path / "published")
    monkeypatch.chdir(tmp_path)
    assert_equal(load_quantiser("published"), parts(model))
    assert {value.dtype for value in learnt(TAPT("published")).values()} == {torch.float32}
    assert torch.equal(learnt(TAPT("published"))["project_q.bias"], model.project_q.bias.float())


def test_the_file_that_transformers_reads_is_the_one_that_is_read(tmp_path):
    """Old repositories have both; transformers prefers safetensors."""
    model, other = pretrained(), pretrained()
    stir(other, seed=9)
    folder = write(model, tmp_path / "published")
    torch.save(other.state_dict(), folder / "pytorch_model.bin")
    assert_equal(load_quantiser(str(folder)), parts(model))


def test_a_file_of_an_old_torch_is_read_as_transformers_reads_it(tmp_path):
    model = pretrained()
    folder = write(model, tmp_path / "published", "bin")
    path = folder / "pytorch_model.bin"
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    assert torch.equal(Encoder(str(folder)).model.masked_spec_embed, model.wav2vec2.masked_spec_embed)
    assert_equal(load_quantiser(str(folder)), parts(model))


@pytest.mark.parametrize("way", WAYS)
def test_a_hub_id_gives_those_of_its_revision_without_a_network(way, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = pretrained()
    publish(tmp_path / "hub", write(model, tmp_path / "published", way))
    for revision in (None, COMMIT):
        assert_equal(load_quantiser("lab/encoder", revision), parts(model))
    assert_equal(learnt(TAPT("lab/encoder")), parts(model))


@pytest.mark.parametrize("way", WAYS)
def test_a_plain_model_has_none(way, tmp_path):
    folder = write(pretrained().wav2vec2, tmp_path / "plain", way)
    assert load_quantiser(str(folder)) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_have_none(kind):
    assert load_quantiser(f"random:{kind}") == {}


@pytest.mark.parametrize("source", ["random:wav2vec2-tiny", "folder"])
def test_an_encoder_without_them_is_refused_kindly_unless_fresh_ones_will_do(source, tmp_path):
    if source == "folder":
        source = str(write(stock("wav2vec2-tiny"), tmp_path / "plain"))
    with pytest.raises(ValueError, match="lacks the quantiser and projections") as refusal:
        TAPT(source)
    said = str(refusal.value)
    assert said.startswith(source)
    assert "--model.fresh_quantiser true" in said
    assert "\n" not in said
    adapted = TAPT(source, fresh_quantiser=True)
    assert learnt(adapted).keys() == NAMES


def test_part_of_them_is_not_enough(tmp_path):
    model = pretrained()
    folder = write(model, tmp_path / "published")
    kept = {name: value for name, value in model.state_dict().items() if name != "project_q.bias"}
    (folder / "model.safetensors").unlink()
    torch.save(kept, folder / "pytorch_model.bin")
    assert load_quantiser(str(folder)).keys() == NAMES - {"project_q.bias"}
    with pytest.raises(ValueError, match=r"such as project_q\.bias"):
        TAPT(str(folder))


def test_other_families_are_never_asked_for_a_quantiser(tmp_path):
    torch.manual_seed(0)
    folder = write(WavLMModel(random_shape("wavlm-tiny").config), tmp_path / "wavlm")
    assert load_quantiser(str(folder)) == {}
    assert TAPT(str(folder), clusters=(4,)).unit_source is not None


# Checkpoints of an earlier stage ----------------------------------------------------------------------------


def checkpoint(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state, RECORD: {"format": FORMAT}}, path)
    return path


def test_a_checkpoint_of_tapt_gives_those_of_its_objective(tmp_path):
    own = parts(pretrained())
    inside = {f"adaptation.objective.{name}": value for name, value in own.items()}
    beside = {
        # The encoder's own names may contain anything; neither may parts of other names count.
        "encoder.model.encoder.quantizer.codevectors": torch.ones(1),
        "encoder.model.project_q.weight": torch.ones(2),
        "adaptation.objective.my_project_q.weight": torch.ones(3),
        "head.weight": torch.ones(4),
    }
    path = checkpoint(tmp_path / "tapt.ckpt", inside | beside)
    assert_equal(load_quantiser(str(path)), own)


@pytest.mark.parametrize("name", ["mix.0", "head.layers.w"])
def test_names_that_end_in_one_letter_are_nothing_else_than_other_names(name, tmp_path):
    assert load_quantiser(str(checkpoint(tmp_path / "a.ckpt", {name: torch.ones(1)}))) == {}


def test_a_checkpoint_of_another_strategy_has_none(tmp_path):
    encoder = Encoder("random:wav2vec2-tiny")
    path = save_checkpoint(encoder, tmp_path / "vanilla.ckpt", whole=True)
    assert load_quantiser(str(path)) == {}
    with pytest.raises(ValueError, match="lacks the quantiser and projections"):
        TAPT(str(path))


def test_tapt_goes_on_from_a_checkpoint_of_tapt(tmp_path):
    first = TAPT("random:wav2vec2-tiny", fresh_quantiser=True)
    stir(first.adaptation)
    stir(first.encoder.model)
    state = {name: tensor for name, tensor in first.state_dict().items() if name in first.saved_names()}
    torch.save({"state_dict": state, RECORD: first.record()}, tmp_path / "best.ckpt")
    second = TAPT(str(tmp_path / "best.ckpt"))
    assert_equal(learnt(second), learnt(first))
    assert_equal(dict(second.encoder.model.state_dict()), dict(first.encoder.model.state_dict()))


def test_a_folder_says_what_is_in_each_of_its_shards(tmp_path):
    """So that the test of shards above means what it says: the parts are spread over files."""
    folder = write(pretrained(), tmp_path / "published", "safetensors shards")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len({file for name, file in index.items() if name in NAMES}) > 1
