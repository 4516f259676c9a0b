"""What every strategy that predicts emotion shares: objectives, targets, scores, rates."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import SGD, lr_scheduler

from ser_strategies.data.synthetic import Synthetic
from ser_strategies.strategies import LoRAFineTuning, PartialFineTuning, VanillaFineTuning
from tests.strategies.conftest import (
    CLASSES,
    CLASSIFIERS,
    MOVES,
    PAIRS,
    RECOGNIZERS,
    TWO_KINDS,
    WARNINGS,
    Rates,
    batch,
    build,
    every_recognizer,
    fit,
    loader,
    logits,
    stir,
    trainer,
)

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"
LABELS = ("anger", "happiness", "neutral", "sadness")
PAIR = batch(4_800, 3_200)
COUNTS = (5, 3, 2, 1)
nan = math.nan


def full(*samples: int, seed: int = 0) -> Any:
    """A batch with targets of all kinds."""
    chance = torch.Generator().manual_seed(seed)
    return batch(
        *samples,
        seed=seed,
        soft_labels=torch.rand(len(samples), CLASSES, generator=chance).softmax(1),
        dimensions=1 + 6 * torch.rand(len(samples), 3, generator=chance),
    )


def with_labels(made: Any, *labels: int) -> Any:
    return made._replace(labels=torch.tensor(labels))


# Objectives -------------------------------------------------------------------------------------------------


OBJECTIVES = {
    "classes": (4, "val/ua", {"ua", "wa", "f1_macro", "f1_weighted", "recall/anger"}),
    "dimensions": (3, "val/ccc", {"ccc", "ccc_valence", "rmse_dominance", "pearson_activation"}),
    "both": (7, "val/mean", {"ua", "ccc", "mean", "recall/sadness", "ccc_dominance"}),
}


# An objective is none of a strategy's business: one strategy has all of them, the others one each, in turn.
@pytest.mark.parametrize(
    ("strategy", "objective"),
    [
        pytest.param(
            *(strategy, objective),
            id=f"{strategy.__name__}-{objective}",
            marks=pytest.mark.further if number and number % 3 != turn else (),
        )
        for number, strategy in enumerate(CLASSIFIERS)
        for turn, objective in enumerate(OBJECTIVES)
    ],
)
def test_an_objective_trains_tests_and_predicts(strategy, objective, corpus):
    outputs, monitor, scores = OBJECTIVES[objective]
    labels = None if objective == "dimensions" else LABELS
    model = build(strategy, KIND, objective=objective, labels=labels)
    made = trainer(precision=getattr(model, "required_precision", None))
    made.fit(model, datamodule=corpus)
    (tested,) = made.test(model, datamodule=corpus, verbose=False)
    predicted = made.predict(model, datamodule=corpus)
    assert model.monitor == monitor
    assert monitor in made.callback_metrics or monitor.replace("val", "test") in tested
    assert {f"test/{name}" for name in scores} <= set(tested)
    assert logits(model, PAIR).shape == (2, outputs)
    assert sum(len(part.ids) for part in predicted) == 4
    assert len(predicted[0].columns) == outputs


def test_predictions_are_probabilities_and_dimensions_by_name():
    model = build(
        PartialFineTuning, KIND, objective="both", labels=LABELS, dimensions=("valence", "activation")
    )
    (said,) = trainer().predict(model, loader(PAIR._replace(labels=None, paths=("a.wav", "b.wav"))))
    assert list(said.columns) == [*(f"probability/{label}" for label in LABELS), "valence", "activation"]
    assert (said.ids, said.paths) == (PAIR.ids, ("a.wav", "b.wav"))
    found = torch.stack([said.columns[f"probability/{label}"] for label in LABELS], 1)
    torch.testing.assert_close(found, logits(model, PAIR)[:, :4].softmax(1))
    torch.testing.assert_close(said.columns["activation"], logits(model, PAIR)[:, 5])


def first_loss(model: Any, made: Any) -> float:
    return fit(model, made).callback_metrics["train/loss"].item()


def quiet(**options: Any) -> Any:
    """A model whose first training loss can be computed from its logits in eval mode."""
    return build(PartialFineTuning, KIND, mask_time_probability=0.0, encoder_dropout=0.0, **options)


def test_hard_labels_are_trained_by_cross_entropy():
    model, made = quiet(), full(4_800, 3_200, 4_000)
    logs = logits(model, made).log_softmax(1).numpy()
    expected = -np.mean([logs[row, label] for row, label in enumerate(made.labels)])
    assert first_loss(model, made) == pytest.approx(expected, rel=1e-5)


def test_soft_labels_are_trained_by_their_cross_entropy():
    model, made = quiet(soft_labels=True), full(4_800, 3_200, 4_000)
    logs = logits(model, made).log_softmax(1).numpy()
    expected = -np.mean((made.soft_labels.numpy() * logs).sum(1))
    assert first_loss(model, made) == pytest.approx(expected, rel=1e-5)


def test_class_weights_weigh_the_loss():
    model, made = quiet(class_weights="inverse-frequency", class_counts=COUNTS), full(4_800, 3_200, 4_000)
    logs = logits(model, made).log_softmax(1).numpy()
    weights = [sum(COUNTS) / (4 * COUNTS[label]) for label in made.labels]
    losses = [-logs[row, label] for row, label in enumerate(made.labels)]
    assert first_loss(model, made) == pytest.approx(np.average(losses, weights=weights), rel=1e-5)


def test_dimensions_are_trained_by_concordance_and_weighted():
    model, made = quiet(objective="both", dimension_weight=0.5), full(4_800, 3_200, 4_000, 6_400)
    outputs = logits(model, made).double().numpy()
    logs = torch.from_numpy(outputs[:, :4]).log_softmax(1).numpy()
    classes = -np.mean([logs[row, label] for row, label in enumerate(made.labels)])
    x, y = outputs[:, 4:], made.dimensions.double().numpy()
    agreement = 2 * np.mean((x - x.mean(0)) * (y - y.mean(0)), 0)
    ccc = agreement / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
    expected = classes + 0.5 * np.mean(1 - ccc)
    assert first_loss(model, made) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("layer_mix", [False, True])
@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("pooling", ["mean", "std", "mean+std", "attentive"])
def test_every_pooling_goes_with_every_head(pooling, head, layer_mix):
    model = build(PartialFineTuning, KIND, pooling=pooling, head=head, head_size=16, layer_mix=layer_mix)
    stir(model)
    assert fit(model, PAIR, PAIR).global_step == 2
    together = logits(model, PAIR)
    alone = logits(model, batch(4_800))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        pytest.param(it, kind, marks=() if kind == PAIRS[it] else pytest.mark.further)
        for it in RECOGNIZERS
        for kind in TWO_KINDS
    ],
)
def test_the_weights_of_a_layer_mix_get_gradients_and_move(strategy, kind):
    model = build(strategy, kind, layer_mix=True, **MOVES)
    assert len(model.mix.logits) == model.encoder.block_count + 1
    fit(model, PAIR, PAIR)
    assert (model.mix.logits != 0).all()


# Targets ----------------------------------------------------------------------------------------------------


def test_class_counts_come_from_the_datamodule(corpus):
    model = build(PartialFineTuning, KIND, labels=LABELS, class_weights="sum-to-one")
    trainer().fit(model, datamodule=corpus)
    assert model.objective.class_weights.tolist() == [0.25] * 4
    trainer().fit(model, datamodule=Data(COUNTS, labels=LABELS))
    expected = np.array([11 / count for count in COUNTS])
    np.testing.assert_allclose(model.objective.class_weights, expected / expected.sum(), rtol=1e-6)


class Data(LightningDataModule):
    """Anybody's datamodule: it says what it knows, if anything."""

    def __init__(
        self, counts: Any = None, *, method: bool = True, labels: Any = None, dimensions: Any = None
    ):
        super().__init__()
        if counts is not None:
            self.class_counts = (lambda: counts) if method else counts
        if labels is not None:
            self.labels = labels
        if dimensions is not None:
            self.dimensions = dimensions

    def train_dataloader(self) -> Any:
        return loader(full(4_800, 3_200, 4_000))

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.parametrize("method", [True, False])
def test_a_datamodule_may_tell_the_counts_as_a_method_or_as_a_value(method):
    model = build(PartialFineTuning, KIND, class_weights="balanced")
    trainer().fit(model, datamodule=Data(COUNTS, method=method))
    np.testing.assert_allclose(model.objective.class_weights, [11 / (4 * n) for n in COUNTS], rtol=1e-6)


