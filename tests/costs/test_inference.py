"""What a trained model costs whoever uses it, against models and clocks that are known."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from ser_strategies.costs.flops import count_flops
from ser_strategies.costs.inference import as_shipped, measured, shipment
from ser_strategies.costs.machine import FORGET, resident_peak
from ser_strategies.encoder import Encoder
from ser_strategies.strategies import LoRAFineTuning, PartialFineTuning, VanillaFineTuning, Vesper
from tests.strategies.conftest import WARNINGS, batch, build, published, saved, stir

pytestmark = WARNINGS


def size_of(module):
    return sum(each.numel() for each in module.parameters())


def test_an_adapter_is_merged_for_shipping_and_stays_what_it_was():
    model, plain = build(LoRAFineTuning, "wav2vec2-tiny"), build(PartialFineTuning, "wav2vec2-tiny")
    stir(model)
    model.eval()
    sound, encoder, names = batch(8_000, 6_000), model.encoder, list(model.state_dict())
    with torch.no_grad():
        expected = model(sound.waveforms, sound.lengths)
        with as_shipped(model):
            assert size_of(model) == size_of(plain)
            merged = model(sound.waveforms, sound.lengths)
        assert torch.equal(model(sound.waveforms, sound.lengths), expected)
    assert torch.allclose(merged, expected, atol=1e-5)
    assert not torch.equal(merged, expected), "sums in another order"
    assert model.encoder is encoder
    assert list(model.state_dict()) == names
    assert shipment(model) == shipment(plain)


def test_what_training_alone_needs_is_not_shipped():
    plain = shipment(build(VanillaFineTuning, "wav2vec2-tiny"))
    taught = build(VanillaFineTuning, "wav2vec2-tiny", frame_loss_weight=1.0)
    assert shipment(taught) == plain
    assert plain["inference_parameters"] == size_of(taught) - size_of(taught.frame_head)
    assert plain["inference_bytes"] == 4 * plain["inference_parameters"]
    assert shipment(torch.nn.Linear(2, 2)) == dict.fromkeys(plain)


@pytest.mark.parametrize(
    "kind", ["wavlm-tiny-prenorm", pytest.param("wav2vec2-tiny", marks=pytest.mark.further)]
)
def test_a_student_names_what_its_teacher_costs(kind, tmp_path):
    source = str(published(kind, tmp_path / "teacher"))
    teacher = build(VanillaFineTuning, source)
    # Of clips of two seconds the head takes two for each weight.
    work = count_flops(teacher).inference - teacher.head[1].weight.numel()
    path = saved(build(Vesper, source, blocks=3), tmp_path / "student.ckpt")
    for student in (build(Vesper, source, blocks=2), build(LoRAFineTuning, str(path))):
        facts = shipment(student)
        assert facts["teacher_blocks"] == teacher.encoder.block_count == 4
        assert facts["teacher_parameters"] == size_of(Encoder(source).model)
        assert count_flops(student).teacher == pytest.approx(work)
    assert count_flops(teacher).teacher is shipment(teacher)["teacher_blocks"] is None


def test_speed_is_sound_over_time_and_memory_that_of_the_batch(monkeypatch):
    model = build(VanillaFineTuning, "wav2vec2-tiny", max_seconds=0.4).eval()
    calls, now = [], [0.0]

    def slow(waveforms, lengths):
        calls.append(lengths.tolist())
        now[0] += (1.0, 0.1, 0.2, 0.1, 0.2, 0.2, 0.3, 0.2)[(len(calls) - 1) % 8] * len(lengths)
        torch.ones(5_000_000 * len(lengths)).sum()

    model.forward = slow
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("ser_strategies.costs.inference.time", clock)
    monkeypatch.setattr("ser_strategies.costs.inference.SECONDS", 100.0)
    held = torch.ones(100_000_000)  # 400 MB
    before = resident_peak()
    del held
    found = measured(model, batch(8_000, 3_200, 4_800), nullcontext)
    assert [*map(len, calls)] == [1] * 8 + [3] * 8
    assert calls[0] == [4_800], "the clip of the median length"
    assert found["single_audio_seconds_per_second"] == pytest.approx(0.3 / 0.2)
    # Of the longest clip 0.4 s are heard; the quartiles are means of 0.1 and 0.2 s, and of 0.2 and 0.2 s.
    assert found["inference_audio_seconds_per_second"] == pytest.approx(0.9 / 0.6)
    assert found["inference_audio_seconds_per_second_iqr"] == pytest.approx((0.9 / 0.3 - 0.9 / 0.6) / 2)
    assert found["inference_batch_size"] == 3
    if FORGET.exists():
        assert 60_000_000 < found["inference_peak_memory_bytes"] < before - 200_000_000


def test_what_takes_long_is_run_three_times(monkeypatch):
    monkeypatch.setattr("ser_strategies.costs.inference.SECONDS", 0.0)
    model, calls = build(VanillaFineTuning, "wav2vec2-tiny").eval(), []
    model.forward = lambda waveforms, lengths: calls.append(len(lengths))
    measured(model, batch(8_000, 6_000), nullcontext)
    assert calls == [1] * 3 + [2] * 3
