"""Conditions: what is known of an utterance beside its sound, its speaker's gender and what is said."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Condition = Literal["gender", "text"]
GenderAtTest = Literal["given", "unknown", "predicted"]
GenderEnters = Literal["joined", "film"]
FEMALE, MALE, UNKNOWN = 0, 1, 2
GENDERS = {"female": FEMALE, "male": MALE, "unknown": UNKNOWN}


class Known(NamedTuple):
    """What is known of each utterance of a batch; None where nothing is known of any."""

    genders: Tensor | None = None  # 0 female, 1 male, 2 unknown, (batch,)
    sentences: Tensor | None = None  # a vector of what is said, (batch, width), of NaN where that is unknown


class Told(NamedTuple):
    """What a model is told of what is known, once it has been trained."""

    gender: GenderAtTest = "unknown"
    text: bool = False


def gender_codes(genders: tuple[str, ...]) -> Tensor:
    """Numbers of genders, by their words in a batch; ValueError for a word that is none of them."""
    strange = [gender for gender in genders if gender not in GENDERS]
    if strange:
        msg = f"a gender must be one of {', '.join(GENDERS)}, got {strange[0]!r}: correct it, or say unknown."
        raise ValueError(msg)
    return torch.tensor([GENDERS[gender] for gender in genders])


class Conditions(nn.Module):
    """Joins what is known of an utterance to its pooled vector.

    In training each condition is withheld from a share of the utterances, so that the model also learns what
    to do where it is unknown. Whoever trains seeds torch's generator at each step; the draws come from it.

    Args:
        size: Numbers in a pooled vector.
        gender: Whether the gender is a condition.
        enters: Whether its embedding is joined to the vector, or scales and shifts it (FiLM).
        gender_size: Numbers in the embedding of a gender that is joined.
        gender_weight: How much of its gradient the gender head hands on to the vector, and to the encoder.
        text_width: Numbers in the vector of a text; None where the text is no condition.
        text_size: Numbers that a text is projected to.
        withheld: Share of training utterances from which each condition is withheld.
    """

    def __init__(
        self,
        size: int,
        *,
        gender: bool = False,
        enters: GenderEnters = "joined",
        gender_size: int = 16,
        gender_weight: float = 0.1,
        text_width: int | None = None,
        text_size: int = 64,
        withheld: float = 0.2,
    ) -> None:
        super().__init__()
        self.size = size
        self.gender_weight, self.withheld = gender_weight, withheld
        self.gender: nn.Embedding | None = None
        self.film = gender and enters == "film"
        if gender:
            # Scales of one and shifts of nought at first.
            self.gender = nn.Embedding(len(GENDERS), 2 * size if self.film else gender_size)
            if self.film:
                nn.init.zeros_(self.gender.weight)
            self.gender_head = nn.Linear(size, 2)
            self.size += 0 if self.film else gender_size
        self.project: nn.Linear | None = None
        if text_width is not None:
            self.project = nn.Linear(text_width, text_size)
            self.no_text = nn.Parameter(torch.zeros(text_size))
            self.size += text_size

    def forward(self, pooled: Tensor, known: Known, told: Told) -> Tensor:
        """The pooled vectors (batch, size) with what is known of each, (batch, self.size).

        In training everything that is known is told, but for what is withheld; else what `told` says.
        """
        with torch.autocast(pooled.device.type, enabled=False):
            kept = self._kept(len(pooled), pooled.device)
            vectors = [pooled]
            if self.gender is not None:
                entered = self.gender(self._genders(pooled, known, told, kept[0])).to(pooled.dtype)
                scale, shift = entered.chunk(2, -1)
                vectors = [(1 + scale) * pooled + shift] if self.film else [pooled, entered]
            if self.project is not None:
                vectors.append(self._texts(pooled, known, told, kept[1]))
            return torch.cat(vectors, -1)

    def gender_logits(self, pooled: Tensor) -> Tensor:
        """How much each pooled vector sounds female and male, (batch, 2)."""
        with torch.autocast(pooled.device.type, enabled=False):
            share, head = self.gender_weight, self.gender_head
            logits: Tensor = head((share * pooled + (1 - share) * pooled.detach()).to(head.weight.dtype))
        return logits

    def gender_loss(self, logits: Tensor, genders: Tensor | None) -> Tensor:
        """Cross-entropy of the gender head over the utterances whose gender is known; nought without any."""
        if genders is None:
            return 0.0 * logits.sum()
        known = genders != UNKNOWN
        losses = F.cross_entropy(logits, genders.clamp(max=MALE), reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1)

    def _kept(self, batch: int, device: torch.device) -> Tensor:
        """Which utterances each condition is told of, (2, batch)."""
        if not self.training or self.withheld == 0:
            return torch.ones(2, batch, dtype=torch.bool, device=device)
        return (torch.rand(2, batch) >= self.withheld).to(device)

    def _genders(self, pooled: Tensor, known: Known, told: Told, kept: Tensor) -> Tensor:
        if not self.training and told.gender == "predicted":
            return self.gender_logits(pooled).argmax(-1)
        unknown = torch.full((len(pooled),), UNKNOWN, device=pooled.device)
        if known.genders is None or not (self.training or told.gender == "given"):
            return unknown
        return torch.where(kept, known.genders, unknown)

    def _texts(self, pooled: Tensor, known: Known, told: Told, kept: Tensor) -> Tensor:
        assert self.project is not None
        nothing = self.no_text.to(pooled.dtype).expand(len(pooled), -1)
        if known.sentences is None or not (self.training or told.text):
            return nothing + 0.0 * sum(each.sum() for each in self.project.parameters())
        sentences = known.sentences.to(self.project.weight.dtype)
        there = sentences.isfinite().all(-1, keepdim=True)
        # Texts of every encoder come at the same scale; where there is none, no number may be NaN.
        level = F.layer_norm(sentences.masked_fill(~there, 0.0), sentences.shape[-1:])
        projected = self.project(level).to(pooled.dtype)
        return torch.where(there & kept.unsqueeze(-1), projected, nothing)