def test_class_counts_that_are_given_win_over_the_datamodules():
    model = build(PartialFineTuning, KIND, class_weights="balanced", class_counts=(1, 1, 1, 2))
    trainer().fit(model, datamodule=Data(COUNTS))
    np.testing.assert_allclose(model.objective.class_weights, [5 / 4, 5 / 4, 5 / 4, 5 / 8], rtol=1e-6)


@pytest.mark.parametrize("objective", ["classes", "both"])
def test_class_weights_without_counts_are_refused(objective):
    model = build(PartialFineTuning, KIND, class_weights="balanced", objective=objective)
    with pytest.raises(
        ValueError, match=r"class_weights needs .* give class_counts=\(\.\.\.\), or class_weights"
    ):
        fit(model, full(4_800, 3_200))
    with pytest.raises(ValueError, match="class_weights needs"):
        trainer().fit(model, datamodule=Data())


def test_counts_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"class_counts must count 4 classes, got 2 counts"):
        build(PartialFineTuning, KIND, class_weights="balanced", class_counts=(3, 2))


def test_a_number_of_classes_that_is_not_the_corpus_own_is_refused():
    model = build(PartialFineTuning, KIND, labels=None, num_classes=7)
    with pytest.raises(ValueError, match=r"the corpus has 4 classes .*, the model 7"):
        trainer().fit(model, datamodule=Synthetic(speakers=3, utterances_per_speaker=4))


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_halved_weights_are_refused(precision):
    model = build(PartialFineTuning, KIND)
    with pytest.raises(ValueError, match=f"precision '{precision}' would round weights"):
        trainer(precision=precision).fit(model, datamodule=Data())


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("objective", "class", "did you mean classes"),
        ("head", "liner", "did you mean linear"),
        ("pooling", "atentive", "attentive"),
        ("layerdrop", 1.5, "below 1"),
        ("label_smoothing", 3.0, "below 1"),
        ("mask_time_length", 0, "at least 1"),
        ("head_lr", -1.0, "at least 0"),
    ],
)
def test_an_option_out_of_its_words_or_range_is_refused(option, value, words):
    with pytest.raises(ValueError, match=rf"{option}.*{words}"):
        build(PartialFineTuning, KIND, **{option: value})


