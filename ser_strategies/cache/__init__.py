"""Outputs of the frozen part of an encoder, computed once for each utterance, verified when read."""

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
