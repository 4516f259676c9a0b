"""Fast paths are exact: each strategy comes to the same weights with them and by the plain formulas."""

import os
import sys
from typing import Any

import pytest
import torch

from ser_strategies.costs.machine import resident_peak
from ser_strategies.fast import heap
from ser_strategies.strategies import (
    PTAPT,
    STRATEGIES,
    LoRAFineTuning,
    PartialFineTuning,
    VanillaFineTuning,
)
from tests.programs import Program
from tests.strategies.conftest import (
    MOVES,
    SEED,
    WARNINGS,
    Losses,
    batch,
    build,
    copied,
    every_kind,
    every_one_of,
    fit,
    stir,
    trainable,
)

pytestmark = WARNINGS
PAIR = batch(8_000, 6_000)


def twins(strategy: type, kind: str, **options: Any) -> list[Any]:
    """The same model, fast and plain. Dropout draws differently, so there is none."""
    made = []
    for fast in (True, False):
        torch.manual_seed(SEED)
        model = build(strategy, kind, fast=fast, encoder_dropout=0.0, **options)
        stir(model)
        made.append(model)
    return made


@every_kind
@pytest.mark.parametrize("strategy", [VanillaFineTuning, PartialFineTuning, LoRAFineTuning])
def test_loss_and_gradients_are_the_same(strategy, kind):
    found = []
    for model in twins(strategy, kind):
        model.encoder.masking.eval()
        loss = model.loss_of(PAIR)
        loss.backward()
        found.append((loss.item(), {name: p.grad for name, p in trainable(model).items()}))
    (fast_loss, fast), (plain_loss, plain) = found
    assert fast_loss == pytest.approx(plain_loss, rel=1e-5)
    largest = max(gradient.norm() for gradient in plain.values())
    for name, gradient in plain.items():
        # The bias of the keys moves all weights of a query alike: its gradient is rounding around zero.
        assert (fast[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), 1e-2 * largest), name


# Of the first four, loss and gradients are compared above, or what learns units is.
@every_one_of(STRATEGIES, further=[VanillaFineTuning, PartialFineTuning, LoRAFineTuning, PTAPT])
def test_every_strategy_learns_the_same(strategy):
    ended = []
    for model in twins(strategy, "wavlm-tiny-prenorm", **MOVES):
        torch.manual_seed(SEED)
        losses = Losses()
        fit(model, PAIR, batch(6_400, 9_000, seed=1), val=PAIR, callbacks=[losses], max_epochs=2)
        ended.append((losses.values, copied(model), model))
    (fast_losses, fast, model), (plain_losses, plain, _) = ended
    # Rounding of a step enters the next one; brain floats round to three digits.
    tolerance = 2e-2 if model.required_precision else 1e-4
    assert fast_losses == pytest.approx(plain_losses, rel=tolerance)
    for name, tensor in plain.items():
        # The bias of the keys has no gradient but rounding, which Adam blows up to whole steps.
        if tensor.is_floating_point() and not name.endswith("k_proj.bias"):
            torch.testing.assert_close(fast[name], tensor, rtol=tolerance, atol=tolerance)


def test_the_optimizer_is_fused_unless_the_model_is_to_be_plain_or_the_user_chose():
    def group(**options: Any) -> dict[str, Any]:
        model = build(VanillaFineTuning, "wav2vec2-tiny", **options)
        fit(model, PAIR, val=PAIR)
        return model.trainer.optimizers[0].param_groups[0]

    assert group()["fused"] is True
    assert group(fast=False)["fused"] is None
    assert group(optimizer=lambda groups: torch.optim.AdamW(groups, fused=False))["fused"] is False


def test_a_resumed_run_steps_as_it_is_told_not_as_it_did_before(tmp_path):
    first = build(VanillaFineTuning, "wav2vec2-tiny")
    fit(first, PAIR, val=PAIR)
    first.trainer.save_checkpoint(tmp_path / "last.ckpt")
    for fast in (False, True):
        again = build(VanillaFineTuning, "wav2vec2-tiny", fast=fast)
        fit(again, PAIR, val=PAIR, max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
        assert again.trainer.global_step == 2
        assert again.trainer.optimizers[0].param_groups[0]["fused"] is (True if fast else None)


def test_a_user_who_has_said_what_malloc_is_to_do_is_heard(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert heap.keep_freed_memory() is False


@pytest.mark.skipif(heap._glibc() is None, reason="only glibc has these options")
def test_freed_memory_stays_while_a_run_lasts_and_goes_back_after_it(monkeypatch):
    called = []
    real = heap._glibc()

    class Library:
        def mallopt(self, option: int, value: int) -> int:
            called.append((option, value))
            return real.mallopt(option, value)

        def malloc_trim(self, pad: int) -> int:
            called.append("trim")
            return real.malloc_trim(pad)

    monkeypatch.setattr(heap, "_glibc", Library)
    fit(build(VanillaFineTuning, "wav2vec2-tiny"), PAIR, val=PAIR)
    assert called[:2] == [(heap.MMAP_THRESHOLD, heap.LARGEST), (heap.TRIM_THRESHOLD, heap.NEVER)]
    assert called[-2:] == [(heap.TRIM_THRESHOLD, heap.ORDINARY_TRIM), "trim"]
    called.clear()
    fit(build(VanillaFineTuning, "wav2vec2-tiny", fast=False), PAIR, val=PAIR)
    assert called == []


def growth(few: bool) -> None:
    """Writes by how many bytes a process grows that meets forty more lengths."""
    if few:
        heap.keep_few_kernels()
    model = VanillaFineTuning("random:wav2vec2-tiny", num_classes=2)
    before = 0
    for samples in range(8_000, 8_000 + 60 * 320, 320):
        with torch.no_grad():
            model(torch.randn(1, samples), torch.full((1,), samples))
        if samples == 8_000 + 20 * 320:
            before = resident_peak()
    sys.stdout.write(str(resident_peak() - before))


def test_a_process_does_not_grow_with_the_number_of_lengths_it_has_seen():
    def grown(*, few: bool) -> int:
        return int(Program(growth, few, environment={heap.KERNELS_KEPT[0]: None}).wait().out)

    many = grown(few=False)
    if many < 20e6:
        pytest.skip(f"this torch keeps little of its own accord: {many / 1e6:.0f} MB")
    assert grown(few=True) < 0.5 * many


def test_a_user_who_has_said_how_many_kernels_to_keep_is_heard(monkeypatch):
    monkeypatch.setenv(heap.KERNELS_KEPT[0], "7")
    heap.keep_few_kernels()
    assert os.environ[heap.KERNELS_KEPT[0]] == "7"
    monkeypatch.delenv(heap.KERNELS_KEPT[0])
    heap.keep_few_kernels()
    assert os.environ[heap.KERNELS_KEPT[0]] == heap.KERNELS_KEPT[1]


def test_glibc_takes_the_options():
    assert heap.keep_freed_memory() is (heap._glibc() is not None)
    heap.return_freed_memory()


def test_where_there_is_no_glibc_nothing_is_asked_of_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    heap._glibc.cache_clear()
    assert heap.keep_freed_memory() is False
    heap.return_freed_memory()
    heap._glibc.cache_clear()