def test_without_class_weights_no_counts_are_needed():
    model = build(PartialFineTuning, KIND)
    trainer().fit(model, datamodule=Data())
    assert model.objective.class_weights.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("counts", "only"), [((0, 8, 0, 0), "happiness"), ((0, 0, 0, 0), "none")])
def test_a_train_split_of_one_class_is_refused(counts, only):
    model = build(PartialFineTuning, KIND, labels=LABELS)
    with pytest.raises(
        ValueError, match=rf"train split has utterances of one class only \({only}\): expected"
    ):
        trainer().fit(model, datamodule=Data(counts))


def test_an_empty_split_is_refused(monkeypatch):
    data = Synthetic(speakers=3, utterances_per_speaker=4)
    table = data.table()
    monkeypatch.setattr(data, "table", lambda: table[table["split"] != "val"])
    with pytest.raises(ValueError, match=r"the val split of Synthetic is empty \(train 4, val 0, test 4\)"):
        trainer().fit(build(PartialFineTuning, KIND), datamodule=data)


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (("anger", "happiness", "neutral"), r"the model does not have sadness"),
        (("happiness", "anger", "neutral", "sadness"), "another set or order"),
        ((*LABELS, "fear"), "another set or order"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_labels_that_are_not_the_corpus_own_are_refused(mine, message, stage, corpus):
    model = PartialFineTuning(f"random:{KIND}", labels=mine)
    with pytest.raises(ValueError, match=f"the labels of the corpus are anger, happiness, .*{message}"):
        getattr(trainer(), stage)(model, datamodule=corpus)


def test_dimensions_in_another_order_are_refused(corpus):
    model = build(
        PartialFineTuning, KIND, objective="dimensions", dimensions=("valence", "activation", "dominance")
    )
    with pytest.raises(
        ValueError, match=r"the dimensions of the corpus are activation, .*another set or order"
    ):
        trainer().fit(model, datamodule=corpus)


def test_a_number_of_classes_alone_takes_any_names(corpus):
    model = build(PartialFineTuning, KIND)
    assert model.labels == ("class_0", "class_1", "class_2", "class_3")
    trainer().test(model, datamodule=corpus, verbose=False)


@pytest.mark.parametrize("label", [4, -2])
@pytest.mark.parametrize("objective", ["classes", "both"])
def test_a_label_that_is_no_class_is_named(objective, label):
    model = build(PartialFineTuning, KIND, objective=objective)
    bad = with_labels(full(4_800, 3_200), 0, label)
    message = rf"'u01' has label {label}, expected 0 to 3 \(class_0, class_1, class_2, class_3\) or -1"
    with pytest.raises(ValueError, match=message):
        fit(model, bad)
    with pytest.raises(ValueError, match=message):
        trainer().test(model, loader(bad), verbose=False)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, {"labels": None}),
        ({"soft_labels": True}, {"soft_labels": None}),
        ({"objective": "dimensions"}, {"dimensions": None}),
        ({"objective": "both"}, {"dimensions": None}),
        ({"objective": "both"}, {"labels": None}),
    ],
)
def test_a_batch_without_the_targets_is_refused(options, missing):
    (field,) = missing
    with pytest.raises(ValueError, match=f"needs {field}, but the batch has none"):
        fit(build(PartialFineTuning, KIND, **options), full(4_800, 3_200)._replace(**missing))


