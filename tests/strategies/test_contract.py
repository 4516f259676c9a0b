"""What every strategy promises, on every kind of encoder. A new strategy is one row in conftest.py."""

import inspect
import math
from copy import copy
from typing import Any, get_type_hints

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, seed_everything

from ser_strategies.strategies import (
    STRATEGIES,
    TAPT,
    AnnotatorFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    Pretraining,
    Recognizer,
    Strategy,
    VanillaFineTuning,
    load_strategy,
)
from ser_strategies.strategies.options import PretrainingOptions, RecognizerOptions, StrategyOptions
from tests.strategies.conftest import (
    EAGER,
    KINDS,
    PAIR,
    PAIRS,
    PRETRAININGS,
    RECOGNIZERS,
    ROWS,
    TOLERANCE,
    WARNINGS,
    Losses,
    batch,
    build,
    error,
    every_built_case,
    every_kept_case,
    every_strategy,
    fit,
    frames,
    heard_by,
    logits,
    on_its_kind,
    stir,
    trainable,
    trainer_for,
)

pytestmark = WARNINGS


def test_every_listed_strategy_has_a_row():
    assert set(ROWS) == set(STRATEGIES), "give each strategy a row in tests/strategies/conftest.py"


def test_a_strategy_predicts_emotion_or_adapts_an_encoder():
    assert not set(RECOGNIZERS) & set(PRETRAININGS)
    assert {*RECOGNIZERS, *PRETRAININGS} == set(STRATEGIES), "say in the contract what else it does"


# Training ---------------------------------------------------------------------------------------------------


@on_its_kind(RECOGNIZERS)
def test_a_strategy_fits_and_tests(strategy, kind, corpus):
    model, corpus = build(strategy, kind), heard_by(strategy, corpus)
    trainer = trainer_for(model, num_sanity_val_steps=2)
    trainer.fit(model, datamodule=corpus)
    fitted = trainer.callback_metrics
    assert {"train/loss", "val/loss", model.monitor} <= set(fitted)
    assert trainer.global_step == 2
    (tested,) = trainer.test(model, datamodule=corpus, verbose=False)
    assert all(math.isfinite(value) for value in [*fitted.values(), *tested.values()])
    if strategy is AnnotatorFineTuning:
        assert 0 <= tested["test/tvd"] <= 1
        return
    assert 0 <= tested["test/ua"] <= 1
    assert model.confusion("test").sum() == len(corpus.split("test"))


# Contrasts, units of its own, units of a teacher, frames of a teacher.
every_target = pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        *((it, PAIRS[it]) for it in PRETRAININGS),
        pytest.param(TAPT, "wavlm-tiny-prenorm", marks=pytest.mark.further),
    ],
)


@every_target
def test_a_pretraining_validates_alike_whatever_the_batches_and_the_epoch(strategy, kind, corpus):
    model = build(strategy, kind, encoder_lr=0.0, head_lr=0.0)
    stir(model)
    epochs: list[dict[str, float]] = []
    looked_at = {"num_sanity_val_steps": 1, "limit_train_batches": 1}
    trainer = trainer_for(model, max_epochs=2, callbacks=[Validated(epochs)], **looked_at)
    trainer.fit(model, datamodule=resized(corpus, 8))
    fitted = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert {"train/loss", "val/loss", "train/masked_frames", "val/masked_frames"} <= set(fitted)
    told = "val/accuracy" if model.target_source is None else "val/loss_"
    assert any(name.startswith(told) for name in fitted), "how far it has come, by what it learns"
    assert (model.monitor, model.monitor_mode) == ("val/loss", "min")
    assert trainer.global_step == 2
    first, second = epochs
    assert second == first
    (alone,) = trainer_for(model).validate(model, datamodule=resized(corpus, 1), verbose=False)
    assert all(math.isfinite(value) for value in [*fitted.values(), *alone.values()])
    assert alone == pytest.approx(first, abs=1e-5)
    assert 0 < alone["val/masked_frames"] <= spoken(model, corpus)


def spoken(model: Any, corpus: Any) -> int:
    """Frames of the val split."""
    samples = [len(corpus.waveform(row)) for row in corpus.split("val").to_dict("records")]
    return int(model.encoder.count_frames(torch.tensor(samples)).sum())


class Validated(Callback):
    """Keeps what each validation gives, but not the one before training, which is of a part.

    Args:
        seen: Where to keep it.
    """

    def __init__(self, seen: list[dict[str, float]]) -> None:
        self.seen = seen

    def on_validation_end(self, trainer: Any, model: Any) -> None:
        if not trainer.sanity_checking:
            logged = trainer.callback_metrics.items()
            self.seen.append({name: value.item() for name, value in logged if name.startswith("val/")})


def resized(corpus: Any, size: int) -> Any:
    """The same utterances in batches of another size."""
    other = copy(corpus)
    other.batch_size = size
    return other


