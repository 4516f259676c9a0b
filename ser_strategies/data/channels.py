"""Making mono of recordings with several channels."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]
# From (channels, samples) to (samples,).
ChannelRule: TypeAlias = Callable[[Samples], Samples]
RuleName = Literal["average", "dialogue"]

_CENTRE = 2  # front left, front right, front centre, low frequencies, back left, back right


def average_channels(sound: Samples) -> Samples:
    """The mean of all channels of a sound (channels, samples)."""
    mean: Samples = sound[0] if len(sound) == 1 else sound.mean(axis=0)
    return mean


def dialogue_channel(sound: Samples) -> Samples:
    """The channel with the dialogue: the centre of surround sound, the left of stereo, mono as it is."""
    dialogue: Samples = sound[_CENTRE if len(sound) > _CENTRE else 0]
    return dialogue


CHANNEL_RULES: Mapping[RuleName, ChannelRule] = {"average": average_channels, "dialogue": dialogue_channel}
