"""Sources of encoders: the hub, a local folder, a checkpoint of an earlier stage, this package, or chance."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import logging as transformers_logging

from ser_strategies.common.errors import first_line
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder.adapters import Adapter, from_record
from ser_strategies.encoder.checkpoints import RECORD, read_checkpoint
from ser_strategies.encoder.families import (
    FAMILIES,
    SpeechConfig,
    SpeechModel,
    drop_final_norm,
    has_final_norm,
    random_shape,
)
from ser_strategies.encoder.identity import EncoderIdentity, fingerprint
from ser_strategies.encoder.low_rank import LoRA
from ser_strategies.encoder.published import (
    CONFIG,
    PREPROCESSORS,
    published,
    read_settings,
    weight_files,
)
from ser_strategies.encoder.starter import STARTER, starter_folder

SEED_OF_RANDOM_WEIGHTS = 0
PREFIX = "encoder.model."
# A convolution above the blocks, in variants of wav2vec2: it puts frames on another grid.
UNSUPPORTED = ("add_adapter",)


class LoadedEncoder(NamedTuple):
    """A transformers model in float32, and which one it is."""

    model: SpeechModel  # the model, without an adapter
    identity: EncoderIdentity  # an adapter that it carries included
    # Still to be put into the model, if a checkpoint has one that cannot be merged
    adapter: Adapter | None = None
    adapter_weights: Mapping[str, Tensor] = {}  # of the model with it

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, input side first."""
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    @property
    def size(self) -> int:
        """Numbers in a frame."""
        size: int = self.model.config.hidden_size
        return size


def load_encoder(source: str, revision: str | None = None) -> LoadedEncoder:
    """The encoder of a hub id, a folder in transformers' format, a `.ckpt`, `starter` or `random:<size>`."""
    if not source:
        msg = "encoder is empty: expected a hub id, a folder, a .ckpt file, starter or random:<size>."
        raise ValueError(msg)
    if source == STARTER:
        if revision is not None:
            msg = f"{STARTER} comes with this package and has no revisions: leave out revision {revision!r}."
            raise ValueError(msg)
        return _from_folder(STARTER, starter_folder(), None)
    if source.startswith("random:"):
        return _draw(source)
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        return _from_checkpoint(path)
    if not path.is_dir() and (path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1):
        msg = f"no encoder at {path}: expected a folder with config.json and model.safetensors, or a .ckpt."
        raise FileNotFoundError(msg)
    return _from_transformers(str(path.resolve()) if path.is_dir() else source, revision)


def _draw(source: str) -> LoadedEncoder:
    shape = random_shape(source.removeprefix("random:"))
    model = draw_model(shape.config)
    return _loaded(model, source=source, revision=None, normalise=shape.normalise)


def _from_transformers(source: str, revision: str | None) -> LoadedEncoder:
    return _from_folder(source, *published(source, revision))


def _from_folder(source: str, folder: Path, commit: str | None) -> LoadedEncoder:
    if not (folder / CONFIG).is_file():
        msg = f"{folder} holds no encoder: expected {CONFIG} and model.safetensors in it."
        raise FileNotFoundError(msg)
    settings = read_settings(folder / CONFIG)
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        msg = f"{source} is a model of type {kind!r}: expected one of {', '.join(FAMILIES)}."
        raise ValueError(msg)
    for setting in UNSUPPORTED:
        if settings.get(setting):
            msg = f"{source} has {setting}, which is not supported here: choose a checkpoint without it."
            raise ValueError(msg)
    if not weight_files(folder):
        msg = f"{source} has a {CONFIG} but no weights: expected model.safetensors beside it."
        raise FileNotFoundError(msg)
    normalise = _normalises(source, folder)
    model = _read(source, folder, kind, settings)
    return _loaded(model, source=source, revision=commit, normalise=normalise)


def _read(source: str, folder: Path, kind: str, settings: dict[str, Any]) -> SpeechModel:
    """The model in a folder, in float32."""
    family = FAMILIES[kind]
    config = family.config.from_dict(settings)
    _neutralise(config)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED_OF_RANDOM_WEIGHTS)  # only the mask vector can be missing, and is then drawn
        try:
            model, report = family.model.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                attn_implementation=family.attention,
                output_loading_info=True,
            )
        except pickle.UnpicklingError as error:  # whose advice is to run what stands there
            names = ", ".join(file.name for file in weight_files(folder))
            msg = (
                f"the weights of {source} cannot be read as {kind}: {names} holds other things than tensors."
            )
            raise ValueError(msg) from error
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            msg = f"the weights of {source} cannot be read as {kind}: {first_line(error)}"
            raise ValueError(msg) from error
    if not has_final_norm(config):
        drop_final_norm(model)
    missing = sorted((set(report["missing_keys"]) - {"masked_spec_embed"}) & set(model.state_dict()))
    if missing:
        msg = f"{source} lacks {len(missing)} weights of a {kind} encoder, such as {missing[0]}."
        raise ValueError(msg)
    return model


def _from_checkpoint(path: Path) -> LoadedEncoder:
    checkpoint = read_checkpoint(path)
    record = checkpoint[RECORD]["encoder"]
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(PREFIX)
    }
    recorded = EncoderIdentity.from_dict(record["identity"])
    loaded = _untrained(path, record)
    # An encoder that carries an adapter has gone through this function before.
    adapter = loaded.adapter or adapter_of(record)
    if adapter is not None:
        adapter.inject(loaded)
        loaded.model.load_state_dict(loaded.adapter_weights, strict=False)
    _fill(loaded.model, state, path, whole=record["whole"])
    merged = loaded.model if adapter is None else adapter.merged()
    result = _loaded(
        loaded.model if merged is None else merged,
        source=str(path.resolve()),
        revision=None,
        normalise=recorded.normalise,
        origin=recorded.fingerprint,
    )
    if merged is not None:
        return result
    # An `Encoder` prepares the plain model before the adapter goes in, as it did for training.
    plain = _untrained(path, record).model
    return LoadedEncoder(plain, result.identity, adapter_of(record), result.model.state_dict())


