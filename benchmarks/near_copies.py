"""Near-copies on real clips: changes of a recording that are missed, and recordings that are taken for one.

Each changed clip is compared with all clips of its corpus, as `doctor --near-copies` does. Usage:

    python -m benchmarks.near_copies <folder> <folder> --out benchmarks/results/near_copies.md
"""

import argparse
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.functional import resample

from ser_strategies.data.audio import read_audio, to_sample_rate
from ser_strategies.data.listing import sounds_below
from ser_strategies.data.near_copies import ALIKE, SAME, SECONDS_APART, Sound, alike, candidates, look


def coded(sound: Sound, kind: str, coding: str, *, rate: int = 16_000, **options: float) -> Sound:
    """A sound written to a file and read again."""
    changed = resample(torch.from_numpy(sound.copy()), 16_000, rate).numpy() if rate != 16_000 else sound
    file = io.BytesIO()
    soundfile.write(file, np.clip(changed, -1, 1), rate, format=kind, subtype=coding, **options)
    file.seek(0)
    samples, found = soundfile.read(file, dtype="float32")
    return to_sample_rate(samples, found)


def with_noise(sound: Sound) -> Sound:
    """White noise at 20 dB below the sound."""
    noise = np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    return sound + np.float32(0.1 * sound.std()) * noise


CHANGES: Mapping[str, Callable[[Sound], Sound]] = {
    "mp3, lowest quality": lambda x: coded(x, "MP3", "MPEG_LAYER_III", compression_level=0.99),
    "ogg vorbis, lowest quality": lambda x: coded(x, "OGG", "VORBIS", compression_level=0.99),
    "8 kHz, mu-law": lambda x: coded(x, "WAV", "ULAW", rate=8_000),
    "48 kHz, 16 bit": lambda x: coded(x, "WAV", "PCM_16", rate=48_000),
    "12 dB lower": lambda x: x * np.float32(0.25),
    "30 ms cut off its start": lambda x: x[480:],
    "100 ms of silence before it": lambda x: np.concatenate([np.zeros(1_600, np.float32), x]),
    "50 ms off both ends, 8 dB lower, mp3 at 24 kHz": lambda x: coded(
        x[800:-800] * np.float32(0.4), "MP3", "MPEG_LAYER_III", rate=24_000, compression_level=0.99
    ),
    "noise at 20 dB": with_noise,
    "150 ms off its start, 100 ms off its end": lambda x: x[2_400:-1_600],
    "5 % faster (another sound: not looked for)": lambda x: resample(
        torch.from_numpy(x.copy()), 21, 20
    ).numpy(),
}


def lines(folder: Path, tried: int) -> list[str]:
    """The rows of the table for one corpus, and what is found within it."""
    sounds = [read_audio(folder / path) for path in sounds_below(folder)]
    looks = [look(sound) for sound in sounds]
    places = np.random.default_rng(0).choice(len(sounds), min(tried, len(sounds)), replace=False)
    rows = []
    for name, change in CHANGES.items():
        found, nearest = 0, []
        for place in places:
            changed = change(sounds[place])
            mine = look(changed)
            apart = abs(mine.seconds - looks[place].seconds)
            likeness = float(mine.shape @ looks[place].shape)
            score = alike(changed, sounds[place])
            nearest.append(score)
            found += likeness >= ALIKE and apart <= SECONDS_APART and score >= SAME
        rows.append(
            f"| {folder.name} | {name} | {len(places) - found} of {len(places)} | {min(nearest):.2f} |"
        )
    pairs = list(candidates(looks))
    scores = np.array([alike(sounds[one], sounds[other]) for one, other in pairs])
    same, others = scores[scores >= SAME], scores[scores < SAME]
    every = len(sounds) * (len(sounds) - 1) // 2
    rows.append(
        f"\n{folder.name}: of {every:,} pairs of {len(sounds):,} clips {len(pairs):,} were compared closely; "
        f"{len(same)} are taken for one recording (least likeness {min(same, default=1):.4f}), the most "
        f"alike of the others reach {max(others, default=0):.2f}.\n"
    )
    return rows


def main() -> None:
    """Prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--tried", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = [
        "# Near-copies",
        "",
        "`python -m benchmarks.near_copies`: changed clips that are missed, real clips taken for one.",
        f"Thresholds: looks {ALIKE}, waves {SAME}, {SECONDS_APART} s apart.",
        "",
        "| corpus | change | missed | least likeness of waves |",
        "|---|---|---|---|",
    ]
    found = [lines(folder, options.tried) for folder in options.folders]
    told = [row for rows in found for row in rows if row.startswith("|")]
    within = [row for rows in found for row in rows if not row.startswith("|")]
    text = "\n".join([*head, *told, *within])
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
