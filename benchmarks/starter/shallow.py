"""What a shallow classifier is given: statistics of log-mel bands, of cepstra, or of an encoder's frames."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torchaudio.functional import compute_deltas, create_dct, melscale_fbanks

from ser_strategies.data.manifest.manifest import Manifest
from ser_strategies.encoder import Encoder

RATE, POINTS = 16_000, 512
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of logistic regression, chosen on the validation speakers
MARGINS = (0.3, 1.0, 3.0, 10.0)  # of the SVM, likewise
Features = NDArray[np.float32]


def statistics(frames: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over the frames (frames, size): (2 * size,)."""
    return torch.cat([frames.mean(0), frames.std(0, correction=0)])


def log_mel(sound: torch.Tensor, bands: int = 80) -> torch.Tensor:
    """Log-mel bands every 10 ms, (frames, bands)."""
    power = torch.stft(sound, POINTS, 160, 400, torch.hann_window(400), return_complex=True).abs().square()
    filters = melscale_fbanks(POINTS // 2 + 1, 20.0, RATE / 2, bands, RATE)
    found: torch.Tensor = (power.T @ filters).clamp(min=1e-10).log()
    return found


def cepstra(sound: torch.Tensor) -> torch.Tensor:
    """20 cepstra, their slopes and the slopes of these, (frames, 60)."""
    found = (log_mel(sound, 40) @ create_dct(20, 40, "ortho")).T
    slopes = compute_deltas(found)
    return torch.cat([found, slopes, compute_deltas(slopes)]).T


def of_sounds(rows: pd.DataFrame, kind: str, corpus: Manifest) -> Features:
    """A row for each utterance; `kind` is log-mel, mfcc, or an encoder, all of whose hidden states count."""
    if kind in ("log-mel", "mfcc"):
        make = log_mel if kind == "log-mel" else cepstra
        return np.stack([statistics(make(sound)).numpy() for sound in _sounds(rows, corpus)])
    encoder = Encoder(kind).eval()
    found = []
    with torch.inference_mode():
        for sound in _sounds(rows, corpus):
            frames = encoder.lower(sound[None], torch.tensor([len(sound)]), encoder.block_count, layers=True)
            found.append(torch.cat([statistics(layer[0]) for layer in frames.layers]).numpy())
    return np.stack(found)


def _sounds(rows: pd.DataFrame, corpus: Manifest) -> Iterable[torch.Tensor]:
    records: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
    for row in records:
        yield torch.from_numpy(corpus.waveform(row))


def classifiers(kind: str) -> list[Pipeline]:
    """What is tried on the validation speakers."""
    if kind.startswith("MFCC"):
        return [make_pipeline(StandardScaler(), SVC(C=margin, class_weight="balanced")) for margin in MARGINS]
    return [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, class_weight="balanced"))
        for c in STRENGTHS
    ]


def predict(kind: str, train: Any, val: Any, test: Features, labels: list[str]) -> Features:
    """Probabilities of a test set, from the classifier that is best on the validation set.

    Where a classifier gives none, as an SVM, the class it names has all.
    """
    (x, y), (x_val, y_val) = train, val
    fitted = [each.fit(x, y) for each in classifiers(kind)]
    best = max(fitted, key=lambda each: float(recall(y_val, each.predict(x_val))))
    named = best.predict(test)
    chosen: Features = (named[:, None] == np.array(labels)[None]).astype(np.float32)
    return chosen


def recall(truth: Any, named: Any) -> float:
    """Unweighted: the mean over the classes."""
    return float(np.mean([(named[truth == each] == each).mean() for each in np.unique(truth)]))
