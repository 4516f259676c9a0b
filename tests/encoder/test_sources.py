import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertForCTC, Wav2Vec2ForPreTraining, WavLMForSequenceClassification
from transformers.utils import hub as transformers_hub

from ser_strategies.encoder import Encoder
from ser_strategies.encoder.sources import check_same, load_encoder
from tests.encoder.conftest import SIZES, alone, change_json, lively, noise, save_checkpoint, stir, stock

SIZE = "wav2vec2-tiny"
WEIGHTS, PICKLED_WEIGHTS = "model.safetensors", "pytorch_model.bin"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
NOWHERE = ["/nowhere/at/all", "./nowhere", "../nowhere", "~/nowhere", "runs/tapt/nowhere"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
every_kind = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def frames_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(noise(5_000).unsqueeze(0)).last_hidden_state


def assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    theirs = expected.state_dict()
    assert set(found.state_dict()) == set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.state_dict().items())


def rewrite_weights(path: Path, change: Any) -> None:
    save_file(change(load_file(path / WEIGHTS)), path / WEIGHTS, metadata={"format": "pt"})


# random: ----------------------------------------------------------------------------------------------------


@every_kind
def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone(size, drawn_anew):
    torch.manual_seed(11)
    expected = torch.rand(3)
    first = load_encoder(f"random:{size}").model
    torch.manual_seed(11)
    second = load_encoder(f"random:{size}").model
    assert torch.equal(torch.rand(3), expected)
    assert_same_weights(second, first)


def test_random_weights_do_not_depend_on_the_default_device(drawn_anew):
    with torch.device("meta"):
        found = load_encoder(f"random:{SIZE}").model
    assert_same_weights(found, load_encoder(f"random:{SIZE}").model)


def test_weights_are_not_all_alike():
    model = load_encoder(f"random:{SIZE}").model
    assert all(parameter.std() > 0 for name, parameter in model.named_parameters() if parameter.dim() > 1)


# Folders -------------------------------------------------------------------------------------------


@every_kind
def test_a_folder_gives_what_was_saved_there(folder, size):
    model = stock(size)
    path = folder(model)
    before = torch.random.get_rng_state()
    loaded = load_encoder(str(path))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same_weights(loaded.model, model)
    assert torch.equal(frames_of(loaded.model.eval()), frames_of(model))
    assert (loaded.identity.source, loaded.identity.revision) == (str(path.resolve()), None)
    assert loaded.identity.family == size.split("-")[0]
    assert loaded.identity.origin is None


def test_a_relative_folder_and_one_from_home_are_found(folder, monkeypatch):
    path = folder(stock(SIZE))
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    identities = {load_encoder(source).identity for source in (path.name, f"./{path.name}", f"~/{path.name}")}
    assert {identity.source for identity in identities} == {str(path.resolve())}


@pytest.mark.parametrize(
    ("size", "task"),
    [
        ("wav2vec2-tiny", Wav2Vec2ForPreTraining),
        ("hubert-tiny-prenorm", HubertForCTC),
        ("wavlm-tiny", WavLMForSequenceClassification),
    ],
)
def test_a_model_published_for_another_task_gives_its_encoder(folder, size, task):
    model = task(stock(size).config)
    stir(model)
    path = folder(model)
    assert not any(name.startswith("feature_extractor") for name in load_file(path / WEIGHTS))
    assert_same_weights(load_encoder(str(path)).model, getattr(model, model.base_model_prefix))


