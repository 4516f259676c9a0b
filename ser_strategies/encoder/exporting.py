"""An encoder out of a checkpoint, as a folder that transformers reads."""

from pathlib import Path
from typing import NamedTuple

from transformers import Wav2Vec2FeatureExtractor

from ser_strategies.common.files import whole_folder
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder.families import has_final_norm
from ser_strategies.encoder.identity import EncoderIdentity
from ser_strategies.encoder.sources import load_encoder, quiet_transformers


class Exported(NamedTuple):
    """An exported encoder."""

    folder: Path
    identity: EncoderIdentity
    parameters: int
    note: str | None  # what transformers makes otherwise of it than this library, in a sentence


def export_encoder(checkpoint: str | Path, folder: str | Path) -> Exported:
    """Writes the encoder of a checkpoint, adapters merged, for `transformers.AutoModel.from_pretrained`.

    The folder has config.json, model.safetensors and preprocessor_config.json; it is an encoder for this
    library, too. What the encoder has heard stays with the checkpoint.

    Args:
        checkpoint: A .ckpt, or the folder of a run, whose best.ckpt is taken.
        folder: Where nothing is yet.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        FileExistsError: Something is there already.
        ValueError: The checkpoint cannot be read, or has an adapter that cannot be merged.
    """
    path, target = Path(checkpoint).expanduser(), Path(folder).expanduser()
    if target.exists():
        msg = f"{target} is there already: name a folder that is not, such as {target}-2."
        raise FileExistsError(msg)
    if path.suffix != ".ckpt":
        path = path / "best.ckpt"
    if not path.is_file():
        msg = f"no checkpoint at {path}: expected a .ckpt file, or the folder of a run with best.ckpt in it."
        raise FileNotFoundError(msg)
    loaded = load_encoder(str(path))
    if loaded.adapter is not None:
        msg = (
            f"{path} carries the adapter {type(loaded.adapter).__name__}, which cannot be added to the "
            "weights, so that transformers has no model for it: export what it was trained from."
        )
        raise ValueError(msg)
    hears = Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE, do_normalize=loaded.identity.normalise, return_attention_mask=True
    )
    with whole_folder(target) as unfinished:
        with quiet_transformers():
            loaded.model.save_pretrained(unfinished)
        hears.save_pretrained(unfinished)
    parameters = sum(each.numel() for each in loaded.model.parameters())
    return Exported(target, loaded.identity, parameters, _note(loaded.model.config))


def _note(config: object) -> str | None:
    if has_final_norm(config):  # type: ignore[arg-type]
        return None
    return (
        "this student has no norm above its last block, and transformers' model puts one there: take "
        "hidden_states[-1] (output_hidden_states=True), not last_hidden_state, or make the student with "
        "--model.final_norm true"
    )
