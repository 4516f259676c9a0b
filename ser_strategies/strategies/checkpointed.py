"""Checkpointed: a module around an encoder, a checkpoint of what of it may train, and what that has heard."""

import copy
import inspect
import warnings
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.parsing import save_hyperparameters
from safetensors.torch import save_file
from torch import Tensor, nn

from ser_strategies.common.class_paths import import_trusted, path_of
from ser_strategies.common.files import whole_folder
from ser_strategies.encoder import Encoder, trains_whole
from ser_strategies.encoder.adapters import Adapter, as_record
from ser_strategies.encoder.checkpoints import FORMAT, RECORD, read_checkpoint
from ser_strategies.encoder.identity import EncoderIdentity
from ser_strategies.encoder.sources import check_same
from ser_strategies.encoder.starter import STARTER
from ser_strategies.parts.choice import as_plain

# Where a checkpoint has weights. With WeightAveraging the first are averages, the second what trains on.
WEIGHTS, UNAVERAGED = "state_dict", "current_model_state"
NOT_PLAIN_DATA = ["optimizer", "scheduler"]


Made = TypeVar("Made", bound="Checkpointed")


class Declaring(ABCMeta):
    """Lets a strategy declare, once its constructor is through, everything of it that may ever train.

    A constructor cannot do so itself: that of a subclass, which narrows what trains, goes on after it.
    """

    def __init__(cls, *arguments: Any, **options: Any) -> None:
        """Has Python still take the constructor's signature for that of the class."""
        super().__init__(*arguments, **options)
        constructor = inspect.signature(cls.__init__)  # type: ignore[misc]
        cls.__signature__ = constructor.replace(parameters=list(constructor.parameters.values())[1:])

    def __call__(cls: type[Made], *arguments: Any, **options: Any) -> Made:  # type: ignore[misc]
        """Builds an instance and lets it declare what trains."""
        made: Made = type.__call__(cls, *arguments, **options)
        made.whole = trains_whole(made.encoder)
        made.declare()
        return made


