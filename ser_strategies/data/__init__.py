"""Corpora as Lightning datamodules, with splits that cannot lie."""

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