@every_kept_case
def test_everything_that_trains_moves_and_nothing_else(kept):
    assert kept.seen.without_gradient == [set(), set()]
    trains = set(trainable(kept.model))
    # A bias of the keys moves all weights of a query alike, which softmax takes out again.
    may = {name for name in trains if name.endswith(("k_proj.bias", "k_proj.base_layer.bias"))}
    assert kept.moved | may == trains


@every_kept_case
def test_in_a_training_step_what_is_frozen_is_in_eval_mode_and_draws_nothing(kept):
    assert kept.seen.frozen_in_train_mode == [[], []]
    assert kept.seen.draws_nothing == [True, True]


@every_built_case
def test_a_strategy_that_trains_blocks_drops_out_and_masks_in_them(built):
    model, row = built
    first = model(PAIR.waveforms, PAIR.lengths)
    differ = any(not torch.equal(first, model(PAIR.waveforms, PAIR.lengths)) for _ in range(3))
    assert differ == (row.options.get("top_blocks") != 0)


@every_built_case
def test_as_many_weights_train_as_on_paper(built):
    model, row = built
    config = model.encoder.model.config
    counts = {name: parameter.numel() for name, parameter in trainable(model).items()}
    inside = sum(count for name, count in counts.items() if name.startswith("encoder."))
    assert inside == row.trained(config)
    assert {name: counts[name] for name in row.beside} == row.beside
    assert sum(counts.values()) - inside == row.head(config) + sum(row.beside.values())


@on_its_kind(RECOGNIZERS, further=[MixedPrecisionFineTuning])
def test_eight_utterances_can_be_learned_by_heart(strategy, kind):
    model, eight = build(strategy, kind, **EAGER), batch(*[1_600] * 8)
    fit(model, *[eight] * 20)
    if strategy is AnnotatorFineTuning:
        said = model.objective.read(logits(model, eight)).each.float()[::2]  # who knows all three raters
        assert torch.corrcoef(torch.stack([said.flatten(), eight.ratings[::2].flatten()]))[0, 1] > 0.9
        return
    assert (logits(model, eight).argmax(1) == eight.labels).sum() >= 7


def sweeps() -> Any:
    """Eight clips in each of which a tone rises, so that what is masked follows from what is not."""
    seconds = torch.arange(4_800) / 16_000
    tones = [0.1 * torch.sin(2 * torch.pi * (200 + 100 * n) * seconds * (1 + 8 * seconds)) for n in range(8)]
    return batch(*[4_800] * 8, waveforms=torch.stack(tones))


@torch.no_grad()
def clear_frames(model: Any) -> None:
    """Beside the mask vector the frames of HuBERT's random projection would hardly differ."""
    weight = model.encoder.model.feature_projection.projection.weight
    weight.mul_(0.1 / weight.std())


@on_its_kind(PRETRAININGS)
def test_what_stands_behind_the_masks_of_eight_utterances_can_be_learned(strategy, kind):
    eager = {"encoder_lr": 3e-3, "head_lr": 3e-3, "encoder_dropout": 0.0, "mask_time_probability": 0.3}
    model, losses = build(strategy, kind, **eager), Losses()
    clear_frames(model)
    fit(model, *[sweeps()] * 30, callbacks=[losses])
    first, last = losses.values[:5], losses.values[-5:]
    assert max(last) < min(first)
    assert sum(last) < 0.85 * sum(first)


@on_its_kind(STRATEGIES, further=[PartialFineTuning, LoRAFineTuning, MixedPrecisionFineTuning])
def test_the_same_seed_gives_the_same_losses_bit_for_bit(strategy, kind):
    dropout = {"head_dropout": 0.2} if issubclass(strategy, Recognizer) else {}

    def curve(seed: int, epochs: int) -> list[float]:
        seed_everything(seed, verbose=False)
        model, losses = build(strategy, kind, layerdrop=0.2, **dropout), Losses()
        fit(model, PAIR, batch(6_000, 7_000, seed=1), max_epochs=epochs, callbacks=[losses])
        return losses.values

    first = curve(3, epochs=2)
    assert len(set(first)) == 4
    assert curve(3, epochs=2) == first
    assert curve(4, epochs=1) != first[:2]


# Results ----------------------------------------------------------------------------------------------------


# The encoder's family decides, and a head on any of them: one strategy on all kinds, the others on one each.
@pytest.mark.parametrize(
    ("strategy", "kind"),
    [(VanillaFineTuning, kind) for kind in KINDS]
    + [(strategy, KINDS[number]) for number, strategy in enumerate(RECOGNIZERS) if number],
)
def test_logits_of_a_clip_do_not_depend_on_the_others_in_its_batch(strategy, kind):
    model = build(strategy, kind)
    stir(model)
    several = batch(300, 4_800, 8_000, 14_400)
    together = logits(model, several)
    for row, length in enumerate(several.lengths):
        alone = model(several.waveforms[row : row + 1, :length], several.lengths[row : row + 1])
        assert error(together[row : row + 1], alone) < TOLERANCE