def _untrained(path: Path, record: dict[str, Any]) -> LoadedEncoder:
    """The model for a checkpoint's weights, its adapter not yet there."""
    recorded = EncoderIdentity.from_dict(record["identity"])
    if record["whole"]:
        model = draw_model(FAMILIES[recorded.family].config.from_dict(record["config"]))
        return LoadedEncoder(model, recorded)
    loaded = load_encoder(recorded.source, recorded.revision)
    check_same(recorded, loaded.identity, path)
    return loaded


def adapter_of(record: dict[str, Any]) -> Adapter | None:
    """The adapter that the record of an encoder describes; until format 2 that could only be LoRA."""
    if record.get("lora"):
        return LoRA(**record["lora"])
    return from_record(record["adapter"]) if record.get("adapter") else None


def _fill(model: SpeechModel, state: dict[str, Tensor], path: Path, *, whole: bool) -> None:
    missing = sorted(set(model.state_dict()) - set(state))
    if whole and missing:
        msg = f"{path} should hold a whole encoder, but lacks {missing[0]}: write it again with `fit`."
        raise ValueError(msg)
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        msg = f"the checkpoint holds {unexpected[0]}, which its encoder does not have."
        raise ValueError(msg)


def check_same(recorded: EncoderIdentity, present: EncoderIdentity, path: str | Path) -> None:
    """Raises ValueError with both fingerprints if a checkpoint was trained on another encoder."""
    if recorded.fingerprint != present.fingerprint:
        msg = (
            f"{path} was trained on {recorded.source} with fingerprint {recorded.fingerprint[:12]}, "
            f"but {present.source} has fingerprint {present.fingerprint[:12]}: "
            "give it the encoder it was trained on."
        )
        raise ValueError(msg)


def draw_model(config: SpeechConfig) -> SpeechModel:
    """A model with weights from a fixed seed, whatever the global generator does before and after."""
    family = FAMILIES[config.model_type]
    _neutralise(config)
    config._attn_implementation = family.attention
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(SEED_OF_RANDOM_WEIGHTS)
        model = family.model(config)
    if not has_final_norm(config):
        drop_final_norm(model)
    return model


def _loaded(
    model: SpeechModel, *, source: str, revision: str | None, normalise: bool, origin: str | None = None
) -> LoadedEncoder:
    identity = EncoderIdentity(
        source=source,
        revision=revision,
        family=model.config.model_type,
        normalise=normalise,
        fingerprint=fingerprint(model, normalise=normalise),
        origin=origin,
    )
    return LoadedEncoder(model, identity)


def _normalises(source: str, folder: Path) -> bool:
    name, within = PREPROCESSORS
    settings = read_settings(folder / name) or read_settings(folder / within).get("feature_extractor")
    if not settings:
        msg = (
            f"{source} has no {name}: expected one that says how to normalise waveforms, "
            'such as {"do_normalize": true, "sampling_rate": 16000}.'
        )
        raise FileNotFoundError(msg)
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        msg = f"{source} hears sound at {rate} Hz: expected {SAMPLE_RATE} Hz."
        raise ValueError(msg)
    return bool(settings.get("do_normalize", True))  # transformers' own default


def _neutralise(config: SpeechConfig) -> None:
    """Leaves nothing in a published configuration that would act on training by itself.

    Masking and skipped blocks are this library's own, with its own options. So is recomputing activations
    (`recompute`), but transformers also obeys a key that checkpoints of 2021 carry, wav2vec2-base among them:
    it adds half as much time again to a step of full fine-tuning, and nothing to LoRA's.
    """
    config.gradient_checkpointing = False
    # The model owns its mask vector only where transformers' own masking is on.
    if config.mask_time_prob == 0 and config.mask_feature_prob == 0:
        config.mask_time_prob = 0.05


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' loading report and progress bars: what matters of it is checked here."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


# Of transformers' Wav2Vec2ForPreTraining, and so of ours.
PARTS = ("quantizer.", "project_q.", "project_hid.")


def load_quantiser(source: str, revision: str | None = None) -> dict[str, Tensor]:
    """Weights of the quantiser and both projections by name; empty where the source has none."""
    if source == STARTER or source.startswith("random:"):
        return {}
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        return _chosen(read_checkpoint(path)["state_dict"])
    found: dict[str, Tensor] = {}
    for file in weight_files(published(str(path) if path.is_dir() else source, revision).folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as weights:
                names = [name for name in weights.keys() if _part(name)]  # noqa: SIM118  # no mapping
                found |= {_part(name): weights.get_tensor(name) for name in names}
        else:
            # Before 1.6 torch wrote files that cannot be mapped.
            mapped = zipfile.is_zipfile(file)
            found |= _chosen(torch.load(file, map_location="cpu", weights_only=True, mmap=mapped))
    return found


def _chosen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_part(name): tensor for name, tensor in weights.items() if _part(name)}


def _part(name: str) -> str:
    """The name from the part on, whatever it is within; empty if it is in none of the parts."""
    if name.startswith("encoder."):
        return ""
    found = [start for part in PARTS if (start := name.find(part)) >= 0]
    starts = [start for start in found if start == 0 or name[start - 1] == "."]
    return name[starts[0] :] if starts else ""
