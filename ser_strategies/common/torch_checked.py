"""Importing this module asks whether torch and torchaudio can be used: first of all where they are needed."""

from ser_strategies.common.compatibility import check_torch

check_torch()
