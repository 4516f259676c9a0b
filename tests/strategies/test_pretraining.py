"""What adapts an encoder: masks, units and negatives of each batch, what is logged, what is refused."""

import math
import shutil
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.strategies import PTAPT, TAPT, VanillaFineTuning, Vesper, load_strategy
from ser_strategies.units import source as units_module
from tests.strategies.conftest import (
    CLUSTERS,
    FRESH,
    UNITS,
    WARNINGS,
    Losses,
    batch,
    build,
    copied,
    every_one_of,
    every_pretraining,
    fit,
    loader,
    published,
    saved,
    shortened,
    stir,
    teacher,
    trainable,
    trainer,
)

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"
STILL = {"encoder_lr": 0.0, "head_lr": 0.0, "encoder_dropout": 0.0}
LENGTHS = (8_000, 1_600, 4_800)
# Who makes the units that are predicted: a teacher, or the encoder as it starts.
every_source = pytest.mark.parametrize(
    ("strategy", "kind"), [(PTAPT, KIND), (TAPT, "wavlm-tiny")], ids=["teacher", "itself"]
)


# Those that leave a clip alone which is shorter than a span; Vesper masks it to its end.
every_span_masker = every_one_of([TAPT, PTAPT])


class Seen(Callback):
    """Keeps each batch as the strategy gets it."""

    def __init__(self) -> None:
        self.train: list[Any] = []
        self.val: list[Any] = []

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, *_: Any) -> None:
        self.train.append(batch)

    def on_validation_batch_start(self, trainer: Any, model: Any, batch: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.val.append(batch)


def frames_of(model: Any, made: Any) -> list[int]:
    return [int(model.encoder.count_frames(length[None])) for length in made.lengths]


# What is masked ---------------------------------------------------------------------------------------------


@every_source
def test_masks_lie_on_frames_of_the_clip_and_bring_its_units(strategy, kind):
    model, seen = build(strategy, kind, mask_time_probability=0.4), Seen()
    fit(model, batch(*LENGTHS), val=batch(*LENGTHS, seed=1), callbacks=[seen])
    for found in (*seen.train, *seen.val):
        counts = frames_of(model, found.batch)
        assert found.masked.shape == (3, max(counts))
        for row, (name, count) in enumerate(zip(found.batch.ids, counts, strict=True)):
            assert not found.masked[row, count:].any(), "a mask never lies on padding"
            places = found.masked[row].nonzero()[:, 0]
            assert len(places) >= 4, "at least one span"
            assert found.places[row, : len(places)].tolist() == places.tolist()
            assert (found.places[row, len(places) :] == -1).all()
            units = model.unit_table.units(name, count)
            assert torch.equal(found.units[row, : len(places)], units[places])
            assert (found.units[row, len(places) :] == -100).all()
        assert found.negatives is None
    assert len(seen.train) == len(seen.val) == 1


def test_negatives_are_other_masked_frames_of_the_same_clip():
    model, seen = build(TAPT, KIND, mask_time_probability=0.4, negatives=6), Seen()
    fit(model, batch(*LENGTHS), val=batch(*LENGTHS, seed=1), callbacks=[seen])
    for found in (*seen.train, *seen.val):
        assert found.units is None
        assert found.negatives.shape == (3, found.places.shape[1], 6)
        for row, count in enumerate(found.masked.sum(1).tolist()):
            drawn = found.negatives[row, :count]
            assert ((drawn >= 0) & (drawn < count)).all()
            assert (drawn != torch.arange(count)[:, None]).all()


@every_pretraining
def test_masks_of_validation_belong_to_the_utterance_and_those_of_training_to_the_epoch(strategy, corpus):
    model, seen = build(strategy, KIND, **STILL, mask_time_probability=0.3), Seen()
    trainer(max_epochs=2, callbacks=[seen]).fit(model, datamodule=corpus)
    of_val, of_train = (
        [(name, row[: int(row.nonzero().max()) + 1].tolist()) for found in each for name, row in rows(found)]
        for each in (seen.val, seen.train)
    )
    assert sorted(of_val[:4]) == sorted(of_val[4:])
    assert not {str(each) for each in of_train[:4]} & {str(each) for each in of_train[4:]}
    alone, other = Seen(), copy(corpus)
    other.batch_size = 1
    trainer(callbacks=[alone]).validate(model, datamodule=other, verbose=False)
    assert sorted(of_val[:4]) == sorted(
        (name, row[: int(row.nonzero().max()) + 1].tolist())
        for found in alone.val
        for name, row in rows(found)
    )


def rows(found: Any) -> Any:
    return zip(found.batch.ids, found.masked, strict=True)


@every_pretraining
def test_masked_frames_are_the_mask_vector_and_nothing_of_the_sound(strategy, corpus):
    """Frames are masked before anything looks around: with all of them masked every sound is the same."""
    model = build(strategy, KIND)
    sounds = [torch.randn(1, 8_000, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    lengths = torch.tensor([8_000])
    masked = torch.ones(1, 24, dtype=torch.bool)
    with torch.no_grad():
        said = [
            model.eval().encoder.upper(model.encoder.lower(sound, lengths, -1), -1, masked=masked).values
            for sound in sounds
        ]
    assert torch.equal(*said)
    before = trainer().validate(model, datamodule=corpus, verbose=False)[0]["val/loss"]
    with torch.no_grad():
        model.encoder.model.masked_spec_embed.mul_(-3)
    after = trainer().validate(model, datamodule=corpus, verbose=False)[0]["val/loss"]
    assert abs(after - before) > 1e-3


@pytest.mark.parametrize("mixing", [0.0, 0.99])
def test_utterances_are_mixed_in_training_only(mixing):
    model, seen, made = build(PTAPT, KIND, mixing=mixing), Seen(), batch(8_000, 7_000, 6_000)
    fit(model, made, val=made, callbacks=[seen])
    assert torch.equal(seen.val[0].batch.waveforms, made.waveforms)
    same = [torch.equal(*pair) for pair in zip(seen.train[0].batch.waveforms, made.waveforms, strict=True)]
    assert same == [mixing == 0] * 3
    assert (seen.train[0].batch.waveforms[2, 6_000:] == 0).all()


@every_span_masker
def test_clips_that_are_shorter_than_a_span_are_legal(strategy):
    model = build(strategy, KIND, mask_time_length=12, optimizer=torch.optim.SGD)
    before, losses = copied(model), Losses()
    fit(model, batch(3_200, 400), batch(100), callbacks=[losses])
    assert losses.values == [0, 0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model = build(strategy, KIND, mask_time_length=12)
    found = fit(model, batch(3_200, 8_000, 300), val=batch(300, 8_000)).callback_metrics
    assert found["train/masked_frames"] > 0
    assert 0 < found["val/masked_frames"] <= 24
    assert math.isfinite(found["val/loss"])


@every_span_masker
def test_a_val_split_of_which_nothing_is_masked_is_told(strategy):
    model = build(strategy, KIND, mask_time_length=12)
    message = r"no frame of the val split .* no clip has 12 frames: give a shorter --model\.mask_time_length"
    with pytest.raises(ValueError, match=message):
        fit(model, batch(8_000), val=batch(3_200, 400))


# What is learnt ---------------------------------------------------------------------------------------------


def log_softmax(values: np.ndarray) -> np.ndarray:
    moved = values - values.max(-1, keepdims=True)
    return moved - np.log(np.exp(moved).sum(-1, keepdims=True))


@every_source
def test_the_loss_of_units_is_that_of_the_masked_frames_of_each_clip_alone(strategy, kind, corpus):
    model, seen = build(strategy, kind, **STILL), Seen()
    stir(model)
    logged = trainer(max_epochs=1, callbacks=[seen], limit_train_batches=1)
    logged.fit(model, datamodule=corpus)
    assert len(seen.val) == 2
    said: dict[int, list[np.ndarray]] = {count: [] for count in CLUSTERS}
    for found in seen.val:
        for row, (name, length) in enumerate(zip(found.batch.ids, found.batch.lengths.tolist(), strict=True)):
            hidden, places = frames_behind(model, found, row, length)
            units = model.unit_table.units(name, int(model.encoder.count_frames(torch.tensor([length]))))
            for index, (count, head) in enumerate(zip(CLUSTERS, model.adaptation.heads, strict=True)):
                with torch.no_grad():
                    first = np.tanh(np.maximum(hidden, 0) @ numbers(head[1].weight).T + numbers(head[1].bias))
                logs = log_softmax(first @ numbers(head[3].weight).T + numbers(head[3].bias))
                said[count].append(-logs[range(len(places)), units[places, index].numpy()])
    expected = {f"val/loss_{count}": np.concatenate(each).mean() for count, each in said.items()}
    expected |= {"val/loss": sum(expected.values()), "val/masked_frames": len(np.concatenate(said[4]))}
    metrics = {name: value.item() for name, value in logged.callback_metrics.items()}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@torch.no_grad()
def frames_behind(model: Any, found: Any, row: int, length: int) -> tuple[np.ndarray, torch.Tensor]:
    """What the encoder makes of a clip's masked frames if the clip is on its own, and which they are."""
    sound, lengths = found.batch.waveforms[row : row + 1, :length], torch.tensor([length])
    cnn = model.eval().encoder.lower(sound, lengths, -1)
    masked = found.masked[row : row + 1, : cnn.values.shape[1]]
    places = masked[0].nonzero()[:, 0]
    return numbers(model.encoder.upper(cnn, -1, masked=masked).values[0, places]), places


@pytest.mark.parametrize("diversity", ["mean", "per_frame", "once"])
def test_the_contrast_of_validation_is_a_mean_over_frames_whatever_the_scaling_is(diversity, corpus):
    model, seen = build(TAPT, KIND, **STILL, diversity=diversity, negatives=4), Seen()
    logged = trainer(callbacks=[seen], limit_train_batches=1)
    logged.fit(model, datamodule=corpus)
    objective, losses, hits, picked = model.adaptation.objective, [], [], []
    for found in seen.val:
        for row, length in enumerate(found.batch.lengths.tolist()):
            hidden, places = frames_behind(model, found, row, length)
            sound, lengths = found.batch.waveforms[row : row + 1, :length], torch.tensor([length])
            with torch.no_grad():
                cnn = model.encoder.lower(sound, lengths, -1).values
                cnn = model.encoder.model.feature_projection.layer_norm(cnn)[0, places]
            quantiser = objective.quantizer
            scores = numbers(cnn) @ numbers(quantiser.weight_proj.weight).T + numbers(
                quantiser.weight_proj.bias
            )
            codes = scores.reshape(len(places), quantiser.groups, quantiser.entries).argmax(2)
            picked.append(codes)
            books = numbers(quantiser.codevectors).reshape(quantiser.groups, quantiser.entries, -1)
            vectors = np.concatenate([books[group, codes[:, group]] for group in range(quantiser.groups)], 1)
            targets = unit(
                vectors @ numbers(objective.project_q.weight).T + numbers(objective.project_q.bias)
            )
            says = unit(
                hidden @ numbers(objective.project_hid.weight).T + numbers(objective.project_hid.bias)
            )
            cosines = says @ targets.T / objective.temperature
            for frame, drawn in enumerate(found.negatives[row, : len(places)].tolist()):
                rivals = [cosines[frame, n] for n in drawn if (codes[n] != codes[frame]).any()]
                losses.append(-log_softmax(np.array([cosines[frame, frame], *rivals]))[0])
                hits.append(bool(rivals) and cosines[frame, frame] > max(rivals))
    shares = [np.bincount(group) / len(losses) for group in np.concatenate(picked).T]
    perplexity = sum(np.exp(-sum(p * np.log(p) for p in each if p)) for each in shares)
    unused = 1 - perplexity / (objective.quantizer.groups * objective.quantizer.entries)
    expected = {
        "val/contrastive": np.mean(losses),
        "val/accuracy": np.mean(hits),
        "val/code_perplexity": perplexity,
        "val/loss": np.mean(losses) + objective.diversity_weight * unused,
        "val/masked_frames": len(losses),
    }
    metrics = {name: value.item() for name, value in logged.callback_metrics.items()}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_temperature_of_the_draw_falls_with_each_step_to_its_end():
    class Temperatures(Callback):
        def on_train_batch_end(self, trainer: Any, model: Any, *_: Any) -> None:
            kept.append(model.adaptation.objective.quantizer.temperature)

    kept: list[float] = []
    model = build(TAPT, KIND, gumbel_start=1.5, gumbel_end=0.9, gumbel_decay=0.8)
    fit(model, *[batch(4_800)] * 2, max_epochs=2, callbacks=[Temperatures()])
    assert kept == pytest.approx([1.5, 1.2, 0.96, 0.9])


@every_pretraining
def test_the_encoder_with_its_mask_vector_and_all_else_have_a_rate_each(strategy):
    model = build(strategy, KIND, encoder_lr=0.5, head_lr=0.25)
    (optimizer,), _ = model.configure_optimizers()
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert (groups["encoder"]["lr"], groups["head"]["lr"]) == (0.5, 0.25)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    inside, outside = ({named[id(p)] for p in groups[name]["params"]} for name in ("encoder", "head"))
    assert all(name.startswith("encoder.") for name in inside)
    assert all(name.startswith("adaptation.") for name in outside)
    assert inside | outside == set(trainable(model))
    assert ("encoder.model.masked_spec_embed" in inside) == (strategy in {TAPT, Vesper})


# Contrasts, units of its own, units of a teacher, frames of a teacher; each kind twice.
@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        (TAPT, KIND),
        pytest.param(TAPT, "wavlm-tiny-prenorm", marks=pytest.mark.further),
        (PTAPT, "wavlm-tiny-prenorm"),
        (Vesper, KIND),
    ],
)
def test_a_pretraining_takes_half_precision(strategy, kind, corpus):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        model = build(strategy, kind, **STILL)
        made = trainer(precision=precision, limit_train_batches=1)
        made.fit(model, datamodule=corpus)
        losses.append(made.callback_metrics["val/loss"].item())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


@every_pretraining
def test_clips_of_a_pretraining_that_are_short_or_capped_are_counted(strategy):
    model = build(strategy, KIND, max_seconds=0.3)
    train, val = batch(100, 4_801, 399, 16_000), batch(1, 9_000, 4_800)
    found = fit(model, train, val=val, max_epochs=2).callback_metrics
    counted = {name: value.item() for name, value in found.items() if name.endswith("_clips")}
    assert counted == {
        "train/short_clips": 2,
        "train/capped_clips": 2,
        "val/short_clips": 1,
        "val/capped_clips": 1,
    }


@every_pretraining
def test_the_report_says_what_was_heard(strategy, corpus):
    model = build(strategy, KIND)
    assert set(model.report()) == {"adapted_on"}
    trainer().fit(model, datamodule=corpus)
    said = model.report()
    assert said["adapted_on"]["split"] == "train"
    assert ("units" in said) == (strategy is PTAPT)
    assert ("targets" in said) == (strategy is Vesper)


# Units and the run ------------------------------------------------------------------------------------------


def files(folder: Path | str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def units_of(model: Any, corpus: Any) -> dict[str, list[Any]]:
    """The units of every utterance, by its id."""
    sounds = {
        row["id"]: len(corpus.waveform(row))
        for split in ("train", "val")
        for row in corpus.split(split).to_dict("records")
    }
    counts = model.encoder.count_frames(torch.tensor(list(sounds.values()))).tolist()
    return {
        name: model.unit_table.units(name, count).tolist() for name, count in zip(sounds, counts, strict=True)
    }


@pytest.fixture
def kmeans(monkeypatch):
    """The numbers of clusters of each k-means that runs."""
    ran: list[int] = []
    original = units_module.fit_kmeans

    def counted(chunks: Any, clusters: int, **options: Any) -> Any:
        ran.append(clusters)
        return original(chunks, clusters, **options)

    monkeypatch.setattr(units_module, "fit_kmeans", counted)
    return ran


@every_source
def test_a_run_that_goes_on_has_the_units_it_had_also_where_they_were_deleted(strategy, kind, corpus, kmeans):
    eager = {"encoder_lr": 1e-2}
    model = build(strategy, kind, **eager)
    begun = trainer(default_root_dir="run")
    begun.fit(model, datamodule=corpus)
    begun.save_checkpoint("run/last.ckpt")
    assert kmeans == list(CLUSTERS)
    stored, expected = files("run/units"), units_of(model, corpus)
    assert {len(row) for units in expected.values() for row in units} == {len(CLUSTERS)}
    for times in (1, 2):
        again = build(strategy, kind, **eager)
        trainer(default_root_dir="run", max_epochs=2).fit(again, datamodule=corpus, ckpt_path="run/last.ckpt")
        assert kmeans == list(CLUSTERS) * times
        assert units_of(again, corpus) == expected
        assert files("run/units") == stored
        assert again.report() == model.report()
        shutil.rmtree("run/units")


def test_a_fit_on_changed_sound_learns_the_units_of_the_sound_as_it_is(corpus):
    seen, noisy = Seen(), copy(corpus)
    noisy.augmentation = Augmentation(noise_snr=(0.0, 5.0), gain=6.0, reverb=(0.1, 0.3))
    models = [build(PTAPT, KIND), build(PTAPT, KIND)]
    trainer(default_root_dir="plain").fit(models[0], datamodule=corpus)
    trainer(default_root_dir="noisy", callbacks=[seen]).fit(models[1], datamodule=noisy)
    assert units_of(models[1], corpus) == units_of(models[0], corpus)
    heard = seen.train[0].batch
    row = corpus.split("train").set_index("id").loc[heard.ids[0]]
    sound = torch.from_numpy(corpus.waveform({"id": heard.ids[0], **row}))
    assert not torch.equal(heard.waveforms[0, : len(sound)], sound), "training itself hears the changes"


@every_source
def test_a_changed_speed_is_refused_where_there_are_units_and_only_there(strategy, kind, corpus):
    faster = copy(corpus)
    faster.augmentation = Augmentation(speed=(0.9, 1.1))
    with pytest.raises(ValueError, match=r"a changed speed would shift them: leave out --data\.augmentation"):
        trainer(default_root_dir="run").fit(build(strategy, kind), datamodule=faster)
    assert not Path("run").exists()
    contrastive = build(TAPT, KIND)
    trainer(default_root_dir="run").fit(contrastive, datamodule=faster)
    assert contrastive.unit_table is None
    assert not Path("run/units").exists()


def test_a_pretraining_that_is_fitted_on_another_corpus_gets_its_units(corpus):
    model = build(PTAPT, KIND)
    trainer(limit_val_batches=0).fit(model, datamodule=corpus)
    more = shortened(Synthetic(speakers=4, utterances_per_speaker=4, batch_size=2))
    trainer(limit_val_batches=0).fit(model, datamodule=more)
    assert model.report()["units"]["utterances"] == len(more.split("train")) == 8


# The quantiser ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny wav2vec2 as transformers publishes it, its quantiser included."""
    folder = tmp_path_factory.mktemp("pretrained")
    plain = published(KIND, folder / "plain")
    config = Wav2Vec2Config.from_pretrained(plain)
    config.num_codevectors_per_group, config.codevector_dim, config.proj_codevector_dim = 12, 8, 10
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Wav2Vec2ForPreTraining(config)
    model.save_pretrained(folder / "whole")
    shutil.copy(plain / "preprocessor_config.json", folder / "whole")
    return folder / "whole", model


def quantiser_of(model: Any) -> dict[str, torch.Tensor]:
    return copied(model.adaptation.objective)


def test_the_quantiser_of_the_checkpoint_is_taken(pretrained):
    folder, theirs = pretrained
    model = TAPT(str(folder), negatives=5, mask_time_length=4)
    found = quantiser_of(model)
    assert set(found) == {
        "quantizer.codevectors",
        *(
            f"{part}.{what}"
            for part in ("quantizer.weight_proj", "project_q", "project_hid")
            for what in ("weight", "bias")
        ),
    }
    for name, tensor in found.items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert model.adaptation.objective.diversity_weight == theirs.config.diversity_loss_weight
    fit(model, batch(8_000, 6_000))


def test_a_fresh_quantiser_is_another_one_of_the_same_size(pretrained):
    folder, _ = pretrained
    theirs, fresh = (quantiser_of(TAPT(str(folder), fresh_quantiser=new)) for new in (False, True))
    assert {name: tensor.shape for name, tensor in fresh.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    assert not torch.equal(fresh["quantizer.codevectors"], theirs["quantizer.codevectors"])


@pytest.mark.parametrize("source", ["random", "folder", "fine-tuned"])
def test_without_a_quantiser_the_refusal_says_what_to_do(source, tmp_path):
    encoder = f"random:{KIND}"
    if source == "folder":
        encoder = str(published(KIND, tmp_path / "plain"))
    elif source == "fine-tuned":
        encoder = teacher()
    with pytest.raises(ValueError, match="lacks the quantiser and projections") as refusal:
        TAPT(encoder, **UNITS)
    assert str(refusal.value).startswith(encoder)
    assert str(refusal.value).endswith("or draw them anew with --model.fresh_quantiser true.")
    assert TAPT(encoder, **FRESH).adaptation.negatives == 8


def test_a_second_adaptation_goes_on_with_the_quantiser_of_the_first(tmp_path):
    first = build(TAPT, KIND)
    stir(first)
    path = saved(first, tmp_path / "first.ckpt")
    second = TAPT(str(path), **UNITS)
    for name, tensor in quantiser_of(first).items():
        assert torch.equal(tensor, quantiser_of(second)[name]), name


def test_a_diversity_weight_that_is_given_wins():
    assert build(TAPT, KIND, diversity_weight=0.5).adaptation.objective.diversity_weight == 0.5
    assert build(TAPT, KIND).adaptation.objective.diversity_weight == 0.1


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "kind", "options", "words"),
    [
        (
            TAPT,
            "wavlm-tiny",
            {"objective": "contrastive"},
            "family wavlm, which has no contrastive .* 'units'",
        ),
        (TAPT, "hubert-tiny", {"objective": "contrastive"}, "family hubert, which has no contrastive"),
        (
            TAPT,
            KIND,
            {"objective": "unit"},
            "objective must be one of own, contrastive, units, .* mean units",
        ),
        (TAPT, KIND, {"negatives": 0}, "negatives must be at least 1"),
        (TAPT, KIND, {"gumbel_end": 0.0}, "gumbel_end must be at least 0.001"),
        (TAPT, KIND, {"gumbel_start": 0.4}, "gumbel_start must be at least 0.5"),
        (TAPT, KIND, {"gumbel_decay": 0.0}, "gumbel_decay must be above 0 and at most 1, got 0"),
        (TAPT, KIND, {"gumbel_decay": 1.5}, "gumbel_decay must be above 0 and at most 1, got 1.5"),
        (TAPT, KIND, {"diversity": "sum"}, "must be one of mean, per_frame, once, got 'sum'"),
        (TAPT, "wavlm-tiny", {"kmeans_passes": 0}, "kmeans_passes must be at least 1"),
        (PTAPT, KIND, {"kmeans_passes": 0}, "kmeans_passes must be at least 1"),
        (PTAPT, KIND, {"mixing": 1.0}, "mixing must be at least 0 and below 1"),
        (
            PTAPT,
            KIND,
            {"mask_time_probability": 1.0},
            "mask_time_probability must be at least 0 and less than 1",
        ),
        (TAPT, KIND, {"mask_time_length": 0}, "mask_time_length must be at least 1"),
        (
            TAPT,
            KIND,
            {"mask_time_probability": 0.0, "mask_time_minimum": 0},
            "nothing would be masked: give mask_time_probability or mask_time_minimum more than 0",
        ),
    ],
)
def test_an_option_out_of_its_words_or_range_is_refused(strategy, kind, options, words):
    with pytest.raises(ValueError, match=words):
        build(strategy, kind, **options)


@pytest.mark.parametrize("clusters", [(), (1,), (64, 64), (0,), (-4, 8)])
@every_source
def test_clusters_that_make_no_sense_are_refused(strategy, kind, clusters):
    with pytest.raises(
        ValueError, match=r"clusters must be different numbers of 2 or more, such as \[64, 512\]"
    ):
        build(strategy, kind, clusters=clusters)


@pytest.mark.parametrize(
    ("strategy", "kind", "option"), [(PTAPT, KIND, "teacher_layer"), (TAPT, "wavlm-tiny", "units_layer")]
)
@pytest.mark.parametrize("layer", [0, 5, -1])
def test_a_layer_that_is_not_there_is_refused_before_anything_is_written(
    strategy, kind, option, layer, corpus
):
    with pytest.raises(ValueError, match=rf"layer must be (between 1 and 4|at least 1), got {layer}"):
        started(strategy, kind, corpus, **{option: layer})
    assert not Path("run").exists()


def started(strategy: type, kind: str, corpus: Any, **options: Any) -> None:
    """Builds and fits: what is wrong may be seen in the one or, where a file must be read, in the other."""
    trainer(default_root_dir="run").fit(build(strategy, kind, **options), datamodule=corpus)


@pytest.mark.parametrize(
    ("strategy", "option", "value"),
    [(PTAPT, "teacher_layer", 9), (TAPT, "units_layer", 9), (TAPT, "diversity", "sum")],
)
def test_a_refusal_calls_the_option_as_the_user_does(strategy, option, value, corpus):
    objective = {"objective": "units"} if option == "units_layer" else {}
    with pytest.raises(ValueError, match=rf"^{option} must be"):
        started(strategy, KIND, corpus, **objective, **{option: value})


def test_a_negative_diversity_weight_is_refused():
    with pytest.raises(ValueError, match="diversity_weight must be at least 0"):
        build(TAPT, KIND, diversity_weight=-1.0)


def test_a_layer_that_only_the_teacher_has_is_taken(corpus, tmp_path):
    model = build(PTAPT, str(shallow(tmp_path / "shallow")), teacher_layer=4)
    trainer().fit(model, datamodule=corpus)
    assert model.report()["units"]["layer"] == 4


def test_a_layer_that_the_teacher_does_not_have_is_refused(corpus, tmp_path):
    low = VanillaFineTuning(str(shallow(tmp_path / "shallow")), num_classes=4)
    model = build(PTAPT, KIND, teacher=str(saved(low, tmp_path / "low.ckpt")), teacher_layer=3)
    with pytest.raises(ValueError, match="layer must be between 1 and 2, got 3"):
        trainer(default_root_dir="run").fit(model, datamodule=corpus)
    assert not Path("run").exists()


def shallow(folder: Path) -> Path:
    """A wav2vec2 of two blocks."""
    model = VanillaFineTuning(f"random:{KIND}", num_classes=4).encoder.model
    del model.encoder.layers[2:]
    model.config.num_hidden_layers = 2
    published(KIND, folder)
    model.save_pretrained(folder)
    return folder


@every_source
def test_more_clusters_than_frames_are_refused_before_anything_is_written(strategy, kind, corpus):
    model = build(strategy, kind, clusters=(4, 100_000))
    message = r"the train split has about \d+ frames, too few for 100,000 clusters: ask .* --model\.clusters"
    with pytest.raises(ValueError, match=message):
        trainer(default_root_dir="run").fit(model, datamodule=corpus)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("gone/best.ckpt", r"no checkpoint at .*gone/best\.ckpt: expected a \.ckpt file, such as"),
        ("gone/for/good", "gone/for/good"),
        ("words.ckpt", r"words\.ckpt is not a checkpoint, or only part of one"),
    ],
)
def test_a_teacher_that_is_no_checkpoint_is_refused_before_anything_is_written(named, words, corpus):
    Path("words.ckpt").write_text("no weights at all")
    with pytest.raises((FileNotFoundError, ValueError), match=words):
        trainer(default_root_dir="run").fit(build(PTAPT, KIND, teacher=named), datamodule=corpus)
    assert not Path("run").exists()


