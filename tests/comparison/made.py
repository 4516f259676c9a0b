"""Made-up predictions of one strategy, as the rows that `test` writes."""

import numpy as np
import pandas as pd

LABELS = ("anger", "joy", "neutral", "sadness")
DIMENSIONS = ("activation", "valence")


def runs(
    *,
    speakers=6,
    utterances=12,
    folds=3,
    seeds=(0, 1, 2),
    skill=1.0,
    seed=0,
    arm=0,
    labels=LABELS,
    dimensions=(),
    unknown=0,
):
    """Fold, seed and rows of each run; `seed` makes the test set, `arm` the strategy.

    Speaker s0 is in fold 0, s1 in fold 1 and so on; the first `unknown` utterances have no target.
    """
    world = np.random.default_rng(seed)
    count = speakers * utterances
    speaker = np.repeat(np.arange(speakers), utterances)
    truth = world.choice(
        len(labels), count, p=np.arange(1, len(labels) + 1) / np.arange(1, len(labels) + 1).sum()
    )
    hard = world.normal(size=(count, len(labels)))
    ease = world.normal(0, 0.4, size=speakers)
    targets = world.normal(3, 1, size=(count, len(dimensions))) + ease[speaker, None]
    table = pd.DataFrame(
        {
            "id": [f"u{number:05d}" for number in range(count)],
            "label": pd.array([labels[c] for c in truth], dtype="string"),
            "speaker": pd.array([f"s{k}" for k in speaker], dtype="string"),
            "gender": pd.array([("female", "male")[k % 2] for k in speaker], dtype="string"),
            "session": pd.array([None] * count, dtype="string"),
            "dialogue": pd.array([None] * count, dtype="string"),
            "seconds": 2.0,
        }
    )
    table.loc[: unknown - 1, "label"] = None
    found = []
    for number in seeds:
        noise = np.random.default_rng([seed, arm, number])
        logits = hard + noise.normal(size=hard.shape)
        logits[np.arange(count), truth] += skill + ease[speaker]
        odds = np.exp(logits)
        rows = table.copy()
        for index, label in enumerate(labels):
            rows[f"probability/{label}"] = (odds[:, index] / odds.sum(axis=1)).astype(np.float32)
        for index, name in enumerate(dimensions):
            rows[f"true/{name}"] = targets[:, index]
            rows.loc[: unknown - 1, f"true/{name}"] = np.nan
            said = 0.6 * targets[:, index] + skill + ease[speaker] + noise.normal(0, 0.7, size=count)
            rows[name] = said.astype(np.float32)
        found += [(fold, number, rows[speaker % folds == fold]) for fold in range(folds)]
    return found


def together(found, seed):
    """All rows of one seed, in one frame."""
    return pd.concat([rows for _, own, rows in found if own == seed], ignore_index=True)
