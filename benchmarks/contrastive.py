"""What a TAPT step costs: our encoder and objective against transformers' `Wav2Vec2ForPreTraining`.

    python -m benchmarks.contrastive [--encoder random:wav2vec2-base] [--seconds 2 1.5] [--repeats 5]

Same weights, waveforms, masks and negatives, forward and backward, all parameters trained. Runs
alternate, so that a noisy machine slows both, and the ratio is of the medians. Rows: the whole step
with a padded batch, and with one whose clips are all as long as the longest; what comes after the
encoder; drawing the negatives.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2ForPreTraining
from transformers.modeling_outputs import Wav2Vec2BaseModelOutput
from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

from ser_strategies.encoder import Encoder
from ser_strategies.encoder.encoder import AFTER_CNN
from ser_strategies.encoder.frames import frame_counts, normalise_waveforms, valid_mask
from ser_strategies.encoder.masking import span_mask
from ser_strategies.parts.contrastive import ContrastiveObjective, mask_probability, sample_negatives

NEGATIVES = 100
SPAN = 10


class Given(nn.Module):
    """Stands for transformers' encoder, and hands on what it is given."""

    def __init__(self, hidden: Tensor, features: Tensor) -> None:
        super().__init__()
        self.output = Wav2Vec2BaseModelOutput(last_hidden_state=hidden, extract_features=features)

    def forward(self, *_args: Any, **_options: Any) -> Wav2Vec2BaseModelOutput:
        """The given output, whatever the input."""
        return self.output


class Sides:
    """Both models with the same weights, and one batch for them."""

    def __init__(self, source: str, seconds: list[float], probability: float) -> None:
        torch.manual_seed(0)
        self.encoder = Encoder(source)
        config = self.encoder.model.config
        config.layerdrop = config.mask_feature_prob = 0.0  # both take every step in the same way
        self.theirs = Wav2Vec2ForPreTraining(config).train()
        self.theirs.wav2vec2.load_state_dict(self.encoder.model.state_dict())
        self.objective = ContrastiveObjective(config.hidden_size, config.conv_dim[-1], scaling="per_frame")
        state = self.theirs.state_dict()
        self.objective.load_state_dict({name: state[name] for name in self.objective.state_dict()})
        self.lengths = torch.tensor([round(16_000 * length) for length in seconds])
        valid = valid_mask(self.lengths, int(self.lengths.max()))
        self.waveforms = normalise_waveforms(torch.randn(valid.shape), self.lengths)
        self.their_mask = None if valid.all() else valid.long()
        counts = frame_counts(self.lengths, self.encoder.kernels, self.encoder.strides)
        total = int(counts.max())
        self.masked = span_mask(counts, total, probability=probability, length=SPAN, minimum=2)
        self.encoder.masking.eval()  # channels are never masked here, and frames are given
        np.random.seed(0)
        self.sampled = torch.from_numpy(_sampled(self.masked)).long()
        self.negatives = sample_negatives(self.masked, NEGATIVES)

    def our_step(self) -> None:
        """Forward and backward of encoder and objective."""
        below = self.encoder.lower(self.waveforms, self.lengths, AFTER_CNN)
        features = self.encoder.quantiser_features(below)
        hidden = self.encoder.upper(below, AFTER_CNN, masked=self.masked).values
        self.our_objective(hidden, features)

    def our_objective(self, hidden: Tensor, features: Tensor) -> None:
        """Forward and backward of the objective alone."""
        mask = torch.ones_like(self.masked)
        self.objective(hidden, features, mask, self.masked, self.negatives).loss.backward()

    def their_step(self) -> None:
        """Forward and backward of transformers' model."""
        self.theirs(
            self.waveforms,
            attention_mask=self.their_mask,
            mask_time_indices=self.masked,
            sampled_negative_indices=self.sampled,
        ).loss.backward()


def main() -> None:
    """Prints one row for each comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--seconds", nargs="+", type=float, default=[2.0, 1.5])
    parser.add_argument("--probability", type=float, default=mask_probability(0.065, SPAN))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.encoder}")
    print(f"mask probability {options.probability:g}, {NEGATIVES} negatives, clips of {options.seconds} s")
    print(f"{'':<28}{'ours ms':>10}{'theirs ms':>12}{'ratio':>8}")
    padded = Sides(options.encoder, options.seconds, options.probability)
    _compare("step, padded", padded.our_step, padded.their_step, options.repeats)
    del padded
    sides = Sides(options.encoder, [max(options.seconds)] * len(options.seconds), options.probability)
    _compare("step", sides.our_step, sides.their_step, options.repeats)
    config = sides.encoder.model.config
    hidden = torch.randn(*sides.masked.shape, config.hidden_size, requires_grad=True)
    features = torch.randn(*sides.masked.shape, config.conv_dim[-1], requires_grad=True)
    sides.theirs.wav2vec2 = Given(hidden, features)
    _compare("after the encoder", lambda: sides.our_objective(hidden, features), sides.their_step, 20)
    many = span_mask(torch.full((64,), 499), 499, probability=options.probability, length=SPAN, minimum=2)
    _compare(
        "negatives, 64 clips of 10 s",
        lambda: sample_negatives(many, NEGATIVES),
        lambda: _sampled(many),
        20,
    )


def _sampled(masked: Tensor) -> np.ndarray:
    sampled: np.ndarray = _sample_negative_indices(tuple(masked.shape), NEGATIVES, masked.numpy())
    return sampled


def _compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> None:
    times: list[tuple[float, float]] = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats + 1)]
    mine, other = (1000 * statistics.median(column[1:]) for column in zip(*times, strict=True))
    print(f"{name:<28}{mine:>10.1f}{other:>12.1f}{mine / other:>8.3f}")


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
