"""What the strategies' tests share: one row a strategy, small batches, and a trainer that keeps quiet."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ser_strategies.batch import Batch
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.encoder import Encoder
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.strategies import (
    PTAPT,
    STRATEGIES,
    TAPT,
    AnnotatorFineTuning,
    CachedFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    Pretraining,
    Recognizer,
    VanillaFineTuning,
    Vesper,
)

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # what hardware there is, and tips
KINDS = [
    f"{family}-{shape}" for family in ("wav2vec2", "wavlm", "hubert") for shape in ("tiny", "tiny-prenorm")
]
CLASSES = 4
WIDTH, RATERS = 16, 3  # of the model of raters
TOLERANCE = 1e-5
SEED = 1

# Warnings are errors, except those that are true, known, and meant.
WARNINGS = pytest.mark.filterwarnings(
    "error",
    "ignore:.*does not have many workers",  # the tests' data is in memory
    "ignore:.*isinstance.treespec, LeafSpec",  # between Lightning and torch
    "ignore:.*in eval mode at the start of training",  # frozen means eval mode
    "ignore:.*have no `val_dataloader`",  # most tests need no validation
    "ignore:.*overridden `on_before_batch_transfer`",  # the strategy's is the one that is meant
    "ignore:.*smaller than the logging interval",  # epochs are logged anyway
    "ignore:.*your dataloader is not resumable",  # it is, through the datamodule
    "ignore:.*Checkpoint directory .* exists and is not empty",  # the same run goes on
    "ignore:The `srun` command is available",  # on a machine that has SLURM
    "ignore:.*is_gradient_checkpointing. is deprecated",  # between peft and transformers
)


# Weights on paper -------------------------------------------------------------------------------------------


def cnn(config: Any) -> int:
    """Weights of the convolutions: kernels, biases where there are, a norm after the first or after each."""
    sizes = list(config.conv_dim)
    inputs = [1, *sizes[:-1]]
    kernels = sum(i * o * k for i, o, k in zip(inputs, sizes, config.conv_kernel, strict=True))
    biases = sum(sizes) if config.conv_bias else 0
    norms = 2 * sum(sizes if config.feat_extract_norm == "layer" else sizes[:1])
    return kernels + biases + norms


def projection(config: Any) -> int:
    """A norm over the CNN's features, and a linear layer to the hidden size."""
    features, hidden = config.conv_dim[-1], config.hidden_size
    return 2 * features + features * hidden + hidden


