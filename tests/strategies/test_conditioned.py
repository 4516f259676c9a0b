"""Strategies that are told more than the sound: what reaches the head, what a result says, refusals."""

import json
from functools import cache

import pandas as pd
import pytest
import soundfile
import torch

from ser_strategies.data.synthetic import Synthetic
from ser_strategies.data.transcripts import Transcripts
from ser_strategies.encoder.checkpoints import RECORD
from ser_strategies.fit.predicting import predict
from ser_strategies.parts.conditions import Known, Told
from ser_strategies.runs.fingerprints import without_ignored
from ser_strategies.strategies import MixedPrecisionFineTuning, PartialFineTuning, load_strategy
from tests.strategies.conftest import (
    RECOGNIZERS,
    TOLD,
    WARNINGS,
    Losses,
    batch,
    build,
    every_one_of,
    fit,
    loader,
    shortened,
    stir,
    trainer,
    trainer_for,
)

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"
CONDITIONS = TOLD | {"top_blocks": 0}
NEUTRAL = {
    "conditions",
    "conditions_withheld",
    "gender_enters",
    "gender_size",
    "gender_weight",
    "gender_at_test",
}
NEUTRAL |= {"text_encoder", "text_revision", "text_pooling", "text_size"}


def corpus(**options):
    return shortened(Synthetic(speakers=5, utterances_per_speaker=8, batch_size=4, **options))


@cache
def trained(**options):
    """A model after one epoch, and its trainer; look, do not touch."""
    torch.manual_seed(0)
    model = build(PartialFineTuning, KIND, **(CONDITIONS | options))
    stir(model)
    made = trainer(max_epochs=1)
    made.fit(model, datamodule=corpus())
    return model, made


@every_one_of(RECOGNIZERS, further=[MixedPrecisionFineTuning])
def test_every_recognizer_learns_from_what_it_is_told_and_from_nothing_else(strategy):
    """Sound that is all the same, classes that only the text tells."""
    made = [
        batch(4_000, 4_000, 4_000, 4_000, seed=1)._replace(
            waveforms=0.1 * torch.ones(4, 4_000),
            texts=("calm", "wild", "sad", "glad"),
            genders=("female", "male", "unknown", "female"),
        )
    ] * 20
    losses = Losses()
    torch.manual_seed(0)
    eager = {"head_lr": 3e-2, "mask_time_probability": 0.0, "encoder_dropout": 0.0}
    model = build(strategy, KIND, **TOLD, **eager, gender_at_test="given")
    fit(model, *made, callbacks=[losses])
    assert model.eval().loss_of(made[0]) < 0.7 * losses.values[0]
    known = model.known_of(made[0])
    heard = model(made[0].waveforms, made[0].lengths)
    assert torch.equal(heard, model(made[0].waveforms, made[0].lengths, *Known()))
    said = model(made[0].waveforms, made[0].lengths, *known)
    assert len({tuple(row) for row in said.tolist()}) == 4
    if model.labels:
        assert said.argmax(1).tolist() == [0, 1, 2, 3]
    assert len({tuple(row) for row in heard.tolist()}) == 1, "without them all sounds are alike"


def test_scores_of_the_rows_are_those_of_a_model_that_is_told_so(tmp_path):
    model, made = trained()
    path = tmp_path / "last.ckpt"
    made.save_checkpoint(path)
    scores = {}
    for name in ("given", "unknown", "predicted"):
        again = load_strategy(path, gender_at_test=name)
        (tested,) = trainer().test(again, datamodule=corpus(), verbose=False)
        scores[name] = tested, again.dropped
    for at_test, (tested, rows) in scores.items():
        others = scores.keys() - {at_test}
        with_text = {f"gender {name}, with text" for name in others}
        assert set(rows) == with_text | {f"gender {name}, without text" for name in scores}
        for name in others:
            found, expected = rows[f"gender {name}, with text"], scores[name][0]
            assert found["ua"] == pytest.approx(expected["test/ua"], abs=1e-6)
        assert 0 <= tested["test/gender_accuracy"] <= 1
    assert model.dropped == {}, "only a test looks"


def test_the_gender_that_is_predicted_is_counted_over_those_known():
    model, _ = trained()
    model.eval()
    seen = right = 0
    for one in corpus().test_dataloader():
        said = model.conditioning.gender_logits(model._pooled(model._frames(one))).argmax(1).tolist()
        right += sum(("female", "male")[each] == truth for each, truth in zip(said, one.genders, strict=True))
        seen += len(said)
    (tested,) = trainer().test(model, datamodule=corpus(), verbose=False)
    assert tested["test/gender_accuracy"] == pytest.approx(right / seen)


def test_a_result_says_what_was_told_and_brands_oracles():
    model = build(PartialFineTuning, KIND, **CONDITIONS, gender_at_test="given")
    trainer().test(model, datamodule=corpus(), verbose=False)
    facts = model.conditions_told("test")
    assert facts["gender"] == {"known": 1.0, "at_test": "given"}
    assert (facts["text"]["source"], facts["text"]["by"]) == ("the corpus", "people")
    assert facts["text"]["encoder"]["fingerprint"] == model.sentences.encoder.fingerprint
    json.dumps(facts)
    assert [each.partition(":")[0] for each in model.oracles("test")] == [
        "the model is told the true gender of who speaks",
        "the model is told what people wrote down of what is said",
    ]
    honest = build(PartialFineTuning, KIND, **CONDITIONS)
    trainer().test(honest, datamodule=corpus(texts=Transcripts(by="machine")), verbose=False)
    assert honest.oracles("test") == honest.notes("test") == []


