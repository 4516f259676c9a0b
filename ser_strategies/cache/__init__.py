"""What the frozen part of an encoder makes of each utterance, computed once and kept where it cannot lie."""

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