def test_neither_classes_nor_labels_is_refused():
    with pytest.raises(ValueError, match="num_classes, or labels, must be given to predict classes"):
        PartialFineTuning(f"random:{KIND}")
    assert PartialFineTuning(f"random:{KIND}", objective="dimensions").labels == ()


def test_a_number_of_classes_other_than_that_of_the_labels_is_refused():
    with pytest.raises(ValueError, match=r"num_classes is 3, but there are 2 labels \(calm, wild\)"):
        PartialFineTuning(f"random:{KIND}", num_classes=3, labels=("calm", "wild"))
    assert PartialFineTuning(f"random:{KIND}", num_classes=2, labels=("calm", "wild")).labels == (
        "calm",
        "wild",
    )


def test_freezing_the_projection_above_convolutions_that_train_is_refused():
    with pytest.raises(ValueError, match="freeze_projection needs the convolutions below it frozen too"):
        build(VanillaFineTuning, KIND, train_cnn=True, freeze_projection=True)


@pytest.mark.parametrize("blocks", [-1, 5])
def test_blocks_that_are_not_there_cannot_train(blocks):
    with pytest.raises(
        ValueError, match=f"top_blocks must be between 0 and 4 for random:{KIND}, got {blocks}"
    ):
        build(PartialFineTuning, KIND, top_blocks=blocks)


# Scores -----------------------------------------------------------------------------------------------------

LENGTHS = (4_800, 3_200, 6_400, 4_000, 5_600, 3_600, 8_000)


def in_batches(size: int) -> Any:
    """Seven utterances, of which one has no label and another no dimensions, in batches of a size."""
    everything = full(*LENGTHS)
    everything = with_labels(everything, 0, 1, 2, -1, 0, 1, 1)
    everything.dimensions[5] = nan
    rows = [range(start, min(start + size, 7)) for start in range(0, 7, size)]
    return loader(*(rows_of(everything, row) for row in rows))


def rows_of(everything: Any, rows: range) -> Any:
    index = list(rows)
    longest = int(everything.lengths[index].max())
    return everything._replace(
        waveforms=everything.waveforms[index, :longest],
        lengths=everything.lengths[index],
        ids=tuple(everything.ids[row] for row in rows),
        labels=everything.labels[index],
        soft_labels=everything.soft_labels[index],
        dimensions=everything.dimensions[index],
    )


