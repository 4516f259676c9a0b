"""From frames to predictions, losses and scores: plain modules and pure functions."""

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
