"""The spectrum of each frame as something to learn: computed once, kept in a cache, standardised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ser_strategies.cache.shard import StoredFrames, stored_bytes
from ser_strategies.cache.store import FrameStore, default_folder
from ser_strategies.cache.targets import StoredTargets, TargetSource
from ser_strategies.cache.training import compare, fill, request_plain
from ser_strategies.cache.trunk import describe_spectrum
from ser_strategies.encoder import Encoder, EncoderIdentity, Spectrum, SpectrumName


class StandardisedTargets(StoredTargets):
    """Stored frames, each number less its mean over the train split, in units of its deviation there.

    Args:
        stored: Where they are, by position.
        names: Ids of the utterances, in that order.
        report: What computed them.
        size: Bytes on the disk.
        mean: Of the frames of the train split.
        deviation: Likewise.
    """

    def __init__(
        self,
        stored: StoredFrames,
        names: Sequence[str],
        report: dict[str, Any],
        size: int,
        *,
        mean: Tensor,
        deviation: Tensor,
    ) -> None:
        super().__init__(stored, names, report, size)
        self.mean, self.deviation = mean, deviation

    def _of(self, name: str, count: int) -> Tensor:
        return (super()._of(name, count).float() - self.mean) / self.deviation


@dataclass(frozen=True)
class SpectrumSource:
    """Which features of the spectrum are learnt."""

    kind: SpectrumName
    live: ClassVar[bool] = False

    def shape(self, student: Encoder) -> tuple[int, ...]:
        """Of what is learnt of one frame.

        Args:
            student: The encoder that learns.
        """
        return (Spectrum(self.kind, student).size,)

    def stored_by(
        self, student: Encoder, start: EncoderIdentity, device: torch.device
    ) -> tuple[Spectrum, FrameStore]:
        """What computes the features, on its device, and where they are kept.

        That is the user's cache, since every run with frames on this grid has use of them.

        Args:
            student: The encoder on whose grid they lie.
            start: Nothing: a spectrum is nobody's.
            device: Where they are computed.
        """
        del start
        teacher = Spectrum(self.kind, student).to(device)
        return teacher, FrameStore(default_folder(), describe_spectrum(teacher, stored="float16"))

    def prepare(self, student: Encoder, start: EncoderIdentity, trainer: Any) -> StandardisedTargets:
        """The targets of the train and val splits; computes what is not stored yet.

        Args:
            student: The encoder that learns.
            start: Nothing.
            trainer: Lightning's trainer, before it has asked for a loader.
        """
        corpus = getattr(trainer, "datamodule", None)
        wanted = request_plain(corpus)
        teacher, store = self.stored_by(student, start, trainer.strategy.root_device)
        fill(store, teacher, wanted.sounds, trainer)
        compare(store, teacher, wanted.sounds)
        present = store.keys()
        heard = [key for key in dict.fromkeys(wanted.views["train"][0]) if key in present]
        mean, deviation = _moments(store.frames([heard]))
        named = wanted.named(corpus, present)
        stored = store.frames([[key for _, key in named]])
        report = {"spectrum": self.kind, "mean": mean.tolist(), "deviation": deviation.tolist()}
        names = [name for name, _ in named]
        size = stored_bytes([stored])
        return StandardisedTargets(stored, names, report, size, mean=mean, deviation=deviation)


AnyTargetSource = TargetSource | SpectrumSource


def _moments(frames: StoredFrames) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each number, over all frames; a number that never changes counts as it is."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for position in range(len(frames)):
        values = frames.read(position, 0)[0].double()
        count, total, squares = count + len(values), total + values.sum(0), squares + values.square().sum(0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(deviation > 1e-4, deviation, 1.0).float()
