"""Predictions of a recognizer: the names of classes and dimensions, and the objective that learns them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ser_strategies.common.class_paths import path_of
from ser_strategies.common.emotion_words import map_words, towards
from ser_strategies.common.errors import check_range, listed
from ser_strategies.encoder.checkpoints import read_checkpoint
from ser_strategies.parts.annotator_objective import Annotators
from ser_strategies.parts.choice import Part, as_plain, build_part, chosen_path
from ser_strategies.parts.conditions import Known
from ser_strategies.parts.objectives import Classes, ClassesAndDimensions, Dimensions, Objective

# Our own objectives, and whether they need classes and dimensions.
NEEDS = {
    "classes": (True, False),
    "dimensions": (False, True),
    "both": (True, True),
    "annotators": (False, True),
}
ANNOTATORS = path_of(Annotators)


class Predictions(NamedTuple):
    """The predictions of a recognizer for a batch."""

    ids: tuple[str, ...]
    paths: tuple[str, ...] | None  # file of each utterance, where it has one
    columns: dict[str, Tensor]  # probabilities and dimensions by column name, (batch,) each


class Answer(NamedTuple):
    """What a recognizer makes of a batch: outputs and their loss, and what they come from."""

    outputs: Tensor
    loss: Tensor
    pooled: Tensor
    known: Known


def class_names(
    objective: Part, num_classes: int | None, labels: tuple[str, ...] | None, counts: tuple[int, ...] | None
) -> tuple[str, ...]:
    """The classes that are predicted; none where only dimensions are."""
    classes, _ = _needs(objective)
    names: tuple[str, ...] = ()
    if classes is not False:
        if labels is not None and not labels and classes:
            msg = (
                f"the corpus has no classes, which the objective {objective!r} needs: choose other labels of "
                "it, or give --model.objective dimensions."
            )
            raise ValueError(msg)
        if labels is None and num_classes is None and classes:
            msg = "num_classes, or labels, must be given to predict classes, got neither."
            raise ValueError(msg)
        if labels is not None and num_classes not in {None, len(labels)}:
            msg = f"num_classes is {num_classes}, but there are {len(labels)} labels ({', '.join(labels)})."
            raise ValueError(msg)
        numbered = tuple(f"class_{index}" for index in range(num_classes or 0))
        names = numbered if labels is None else tuple(labels)
    if counts is not None and len(counts) != len(names):
        msg = f"class_counts must count {len(names)} classes, got {len(counts)} counts."
        raise ValueError(msg)
    return names


def dimension_names(objective: Part, dimensions: tuple[str, ...]) -> tuple[str, ...]:
    """The dimensions that are predicted; none where classes are all there is to predict."""
    _, wanted = _needs(objective)
    if wanted and not dimensions:
        msg = f"the objective {objective!r} needs dimensions, and the corpus has none: use 'classes'."
        raise ValueError(msg)
    return () if wanted is False else tuple(dimensions)


def check_names(kind: str, theirs: Sequence[str] | None, mine: tuple[str, ...]) -> None:
    """Refuses a corpus whose labels or dimensions (the kind) are not those of the model."""
    if not mine or not theirs or tuple(theirs) == mine:
        return
    unknown = [name for name in theirs if name not in mine]
    detail = f"the model does not have {', '.join(unknown)}" if unknown else "another set or order"
    msg = (
        f"the {kind} of the corpus are {', '.join(theirs)}, those of the model {', '.join(mine)} "
        f"({detail}): choose the same {kind} for both, or train a new model."
    )
    raise ValueError(msg)


def check_several_classes(labels: tuple[str, ...], counts: Sequence[int] | None) -> None:
    """Refuses a train split of one class, as far as its counts are known."""
    if counts is not None and sum(count > 0 for count in counts) < 2:
        only = ", ".join(label for label, count in zip(labels, counts, strict=True) if count) or "none"
        msg = f"the train split has utterances of one class only ({only}): expected two or more classes."
        raise ValueError(msg)


def build_objective(
    objective: Part,
    labels: tuple[str, ...],
    dimensions: tuple[str, ...],
    *,
    dimension_loss: Part,
    dimension_weight: float,
    class_loss: Part,
    raters: tuple[str, ...],
    **of_classes: Any,
) -> Objective:
    """The objective of this name or import path; a stranger's is made from labels and dimensions.

    `of_classes` are further options of `Classes`.
    """
    check_range("label_smoothing", of_classes["label_smoothing"], 0, 1)
    if learns_raters(objective):
        named = {"annotators": Annotators}
        of_raters: Objective = build_part(
            "objective", objective, named, Objective, dimensions=dimensions, raters=raters
        )
        return of_raters
    if _needs(objective) == (None, None):
        made: Objective = build_part(
            "objective", objective, {}, Objective, labels=labels, dimensions=dimensions
        )
        return made
    if not labels:
        return Dimensions(dimensions, loss=dimension_loss)
    classes = Classes(labels, loss=class_loss, **of_classes)
    if not dimensions:
        return classes
    return ClassesAndDimensions(classes, Dimensions(dimensions, loss=dimension_loss), dimension_weight)


def _needs(objective: Part) -> tuple[bool | None, bool | None]:
    """Whether an objective needs classes, and dimensions; None where it takes what there is."""
    plain = as_plain("objective", objective)
    if isinstance(plain, str) and plain in NEEDS:
        return NEEDS[plain]
    path, _ = chosen_path("objective", plain, NEEDS)
    return NEEDS["annotators"] if path == ANNOTATORS else (None, None)


def learns_raters(objective: Part | None) -> bool:
    """Whether an objective, by its name or its import path, is ours that learns single raters."""
    plain = as_plain("objective", objective)
    return (plain.get("class_path") if isinstance(plain, Mapping) else plain) in {"annotators", ANNOTATORS}


def check_trained(trained: Mapping[str, Any], mine: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses the record of a checkpoint that predicts other names, of each kind, than mine."""
    for what, names in mine.items():
        theirs = tuple(trained.get(what, names))
        if theirs != names:
            hint = _meeting(names, theirs) if what == "labels" else ""
            msg = (
                f"the checkpoint was trained on the {what} {', '.join(theirs) or 'none'}, in this order; "
                f"here they are {', '.join(names) or 'none'}: {hint}choose the same for the corpus, and the "
                "options it was trained with."
            )
            raise ValueError(msg)