class Checkpointed(LightningModule, metaclass=Declaring):
    """An encoder and whatever stands on it; its checkpoint holds what may train.

    Attributes:
        trains: Names of the parameters that may ever train: those that had a gradient when the constructor
            was through. Whatever is frozen and thawed since, a checkpoint holds them all.
        whole: Whether a checkpoint holds a complete encoder.
    """

    # Options that may hold an import path as a plain word.
    part_options: ClassVar[tuple[str, ...]] = ()
    encoder: Encoder
    trains: frozenset[str] = frozenset()
    whole: bool
    run_seed: int | None
    start: EncoderIdentity
    loaded_from: str | None

    def declare(self) -> None:
        """Adds to what may train whatever has a gradient now."""
        now = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self.trains |= now

    def may_train(self) -> dict[str, nn.Parameter]:
        """The parameters that may ever train, by name, whether or not they are frozen for now."""
        return {name: each for name, each in self.named_parameters() if name in self.trains}

    def saved_names(self) -> set[str]:
        """Names in the state dict that a checkpoint holds: what may train, and all around the encoder."""
        names = set(self.state_dict())
        if self.whole:
            return names
        kept = self.trains | {f"encoder.{name}" for name in self.encoder.adapter_names}
        return {name for name in names if not name.startswith("encoder.") or name in kept}

    def record(self) -> dict[str, Any]:
        """Plain facts that travel with a checkpoint."""
        encoder = self.encoder
        return {
            "format": FORMAT,
            "strategy": type(self).__name__,
            "class_path": path_of(type(self)),
            "seed": self.run_seed,
            "encoder": {
                "identity": encoder.identity.as_dict(),
                "config": encoder.model.config.to_dict() if self.whole else None,
                "whole": self.whole,
                "adapter": as_record(encoder.adapter) if encoder.adapter else None,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what may train, and says on which encoder."""
        kept = self.saved_names()
        for weights in {WEIGHTS, UNAVERAGED} & set(checkpoint):
            checkpoint[weights] = {name: each for name, each in checkpoint[weights].items() if name in kept}
        checkpoint["hyper_parameters"] = dict(self.hparams)
        checkpoint[RECORD] = self.record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another strategy, of another encoder, or with other weights."""
        if RECORD not in checkpoint:
            msg = f"the checkpoint was not written by {type(self).__name__}: it has no record {RECORD!r}."
            raise ValueError(msg)
        record = checkpoint[RECORD]
        if record["strategy"] != type(self).__name__:
            msg = (
                f"the checkpoint is from {record['strategy']}, not from {type(self).__name__}: "
                f"load it with --model {record['strategy']}, or start from it with --model.encoder."
            )
            raise ValueError(msg)
        recorded = EncoderIdentity.from_dict(record["encoder"]["identity"])
        # A whole encoder may be built from the checkpoint itself, whose weights are no longer the source's.
        if not (self.whole and self.encoder.identity.origin == recorded.fingerprint):
            check_same(recorded, self.encoder.identity, "the checkpoint")
        self._check_weights(checkpoint["state_dict"])
        self.run_seed = record["seed"]
        if UNAVERAGED in checkpoint:
            # WeightAveraging goes on only from all weights, so what never trains is put beside the others.
            for weights in (WEIGHTS, UNAVERAGED):
                checkpoint[weights] = self.state_dict() | checkpoint[weights]

    def _check_weights(self, found: dict[str, Tensor]) -> None:
        mine = self.state_dict()
        expected = self.saved_names()
        missing, extra = sorted(expected - set(found)), sorted(set(found) - expected)
        odd = [name for name in sorted(expected & set(found)) if found[name].shape != mine[name].shape]
        parts = [f"lacks {missing[0]}"] if missing else []
        parts += [f"also has {extra[0]}"] if extra else []
        parts += [f"has {odd[0]} in another size"] if odd else []
        if parts:
            msg = (
                f"the checkpoint {' and '.join(parts)} ({len(missing)} weights missing, {len(extra)} extra, "
                f"{len(odd)} of another size): load it with the options it was trained with."
            )
            raise ValueError(msg)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's takes arguments that would undo the checks
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        *,
        trust: str | tuple[str, ...] = (),
        **overrides: Any,
    ) -> Self:
        """The strategy that a checkpoint was trained with, its weights included.

        A checkpoint that holds the whole encoder needs nothing else; any other is put on top of the encoder
        it was trained from, which must still be where it was.

        Args:
            checkpoint_path: The file.
            map_location: Where to put the result; null leaves it on the CPU.
            trust: Packages or import paths that the checkpoint names and whose code may be imported.
            overrides: Options to replace, by name.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        record = checkpoint[RECORD]["encoder"]
        if checkpoint[RECORD]["strategy"] != cls.__name__:
            msg = f"{checkpoint_path} is from {checkpoint[RECORD]['strategy']}, not from {cls.__name__}."
            raise ValueError(msg)
        import_trusted(cls._foreign(checkpoint), trust, checkpoint_path)
        # As recorded rather than as typed, since a relative path leads elsewhere from another folder.
        source, revision = record["identity"]["source"], record["identity"]["revision"]
        if record["whole"]:
            source, revision = str(checkpoint_path), None
        options = checkpoint["hyper_parameters"] | {"encoder": source, "revision": revision} | overrides
        strategy = cls(**options)
        strategy.on_load_checkpoint(checkpoint)
        strategy.start = EncoderIdentity.from_dict(record["identity"])
        strategy.loaded_from = str(Path(checkpoint_path).expanduser().resolve())
        strategy.load_state_dict(checkpoint["state_dict"], strict=False)
        return strategy if map_location is None else strategy.to(map_location)

    @classmethod
    def _foreign(cls, checkpoint: Mapping[str, Any]) -> list[str]:
        """The import paths that a checkpoint names."""
        options = checkpoint["hyper_parameters"]
        chosen = [options.get(name) for name in cls.part_options]
        words = [word for word in chosen if isinstance(word, str) and "." in word]
        adapter = checkpoint[RECORD]["encoder"].get("adapter")
        return [*words, *_class_paths([*options.values(), adapter])]

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the adapter for other programs, and everything outside the encoder as head.safetensors.

        LoRA is written in peft's own format: `peft.PeftModel.from_pretrained(transformers_model, folder)`
        reads it. transformers' WavLM reads its projections' weights directly, so there only
        `.merge_and_unload()` of it has any effect.
        """
        if self.encoder.adapter is None:
            msg = f"{type(self).__name__} has no adapter to save."
            raise ValueError(msg)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.encoder.adapter.save(Path(folder))
        outside = {
            name: tensor.contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith("encoder.")
        }
        labels = ",".join(self.record().get("labels", ()))
        save_file(outside, Path(folder) / "head.safetensors", metadata={"labels": labels})

    def write_best(self, checkpoint: str | Path, folder: Path) -> None:
        """After a fit: writes files such as the adapter of the best checkpoint into the folder of the run."""
        adapter = self.encoder.adapter
        if adapter is not None and type(adapter).save is not Adapter.save:
            with whole_folder(folder / "adapter") as unfinished:
                self.load_from_checkpoint(checkpoint).save_adapter(unfinished)

    def _save_plain_options(self) -> None:
        # Lightning's command line would have us save its own nested configuration instead; given none, the
        # constructor's arguments are saved, all of them, as plain data that any process can load.
        frame = inspect.currentframe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules among them, which `as_plain` refuses
            save_hyperparameters(self, ignore=NOT_PLAIN_DATA, frame=frame and frame.f_back)
        for name, value in self.hparams.items():
            self.hparams[name] = as_plain(name, value)
        self._hparams_initial = copy.deepcopy(self.hparams)


def _class_paths(values: Iterable[Any]) -> Iterator[str]:
    """The values of `class_path` in nested values."""
    for value in values:
        if isinstance(value, Mapping):
            if isinstance(value.get("class_path"), str):
                yield value["class_path"]
            yield from _class_paths(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _class_paths(value)


def origins_of(checkpoint: str | Path) -> list[dict[str, Any]]:
    """For each training behind a checkpoint, its utterances, as its corpus noted them."""
    origins: list[dict[str, Any]] = []
    for state in read_checkpoint(checkpoint).values():
        # Lightning keeps what a corpus says of itself under the name of its class.
        if isinstance(state, dict) and "heard" in state:
            known = {name: state[name] for name in ("splits", "heard", "content") if name in state}
            origins += [known, *state.get("origins", ())]
    return origins


def check_teacher(teacher: str) -> None:
    """Refuses a teacher that never learned emotion, as far as can be known."""
    learned = bool(teacher) and teacher != STARTER and not teacher.startswith("random:")
    if teacher.endswith(".ckpt"):
        learned = "labels" in read_checkpoint(teacher)[RECORD]
    if not learned:
        msg = (
            f"teacher must be a checkpoint of a strategy that predicts emotion, such as "
            f"runs/ptapt/1-teacher/best.ckpt, got {teacher!r}."
        )
        raise ValueError(msg)