def positions(config: Any) -> int:
    """A grouped convolution with weight norm: direction, one magnitude for each tap, bias."""
    hidden, taps = config.hidden_size, config.num_conv_pos_embeddings
    return hidden * (hidden // config.num_conv_pos_embedding_groups) * taps + taps + hidden


def norm(config: Any) -> int:
    return 2 * config.hidden_size


def block(config: Any) -> int:
    """Four projections of attention, two layers of the feed-forward part, two norms, WavLM's gate."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    attention = 4 * (hidden * hidden + hidden)
    forward = hidden * inner + inner + inner * hidden + hidden
    gate = heads + (hidden // heads) * 8 + 8 if config.model_type == "wavlm" else 0
    return attention + forward + 2 * norm(config) + gate


def distances(config: Any) -> int:
    """WavLM's table of relative positions, which the first block owns."""
    return config.num_buckets * config.num_attention_heads if config.model_type == "wavlm" else 0


def top(config: Any, blocks: int) -> int:
    """The last blocks, what the first of all owns if it is among them, and the norm above them if any."""
    table = distances(config) if blocks == config.num_hidden_layers else 0
    above = norm(config) if config.do_stable_layer_norm and blocks else 0
    return blocks * block(config) + table + above


def above_cnn(config: Any) -> int:
    blocks = config.num_hidden_layers * block(config) + distances(config)
    return projection(config) + positions(config) + norm(config) + blocks


def attention_lora(config: Any, rank: int, targets: int, *, decomposed: bool = False) -> int:
    """Two factors around square layers in each block, and with DoRA a magnitude for each output."""
    hidden = config.hidden_size
    return config.num_hidden_layers * targets * (2 * rank * hidden + (hidden if decomposed else 0))


def linear_head(config: Any) -> int:
    return config.hidden_size * CLASSES + CLASSES


def mask_vector(config: Any) -> int:
    return config.hidden_size


def contrast(config: Any) -> int:
    """Codebooks, the layer that picks from them, and the two projections into the space of comparison."""
    entries = config.num_codevector_groups * config.num_codevectors_per_group
    codebooks = entries * (config.codevector_dim // config.num_codevector_groups)
    picks = config.conv_dim[-1] * entries + entries
    projected = config.proj_codevector_dim
    return codebooks + picks + (config.hidden_size + config.codevector_dim + 2) * projected


def raters_on(config: Any) -> int:
    """A layer that all share, two branches of two layers, and a unit for each rater and dimension."""
    layer = WIDTH * WIDTH + WIDTH
    return config.hidden_size * WIDTH + WIDTH + 2 * 2 * layer + RATERS * 2 * (WIDTH + 1)


def unit_heads(config: Any) -> int:
    """For each clustering a layer of 256 and a layer that names the unit."""
    return sum(config.hidden_size * 256 + 256 + 256 * count + count for count in CLUSTERS)


def student(config: Any) -> int:
    """All above the CNN but for the norm that pre-norm encoders have above the last block."""
    return above_cnn(config) - (norm(config) if config.do_stable_layer_norm else 0)


def predictors(config: Any) -> int:
    """For each of three losses a layer to half the size and one back."""
    hidden = config.hidden_size
    return 3 * (hidden * (hidden // 2) + hidden // 2 + (hidden // 2) * hidden + hidden)


# One row a strategy -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What the contract must be told of a strategy; all the rest it finds out.

    Args:
        trained: Encoder weights that train, from the configuration, on paper.
        quiet: The highest cut below which a training step draws no random number.
        whole: Whether a checkpoint holds the encoder.
        options: Options that it needs, or that make it train little.
        precision: What the trainer must be given.
        beside: Weights that train beside the encoder and its head, by name.
        head: Weights of what stands on the encoder, from its configuration, on paper.
    """

    trained: Callable[[Any], int]
    quiet: int
    whole: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    precision: Any = None
    beside: dict[str, int] = field(default_factory=dict)
    head: Callable[[Any], int] = linear_head


# So few units that the few frames of a test have them all, and spans that fit into its clips.
CLUSTERS = (4, 8)
UNITS: dict[str, Any] = {"clusters": CLUSTERS, "kmeans_passes": 3, "mask_time_length": 4}
FRESH: dict[str, Any] = UNITS | {"fresh_quantiser": True, "negatives": 8}
SHORT_SPANS: dict[str, Any] = {"blocks": 3, "mask_time_length": 2, "large_length": 4}
RATED: dict[str, Any] = {
    "raters": tuple(f"Synthetic/r{number:03d}" for number in range(RATERS)),
    "dimensions": ("activation", "valence"),
    "width": WIDTH,
}
BLOCKS = 4  # of every tiny encoder
AFTER_CNN = -1
ROWS: dict[type, Row] = {
    VanillaFineTuning: Row(above_cnn, AFTER_CNN, whole=True),
    PartialFineTuning: Row(lambda c: top(c, 2), BLOCKS - 2, options={"top_blocks": 2}),
    LoRAFineTuning: Row(lambda c: attention_lora(c, 4, 2), BLOCKS, options={"rank": 4}),
    MixedPrecisionFineTuning: Row(
        lambda c: top(c, 1), BLOCKS - 1, options={"top_blocks": 1}, precision="bf16-mixed"
    ),
    CachedFineTuning: Row(lambda c: top(c, 2), BLOCKS - 2, options={"top_blocks": 2}),
    AnnotatorFineTuning: Row(
        lambda c: top(c, 1), BLOCKS - 1, options=RATED | {"top_blocks": 1}, head=raters_on
    ),
    TAPT: Row(
        lambda c: above_cnn(c) + mask_vector(c),
        AFTER_CNN,
        whole=True,
        options=FRESH,
        head=lambda c: contrast(c) if c.model_type == "wav2vec2" else unit_heads(c),
    ),
    PTAPT: Row(lambda c: above_cnn(c) - projection(c), AFTER_CNN, whole=True, options=UNITS, head=unit_heads),
    Vesper: Row(
        lambda c: student(c) + mask_vector(c), AFTER_CNN, whole=True, options=SHORT_SPANS, head=predictors
    ),
}
FACTORISED = {
    "class_path": "ser_strategies.parts.pooling.FactorisedAttentionPooling",
    "init_args": {"heads": 2, "compression": 8},
}
# Both conditions, of which all is told, so that each of their weights has something to learn from.
TOLD: dict[str, Any] = {
    "conditions": ("gender", "text"),
    "conditions_withheld": 0.0,
    "text_encoder": "random:bert-tiny",
}
# The same strategies with other options, for the tests in which options matter.
VARIANTS: list[tuple[type, Row]] = [
    (VanillaFineTuning, Row(lambda c: cnn(c) + above_cnn(c), AFTER_CNN, True, {"train_cnn": True})),
    (
        VanillaFineTuning,
        Row(lambda c: above_cnn(c) - projection(c), AFTER_CNN, True, {"freeze_projection": True}),
    ),
    (VanillaFineTuning, Row(above_cnn, AFTER_CNN, True, {"recompute": True})),
    (PartialFineTuning, Row(lambda c: top(c, BLOCKS), 0, options={"top_blocks": BLOCKS})),
    (PartialFineTuning, Row(lambda c: 0, BLOCKS, options={"top_blocks": 0})),
    (
        LoRAFineTuning,
        Row(
            lambda c: attention_lora(c, 2, 4, decomposed=True),
            BLOCKS,
            options={
                "rank": 2,
                "targets": ("q_proj", "k_proj", "v_proj", "out_proj"),
                "decomposed": True,
                "rank_stabilised": True,
            },
        ),
    ),
    (CachedFineTuning, Row(above_cnn, AFTER_CNN, True, {"top_blocks": "all"})),
    (CachedFineTuning, Row(lambda c: 0, BLOCKS, options={"top_blocks": 0})),
    (
        CachedFineTuning,
        Row(
            lambda c: top(c, 1),
            BLOCKS - 1,
            options={"top_blocks": 1, "layer_mix": True, "stored": "float32"},
            beside={"mix.logits": BLOCKS + 1},
        ),
    ),
    (
        CachedFineTuning,
        Row(
            lambda c: top(c, 1),
            BLOCKS - 1,
            options={"top_blocks": 1, "pooling": FACTORISED},
            beside={
                "pool.key_mix.logits": BLOCKS + 1,
                "pool.value_mix.logits": BLOCKS + 1,
                "pool.key.weight": 8 * 64,
                "pool.value.weight": 8 * 64,
                "pool.value.bias": 8,
                "pool.score.weight": 2 * 8,
            },
            head=lambda c: 16 * CLASSES + CLASSES,
        ),
    ),
    (
        PartialFineTuning,
        Row(
            lambda c: top(c, 1),
            BLOCKS - 1,
            options={"top_blocks": 1, "gender_size": 5, "text_size": 7, **TOLD},
            beside={
                "conditioning.gender.weight": 3 * 5,
                "conditioning.gender_head.weight": 2 * 64,
                "conditioning.gender_head.bias": 2,
                "conditioning.project.weight": 64 * 7,
                "conditioning.project.bias": 7,
                "conditioning.no_text": 7,
            },
            head=lambda c: (c.hidden_size + 5 + 7) * CLASSES + CLASSES,
        ),
    ),
    (
        CachedFineTuning,
        Row(
            lambda c: top(c, 1),
            BLOCKS - 1,
            options={"top_blocks": 1, "gender_enters": "film", **TOLD, "conditions": ("gender",)},
            beside={
                "conditioning.gender.weight": 3 * 2 * 64,
                "conditioning.gender_head.weight": 2 * 64,
                "conditioning.gender_head.bias": 2,
            },
        ),
    ),
]
# A CNN with group norm and one with layer norm, blocks with the norm after and before, with WavLM's gate and
# without, sounds as they are and normalised: enough where a family could hardly matter.
TWO_KINDS = ["wav2vec2-tiny", "wavlm-tiny-prenorm"]
# Whatever is learnt, an encoder is adapted by the same weights: one kind is enough for these.
KIND_OF_PRETRAINING = "wav2vec2-tiny"
VARIANTS_OF_PRETRAINING: list[tuple[type, Row]] = [
    (
        TAPT,
        Row(
            lambda c: cnn(c) + above_cnn(c) + mask_vector(c),
            AFTER_CNN,
            whole=True,
            options={"train_cnn": True, "diversity": "once"},
            head=ROWS[TAPT].head,
        ),
    ),
    (
        TAPT,
        Row(
            ROWS[TAPT].trained,
            AFTER_CNN,
            whole=True,
            options={"objective": "units", "mixing": 0.5, "units_layer": 2},
            head=unit_heads,
        ),
    ),
    (PTAPT, Row(above_cnn, AFTER_CNN, True, {"train_projection": True}, head=unit_heads)),
    (
        Vesper,
        Row(
            lambda c: cnn(c) + above_cnn(c) + mask_vector(c),
            AFTER_CNN,
            whole=True,
            options=SHORT_SPANS
            | {
                "train_cnn": True,
                "final_norm": True,
                "blocks": None,
                "block_selection": ((0, 1), (2, 3)),
                "live_teacher": True,
                "masking": "released",
                "mixing": 0.5,
            },
            head=predictors,
        ),
    ),
    (PTAPT, Row(lambda c: cnn(c) + above_cnn(c), AFTER_CNN, True, {"train_cnn": True}, head=unit_heads)),
]
CASES_OF_PRETRAINING = [
    pytest.param(strategy, row, KIND_OF_PRETRAINING, id=f"{strategy.__name__}-{'-'.join(row.options)}")
    for strategy, row in VARIANTS_OF_PRETRAINING
]
# Of which a trained model says no more than that of others: the projection trains beside the CNN, too;
# recomputed ones are held to the others in `test_recompute.py`; all blocks, and none from stored frames, are
# one more number of them.
FURTHER_OPTIONS: tuple[tuple[type, dict[str, Any]], ...] = (
    (PTAPT, {"train_projection": True}),
    (VanillaFineTuning, {"recompute": True}),
    (PartialFineTuning, {"top_blocks": BLOCKS}),
    (CachedFineTuning, {"top_blocks": 0}),
)
# Of the strategy that is on six kinds: one family with the norm after and one with the norm before; the third
# is that of other strategies and of its own variants.
KINDS_EACH_TIME = ("wav2vec2-tiny", "hubert-tiny-prenorm")


def cases(kinds: Sequence[str], kinds_of_variants: Sequence[Sequence[str]]) -> list[Any]:
    """Every strategy on these kinds, and each variant on those that stand for it, in turn.

    Args:
        kinds: Kinds of encoders.
        kinds_of_variants: Kinds of the first variant, of the second, and so on, round and round.
    """
    plain = [
        pytest.param(strategy, ROWS[strategy], kind, id=f"{kind}-{strategy.__name__}")
        for kind in kinds
        for strategy in STRATEGIES
        if strategy in ROWS
    ]
    return plain + [
        pytest.param(strategy, row, kind, id=f"{kind}-{strategy.__name__}-{'-'.join(row.options)}-{number}")
        for number, (strategy, row) in enumerate(VARIANTS)
        for kind in kinds_of_variants[number % len(kinds_of_variants)]
    ]


# Each strategy on one of the two kinds, in turn: what they promise does not depend on both at once.
PAIRS = {strategy: TWO_KINDS[number % 2] for number, strategy in enumerate(STRATEGIES) if strategy in ROWS}
# Where a family decides which weights there are, and where it costs little to ask.
ALL_CASES = cases(KINDS, [TWO_KINDS]) + CASES_OF_PRETRAINING
# Where a strategy decides: each on one kind, one on all of them; variants on one of the two, in turn.
CASES = (
    [
        pytest.param(strategy, ROWS[strategy], kind, id=f"{kind}-{strategy.__name__}")
        for strategy, one in PAIRS.items()
        for kind in (KINDS if strategy is VanillaFineTuning else [one])
    ]
    + cases([], [[kind] for kind in TWO_KINDS])
    + CASES_OF_PRETRAINING
)
RECOGNIZERS = [strategy for strategy in STRATEGIES if issubclass(strategy, Recognizer)]
PRETRAININGS = [strategy for strategy in STRATEGIES if issubclass(strategy, Pretraining)]


def every_one_of(strategies: Sequence[type], *, further: Sequence[type] = ()) -> pytest.MarkDecorator:
    """Each of these, some of them only where further cases are run."""
    made = [
        pytest.param(it, id=it.__name__, marks=pytest.mark.further if it in further else ())
        for it in strategies
    ]
    return pytest.mark.parametrize("strategy", made)


every_strategy = every_one_of(STRATEGIES)
every_recognizer = every_one_of(RECOGNIZERS)  # for what only makes sense where emotion is predicted
# What learns raters has an objective of its own; `test_annotators.py` looks at it.
CLASSIFIERS = [each for each in RECOGNIZERS if each is not AnnotatorFineTuning]
every_classifier = every_one_of(CLASSIFIERS)
every_pretraining = every_one_of(PRETRAININGS)  # for what takes its place where it is not
every_kind = pytest.mark.parametrize("kind", KINDS)
two_kinds = pytest.mark.parametrize("kind", TWO_KINDS)


def on_its_kind(strategies: Sequence[type], *, further: Sequence[type] = ()) -> pytest.MarkDecorator:
    """Each of these on the one of the two kinds that is its turn, some only where further cases are run."""
    chosen = [
        pytest.param(
            *(it, PAIRS[it]),
            id=f"{PAIRS[it]}-{it.__name__}",
            marks=pytest.mark.further if it in further else (),
        )
        for it in strategies
        if it in PAIRS
    ]
    return pytest.mark.parametrize(("strategy", "kind"), chosen)


def fewer(case: Any) -> Any:
    """The case, marked as a further one where training it says no more than that of others."""
    strategy, row, kind = case.values
    further = (strategy, row.options) in FURTHER_OPTIONS
    further |= row is ROWS[VanillaFineTuning] and kind not in KINDS_EACH_TIME
    return pytest.param(*case.values, id=case.id, marks=pytest.mark.further if further else ())


def shared(fixture: str, cases: Sequence[Any]) -> pytest.MarkDecorator:
    """A fixture of the module that is made for each of these cases."""
    made = [pytest.param(case.values, id=case.id, marks=case.marks) for case in cases]
    return pytest.mark.parametrize(fixture, made, indirect=True)


every_built_case = shared("built", ALL_CASES)
every_kept_case = shared("kept", [fewer(case) for case in CASES])


def build(strategy: type, encoder: str, **options: Any) -> Any:
    """A strategy with its row's options, on `random:<encoder>` or on the encoder at a path."""
    source = f"random:{encoder}" if encoder in KINDS else encoder
    needed: dict[str, Any] = {"num_classes": CLASSES} if issubclass(strategy, Recognizer) else {}
    if strategy is PTAPT and "teacher" not in options:
        needed["teacher"] = teacher()
    return strategy(source, **(needed | ROWS[strategy].options | options))


TEACHERS = TemporaryDirectory(prefix="teachers-")


@cache
def teacher() -> str:
    """A checkpoint that was trained on emotion, for all tests; each learns other units from other frames."""
    with torch.random.fork_rng(devices=[]):
        model = build(VanillaFineTuning, "wav2vec2-tiny", frame_loss_weight=1.0)
        return str(saved(model, Path(TEACHERS.name) / "teacher.ckpt"))


# Settings that make a small model learn fast and surely.
EAGER = {"encoder_lr": 1e-3, "head_lr": 1e-2, "mask_time_probability": 0.0, "encoder_dropout": 0.0}
# Adam moves every parameter that has a gradient, however small; AdamW also moves those that have none.
MOVES = {"encoder_lr": 1e-3, "head_lr": 1e-2, "optimizer": torch.optim.Adam}


# Training ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def frames_elsewhere(new_folders, monkeypatch):
    """No test reads what another has stored, and none writes into the user's home or where tests run."""
    here = next(new_folders)
    for name in ("frames", "run"):
        (here / name).mkdir(parents=True)
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(here / "frames"))
    monkeypatch.chdir(here / "run")


@pytest.fixture(scope="package")
def corpus() -> Synthetic:
    """Twelve clips, four in each split, of half a second at most; they are rendered once."""
    return shortened(Synthetic(speakers=3, utterances_per_speaker=4, batch_size=2))


def shortened(made: Synthetic) -> Synthetic:
    """The same with half a second of each sound at most; a class of its own would give raters other names."""
    table, waveform = made.table, made.waveform
    shorter = {
        "table": lambda: (rows := table()).assign(seconds=rows["seconds"].clip(upper=0.5)),
        "waveform": lambda utterance: waveform(utterance)[:8_000],
    }
    for name, method in shorter.items():
        setattr(made, name, method)
    return made


def heard_by(strategy: type, corpus: Synthetic) -> Synthetic:
    """The corpus, or for a strategy that learns raters, one of the same sounds with three of them."""
    if strategy is not AnnotatorFineTuning:
        return corpus
    known = {"dimensions": ("activation", "valence"), "raters": RATERS, "rater_pool": RATERS}
    made = Synthetic(**(corpus.arguments | known | {"single_ratings": True}))
    made._sounds = corpus._sounds
    return shortened(made)


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def batch(*samples: int, seed: int = 0, **fields: Any) -> Batch:
    """Clips of noise of these lengths, with classes in turn; fields replace what a batch has."""
    clips = [noise(length, seed * 100 + number) for number, length in enumerate(samples)]
    made = Batch(
        waveforms=nn.utils.rnn.pad_sequence(clips, batch_first=True),
        lengths=torch.tensor(samples),
        ids=tuple(f"u{seed}{number}" for number in range(len(samples))),
        labels=torch.arange(len(samples)) % CLASSES,
        genders=tuple(("female", "unknown", "male")[number % 3] for number in range(len(samples))),
        texts=tuple(("said", "")[number % 2] for number in range(len(samples))),
        raters=torch.arange(3).expand(len(samples), 3) - (torch.arange(len(samples)) % 2).unsqueeze(1),
        ratings=torch.rand(len(samples), 1, 2, generator=torch.Generator().manual_seed(seed)) * 1.4
        + torch.tensor([-1.0, -0.7, -0.4]).view(1, 3, 1),
    )
    return made._replace(**fields)


PAIR = batch(8_000, 6_000)


def as_it_is(made: Batch) -> Batch:
    return made


def loader(*batches: Batch) -> DataLoader[Batch]:
    return DataLoader(list(batches), batch_size=None, collate_fn=as_it_is)  # type: ignore[arg-type]


class Listed(Corpus):
    """Hands out these batches in this order; once it is given frames, those in place of their sound.

    Args:
        train: Batches to train on.
        val: Batches to validate on.
        renamed: Whether utterances have in the batches the ids that they have in the table.
    """

    def __init__(self, train: Sequence[Batch], val: Sequence[Batch] = (), *, renamed: bool = False) -> None:
        super().__init__()
        self.batches = {"train": tuple(train), "val": tuple(val)}
        if renamed:
            self.batches = {
                split: tuple(
                    made._replace(ids=tuple(f"{split}/{number}/{row}" for row in range(len(made.ids))))
                    for number, made in enumerate(batches)
                )
                for split, batches in self.batches.items()
            }
        self.read: list[str] = []  # the splits of which frames were handed out

    def table(self) -> pd.DataFrame:
        """The clips of all batches, in their order."""
        rows = [
            {
                "id": f"{split}/{number}/{row}",
                "split": split,
                "seconds": length / 16_000,
                "gender": made.genders and made.genders[row],
                "text": made.texts and made.texts[row],
            }
            for split, batches in self.batches.items()
            for number, made in enumerate(batches)
            for row, length in enumerate(made.lengths.tolist())
        ]
        return pd.DataFrame(rows, columns=["id", "split", "seconds", "gender", "text"])

    def waveform(self, utterance: Mapping[str, Any]) -> Any:
        """A clip without its padding."""
        split, number, row = utterance["id"].split("/")
        made = self.batches[split][int(number)]
        return made.waveforms[int(row), : made.lengths[int(row)]].numpy()

    def setup(self, stage: str) -> None:
        """Most tests need no validation."""

    def class_counts(self) -> None:
        """As unknown as of listed batches."""

    def train_dataloader(self) -> DataLoader[Batch]:
        return loader(*self._handed_out("train"))

    def val_dataloader(self) -> DataLoader[Batch]:
        return loader(*self._handed_out("val"))

    def _handed_out(self, split: str) -> list[Batch]:
        if split not in self._frames:
            return list(self.batches[split])
        self.read.append(split)
        made, start = [], 0
        for one in self.batches[split]:
            kept = [self._frames[split].read(start + row, 0) for row in range(len(one.ids))]
            start += len(one.ids)
            assert [samples for _, samples in kept] == one.lengths.tolist()
            made.append(
                one._replace(
                    waveforms=torch.zeros(len(one.ids), 0),
                    frames=nn.utils.rnn.pad_sequence([values for values, _ in kept], batch_first=True),
                    frame_counts=torch.tensor([len(values) for values, _ in kept]),
                )
            )
        return made


def trainer(**options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,  # or a look at validation before training, where a test is about that
        "accelerator": "cpu",
        "max_epochs": 1,
    }
    return Trainer(**(quiet | options))


def trainer_for(model: Any, **options: Any) -> Trainer:
    """A trainer in the precision that the model's row asks for."""
    return trainer(**({"precision": ROWS[type(model)].precision} | options))


def fit(
    model: Any, *batches: Batch, val: Batch | None = None, ckpt_path: Any = None, **options: Any
) -> Trainer:
    """Fits on batches, in order, and returns the trainer; what trains from stored frames gets those."""
    if isinstance(model, Pretraining):
        return adapt(model, *batches, val=val, ckpt_path=ckpt_path, **options)
    if model.caching is not None and val is None:
        options["limit_val_batches"] = 0
    made = trainer_for(model, **options)
    if model.caching is None:
        made.fit(model, loader(*batches), val and loader(val), ckpt_path=ckpt_path)
        return made
    listed = Listed(batches, [val] if val else [])
    made.fit(model, datamodule=listed, ckpt_path=ckpt_path)
    assert set(listed.read) == ({"train", "val"} if val else {"train"})
    assert listed._frames == {}, "what comes after training starts from sound"
    return made


def adapt(
    model: Any, *batches: Batch, val: Batch | None = None, ckpt_path: Any = None, **options: Any
) -> Trainer:
    """Fits a pretraining on batches, in order; its units come from a corpus, under the corpus' own ids."""
    made = trainer_for(model, **({} if val else {"limit_val_batches": 0}) | options)
    made.fit(model, datamodule=Listed(batches, [val] if val else [], renamed=True), ckpt_path=ckpt_path)
    assert (model.unit_table is None) == (model.unit_source is None)
    assert (model.targets is None) == (model.target_source is None)
    return made


def saved(model: Any, path: Path, *batches: Batch) -> Path:
    """The checkpoint of a model after a step on each batch."""
    fit(model, *(batches or (batch(4_800, 3_200),))).save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest) -> tuple[Any, Row]:
    """A model of a case as it is before training; look, do not touch."""
    strategy, row, kind = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build(strategy, kind, **row.options), row


@dataclass(frozen=True)
class Kept:
    """A model of a case after two epochs of a step, and what was seen and kept of it; look, do not touch.

    Args:
        model: The model, in eval mode; everything that trains was moved before the first step.
        row: The row of its strategy.
        source: The folder of the encoder it was built from.
        start: Frames of that encoder.
        moved: Names of what the steps changed.
        seen: What was seen in each of the steps.
        path: Its checkpoint.
    """

    model: Any
    row: Row
    source: Path
    start: Tensor
    moved: set[str]
    seen: "StepsSeen"
    path: Path


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    strategy, row, kind = request.param
    folder = tmp_path_factory.mktemp("kept")
    source = published(kind, folder / "published")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setenv("SER_STRATEGIES_CACHE", str(folder / "frames"))
        patch.chdir(folder)
        torch.manual_seed(SEED)
        model = build(strategy, str(source), **row.options, **MOVES, encoder_dropout=0.5)
        start = frames(
            Encoder(str(source)), PAIR
        )  # what was once in eval mode would be put right in train mode
        stir(model)
        before, seen = copied(model), StepsSeen(row.quiet)
        # The second epoch comes after a validation in eval mode.
        fit(model, PAIR, val=PAIR, max_epochs=2, callbacks=[seen]).save_checkpoint(folder / "trained.ckpt")
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    return Kept(model.eval(), row, source, start, moved, seen, folder / "trained.ckpt")


class StepsSeen(Callback):
    """Looks in each training step at what is frozen, and after it at gradients.

    Args:
        quiet: The highest cut below which nothing should draw a random number.
    """

    def __init__(self, quiet: int) -> None:
        self.quiet = quiet
        self.without_gradient: list[set[str]] = []
        self.draws_nothing: list[bool] = []
        self.frozen_in_train_mode: list[list[str]] = []

    def on_fit_start(self, trainer: Trainer, model: Any) -> None:
        on_the_encoder = model.adaptation if isinstance(model, Pretraining) else model.head
        self.handle = on_the_encoder.register_forward_hook(lambda *_: self._look(trainer, model))

    def on_fit_end(self, trainer: Trainer, model: Any) -> None:
        self.handle.remove()

    def _look(self, trainer: Trainer, model: Any) -> None:
        if not trainer.training:
            return
        model.encoder.layerdrop = 0.5  # in the steps themselves, what is skipped would not move
        lower = [model.encoder.lower(PAIR.waveforms, PAIR.lengths, self.quiet).values for _ in range(2)]
        model.encoder.layerdrop = 0.0
        self.draws_nothing.append(torch.equal(*lower))
        self.frozen_in_train_mode.append(frozen_but_in_train_mode(model))

    def on_after_backward(self, trainer: Trainer, model: Any) -> None:
        missing = {name for name, parameter in trainable(model).items() if parameter.grad is None}
        self.without_gradient.append(missing)


def frozen_but_in_train_mode(model: Any) -> list[str]:
    """Modules in train mode of which all weights are frozen, or that lie in such a module."""
    return [
        f"{name}.{inner}"
        for name, module in model.encoder.named_modules()
        if list(module.parameters()) and not trainable(module)
        for inner, part in module.named_modules()
        if part.training
    ]


class Losses(Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, model: Any, outputs: Any, *_: Any) -> None:
        self.values.append(outputs["loss"].item())


class Rates(Callback):
    """Keeps the learning rate of each group as each step takes it."""

    def __init__(self) -> None:
        self.values: list[tuple[float, ...]] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.values.append(tuple(group["lr"] for group in optimizer.param_groups))


# Looking ----------------------------------------------------------------------------------------------------


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def stir(model: nn.Module, seed: int = 0) -> None:
    """Moves everything that trains, so that forgetting any of it shows."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(trainable(model).items()):
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def logits(model: Any, made: Batch) -> Tensor:
    return model.eval()(made.waveforms, made.lengths)


@torch.no_grad()
def frames(encoder: Any, made: Batch) -> Tensor:
    found = encoder.eval()(made.waveforms, made.lengths)
    return found.values[found.mask]


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error in the Euclidean norm."""
    assert found.shape == expected.shape
    return ((found - expected).norm() / expected.norm()).item()


def published(kind: str, path: Path) -> Path:
    """The weights of `random:<kind>` as a folder in transformers' format."""
    loaded = load_encoder(f"random:{kind}")
    loaded.model.save_pretrained(path)
    settings = {"do_normalize": loaded.identity.normalise, "sampling_rate": 16_000}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path