@pytest.mark.parametrize("named", ["", f"random:{KIND}", "adapted.ckpt"])
def test_a_teacher_that_never_learned_emotion_is_refused(named, corpus):
    saved(build(TAPT, KIND), Path("adapted.ckpt"))
    with pytest.raises(ValueError, match="teacher"):
        trainer(max_steps=0).fit(build(PTAPT, KIND, teacher=named), datamodule=corpus)


def test_a_teacher_named_by_a_relative_path_is_found_from_another_folder(corpus, tmp_path, monkeypatch):
    shutil.copy(teacher(), "teacher.ckpt")
    made, path = trainer(), Path("a.ckpt").resolve()
    made.fit(build(PTAPT, KIND, teacher="teacher.ckpt"), datamodule=corpus)
    made.save_checkpoint(path)
    monkeypatch.chdir(tmp_path)
    (found,) = trainer().validate(load_strategy(path), datamodule=corpus, verbose=False)
    assert math.isfinite(found["val/loss"])


@every_source
def test_units_need_a_corpus(strategy, kind):
    with pytest.raises(
        ValueError, match=r"needs a corpus of this library, .*: derive it from ser_strategies"
    ):
        trainer().fit(build(strategy, kind), loader(batch(4_800)))
    assert not Path("units").exists()


