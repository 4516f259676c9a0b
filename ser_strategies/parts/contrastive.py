"""The pre-training objective of wav2vec 2.0: the quantised frame behind a mask, told from others.

Baevski et al. (2020), with the numbers and the parameters' names of transformers' `Wav2Vec2ForPreTraining`,
so that its checkpoints load as they are. Unlike there, nothing is computed for frames that are not masked,
and a padded batch gives what its clips give without padding.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_strategies.common.errors import check_choice
from ser_strategies.parts.sharing import shared_count, shared_sum


class Quantised(NamedTuple):
    """Quantised frames."""

    vectors: Tensor  # the chosen code vectors, groups side by side, (batch, frames, code_size)
    codes: Tensor  # the chosen entry of each group, (batch, frames, groups)
    perplexity: Tensor  # entries in use, summed over the groups: `groups` to `groups * entries`
    usage: Tensor  # choices of each entry in the frames that count, (groups, entries)


class GumbelQuantiser(nn.Module):
    """Product quantisation: each group picks an entry of its codebook, and their vectors stand side by side.

    In training the pick is drawn from the global generator (Gumbel softmax, straight-through); in evaluation
    it is the likeliest entry. Parameters are called, shaped and initialised as in transformers'
    `Wav2Vec2GumbelVectorQuantizer`. `code_size` is the size of the vectors of all groups together.
    """

    def __init__(self, input_size: int, *, groups: int = 2, entries: int = 320, code_size: int = 256) -> None:
        super().__init__()
        if code_size % groups:
            msg = f"code_size must be a multiple of groups, got {code_size} and {groups}."
            raise ValueError(msg)
        self.groups = groups
        self.entries = entries
        self.temperature = 2.0  # follows `gumbel_temperature` in training
        self.codevectors = nn.Parameter(torch.rand(1, groups * entries, code_size // groups))
        self.weight_proj = nn.Linear(input_size, groups * entries)
        # With torch's own, smaller, draw all entries would be about equally likely whatever the frame.
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)

    def forward(self, features: Tensor, mask: Tensor) -> Quantised:
        """Quantises frames (batch, frames, size), in float32 (or float64 if given).

        Only frames where the mask (batch, frames) is True count for the perplexity: in training that of their
        mean distribution without the noise, which has a gradient; in evaluation that of the picks.
        """
        logits = self.weight_proj(features).unflatten(-1, (self.groups, self.entries))
        with torch.autocast(features.device.type, enabled=False):
            logits = wide(logits)
            if self.training:
                picks = F.gumbel_softmax(logits, tau=self.temperature, hard=True)
                distribution = logits.softmax(dim=-1)
            else:
                picks = distribution = F.one_hot(logits.argmax(dim=-1), self.entries).to(logits.dtype)
            codebooks = self.codevectors.to(logits.dtype).view(self.groups, self.entries, -1)
            vectors = torch.einsum("btgv,gvd->btgd", picks, codebooks).flatten(2)
            usage = (picks.detach() * mask[:, :, None, None]).sum(dim=(0, 1))
            perplexity = _perplexity(distribution, mask, shared=self.training)
            return Quantised(vectors, picks.argmax(dim=-1), perplexity, usage)


def gumbel_temperature(step: int, *, start: float = 2.0, end: float = 0.5, decay: float = 0.999995) -> float:
    """Temperature of the quantiser's draw after so many steps: a factor less each step, down to `end`."""
    return float(max(start * decay**step, end))


def _perplexity(distribution: Tensor, mask: Tensor, *, shared: bool) -> Tensor:
    """Exponential of the entropy of the mean distribution of the frames in the mask, summed over groups.

    In training the frames of all processes count.
    """
    count = (shared_count(mask.sum()) if shared else mask.sum()).clamp(min=1)
    summed = (distribution * (mask.to(distribution.dtype) / count)[:, :, None, None]).sum(dim=(0, 1))
    mean = shared_sum(summed) if shared else summed
    return perplexity_of(mean)


def perplexity_of(mean: Tensor) -> Tensor:
    """Entries in use, summed over groups, from the mean distribution of each, (groups, entries)."""
    # The slope of x log x is infinite at zero, which an entry far from every frame reaches.
    entropy = -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum(dim=-1)
    return entropy.exp().sum()


def wide(values: Tensor) -> Tensor:
    """Values in float32, or in float64 if they are that already."""
    return values if values.dtype == torch.float64 else values.float()