@every_kind
def test_half_precision_weights_load_as_float32(folder, size):
    model = stock(size)
    loaded = load_encoder(str(folder(stock(size).half()))).model
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float()), name


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@every_kind
def test_old_names_of_weight_norm_load(folder, size, pickled):
    model = stock(size)
    path = folder(model)

    def old(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {}
        for name, tensor in weights.items():
            for new_name, old_name in OLD_NAMES.items():
                name = name.replace(new_name, old_name)
            renamed[name] = tensor
        assert any(name.endswith("weight_g") for name in renamed)
        return renamed

    if pickled:
        torch.save(old(load_file(path / WEIGHTS)), path / PICKLED_WEIGHTS)
        (path / WEIGHTS).unlink()
    else:
        rewrite_weights(path, old)
    assert_same_weights(load_encoder(str(path)).model, model)


def test_weights_in_several_files_load(folder):
    model = stock(SIZE)
    path = folder(model)
    (path / WEIGHTS).unlink()
    model.save_pretrained(path, max_shard_size="200KB")
    assert len(list(path.glob("model-*.safetensors"))) > 1
    assert_same_weights(load_encoder(str(path)).model, model)


def test_a_checkpoint_without_a_mask_vector_always_gets_the_same_one(folder):
    model = stock(SIZE)
    path = folder(model, mask_time_prob=0.0, mask_feature_prob=0.0)
    rewrite_weights(path, lambda weights: {n: w for n, w in weights.items() if n != "masked_spec_embed"})
    torch.manual_seed(3)
    first = load_encoder(str(path))
    torch.manual_seed(4)
    second = load_encoder(str(path))
    assert first.identity.fingerprint == second.identity.fingerprint
    assert first.model.masked_spec_embed.isfinite().all()
    model.masked_spec_embed.data.copy_(first.model.masked_spec_embed)
    assert_same_weights(first.model, model)


def test_loading_says_nothing(folder, capfd, caplog):
    path = folder(Wav2Vec2ForPreTraining(stock(SIZE).config))
    capfd.readouterr()
    with caplog.at_level(logging.INFO):
        load_encoder(str(path))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert caplog.text == ""


# The hub -------------------------------------------------------------------------------------------


def publish(cache: Path, folder_path: Path) -> None:
    repository = cache / "models--lab--encoder"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    folder_path.rename(repository / "snapshots" / COMMIT)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cached_hub_id_loads_offline_and_is_identified_by_its_commit(folder, hub_cache, revision):
    model = stock("wavlm-tiny-prenorm")
    publish(hub_cache, folder(model, normalise=False))
    loaded = load_encoder("lab/encoder", revision)
    assert_same_weights(loaded.model, model)
    assert (loaded.identity.source, loaded.identity.revision) == ("lab/encoder", COMMIT)
    assert not loaded.identity.normalise


def test_a_cached_hub_id_at_an_unknown_revision_is_refused(folder, hub_cache):
    publish(hub_cache, folder(stock(SIZE)))
    with pytest.raises(FileNotFoundError, match="lab/encoder@v2 is neither a folder nor in the local cache"):
        load_encoder("lab/encoder", "v2")


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("source", ["nobody/no-encoder", "no-encoder"])
def test_a_hub_id_that_is_not_cached_is_refused_offline(source):
    assert transformers_hub.is_offline_mode()
    with pytest.raises(
        FileNotFoundError, match=f"{source} is neither a folder nor in the local cache.*local folder"
    ):
        load_encoder(source)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("source", ["not a name", "a/b?c"])
def test_what_cannot_be_a_hub_id_is_refused(source):
    with pytest.raises(FileNotFoundError, match="neither a folder nor in the local cache"):
        load_encoder(source)


def test_a_cached_hub_id_without_preprocessor_config_is_refused(folder, hub_cache):
    publish(hub_cache, folder(stock(SIZE), normalise=None))
    with pytest.raises(FileNotFoundError, match=f"lab/encoder has no {PREPROCESSOR}"):
        load_encoder("lab/encoder")


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", NOWHERE)
def test_a_path_that_does_not_exist_is_refused(source):
    with pytest.raises(FileNotFoundError, match=r"no encoder at .*nowhere.*: expected a folder with"):
        load_encoder(source)


def test_a_folder_without_config_is_refused(folder):
    path = folder(stock(SIZE))
    (path / CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} holds no encoder: expected config.json"):
        load_encoder(str(path))


def test_a_folder_without_weights_is_refused(folder):
    path = folder(stock(SIZE))
    (path / WEIGHTS).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"{path} has a config.json but no weights: expected {WEIGHTS}"
    ):
        load_encoder(str(path))


@pytest.mark.parametrize("kind", ["bert", "wav2vec2-conformer", None])
def test_a_model_of_another_family_is_refused(tmp_path, kind):
    (tmp_path / CONFIG).write_text(json.dumps({"model_type": kind} if kind else {}))
    with pytest.raises(ValueError, match=f"type {kind!r}: expected one of wav2vec2, wavlm, hubert"):
        load_encoder(str(tmp_path))


@every_kind
def test_a_folder_that_lacks_weights_is_refused(folder, size):
    path = folder(stock(size))
    lost = ["encoder.layers.2.attention.k_proj.weight", "encoder.layers.1.feed_forward.output_dense.bias"]
    rewrite_weights(path, lambda weights: {n: w for n, w in weights.items() if n not in lost})
    with pytest.raises(ValueError, match=f"{path} lacks 2 weights of a .* such as {lost[1]}"):
        load_encoder(str(path))