def test_scores_are_those_of_the_whole_set_whatever_the_batches():
    model = build(PartialFineTuning, KIND, objective="both")
    stir(model)
    scores, confusions = [], []
    for size in (1, 3, 16):
        (found,) = trainer().validate(model, in_batches(size), verbose=False)
        scores.append({name: value for name, value in found.items() if name != "val/loss"})
        confusions.append(model.confusion("val"))
    assert all(torch.equal(confusion, confusions[0]) for confusion in confusions)
    assert confusions[0].sum() == 6
    assert {"val/ua", "val/ccc", "val/mean"} <= set(scores[0])
    for other in scores[1:]:
        for name, value in scores[0].items():
            assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name
        assert other["val/ua"] == scores[0]["val/ua"]


def test_unweighted_accuracy_is_the_mean_recall_of_the_classes_that_occur():
    model = build(PartialFineTuning, KIND)
    said = logits(model, full(*LENGTHS)).argmax(1)
    truth = torch.tensor([0, 1, 2, -1, 0, 1, 1])
    recalls = [(said[truth == label] == label).double().mean().item() for label in (0, 1, 2)]
    (found,) = trainer().test(model, in_batches(3), verbose=False)
    assert found["test/ua"] == pytest.approx(np.mean(recalls))
    assert math.isnan(found["test/recall/class_3"])


def test_scores_start_afresh_in_each_epoch():
    model = build(PartialFineTuning, KIND, encoder_lr=0.0, head_lr=0.0)
    made = trainer(max_epochs=3)
    made.fit(model, loader(PAIR), in_batches(3))
    assert model.confusion("val").sum() == 6
    assert model.confusion("test") is None
    made.test(model, in_batches(2), verbose=False)
    assert model.confusion("test").sum() == 6


def test_the_loss_of_a_split_of_plain_classes_does_not_depend_on_its_batches():
    model = build(PartialFineTuning, KIND)
    batches = [
        loader(*(rows_of(full(*LENGTHS), row) for row in rows))
        for rows in (
            [range(7)],
            [range(3), range(3, 6), range(6, 7)],
        )
    ]
    losses = [trainer().validate(model, made, verbose=False)[0]["val/loss"] for made in batches]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_clips_that_are_short_or_capped_are_counted_in_each_split():
    model = build(PartialFineTuning, KIND, max_seconds=0.3)
    train = [batch(100, 4_801, 399), batch(400, 16_000, 4_800, seed=1)]
    val, test = batch(1, 2, 3, 4_800), batch(9_000, 8_000)
    made = trainer(max_epochs=2)
    made.fit(model, loader(*train), loader(val))
    found = {name: value.item() for name, value in made.callback_metrics.items() if name.endswith("_clips")}
    assert found == {
        "train/short_clips": 2,
        "train/capped_clips": 2,
        "val/short_clips": 3,
        "val/capped_clips": 0,
    }
    (tested,) = made.test(model, loader(test), verbose=False)
    assert (tested["test/short_clips"], tested["test/capped_clips"]) == (0, 2)


# Learning rates ---------------------------------------------------------------------------------------------

RATES = {"encoder_lr": 1e-6, "head_lr": 2e-6, "optimizer": partial(SGD, lr=9.0), "top_blocks": 1}


def rates(steps: int, epochs: int = 1, **options: Any) -> Any:
    """Learning rates of encoder and head at each step, as multiples of what they were given."""
    model = build(PartialFineTuning, KIND, **(RATES | options))
    kept = Rates()
    fit(model, *[PAIR] * steps, max_epochs=epochs, callbacks=[kept])
    found = np.array(kept.values) / [1e-6, 2e-6]
    np.testing.assert_allclose(found[:, 0], found[:, 1])
    return found[:, 0]


@every_recognizer
def test_the_encoder_and_all_else_have_a_rate_each(strategy):
    model = build(strategy, KIND, encoder_lr=0.5, head_lr=0.25, pooling="attentive", layer_mix=True)
    (optimizer,), _ = model.configure_optimizers()
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert (groups["encoder"]["lr"], groups["head"]["lr"]) == (0.5, 0.25)
    inside = {id(parameter) for parameter in model.encoder.parameters() if parameter.requires_grad}
    parts = (model.head, model.pool, model.mix, model.objective)
    outside = {id(parameter) for part in parts for parameter in part.parameters()}
    assert {id(parameter) for parameter in groups["encoder"]["params"]} == inside
    assert {id(parameter) for parameter in groups["head"]["params"]} == outside


