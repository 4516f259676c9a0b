"""A teacher's frames of some layers, of sound that nothing masks: from a cache, or computed at each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ser_strategies.cache.build import compute
from ser_strategies.cache.shard import stored_bytes
from ser_strategies.cache.store import FrameStore
from ser_strategies.cache.training import FrameCaching, compare, fill, request_plain
from ser_strategies.cache.trunk import Trunk
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder import Encoder, EncoderIdentity, compression_of, freeze


class StoredTargets:
    """A teacher's frames from the disk, by utterance.

    Args:
        stored: Where they are, by position.
        names: Ids of the utterances, in that order.
        report: What computed them.
        size: Bytes on the disk.
    """

    def __init__(self, stored: Any, names: Sequence[str], report: dict[str, Any], size: int = 0) -> None:
        self.stored = stored
        self.positions = {name: index for index, name in enumerate(names)}
        self.report = report
        self.size = size

    def read(self, ids: Sequence[str], counts: Sequence[int], total: int) -> Tensor:
        """Frames of a batch, padded with zeros, (batch, total, layers, size).

        Args:
            ids: Its utterances.
            counts: How many frames the student makes of each; those of the teacher beyond are left out.
            total: Frames of the padded batch.
        """
        found = [self._of(name, count) for name, count in zip(ids, counts, strict=True)]
        result = found[0].new_zeros(len(found), total, *found[0].shape[1:])
        for row, frames in enumerate(found):
            result[row, : len(frames)] = frames
        return result

    def _of(self, name: str, count: int) -> Tensor:
        if name not in self.positions:
            msg = (
                f"utterance {name!r} has no frames of the teacher: only those of the train and val splits do."
            )
            raise ValueError(msg)
        frames: Tensor = self.stored.read(self.positions[name], 0)[0]
        check_enough(len(frames), count, f"utterance {name!r}")
        return frames[:count]


class LiveTargets:
    """A teacher that hears each batch.

    Args:
        teacher: The teacher, frozen, on its device.
        trunk: Which of its layers.
        report: What it is.
    """

    size = 0

    def __init__(self, teacher: Encoder, trunk: Trunk, report: dict[str, Any]) -> None:
        self.teacher, self.trunk, self.report = teacher, trunk, report

    def compute(self, waveforms: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Frames of a batch, zero past the end of each clip, (batch, frames, layers, size).

        Args:
            waveforms: Padded sound that nothing masks, (batch, samples).
            lengths: True number of samples of each clip.
            mask: True where the student has a frame of a clip, (batch, frames).
        """
        frames = compute(self.teacher, waveforms, lengths, self.trunk)
        check_enough(frames.mask.shape[1], mask.shape[1], "a clip")
        taken = self.trunk.take(frames)[:, : mask.shape[1]]
        # A copy, since what was made in inference mode may not be kept for a backward pass.
        return taken.clone().masked_fill_(~mask[:, :, None, None], 0.0)


Targets = StoredTargets | LiveTargets


@dataclass(frozen=True)
class TargetSource:
    """How a student gets its teacher's frames.

    Args:
        caching: How they are kept; its layers are those that are learnt, the highest last.
        live: Compute them at each step rather than once.
        seconds: Where the teacher stops listening; None takes the student's limit.
    """

    caching: FrameCaching
    live: bool = False
    seconds: float | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the teacher's blocks whose outputs are learnt, counted from 1."""
        assert not isinstance(self.caching.layers, bool)
        return self.caching.layers

    def shape(self, student: Encoder) -> tuple[int, ...]:
        """Of what is learnt of one frame.

        Args:
            student: The student.
        """
        return (len(self.layers), student.size)

    def stored_by(
        self, student: Encoder, start: EncoderIdentity, device: torch.device
    ) -> tuple[Encoder, FrameStore]:
        """The teacher, on its device, and where its frames are kept.

        Args:
            student: The student.
            start: The teacher.
            device: Where it computes.
        """
        teacher = self.teacher(student, start).to(device)
        return teacher, self.caching.store(teacher)

    def prepare(self, student: Encoder, start: EncoderIdentity, trainer: Any) -> Targets:
        """The targets of the train and val splits; computes what is not stored yet, unless they are live.

        Args:
            student: The student.
            start: The teacher.
            trainer: Lightning's trainer, before it has asked for a loader.
        """
        device = trainer.strategy.root_device
        if self.live:
            return self.listening(student, start, device)
        corpus = getattr(trainer, "datamodule", None)
        wanted = request_plain(corpus)
        teacher, store = self.stored_by(student, start, device)
        fill(store, teacher, wanted.sounds, trainer)
        compare(store, teacher, wanted.sounds)
        named = wanted.named(corpus, store.keys())
        stored = store.frames([[key for _, key in named]])
        return StoredTargets(
            stored, [name for name, _ in named], self._report(teacher), stored_bytes([stored])
        )

    def listening(self, student: Encoder, start: EncoderIdentity, device: torch.device) -> LiveTargets:
        """A teacher that hears each batch.

        Args:
            student: The student.
            start: The teacher.
            device: Where it computes.
        """
        teacher = self.teacher(student, start).to(device)
        return LiveTargets(teacher, self.caching.store(teacher).trunk, self._report(teacher))

    def _report(self, teacher: Encoder) -> dict[str, Any]:
        identity = teacher.identity.as_dict()
        return {
            "teacher": identity,
            "blocks": teacher.block_count,
            "layers": list(self.layers),
            "live": self.live,
        }

    def teacher(self, student: Encoder, start: EncoderIdentity) -> Encoder:
        """The encoder that the student was made of, frozen, and cut above the highest layer that is learnt.

        Args:
            student: The student.
            start: Which encoder that is.
        """
        longest = student.max_samples and student.max_samples / SAMPLE_RATE
        seconds = longest if self.seconds is None else self.seconds
        teacher = Encoder(start.source, revision=start.revision, max_seconds=seconds, fast=student.fast)
        made = compression_of(teacher)
        if made is not None and made == compression_of(student):
            msg = (
                f"{start.source} is such a student already, and cannot be its own teacher: give its teacher "
                f"as --model.encoder, or ask for fewer --model.blocks."
            )
            raise ValueError(msg)
        freeze(teacher)
        teacher.cut = max(self.layers)
        return teacher


def check_enough(found: int, wanted: int, whose: str) -> None:
    """Refuses targets that do not reach to the end of a clip.

    Args:
        found: Frames of the teacher.
        wanted: Frames of the student.
        whose: What they are of.
    """
    if found < wanted:
        msg = (
            f"{whose} has {found} frames of the teacher but {wanted} of the student: give the teacher at "
            f"least as much of it, with --model.teacher_seconds."
        )
        raise ValueError(msg)