DiversityScaling = Literal["mean", "per_frame", "once"]


class ContrastiveLoss(NamedTuple):
    """The loss of a batch, `contrastive + diversity_weight * diversity`, and counts of its frames."""

    loss: Tensor  # 0, with a graph, where no frame can be scored
    contrastive: Tensor  # cross-entropy of the true frame among the negatives, scaled as the loss
    diversity: Tensor  # share of the codebooks that is not in use, scaled as the loss
    accuracy: Tensor  # share of frames nearer to their true frame than to every negative with another code
    perplexity: Tensor  # entries of the codebooks in use, summed over the groups
    masked_frames: Tensor  # frames that were scored
    left_out: Tensor  # masked frames that were not, having no other in their clip to be told from
    cross_entropy: Tensor  # sum over the frames of this process
    hits: Tensor  # those nearer to their true frame than to every negative with another code
    usage: Tensor  # choices of each entry, (groups, entries)


class ContrastiveObjective(nn.Module):
    """Tells the quantised frame behind a mask from those behind the other masks of its clip.

    As in transformers, and unlike in fairseq, the CNN's output is not penalised for its size.

    Args:
        hidden_size: Size of the encoder's frames.
        features_size: Size of the CNN's frames.
        groups: Codebooks of the quantiser.
        entries: Entries of each codebook.
        code_size: Size of a quantised frame.
        projected_size: Size of the space in which both sides are compared.
        temperature: Cosines are divided by it.
        diversity_weight: Weight of the diversity term.
        scaling: How n frames add up. "mean": mean cross-entropy + weight * diversity; "per_frame": n times
            that, as in transformers today; "once": summed cross-entropy + weight * diversity, as in
            transformers 4.10 and so in Chen and Rudnicky's code, where diversity hardly counts.
        feature_dropout: Dropout on the CNN's frames before they are quantised.
    """

    def __init__(
        self,
        hidden_size: int,
        features_size: int,
        *,
        groups: int = 2,
        entries: int = 320,
        code_size: int = 256,
        projected_size: int = 256,
        temperature: float = 0.1,
        diversity_weight: float = 0.1,
        scaling: DiversityScaling = "mean",
        feature_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("scaling", scaling, DiversityScaling)
        self.temperature = temperature
        self.diversity_weight = diversity_weight
        self.scaling = scaling
        self.dropout = nn.Dropout(feature_dropout)
        # These three are called as in transformers, so that the weights of its checkpoints load by name.
        self.quantizer = GumbelQuantiser(features_size, groups=groups, entries=entries, code_size=code_size)
        self.project_hid = nn.Linear(hidden_size, projected_size)
        self.project_q = nn.Linear(code_size, projected_size)

    def forward(
        self, hidden: Tensor, features: Tensor, mask: Tensor, masked: Tensor, negatives: Tensor
    ) -> ContrastiveLoss:
        """Loss of a padded batch; frames that are padding or not masked do not count, whatever they hold.

        `hidden` (batch, frames, hidden_size) is the encoder's output, `features` (batch, frames,
        features_size) are the CNN's frames after their norm, never masked. `mask` is True where a frame is
        valid, `masked` where the encoder saw the mask vector; `negatives` are drawn for `masked & mask`.
        """
        masked = masked & mask
        counts, rows = masked.sum(1), negatives.shape[1]
        # Asking a CUDA tensor would stall the queue, so only the CPU checks.
        if counts.device.type == "cpu" and rows != (most := int(counts.max())):
            msg = f"negatives must have {most} rows, got {rows}: draw them for `masked & mask`."
            raise ValueError(msg)
        scored = (torch.arange(rows, device=counts.device) < counts.unsqueeze(1)) & (counts > 1).unsqueeze(1)
        # The masked frames of each clip, first to last; what fills up is not scored.
        places = (~masked).byte().argsort(dim=1, stable=True)[:, :rows]
        quantised = self.quantizer(self.dropout(_taken(features, places, scored)), scored)
        targets = self.project_q(quantised.vectors.to(self.project_q.weight.dtype))
        predictions = self.project_hid(_taken(hidden, places, scored))
        with torch.autocast(hidden.device.type, enabled=False):
            positive, rivals = _similarities(predictions, targets, quantised.codes, negatives)
            logits = torch.cat([positive.unsqueeze(2), rivals], dim=2) / self.temperature
            losses = (logits.logsumexp(dim=2) - logits[:, :, 0]).masked_fill(~scored, 0.0)
            best = rivals.amax(dim=2)
            # A frame whose negatives all have its own code was told from nothing.
            hits = (positive > best) & (best > -torch.inf) & scored
            left_out = (counts == 1).sum()
            return self._add_up(losses.sum(), hits.sum(), quantised, scored.sum(), left_out)

    def _add_up(
        self, cross_entropy: Tensor, hits: Tensor, quantised: Quantised, own: Tensor, left_out: Tensor
    ) -> ContrastiveLoss:
        # Processes that evaluate may have unlike numbers of batches, so only those that train wait here.
        total = shared_sum(cross_entropy) if self.training else cross_entropy
        scored = shared_count(own) if self.training else own
        perplexity = quantised.perplexity
        contrastive = total / scored.clamp(min=1) if self.scaling == "mean" else total
        unused = 1 - perplexity / (self.quantizer.groups * self.quantizer.entries)
        diversity = unused * (scored if self.scaling == "per_frame" else scored.clamp(max=1))
        loss = contrastive + self.diversity_weight * diversity
        accuracy = hits / own.clamp(min=1)
        return ContrastiveLoss(
            loss,
            contrastive,
            diversity,
            accuracy,
            perplexity,
            own,
            left_out,
            cross_entropy.detach(),
            hits,
            quantised.usage,
        )


def sample_negatives(masked: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws the negatives of each masked and valid frame: other masked frames of its clip, with replacement.

    The result is (batch, rows, count), with as many rows as any clip has masked frames. Row r belongs to a
    clip's r-th masked frame, and its numbers say which masked frames of the clip, counted from 0, are its
    negatives. Rows past a clip's last masked frame, and the row of an only one, mean nothing. The generator
    may be on any device.
    """
    if count < 1:
        msg = f"negatives must be at least 1, got {count}."
        raise ValueError(msg)
    counts = masked.sum(1)
    rows = int(counts.max())
    device = masked.device if generator is None else generator.device
    uniform = torch.rand(len(masked), rows, count, generator=generator, device=device).to(masked.device)
    numbers = (uniform * (counts - 1).clamp(min=0)[:, None, None]).long()
    # The n - 1 others are numbered without a gap: from the frame itself on, they are one further.
    numbers += numbers >= torch.arange(rows, device=masked.device).unsqueeze(1)
    return numbers.clamp_(max=rows - 1)  # an only one has no other


def mask_probability(starts: float, length: int) -> float:
    """The `mask_time_probability` at which a span of masked frames starts at the given share of frames.

    Three numbers go by the name of mask probability. With spans of L frames:

    - The paper's, 0.065, is the share of frames at which a span starts.
    - fairseq's `mask_prob`, transformers' `mask_time_prob` and our `mask_time_probability` are one number p:
      a clip of n frames gets p n / L spans, so p is what share of frames would be masked if no spans
      overlapped. fairseq's help calls it the probability of a start, but its code divides by L. The paper's
      0.065 is their 0.65.
    - The share that really is masked, with overlaps, is about 1 - (1 - p / L) ** L: 49 % at 0.65.

    With the same p fairseq masks a little less: it un-masks frames at random until all clips of a batch have
    as few as the one with fewest.
    """
    return starts * length


def _similarities(
    predictions: Tensor, targets: Tensor, codes: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Cosines of predictions with their targets and their negatives, -inf for one with the target's code."""
    # All pairs of a clip in one product: the vectors of all negatives would take many times the memory.
    predictions = F.normalize(wide(predictions), dim=-1)
    cosines = predictions @ F.normalize(wide(targets), dim=-1).transpose(1, 2)
    same = (codes.unsqueeze(2) == codes.unsqueeze(1)).all(dim=-1)
    return cosines.diagonal(dim1=1, dim2=2), cosines.masked_fill(same, -torch.inf).gather(2, negatives)


def _taken(values: Tensor, places: Tensor, keep: Tensor) -> Tensor:
    """The frames at these places, (batch, rows, size), and zeros where they are not to be kept."""
    taken = values.gather(1, places.unsqueeze(2).expand(-1, -1, values.shape[2]))
    # Filling, because infinity or NaN in the padding times zero would still be NaN.
    return taken.masked_fill(~keep.unsqueeze(2), 0.0)
