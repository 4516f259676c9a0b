"""Task-adaptive pre-training: the encoder's own pre-training goes on, on the speech of the task."""

from typing import Literal, Unpack, final

from torch import Tensor

from ser_strategies.cache.spectrum_targets import SpectrumSource
from ser_strategies.common.errors import check_choice, check_range
from ser_strategies.encoder import Encoder, load_quantiser, train_mask_vector
from ser_strategies.parts.adaptation import Contrast, SpectrumPrediction, UnitPrediction
from ser_strategies.parts.contrastive import ContrastiveObjective, DiversityScaling
from ser_strategies.strategies.options import PretrainingOptions
from ser_strategies.strategies.pretraining import Pretraining
from ser_strategies.units.source import UnitSource

AdaptationName = Literal["own", "contrastive", "units", "spectrum"]
UnitsOfName = Literal["encoder", "mfcc", "mel-pitch"]


@final
class TAPT(Pretraining):
    """Goes on with the encoder's own pre-training, on the train split, without its labels.

    wav2vec2 tells the quantised frame behind a mask from others of its clip. WavLM and HuBERT were not
    pre-trained so: they name the k-means unit of their own frame behind the mask. Fine-tune from the result.

    Chen and Rudnicky, Exploring Wav2vec 2.0 fine-tuning for improved speech emotion recognition (2023).

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        objective: What is learnt; "own" is contrastive for wav2vec2 and units for WavLM and HuBERT;
            "spectrum" is for encoders that know nothing yet: mel bands and pitch of every frame.
        seen_weight: Weight of the frames that are not masked where the spectrum is learnt.
        fresh_quantiser: Draw the quantiser and the projections of the contrastive loss anew, where the
            checkpoint does not have them.
        negatives: Frames from which a masked frame is told.
        diversity: How the diversity term adds up with n frames: "mean", of both; "per_frame", n times that,
            as in transformers today; "once", against the sum of n cross-entropies, as in the authors' code.
        diversity_weight: Weight of the diversity term; null takes that of the checkpoint.
        gumbel_start: Temperature of the quantiser's draw at first; the authors keep 1.
        gumbel_end: Temperature at last.
        gumbel_decay: Factor of the temperature at each step.
        units_of: What is clustered into units: the frames of the encoder as it starts; "mfcc", cepstra and
            their slopes, as for HuBERT before it knew anything; or "mel-pitch", log mel bands and pitch,
            which keep loudness and melody.
        units_layer: Block whose outputs are clustered, counted from 1; null takes the last.
        clusters: Units in each clustering.
        kmeans_passes: Most passes of k-means.
        mask_time_probability: About the fraction of frames masked, before overlaps: transformers' meaning.
            wav2vec2 was pre-trained with 0.65; the authors adapt it with 0.05.
        mask_time_length: Frames of one masked span.
        mask_time_minimum: Masked spans that a clip gets at least, if they fit.
    """

    def __init__(
        self,
        encoder: str,
        *,
        objective: AdaptationName = "own",
        seen_weight: float = 0.5,
        fresh_quantiser: bool = False,
        negatives: int = 100,
        diversity: DiversityScaling = "mean",
        diversity_weight: float | None = None,
        gumbel_start: float = 1.0,
        gumbel_end: float = 0.5,
        gumbel_decay: float = 0.999995,
        units_of: UnitsOfName = "encoder",
        units_layer: int | None = None,
        clusters: tuple[int, ...] = (512,),
        kmeans_passes: int = 20,
        mask_time_probability: float = 0.05,
        mask_time_length: int = 10,
        mask_time_minimum: int = 2,
        **options: Unpack[PretrainingOptions],
    ) -> None:
        super().__init__(
            encoder,
            mask_time_probability=mask_time_probability,
            mask_time_length=mask_time_length,
            mask_time_minimum=mask_time_minimum,
            **options,
        )
        check_choice("objective", objective, AdaptationName)
        check_choice("diversity", diversity, DiversityScaling)
        check_choice("units_of", units_of, UnitsOfName)
        check_range("seen_weight", seen_weight, 0)
        check_range("negatives", negatives, 1)
        check_range("diversity_weight", diversity_weight or 0.0, 0)
        check_range("gumbel_end", gumbel_end, 1e-3)
        check_range("gumbel_start", gumbel_start, gumbel_end)
        if not 0 < gumbel_decay <= 1:
            raise ValueError(f"gumbel_decay must be above 0 and at most 1, got {gumbel_decay}.")
        check_range("kmeans_passes", kmeans_passes, 1)
        train_mask_vector(self.encoder)
        family = self.encoder.identity.family
        objective = ("contrastive" if family == "wav2vec2" else "units") if objective == "own" else objective
        if objective == "units":
            spectrum = None if units_of == "encoder" else units_of
            source = UnitSource(None, units_layer, tuple(clusters), kmeans_passes, spectrum=spectrum)
            source.check_clusters()
            source.check_layer(self.encoder)
            self.learn(UnitPrediction(self.encoder.size, tuple(clusters)), source)
            return
        if objective == "spectrum":
            self._learn_spectrum(seen_weight)
            return
        if family != "wav2vec2":
            msg = f"{encoder} is of the family {family}, which has no contrastive pre-training: use 'units'."
            raise ValueError(msg)
        loss = _contrastive(self.encoder, diversity, diversity_weight)
        if not fresh_quantiser:
            _load(loss, load_quantiser(encoder, self.encoder.identity.revision), encoder)
        self.learn(Contrast(loss, negatives=negatives, gumbel=(gumbel_start, gumbel_end, gumbel_decay)))

    def _learn_spectrum(self, seen_weight: float) -> None:
        targets = SpectrumSource("mel-pitch")
        features = targets.shape(self.encoder)[0]
        adaptation = SpectrumPrediction(self.encoder.size, features, seen_weight=seen_weight)
        self.learn(adaptation, targets=targets)


def _contrastive(
    encoder: Encoder, scaling: DiversityScaling, diversity_weight: float | None
) -> ContrastiveObjective:
    config = encoder.model.config
    return ContrastiveObjective(
        encoder.size,
        encoder.cnn_size,
        groups=config.num_codevector_groups,
        entries=config.num_codevectors_per_group,
        code_size=config.codevector_dim,
        projected_size=config.proj_codevector_dim,
        temperature=config.contrastive_logits_temperature,
        diversity_weight=config.diversity_loss_weight if diversity_weight is None else diversity_weight,
        scaling=scaling,
        feature_dropout=config.feat_quantizer_dropout,
    )


def _load(loss: ContrastiveObjective, weights: dict[str, Tensor], source: str) -> None:
    missing = sorted(set(loss.state_dict()) - set(weights))
    if missing:
        msg = (
            f"{source} lacks the quantiser and projections that wav2vec2 was pre-trained with (such as "
            f"{missing[0]}): start from a checkpoint that has them, or draw them anew with "
            "--model.fresh_quantiser true."
        )
        raise ValueError(msg)
    loss.load_state_dict({name: weights[name] for name in loss.state_dict()})
