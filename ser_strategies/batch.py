"""Batch: what a datamodule hands to a strategy, and the only thing the two know of each other."""

from typing import NamedTuple

from ser_strategies.common.compatibility import check_torch

check_torch()

from torch import Tensor  # noqa: E402


class Batch(NamedTuple):
    """Utterances padded to a common length, with whatever the corpus knows about them.

    A named tuple because Lightning can move it between devices; everything but the sound and its
    name is optional, and an absent field is None.

    Args:
        waveforms: Mono sound at 16 kHz, padded with zeros, (batch, samples) in float32.
        lengths: True number of samples of each waveform, (batch,) in int64.
        ids: A name for each utterance, unique in its corpus.
        labels: Class of each utterance, (batch,) in int64; -1 where it is unknown.
        soft_labels: Distribution over the classes, (batch, classes) in float32; a row of NaN where unknown.
        dimensions: Activation, valence, ... of each utterance, (batch, dimensions); NaN where unknown.
        speakers: Speaker of each utterance.
        genders: "female", "male" or "unknown" for each utterance.
        texts: What is said.
        paths: The file each utterance was read from.
        frames: What the frozen part of an encoder made of each, in place of waveforms, which then have no
            samples: (batch, frames, size), or (batch, frames, states, size).
        frame_counts: True number of frames of each, (batch,).
        raters: Who rated each utterance, (batch, most) in int64: the place among the corpus' `raters`, or -1
            for anybody else, and for nobody.
        ratings: What they said of each dimension, from -1 to 1, (batch, most, dimensions); NaN for nobody.
        gender_codes: Its gender as a number, 0 female, 1 male, 2 unknown, (batch,).
        sentences: A vector of each text, NaN where there is none, (batch, width).
    """

    waveforms: Tensor
    lengths: Tensor
    ids: tuple[str, ...]
    labels: Tensor | None = None
    soft_labels: Tensor | None = None
    dimensions: Tensor | None = None
    speakers: tuple[str, ...] | None = None
    genders: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    frames: Tensor | None = None
    frame_counts: Tensor | None = None
    raters: Tensor | None = None
    ratings: Tensor | None = None
    gender_codes: Tensor | None = None
    sentences: Tensor | None = None