def test_a_frozen_encoder_has_no_rate():
    (optimizer,), _ = build(PartialFineTuning, KIND, top_blocks=0).configure_optimizers()
    assert [group["name"] for group in optimizer.param_groups] == ["head"]


def test_without_a_schedule_the_rates_stay():
    np.testing.assert_allclose(rates(3), [1, 1, 1])


def test_warming_up_raises_both_rates_linearly():
    np.testing.assert_allclose(rates(7, warmup_steps=4), [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 1, 1])


def test_warming_up_goes_on_over_epochs():
    np.testing.assert_allclose(rates(2, epochs=3, warmup_steps=4), [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 1])


SCHEDULERS = {
    "step": partial(lr_scheduler.StepLR, step_size=2, gamma=0.5),
    "exponential": partial(lr_scheduler.ExponentialLR, gamma=0.9),
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=20),
    "polynomial": partial(lr_scheduler.PolynomialLR, total_iters=20),
    "lambda": partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.9**step),
    "cosine with restarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3),
}


# A schedule goes on in the same way whatever it gives: each in one of the two ways, in turn.
@pytest.mark.parametrize(
    ("name", "interval"),
    [
        pytest.param(name, interval, marks=pytest.mark.further if number % 2 != turn else ())
        for number, name in enumerate(SCHEDULERS)
        for turn, interval in enumerate(("step", "epoch"))
    ],
)
def test_warming_up_multiplies_what_a_schedule_gives(name, interval):
    options = {"scheduler": SCHEDULERS[name], "scheduler_interval": interval}
    scheduled = rates(2, epochs=4, **options)
    warm = np.minimum(np.arange(1, 9) / 6, 1)
    np.testing.assert_allclose(rates(2, epochs=4, warmup_steps=5, **options), scheduled * warm, rtol=1e-6)


def test_a_schedule_moves_after_each_epoch_or_each_step():
    halves = partial(lr_scheduler.ExponentialLR, gamma=0.5)
    np.testing.assert_allclose(rates(2, epochs=2, scheduler=halves), [1, 1, 0.5, 0.5])
    by_step = rates(2, epochs=2, scheduler=halves, scheduler_interval="step")
    np.testing.assert_allclose(by_step, [1, 0.5, 0.25, 0.125])


def plateau(**options: Any) -> Any:
    return partial(ReduceLROnPlateau, factor=0.5, patience=0, **options)


def test_rates_fall_where_the_validation_loss_stays():
    tiny = {"encoder_lr": 1e-30, "head_lr": 1e-30, "optimizer": SGD}  # so that nothing changes
    model = build(PartialFineTuning, KIND, **tiny, scheduler=plateau(monitor="val/loss", eps=0.0))
    kept = Rates()
    fit(model, PAIR, val=PAIR, max_epochs=4, callbacks=[kept])
    np.testing.assert_allclose([head for _, head in kept.values], [1e-30, 1e-30, 0.5e-30, 0.25e-30])


def test_a_plateau_is_looked_for_in_the_score_that_was_asked_for():
    model = build(PartialFineTuning, KIND, scheduler=plateau(monitor="val/ua", mode="max"))
    made = fit(model, PAIR, val=PAIR)
    (config,) = made.lr_scheduler_configs
    assert config.monitor == "val/ua"


def test_an_optimizer_with_options_of_its_own_is_taken():
    model = build(LoRAFineTuning, KIND, optimizer=partial(SGD, lr=1.0, momentum=0.9))
    (optimizer,), schedules = model.configure_optimizers()
    assert optimizer.defaults["momentum"] == 0.9
    assert schedules == []


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("head_dropout", -1.0, "0 and below 1"), ("head_size", 0, "1")],
)
def test_an_option_of_the_head_out_of_range_is_named(option, value, expected):
    with pytest.raises(ValueError, match=rf"{option} must be at least {expected}, got {value}"):
        build(VanillaFineTuning, "wav2vec2-tiny", **{option: value})
