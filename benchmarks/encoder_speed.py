"""What exactness costs: our encoder's padded batch against transformers' own forward of the same batch.

    python -m benchmarks.encoder_speed [--encoders random:wav2vec2-base random:wavlm-base] [--repeats 7]

Both run the same weights on the same padded waveforms in inference. Runs alternate, so that a noisy
machine slows both, and the ratio is of the medians. Beside it stands what the exactness is for: how far a
clip's frames move when it is padded beside a longer one.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ser_strategies.encoder import Encoder
from ser_strategies.encoder.frames import normalise_waveforms, valid_mask
from ser_strategies.encoder.sources import load_encoder

SECONDS = (4.0, 3.0, 2.0, 3.6)
DEFAULT = ["random:wav2vec2-base", "random:wavlm-base", "random:hubert-base"]


def main() -> None:
    """Prints one row per encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=DEFAULT)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, clips of {SECONDS} s in one batch")
    print(f"{'encoder':<24}{'ours s':>9}{'theirs s':>10}{'ratio':>8}{'ours moves':>13}{'theirs moves':>14}")
    for source in options.encoders:
        _compare(source, options.repeats)


@torch.inference_mode()
def _compare(source: str, repeats: int) -> None:
    ours, theirs = Encoder(source).eval(), load_encoder(source).model.eval()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([round(seconds * 16_000) for seconds in SECONDS])
    waveforms = 0.1 * torch.randn(len(SECONDS), int(lengths.max()), generator=generator)
    waveforms = waveforms.masked_fill(~valid_mask(lengths, waveforms.shape[1]), 0)

    def their_frames(sound: Tensor, length: Tensor) -> Tensor:
        if ours.identity.normalise:
            sound = normalise_waveforms(sound, length)
        mask = valid_mask(length, sound.shape[1]).long()
        frames: Tensor = theirs(sound, attention_mask=mask).last_hidden_state
        return frames

    def our_frames(sound: Tensor, length: Tensor) -> Tensor:
        frames: Tensor = ours(sound, length).values
        return frames

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats + 1):
        times["ours"].append(_seconds(lambda: our_frames(waveforms, lengths)))
        times["theirs"].append(_seconds(lambda: their_frames(waveforms, lengths)))
    mine, other = (statistics.median(times[who][1:]) for who in ("ours", "theirs"))
    moves = [_movement(frames, waveforms, lengths) for frames in (our_frames, their_frames)]
    print(f"{source:<24}{mine:>9.3f}{other:>10.3f}{mine / other:>8.3f}{moves[0]:>13.1e}{moves[1]:>14.1e}")


def _movement(frames: Callable[[Tensor, Tensor], Tensor], waveforms: Tensor, lengths: Tensor) -> float:
    """Relative difference of the shortest clip's frames, alone and padded beside the others."""
    shortest = int(lengths.argmin())
    alone = frames(waveforms[shortest : shortest + 1, : lengths[shortest]], lengths[shortest : shortest + 1])[
        0
    ]
    together = frames(waveforms, lengths)[shortest, : len(alone)]
    return float((together - alone).norm() / alone.norm())


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
