"""Adapters: a few weights of their own, put into an encoder that rests itself."""

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ser_strategies.common.class_paths import find_path, path_of
from ser_strategies.encoder.families import SpeechModel
from ser_strategies.encoder.identity import EncoderIdentity


class Adaptable(Protocol):
    """A host of an adapter: an `Encoder`, or one in the making."""

    @property
    def model(self) -> SpeechModel:
        """The model of transformers."""

    @property
    def identity(self) -> EncoderIdentity:
        """The identity of the encoder."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, input side first."""

    @property
    def size(self) -> int:
        """Numbers in a frame."""


class Adapter(ABC):
    """Weights of their own inside a frozen encoder: a dataclass, whose fields are plain data.

    Its fields go into the checkpoint, with its import path, and make it again. What it keeps beside them
    belongs to one encoder.
    """

    @abstractmethod
    def inject(self, encoder: Adaptable) -> None:
        """Puts the adapter into an encoder. Modules that are new train, all others rest.

        Wrap or replace modules of `encoder.model`; `encoder.blocks` are its transformer blocks.
        """

    def merged(self) -> SpeechModel | None:
        """The model without its adapter, whose weights now do the same; None where that cannot be.

        The model that `inject` was given may be changed. With None, what is trained from a checkpoint carries
        the adapter on, as a part of its encoder.
        """
        return None

    def after_step(self, step: int) -> None:  # noqa: B027 - few follow a schedule
        """Follows a schedule after an optimizer step, counted from 1, whose gradients are still there."""

    def penalty(self) -> Tensor | None:
        """A scalar to be added to the loss of a training step; None for nothing."""
        return None

    def save(self, folder: Path) -> None:  # noqa: B027 - few have a format of their own
        """Writes the adapter for other programs, into a folder that is there; by default nothing."""


def as_record(adapter: Adapter) -> dict[str, Any]:
    """An adapter as plain data for a checkpoint."""
    described: Any = adapter
    if not is_dataclass(described):
        msg = f"{type(adapter).__name__} must be a dataclass: a checkpoint keeps its fields to make it again."
        raise ValueError(msg)
    options = {each.name: getattr(adapter, each.name) for each in fields(described) if each.init}
    return {"class_path": path_of(type(adapter)), "init_args": options}


def from_record(record: dict[str, Any]) -> Adapter:
    """The adapter that `as_record` wrote down; a class that is not ours must have been imported."""
    kind = find_path(record["class_path"])
    if not (isinstance(kind, type) and issubclass(kind, Adapter)):
        msg = f"{record['class_path']} is not an adapter: expected a subclass of {path_of(Adapter)}."
        raise ValueError(msg)
    return kind(**record["init_args"])
