"""Conditioned: a strategy that may be told more of an utterance than its sound."""

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple, Unpack, get_args

from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.cache.sentences import SentenceVectors
from ser_strategies.common.errors import check_choice, check_range
from ser_strategies.encoder.checkpoints import RECORD
from ser_strategies.encoder.sentences import SentenceEncoder, TextPooling
from ser_strategies.parts.conditions import (
    UNKNOWN,
    Condition,
    Conditions,
    GenderAtTest,
    GenderEnters,
    Known,
    Told,
    gender_codes,
)
from ser_strategies.strategies.base import Strategy
from ser_strategies.strategies.counting import Sums
from ser_strategies.strategies.options import StrategyOptions

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
PEOPLE = {"source": "the batches", "by": "people"}


class Row(NamedTuple):
    """Another way to test the same model: with a condition dropped, or told otherwise."""

    name: str
    told: Told


class Conditioned(Strategy):
    """What is known of each utterance beside its sound may be told to the model: gender, and text.

    Args:
        encoder: Where to start: a hub id, a folder, a checkpoint of an earlier stage, or `random:<size>`.
        conditions: What the model is told beside the sound: "gender" of the speaker, "text" that is said.
        conditions_withheld: Share of training utterances from which each condition is withheld, so that the
            model can be used where nobody knows.
        gender_enters: How the gender enters: its embedding "joined" to the pooled vector, or as its scale
            and shift ("film").
        gender_size: Numbers in the embedding of a gender that is joined.
        gender_weight: How much the head that predicts the gender, which always trains along, moves the
            encoder and pooling too; 0 trains that head alone.
        gender_at_test: Which gender is told outside training: that "predicted" from the sound, the true one
            as "given" by the corpus, which is an oracle and brands the result, or "unknown".
        text_encoder: What turns texts into vectors, frozen: a hub id, a folder in transformers' format, or
            `random:bert-tiny`. The condition text needs one.
        text_revision: Branch, tag or commit of that hub id.
        text_pooling: Which of its last hidden states is taken: their "mean", or the "first".
        text_size: Numbers that a text is projected to before it is joined to the pooled vector.
    """

    def __init__(
        self,
        encoder: str,
        *,
        conditions: tuple[Condition, ...] = (),
        conditions_withheld: float = 0.2,
        gender_enters: GenderEnters = "joined",
        gender_size: int = 16,
        gender_weight: float = 0.1,
        gender_at_test: GenderAtTest = "predicted",
        text_encoder: str | None = None,
        text_revision: str | None = None,
        text_pooling: TextPooling = "mean",
        text_size: int = 64,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(encoder, **options)
        for condition in conditions:
            check_choice("conditions", condition, Condition)
        check_choice("gender_enters", gender_enters, GenderEnters)
        check_choice("gender_at_test", gender_at_test, GenderAtTest)
        check_range("conditions_withheld", conditions_withheld, 0, 1)
        check_range("gender_weight", gender_weight, 0)
        for option, size in {"gender_size": gender_size, "text_size": text_size}.items():
            check_range(option, size, 1)
        self.conditions = tuple(name for name in get_args(Condition) if name in conditions)
        self.sentences: SentenceVectors | None = None
        if "text" in self.conditions:
            if not text_encoder:
                msg = "the condition text needs --model.text_encoder: a hub id, a folder or random:bert-tiny."
                raise ValueError(msg)
            self.sentences = SentenceVectors(SentenceEncoder(text_encoder, text_revision, text_pooling))
        told: GenderAtTest = gender_at_test if "gender" in self.conditions else "unknown"
        self.told = Told(told, text="text" in self.conditions)
        self.gender_sums = Sums(("right", "known")) if "gender" in self.conditions else None
        self.conditioning: Conditions | None = None
        self._conditioned: dict[str, Any] = {
            "gender": "gender" in self.conditions,
            "enters": gender_enters,
            "gender_size": gender_size,
            "gender_weight": gender_weight,
            "text_width": self.sentences.width if self.sentences else None,
            "text_size": text_size,
            "withheld": conditions_withheld,
        }
        self._known: dict[str, dict[str, float]] = {}  # by split: the share of which each condition is known
        self._texts: Mapping[str, str] = PEOPLE

    def condition(self, size: int) -> int:
        """Builds what joins the conditions to pooled vectors of this size; gives the size of what comes."""
        if not self.conditions:
            return size
        self.conditioning = Conditions(size, **self._conditioned)
        return self.conditioning.size

    def with_conditions(self, pooled: Tensor, known: Known, told: Told | None = None) -> Tensor:
        """The pooled vectors with what is known of each; outside training only what is told of it."""
        if self.conditioning is None:
            return pooled
        joined: Tensor = self.conditioning(pooled, known, told or self.told)
        return joined

    def gender_loss(self, pooled: Tensor, known: Known, stage: str | None) -> Tensor | float:
        """The loss of the head that predicts the gender; counts its hits, if a stage is named."""
        if self.conditioning is None or self.gender_sums is None:
            return 0.0
        logits = self.conditioning.gender_logits(pooled)
        if stage is not None and known.genders is not None:
            there = known.genders != UNKNOWN
            right = there & (logits.argmax(-1) == known.genders)
            self.gender_sums.add(stage, {"right": right.sum().float(), "known": there.sum().float()})
        return self.conditioning.gender_loss(logits, known.genders)

    def gender_scores(self, stage: str) -> dict[str, Tensor]:
        """How often the gender was predicted rightly, where it was known of any utterance."""
        if self.gender_sums is None:
            return {}
        sums = self.gender_sums.read(stage)
        return {f"{stage}/gender_accuracy": sums["right"] / sums["known"]} if sums["known"] else {}

    def rows(self) -> list[Row]:
        """Other ways to test the model: without each condition, and with genders from each other source."""
        genders = get_args(GenderAtTest) if "gender" in self.conditions else ("unknown",)
        texts = (True, False) if "text" in self.conditions else (False,)
        every = [Told(*each) for each in product(genders, texts)]
        return [Row(_words(told, self.conditions), told) for told in every if told != self.told]

    # What is known --------------------------------------------------------------------------------------

    def looked_up(self, batch: Batch) -> Batch:
        """The batch with what is known as tensors, while it is on the CPU."""
        if "gender" in self.conditions and batch.genders is not None and batch.gender_codes is None:
            batch = batch._replace(gender_codes=gender_codes(batch.genders))
        if self.sentences is not None and batch.texts is not None and batch.sentences is None:
            batch = batch._replace(sentences=self.sentences.look_up(batch.texts))
        return batch

    def check_known(self, batch: Batch) -> None:
        """Refuses to train on batches that know nothing of a condition, of whatever loader they are."""
        lacks = {"gender": batch.genders, "text": batch.texts}
        for condition in self.conditions:
            if lacks[condition] is None:
                msg = f"the condition {condition} needs batches with {condition}s, and these have none."
                raise ValueError(msg)

    def known_of(self, batch: Batch) -> Known:
        """What is known of a batch, where its sound is."""
        if not self.conditions:
            return Known()
        batch = self.looked_up(batch)
        device = batch.lengths.device
        found = (batch.gender_codes, batch.sentences)
        return Known(*(None if each is None else each.to(device) for each in found))

    def setup(self, stage: str) -> None:
        """Refuses a corpus that knows nothing of what it is to be conditioned on."""
        super().setup(stage)
        corpus: Any = getattr(self.trainer, "datamodule", None)
        if not self.conditions or not hasattr(corpus, "split"):
            return
        for name in SPLITS[stage]:
            rows = corpus.split(name)
            self._known[name] = {each: _share_known(rows, each) for each in self.conditions}
            for condition, share in self._known[name].items():
                if stage == "fit" and share == 0 and len(rows):
                    msg = (
                        f"no {name} utterance of {type(corpus).__name__} has a {condition}, which "
                        f"--model.conditions asks for: leave it out, or take a corpus that has it."
                    )
                    raise ValueError(msg)
        self._texts = self._ask_datamodule("text_source") or PEOPLE
        if stage != "fit":
            self._store_texts(SPLITS[stage])

    def on_fit_start(self) -> None:
        """Stores the vectors of all texts."""
        super().on_fit_start()
        if self.sentences is not None:
            with self.preparation.timed():
                self._store_texts(SPLITS["fit"])

    def _store_texts(self, splits: tuple[str, ...]) -> None:
        corpus: Any = getattr(self.trainer, "datamodule", None)
        if self.sentences is None or not hasattr(corpus, "split"):
            return
        texts = {text for name in splits for text in corpus.split(name)["text"].dropna()}
        self.sentences.prepare(texts, self.trainer)

    # What a result says ---------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """The facts of `Strategy.record`, and the encoder of text."""
        facts = super().record()
        return (
            facts if self.sentences is None else facts | {"text_encoder": self.sentences.encoder.identity()}
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers with which encoder of text the checkpoint was trained; it is read when it is needed."""
        super().on_load_checkpoint(checkpoint)
        recorded = checkpoint[RECORD].get("text_encoder")
        if self.sentences is not None and recorded is not None:
            self.sentences.expected = recorded["fingerprint"]

    def conditions_told(self, split: str) -> dict[str, Any]:
        """What the model was told of the utterances of a split, as plain data; empty without conditions."""
        known = self._known.get(split, {})
        facts: dict[str, dict[str, Any]] = {each: {"known": known.get(each)} for each in self.conditions}
        if "gender" in facts:
            facts["gender"]["at_test"] = self.told.gender
        if self.sentences is not None:
            facts["text"] |= {"encoder": self.sentences.encoder.identity(), **self._texts}
        return facts

    def oracles(self, split: str) -> list[str]:
        """Brands of a result: what the model was told that a machine alone would not know."""
        known, brands = self._known.get(split, {}), []
        if "gender" in self.conditions and self.told.gender == "given" and known.get("gender", 1):
            brands.append("the model is told the true gender of who speaks: an oracle")
        if "text" in self.conditions and self._texts["by"] == "people" and known.get("text", 1):
            brands.append("the model is told what people wrote down of what is said: an oracle")
        return brands

    def notes(self, split: str) -> list[str]:
        """What a reader of the results of a split must know, in a sentence each: oracles, and unknowns."""
        known = self._known.get(split, {})
        said = self.oracles(split)
        if known.get("gender") == 0 and self.told.gender != "predicted":
            said.append("nobody's gender is known, so that all count as unknown")
        if known.get("text") == 0:
            said.append("no text is known, so that the model goes by the sound alone")
        return said

    def _ask_datamodule(self, what: str) -> Any:
        """`what` of the trainer's datamodule, which may be anybody's; None where it has no such thing."""
        datamodule = getattr(self.trainer, "datamodule", None)
        answer = getattr(datamodule, what, None)
        return answer() if callable(answer) else answer


def _share_known(rows: Any, condition: Condition) -> float:
    column = rows[condition].fillna("")
    known = column.str.strip() != ""
    return float(known.mean()) if len(rows) else 0.0


def _words(told: Told, conditions: tuple[Condition, ...]) -> str:
    words = [f"gender {told.gender}"] if "gender" in conditions else []
    words += [("with" if told.text else "without") + " text"] if "text" in conditions else []
    return ", ".join(words)