def _meeting(names: Sequence[str], theirs: Sequence[str]) -> str:
    """How classes may become those of a checkpoint, as the start of advice; empty where they may not."""
    found = towards(names, theirs)
    if found is None:
        return ""
    renamed, lacking = found
    ways = [f"give --data.label_map '{map_words(renamed)}'"] if renamed else []
    if lacking:
        ways.append(f"name {listed(lacking, 'and')} among --data.classes, where a table or Folder is tested")
    return f"{' and '.join(ways)}; else " if ways else ""


def introduce(model: Any, raters: Sequence[str] | None, *, learning: bool) -> None:
    """Tells the objective of a recognizer of a corpus' raters, and where it is to begin."""
    if model.objective.uses_ratings:
        model.objective.meet(raters, learning=learning)
    if learning and model.objective.starts_warm:
        start_warm(model.objective, model.head, model.encoder.identity.source)


def start_warm(objective: Objective, head: nn.Module, source: str) -> None:
    """Begins with the head and the consensus in the checkpoint that the encoder comes from."""
    state = read_checkpoint(source)["state_dict"] if source.endswith(".ckpt") else {}
    parts = {
        part: {name.removeprefix(f"{part}."): each for name, each in state.items() if name.startswith(part)}
        for part in ("head", "objective")
    }
    if not any(name.startswith("model.consensus.") for name in parts["objective"]):
        msg = (
            f"warm_start begins with a consensus that was learned before, and {source} has none: give as "
            "encoder a checkpoint of an objective with predicts consensus."
        )
        raise ValueError(msg)
    try:
        head.load_state_dict(parts["head"])
        objective.take_consensus(parts["objective"])
    except RuntimeError as error:
        msg = f"warm_start: the head of {source} is of another shape: give the options it was trained with."
        raise ValueError(msg) from error
