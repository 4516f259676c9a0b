"""The checkpoint of the last round as the files that the package ships: half precision, and a card.

python -m benchmarks.starter.export runs/starter/2-manner/best.ckpt --corpus runs/starter/corpus
"""

import argparse
import csv
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ser_strategies.common.files import write_json
from ser_strategies.encoder import Encoder
from ser_strategies.encoder.starter import CARD, starter_folder

WORDS: dict[str, Any] = {
    "name": "starter",
    "what": "A small HuBERT-like speech encoder for demonstrations, tests and first steps.",
    "licence": (
        "Apache-2.0, as the package. The sound it was trained on was made by free synthesisers (eSpeak NG, "
        "Flite, Festival, and voices packaged for it in Debian main); none of their data or code is in it."
    ),
    "heard": "Synthetic voices that say licence texts and made-up words: no person, no public corpus.",
    "rounds": [
        "TAPT, objective spectrum: mel bands and pitch of every frame, about half of them masked.",
        "VanillaFineTuning on what the synthesisers were told of pitch, range, pace and loudness.",
    ],
    "is_not": (
        "A substitute for a published encoder: it knows no words and has heard nobody who felt anything. "
        "What it is worth stands in benchmarks/results/starter.md."
    ),
}


def facts(encoder: Encoder, weights: Path, corpus: Path) -> dict[str, Any]:
    """What the card says that can be looked up in the weights and in the corpus."""
    with (corpus / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    seconds = dict.fromkeys(sorted({row["engine"] for row in rows}), 0.0)
    for row in rows:
        seconds[row["engine"]] += float(row["seconds"])
    return {
        "parameters": sum(weight.numel() for weight in encoder.model.parameters()),
        "frames_per_second": 16_000 / math.prod(encoder.strides),
        "fingerprint": encoder.identity.fingerprint,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "hours_heard": round(sum(seconds.values()) / 3600, 2),
        "hours_by_synthesiser": {name: round(value / 3600, 2) for name, value in seconds.items()},
        "clips": len(rows),
        "voices": len({row["voice"] for row in rows}),
    }


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path("runs/starter/corpus"))
    parser.add_argument("--out", type=Path, default=starter_folder())
    chosen = parser.parse_args()
    encoder = Encoder(str(chosen.checkpoint))
    chosen.out.mkdir(parents=True, exist_ok=True)
    half = {name: weight.half().contiguous() for name, weight in encoder.model.state_dict().items()}
    weights = chosen.out / "model.safetensors"
    save_file(half, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    config = json.loads(encoder.model.config.to_json_string(use_diff=True)) | {"dtype": "float16"}
    write_json(chosen.out / "config.json", config)
    settings = {"do_normalize": encoder.identity.normalise, "sampling_rate": 16_000}
    write_json(chosen.out / "preprocessor_config.json", settings)
    # Of the weights as they were rounded.
    write_json(chosen.out / CARD, {**WORDS, **facts(Encoder(str(chosen.out)), weights, chosen.corpus)})


if __name__ == "__main__":
    main()