def test_what_units_need_is_said_of_units():
    with pytest.raises(ValueError, match="needs a corpus") as refusal:
        trainer().fit(build(PTAPT, KIND), loader(batch(4_800)))
    assert "PartialFineTuning" not in str(refusal.value)
    assert "cache" not in str(refusal.value)


def test_the_contrast_needs_no_corpus():
    made = trainer()
    made.fit(build(TAPT, KIND), loader(batch(8_000, 6_000)), loader(batch(7_000)))
    assert made.global_step == 1


@pytest.mark.parametrize("stage", ["test", "predict"])
@every_pretraining
def test_a_pretraining_predicts_nothing_and_says_what_to_do(strategy, stage, corpus):
    words = (
        rf"^{strategy.__name__} adapts an encoder and predicts no emotion: fine-tune from its checkpoint, "
        rf"such as with --model VanillaFineTuning --model\.encoder <its best\.ckpt>, and {stage} that"
    )
    with pytest.raises(ValueError, match=words):
        getattr(trainer(), stage)(build(strategy, KIND), datamodule=corpus)


@every_pretraining
def test_everything_learns_at_the_encoders_rate_unless_another_is_given(strategy):
    def rates(**options):
        model = build(strategy, KIND, encoder_lr=3e-4, **options)
        return {group["name"]: group["lr"] for group in model.configure_optimizers()[0][0].param_groups}

    assert rates() == {"encoder": 3e-4, "head": 3e-4}
    assert rates(head_lr=2e-3) == {"encoder": 3e-4, "head": 2e-3}