@pytest.mark.smoke
@every_kept_case
def test_a_checkpoint_holds_what_trained_and_all_of_the_encoder_only_if_it_is_whole(kept):
    model, names = kept.model, set(kept.model.state_dict())
    found = set(torch.load(kept.path, weights_only=True)["state_dict"])
    of_encoder = {name for name in found if name.startswith("encoder.")}
    everything = {name for name in names if name.startswith("encoder.")}
    assert model.whole == kept.row.whole
    assert of_encoder == (everything if kept.row.whole else everything & set(trainable(model)))
    if isinstance(model, Pretraining):
        beside = {name for name in trainable(model) if name.startswith("adaptation.")}
    else:
        of_objective = {name for name in names if name.startswith("objective.")}
        beside = {"head.1.weight", "head.1.bias"} | of_objective
        assert ("objective.class_weights" in beside) == (type(model) is not AnnotatorFineTuning)
    assert found - of_encoder == beside | set(kept.row.beside)


@every_kept_case
def test_a_checkpoint_gives_the_same_logits_again(kept):
    model, strategy = kept.model, type(kept.model)
    expected = logits(model, PAIR)
    again = strategy.load_from_checkpoint(kept.path)
    assert torch.equal(logits(again, PAIR), expected)
    loaded = again.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())

    hidden = kept.source.rename(kept.source.with_name("hidden"))
    try:
        if kept.row.whole:
            assert torch.equal(logits(load_strategy(kept.path), PAIR), expected)
        else:
            with pytest.raises(FileNotFoundError, match=f"no encoder at {kept.source}: expected a folder"):
                strategy.load_from_checkpoint(kept.path)
    finally:
        hidden.rename(kept.source)


@every_kept_case
def test_a_checkpoint_is_an_encoder_to_start_from(kept):
    after = VanillaFineTuning(str(kept.path), num_classes=2)
    found, expected = frames(after.encoder, PAIR), frames(kept.model.encoder, PAIR)
    if kept.model.encoder.adapter:
        assert error(found, expected) < TOLERANCE  # merging adds before it multiplies
    else:
        assert torch.equal(found, expected)
    assert all("lora" not in name for name in after.state_dict())
    assert error(expected, kept.start) > 0.01 or kept.row.trained(kept.model.encoder.model.config) == 0


# Options ----------------------------------------------------------------------------------------------------


@every_strategy
def test_every_option_has_help(strategy):
    parser = ArgumentParser()
    parser.add_class_arguments(strategy)
    helped = {action.dest: action.help for action in parser._actions}
    typed = RecognizerOptions if issubclass(strategy, Recognizer) else PretrainingOptions
    shared = {*StrategyOptions.__annotations__, *typed.__annotations__}
    if strategy is AnnotatorFineTuning:
        shared.remove("objective")  # which it is all about
    own = set(inspect.signature(strategy).parameters) - {"options"}
    assert own | shared <= set(helped)
    assert [name for name, text in helped.items() if not (text or "").strip()] == []


@every_strategy
def test_every_option_is_described_in_a_docstring(strategy):
    for kind in strategy.__mro__[: strategy.__mro__.index(Strategy) + 1]:
        for name in set(inspect.signature(kind.__init__).parameters) - {"self", "options"}:
            assert f"\n        {name}: " in kind.__doc__, f"{kind.__name__} does not describe {name}"


@pytest.mark.parametrize(("base", "options"), [(Strategy, StrategyOptions), (Recognizer, RecognizerOptions)])
def test_the_typed_options_are_those_of_the_constructor(base, options):
    constructors = [kind.__init__ for kind in base.__mro__ if issubclass(kind, Strategy)]
    expected = {
        name: get_type_hints(constructor)[name]
        for constructor in constructors
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert get_type_hints(options) == expected
    assert not options.__required_keys__


def test_the_typed_options_of_pretraining_are_those_of_the_constructor_but_for_the_masks():
    masks = {"mask_time_probability", "mask_time_length", "mask_time_minimum"}
    hints, expected = get_type_hints(PretrainingOptions), {}
    for kind in (Strategy, Pretraining):
        for name, parameter in inspect.signature(kind.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                expected[name] = get_type_hints(kind.__init__)[name]
    assert hints == {name: hint for name, hint in expected.items() if name not in masks}
    assert not PretrainingOptions.__required_keys__
    for strategy in PRETRAININGS:  # each says which masks it has, since papers differ
        assert masks <= set(inspect.signature(strategy).parameters)


@every_strategy
def test_an_unknown_option_is_refused(strategy):
    with pytest.raises(TypeError, match="unexpected keyword argument 'poling'"):
        build(strategy, "wav2vec2-tiny", poling="mean")


@every_strategy
def test_a_concrete_strategy_is_final_and_only_says_what_differs(strategy):
    assert strategy.__final__
    base = Recognizer if issubclass(strategy, Recognizer) else Pretraining
    assert strategy.__mro__[1] is base
    inherited = {name for name in vars(strategy) if name in dir(base)}
    own = {name for name in inherited if not name.startswith("__")} - {
        "trainer_options",
        "parameter_groups",
        "_abc_impl",
    }
    assert own == set()
