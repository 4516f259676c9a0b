"""What an encoder was adapted on may not be scored later, however many checkpoints lie between."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ser_strategies.strategies import PTAPT, TAPT, LoRAFineTuning, VanillaFineTuning, Vesper, load_strategy
from ser_strategies.strategies.checkpointed import origins_of
from tests.strategies.conftest import (
    FRESH,
    PRETRAININGS,
    SHORT_SPANS,
    UNITS,
    WARNINGS,
    every_one_of,
    every_pretraining,
    trainer,
)
from tests.strategies.planned import EACH, Planned

pytestmark = WARNINGS
KIND = "random:wav2vec2-tiny"
# Six groups of three clips. What is adapted hears groups 0 and 1, and is chosen by group 2.
ADAPTED = "ttvs--"
# Later trainings that hear none of these, and what they may and may not score.
APART = "--vstt"
HEARD = "-s-vtt"  # group 1 is tested


def fitted(model: Any, plan: str, path: Path | None = None, *, allowed: bool = False) -> Planned:
    """The corpus, after an epoch on its train split; the checkpoint lies at the path."""
    corpus, made = Planned(plan, allow_leakage=allowed), trainer()
    made.fit(model, datamodule=corpus)
    if path is not None:
        made.save_checkpoint(path)
    return corpus


def recognizer(encoder: Any, strategy: type = VanillaFineTuning) -> Any:
    return strategy(str(encoder), num_classes=2)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> dict[type, Path]:
    """A checkpoint of each pretraining, adapted to the same split."""
    folder = tmp_path_factory.mktemp("adapted")
    teacher = folder / "teacher.ckpt"
    fitted(recognizer(KIND), ADAPTED, teacher)
    models = {
        TAPT: TAPT(KIND, **FRESH),
        PTAPT: PTAPT(KIND, teacher=str(teacher), **UNITS),
        Vesper: Vesper(str(teacher), **SHORT_SPANS),
    }
    for strategy, model in models.items():
        made = trainer(default_root_dir=folder)
        made.fit(model, datamodule=Planned(ADAPTED))
        made.save_checkpoint(folder / f"{strategy.__name__}.ckpt")
    return {strategy: folder / f"{strategy.__name__}.ckpt" for strategy in models}


@pytest.fixture(scope="module")
def generations(adapted, tmp_path_factory) -> dict[type, Path]:
    """Recognizers that were trained from an adapted encoder, and heard nothing of what it heard."""
    folder = tmp_path_factory.mktemp("generations")
    for strategy in (VanillaFineTuning, LoRAFineTuning):
        fitted(recognizer(adapted[TAPT], strategy), APART, folder / f"{strategy.__name__}.ckpt")
    return {
        strategy: folder / f"{strategy.__name__}.ckpt" for strategy in (VanillaFineTuning, LoRAFineTuning)
    }


every_generation = every_one_of([VanillaFineTuning, LoRAFineTuning])


# One generation ---------------------------------------------------------------------------------------------


# What is heard does not depend on what is learned from it: one has all plans, the others some.
PLANS = {
    "trained on": (
        "-s-vtt",
        "3 of the 3 test utterances were heard in training by {path}, which learned from own-v1/",
    ),
    "some of them": ("-s-vst", "3 of the 6 test utterances"),
    "all trained on": ("ss-v-t", "6 of the 6 test utterances"),
    "chosen by": ("--svtt", "3 of the 3 test utterances"),
    "val": ("v--stt", "3 of the 3 val utterances"),
}
SOME = {PTAPT: {"trained on", "val", ADAPTED}, Vesper: {"trained on", "chosen by", APART}}


def every_pretraining_with(plans):
    return pytest.mark.parametrize(
        ("strategy", "plan"),
        [
            pytest.param(
                *(strategy, plan),
                id=f"{plan}-{strategy.__name__}",
                marks=pytest.mark.further if plan not in SOME.get(strategy, plans) else (),
            )
            for strategy in PRETRAININGS
            for plan in plans
        ],
    )


@every_pretraining_with(PLANS)
def test_what_the_adaptation_heard_may_not_be_scored_and_they_are_counted(strategy, plan, adapted):
    path, (letters, phrase) = adapted[strategy].resolve(), PLANS[plan]
    with pytest.raises(
        ValueError, match=r"give the same options of --data, or --data\.allow_leakage true"
    ) as no:
        fitted(recognizer(path), letters)
    assert str(no.value).startswith(phrase.format(path=path))


@every_pretraining_with([ADAPTED, APART, "tt-vs-", "--v-ts"])
def test_the_same_split_and_any_that_scores_nothing_of_it_are_fine(strategy, plan, adapted):
    model = recognizer(adapted[strategy])
    corpus = fitted(model, plan)
    trainer().test(model, datamodule=corpus, verbose=False)
    assert corpus.brands() == []


def test_an_encoder_that_nothing_was_trained_on_may_be_scored_on_anything():
    model = recognizer(KIND)
    corpus = fitted(model, HEARD)
    trainer().test(model, datamodule=corpus, verbose=False)
    assert corpus.brands() == []


@every_pretraining
def test_with_leave_the_result_is_branded(strategy, adapted):
    path = adapted[strategy].resolve()
    corpus = fitted(recognizer(path), HEARD, allowed=True)
    (brand,) = corpus.brands()
    assert brand.startswith(f"3 of the 3 test utterances were heard in training by {path}, which learned")
    assert corpus.facts()["brands"] == corpus.brands()


def test_going_on_with_an_adaptation_on_another_split_is_refused(adapted):
    message = "3 of the 3 test utterances were heard in training by the checkpoint, which learned from"
    with pytest.raises(ValueError, match=message):
        trainer(max_epochs=2).fit(TAPT(KIND, **FRESH), datamodule=Planned(HEARD), ckpt_path=adapted[TAPT])
    with pytest.raises(
        ValueError, match="3 of the 3 val utterances were heard in training by the checkpoint"
    ):
        trainer().validate(
            TAPT(KIND, **FRESH), datamodule=Planned("v--stt"), ckpt_path=adapted[TAPT], verbose=False
        )


# Two generations --------------------------------------------------------------------------------------------


def test_origins_are_those_of_the_checkpoint_and_of_all_before_it(adapted, generations):
    (own,) = origins_of(adapted[TAPT])
    assert {name: len(heard) for name, heard in own["heard"].items()} == {"train": 2 * EACH, "val": EACH}
    assert own["splits"] == Planned(ADAPTED).split_name
    for path in generations.values():
        later, before = origins_of(path)
        assert (later["splits"], before["splits"]) == (Planned(APART).split_name, own["splits"])
        assert torch.equal(before["heard"]["train"], own["heard"]["train"])
    assert len(origins_of(adapted[PTAPT])) == 2, "itself and its teacher"
    assert len(origins_of(adapted[Vesper])) == 2, "the same"


@every_generation
def test_a_result_may_not_be_tested_on_what_its_encoder_heard(strategy, adapted, generations):
    model = recognizer(adapted[TAPT], strategy)
    with pytest.raises(ValueError, match="3 of the 3 test utterances were heard in training by"):
        trainer().test(model, datamodule=Planned(HEARD), ckpt_path=generations[strategy], verbose=False)
    trainer().test(model, datamodule=Planned(APART), ckpt_path=generations[strategy], verbose=False)


@every_generation
def test_a_checkpoint_tells_what_its_encoder_heard_also_where_that_is_gone(strategy, generations):
    """The model is built on an encoder that heard nothing; only the checkpoint itself can tell."""
    corpus = Planned(HEARD)
    made = trainer()
    corpus.trainer, made.state.fn = made, "test"
    state = torch.load(generations[strategy], weights_only=True)["Planned"]
    message = "3 of the 3 test utterances were heard in training by an encoder that the checkpoint comes from"
    with pytest.raises(ValueError, match=message):
        corpus.load_state_dict(state)


@every_generation
def test_a_loaded_result_may_not_be_tested_on_what_its_encoder_heard(strategy, generations):
    model = load_strategy(generations[strategy])
    with pytest.raises(ValueError, match="3 of the 3 test utterances were heard in training by"):
        trainer().test(model, datamodule=Planned(HEARD), verbose=False)


@every_generation
def test_a_loaded_result_may_not_be_tested_on_what_it_heard_itself(strategy, generations):
    model = load_strategy(generations[strategy])
    with pytest.raises(ValueError, match="3 of the 3 test utterances were heard in training by"):
        trainer().test(model, datamodule=Planned("---vst"), verbose=False)


@every_generation
def test_a_third_training_may_not_be_scored_on_what_the_first_heard(strategy, generations):
    path = generations[strategy].resolve()
    with pytest.raises(
        ValueError, match=f"3 of the 3 test utterances were heard in training by {path}, which"
    ):
        fitted(recognizer(path), HEARD)


@every_generation
def test_the_brand_goes_through_two_generations(strategy, adapted, generations):
    model, corpus = recognizer(adapted[TAPT], strategy), Planned(HEARD, allow_leakage=True)
    trainer().test(model, datamodule=corpus, ckpt_path=generations[strategy], verbose=False)
    assert len(corpus.brands()) == len(set(corpus.brands())) > 0
    assert all(brand.startswith("3 of the 3 test utterances were heard in") for brand in corpus.brands())


# Teachers ---------------------------------------------------------------------------------------------------


def test_what_a_teacher_heard_may_not_be_scored(adapted, tmp_path):
    """Neither where its units are learned nor in anything that is trained from there."""
    teacher = tmp_path / "teacher.ckpt"
    fitted(recognizer(KIND), ADAPTED, teacher)
    with pytest.raises(
        ValueError, match=f"3 of the 3 test utterances were heard in training by {teacher}, which"
    ):
        fitted(PTAPT(KIND, teacher=str(teacher), **UNITS), HEARD)
    path = tmp_path / "adapted.ckpt"
    fitted(PTAPT(KIND, teacher=str(teacher), **UNITS), APART, path)
    assert [origin["splits"] for origin in origins_of(path)] == [
        Planned(APART).split_name,
        Planned(ADAPTED).split_name,
    ]
    with pytest.raises(
        ValueError, match=f"3 of the 3 test utterances were heard in training by {path}, which"
    ):
        fitted(recognizer(path), HEARD)
    fitted(recognizer(path), APART)


def test_a_teacher_brands_the_adaptation_too(tmp_path):
    teacher = tmp_path / "teacher.ckpt"
    fitted(recognizer(KIND), ADAPTED, teacher)
    corpus = fitted(PTAPT(KIND, teacher=str(teacher), **UNITS), HEARD, allowed=True)
    (brand,) = corpus.brands()
    assert brand.startswith(f"3 of the 3 test utterances were heard in training by {teacher}, which learned")


# The same corpus for several models -------------------------------------------------------------------------


def test_what_one_model_comes_from_is_not_said_of_the_next_on_the_same_corpus(adapted, tmp_path):
    corpus = Planned(HEARD, allow_leakage=True)
    trainer().fit(recognizer(adapted[TAPT]), datamodule=corpus)
    made = trainer()
    made.fit(recognizer(KIND), datamodule=corpus)
    made.save_checkpoint(tmp_path / "innocent.ckpt")
    assert corpus.brands() == []
    assert len(origins_of(tmp_path / "innocent.ckpt")) == 1


def test_origins_are_noted_once(adapted, tmp_path):
    model, corpus, made = recognizer(adapted[TAPT]), Planned(ADAPTED), trainer()
    made.fit(model, datamodule=corpus)
    made.test(model, datamodule=corpus, verbose=False)
    made.save_checkpoint(tmp_path / "a.ckpt")
    assert len(origins_of(tmp_path / "a.ckpt")) == 2