def test_a_checkpoint_knows_its_encoder_of_text_and_answers_without_knowing_anything(tmp_path):
    model, made = trained()
    path = tmp_path / "told.ckpt"
    made.save_checkpoint(path)
    again = load_strategy(path)
    assert again.record()["text_encoder"] == model.record()["text_encoder"]
    sounds = batch(8_000, 6_000)
    for known in (Known(), model.known_of(sounds)):
        found = again(sounds.waveforms, sounds.lengths, *known)
        assert torch.equal(found, model.eval()(sounds.waveforms, sounds.lengths, *known))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[RECORD]["text_encoder"]["fingerprint"] = "f" * 64
    again.on_load_checkpoint(checkpoint)
    again.sentences._computed.clear()
    with pytest.raises(ValueError, match="is not the one that the checkpoint was trained with"):
        again.known_of(sounds)


def test_predicting_plain_files_goes_by_the_sound_and_says_so(tmp_path, capsys):
    model, made = trained(gender_at_test="unknown")
    path = tmp_path / "told.ckpt"
    made.save_checkpoint(path)
    sound = batch(8_000).waveforms[0]
    soundfile.write(tmp_path / "said.wav", sound.numpy(), 16_000, subtype="FLOAT")
    table = predict(path, tmp_path / "said.wav", tmp_path / "said.csv", accelerator="cpu")
    out = capsys.readouterr().out
    assert out.count("note: nobody's gender is known, so that all count as unknown") == 1
    assert out.count("note: no text is known, so that the model goes by the sound alone") == 1
    expected = model.eval()(sound[None], torch.tensor([8_000])).softmax(1)[0].tolist()
    found = [table[name].iloc[0] for name in table if name.startswith("probability/")]
    assert found == pytest.approx(expected, abs=1e-5)


def test_without_conditions_nothing_is_kept_drawn_or_named_otherwise():
    plain = build(PartialFineTuning, KIND)
    names = [*plain.state_dict(), *plain.record()]
    assert not [name for name in names if "condition" in name or "text" in name or "gender" in name]
    assert plain.rows() == []
    assert plain.hparams.keys() >= NEUTRAL
    options = {name: plain.hparams[name] for name in NEUTRAL}
    config = {"trainer": {}, "data": {}, "model": {"init_args": options}}
    assert without_ignored(config)["model"] == {"init_args": {}}
    config["model"]["init_args"] = options | {"conditions": ("gender",)}
    assert without_ignored(config)["model"] == {"init_args": {"conditions": ["gender"]}}


def test_what_a_setting_tells_does_not_reach_training():
    """A validation that is told otherwise leaves the losses of training as they were."""
    found = []
    for at_test in ("given", "unknown"):
        torch.manual_seed(3)
        losses = Losses()
        model = build(PartialFineTuning, KIND, **CONDITIONS, gender_at_test=at_test)
        fit(model, *(batch(4_800, 3_200, seed=n) for n in range(3)), callbacks=[losses])
        found.append(losses.values)
    assert found[0] == found[1]


class Mute(Synthetic.__mro__[1]):
    """A corpus that knows neither genders nor texts."""

    labels = Synthetic.labels
    dimensions = Synthetic.dimensions

    def __init__(self) -> None:
        super().__init__()
        self.inner = corpus()

    def table(self) -> pd.DataFrame:
        return self.inner.table().drop(columns=["gender", "text"])

    def waveform(self, utterance):
        return self.inner.waveform(utterance)


@pytest.mark.parametrize("condition", ["gender", "text"])
def test_a_corpus_that_lacks_a_condition_is_refused_in_training_and_said_in_tests(condition):
    options = {**CONDITIONS, "conditions": (condition,), "gender_at_test": "given"}
    model = build(PartialFineTuning, KIND, **options)
    says = f"no train utterance of Mute has a {condition}, which --model.conditions asks for"
    with pytest.raises(ValueError, match=says):
        trainer().fit(model, datamodule=Mute())
    trainer().test(model, datamodule=Mute(), verbose=False)
    (note,) = model.notes("test")
    assert {"gender": "unknown", "text": "by the sound alone"}[condition] in note
    bare = batch(4_000)._replace(genders=None, texts=None)
    with pytest.raises(ValueError, match=f"the condition {condition} needs batches with {condition}s"):
        trainer_for(model).fit(model, loader(bare))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"conditions": ("sex",)}, "conditions must be one of gender, text, got 'sex'"),
        ({"conditions": ("text",), "text_encoder": None}, "the condition text needs --model.text_encoder"),
        ({"gender_at_test": "guessed"}, "gender_at_test must be one of given, unknown, predicted"),
        ({"conditions_withheld": 1.0}, "conditions_withheld must be at least 0 and below 1"),
        ({"text_size": 0}, "text_size must be at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        build(PartialFineTuning, KIND, **(CONDITIONS | options))


def test_the_setting_of_a_test_is_what_the_head_is_told():
    model, _ = trained()
    model.eval()
    sounds = batch(8_000, 6_000)
    known = model.known_of(sounds)
    pooled = model._pooled(model._frames(sounds))
    told = {at_test: model._decide(pooled, known, Told(at_test, True)) for at_test in ("given", "unknown")}
    assert not torch.equal(told["given"][0], told["unknown"][0])
    assert torch.equal(told["given"][1], told["unknown"][1]), "whose gender is unknown"
    assert len(RECOGNIZERS) > 1