def test_weights_of_another_shape_are_refused(folder):
    path = folder(stock(SIZE), intermediate_size=96)
    with pytest.raises(ValueError, match=f"weights of {path} cannot be read as wav2vec2"):
        load_encoder(str(path))


@pytest.mark.parametrize("name", [WEIGHTS, PICKLED_WEIGHTS])
def test_damaged_weights_are_refused(folder, name):
    path = folder(stock(SIZE))
    torch.save(load_file(path / WEIGHTS), path / PICKLED_WEIGHTS)
    whole = (path / name).read_bytes()
    (path / WEIGHTS).unlink()
    (path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"weights of {path} cannot be read as wav2vec2"):
        load_encoder(str(path))


@pytest.mark.parametrize("name", [CONFIG, PREPROCESSOR])
def test_settings_that_are_not_json_are_refused_with_the_name_of_the_file(folder, name):
    path = folder(stock(SIZE))
    (path / name).write_text('{"do_normalize": tr')
    with pytest.raises(ValueError, match=name):
        load_encoder(str(path))


def test_a_folder_without_preprocessor_config_is_refused(folder):
    path = folder(stock(SIZE), normalise=None)
    with pytest.raises(FileNotFoundError, match=f"{path} has no {PREPROCESSOR}: expected .*do_normalize"):
        load_encoder(str(path))


def test_another_sampling_rate_is_refused(folder):
    path = folder(stock(SIZE), rate=8_000)
    with pytest.raises(ValueError, match=f"{path} hears sound at 8000 Hz: expected 16000 Hz"):
        load_encoder(str(path))


def test_a_setting_this_library_does_not_support_is_refused(folder):
    path = folder(stock(SIZE), add_adapter=True)
    with pytest.raises(ValueError, match=f"{path} has add_adapter, which is not supported"):
        load_encoder(str(path))


def test_another_encoder_than_the_recorded_one_is_refused_with_both_fingerprints():
    one, other = (load_encoder(f"random:{size}").identity for size in SIZES[:2])
    check_same(one, one, "best.ckpt")
    with pytest.raises(ValueError, match=r"best\.ckpt was trained on random:wav2vec2-tiny") as caught:
        check_same(one, other, "best.ckpt")
    assert one.fingerprint[:12] in str(caught.value)
    assert other.fingerprint[:12] in str(caught.value)


def test_a_folder_makes_the_encoder_that_was_saved(folder):
    expected = lively("wavlm-tiny")
    path = folder(stock("wavlm-tiny"), normalise=False)
    change_json(path / CONFIG, layerdrop=0.9)
    with torch.no_grad():
        found = Encoder(str(path)).eval()(*alone(noise(5_000)))
        assert torch.equal(found.values, expected(*alone(noise(5_000))).values)


# What a published configuration would do to training by itself ------------------------------------------

# Keys and values of the real config.json of wav2vec2-base, base-960h, WavLM and HuBERT that act on training.
ACTING = {
    "gradient_checkpointing": True,
    "layerdrop": 1.0,  # 0.1 there; whatever is skipped shows at once
    "apply_spec_augment": True,
    "mask_time_prob": 0.9,
    "mask_time_length": 10,
    "mask_feature_prob": 0.9,
    "mask_feature_length": 4,
    "ctc_zero_infinity": True,
    "use_weighted_layer_sum": True,
}


def gradients(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Gradients in training mode, and how often the first block was computed for them."""
    encoder.train()
    frames = encoder(noise(8_000).repeat(2, 1), torch.tensor([8_000, 6_000]))
    frames.values.square().sum().backward()
    return {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}


@every_kind
def test_a_published_configuration_changes_nothing_in_training(folder, size):
    path = folder(stock(size))
    expected = gradients(Encoder(str(path), dropout=0.0))
    change_json(path / CONFIG, **ACTING)
    encoder = Encoder(str(path), dropout=0.0)
    computed = []
    encoder.blocks[0].feed_forward.register_forward_hook(lambda *_: computed.append(1))
    found = gradients(encoder)
    assert len(computed) == 1, "recomputed for the gradients, though nobody has asked for it"
    assert set(found) == set(expected)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in found.items())


def test_a_whole_checkpoint_that_carries_the_key_does_not_recompute_either(folder, tmp_path):
    encoder = Encoder(str(folder(stock(SIZE))))
    encoder.model.config.gradient_checkpointing = True  # as an earlier version kept it
    path = save_checkpoint(encoder, tmp_path / "whole.ckpt", whole=True)
    again = Encoder(str(path), dropout=0.0)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in again.modules())
