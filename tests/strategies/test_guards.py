"""What stops a run that is not what it says."""

import re

import pytest
import torch
from torch import nn

from ser_strategies.encoder import encoder as encoder_module
from ser_strategies.strategies import (
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    VanillaFineTuning,
)
from ser_strategies.strategies.guards import DeadParametersError, GradientGuard, LossWatch
from tests.strategies.conftest import (
    WARNINGS,
    batch,
    build,
    copied,
    every_kind,
    every_pretraining,
    every_recognizer,
    every_strategy,
    fit,
    loader,
    trainable,
    trainer,
    two_kinds,
)

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"
PAIR = batch(4_800, 3_200)


# Gradients --------------------------------------------------------------------------------------------------


def keep_stock_attention(model, *, fast):
    """Leaves transformers' attention where it is; it only learns the name by which the encoder asks it."""
    del fast
    for block in model.encoder.layers:
        attention = block.attention
        attention.position_bias = lambda frames, it=attention: it.compute_bias(frames, frames)


@pytest.mark.parametrize("kind", ["wavlm-tiny", "wavlm-tiny-prenorm"])
def test_adapters_that_stock_wavlm_attention_reads_around_stop_the_run(kind, monkeypatch):
    monkeypatch.setattr(encoder_module, "use_gated_attention", keep_stock_attention)
    model = build(LoRAFineTuning, kind)
    adapters = len([name for name in trainable(model) if "lora_" in name])
    with pytest.raises(DeadParametersError, match="got no gradient") as stopped:
        fit(model, batch(4_800))
    message = str(stopped.value)
    assert message.startswith(f"{adapters} of the {adapters + 2} parameters that LoRAFineTuning declares")
    assert "encoder.model.encoder.layers.0.attention.q_proj.lora_A.default.weight" in message
    assert f"and {adapters - 5} more" in message


@pytest.mark.parametrize(
    ("strategy", "options"), [(VanillaFineTuning, {}), (PartialFineTuning, {"top_blocks": 4})]
)
@two_kinds
def test_blocks_that_are_skipped_at_random_are_no_false_alarm(strategy, options, kind):
    model = build(strategy, kind, layerdrop=0.8, **options)
    ran = []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda *_: ran.append(model.global_step))
    fit(model, *[PAIR] * 4)
    assert ran.count(0) < 4  # without patience the first step would have stopped the run
    assert model.global_step == 4


@every_strategy
def test_a_parameter_that_nothing_uses_stops_the_run_at_the_first_step(strategy):
    model = build(strategy, KIND)
    model.forgotten = nn.Parameter(torch.zeros(3))
    with pytest.raises(
        DeadParametersError, match=r"^1 of the \d+ parameters that .* got no gradient: forgotten\."
    ):
        fit(model, PAIR, PAIR)
    assert model.global_step == 0


def test_a_dead_parameter_stops_a_run_with_layerdrop_once_patience_is_out():
    dead, alive = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    guard = GradientGuard("Some", [("dead", dead), ("alive", alive)], patience=3)
    alive.grad = torch.zeros(1)
    guard.check()
    alive.grad = None  # it had one once, which is enough
    guard.check()
    with pytest.raises(
        DeadParametersError, match=r"1 of the 2 parameters that Some declares trainable .*: dead"
    ):
        guard.check()


def test_the_guard_rests_once_everything_had_a_gradient():
    parameter = nn.Parameter(torch.zeros(1))
    guard = GradientGuard("Some", [("one", parameter)])
    parameter.grad = torch.zeros(1)
    guard.check()
    parameter.grad = None
    guard.check()


def test_the_guard_does_not_wait_for_what_is_frozen():
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    GradientGuard("Some", [("frozen", frozen)]).check()


# Losses -----------------------------------------------------------------------------------------------------


@two_kinds
def test_a_waveform_that_is_no_number_stops_the_run_naming_step_and_utterance(kind):
    three = batch(4_800, 4_000, 3_200, seed=2)
    three.waveforms[1, 100] = torch.nan
    model = build(VanillaFineTuning, kind)
    with pytest.raises(
        FloatingPointError, match=r"^the loss is nan at step 1, in u21: look at those utterances"
    ):
        fit(model, PAIR, three, PAIR)
    assert model.global_step == 1


@every_recognizer
def test_outputs_that_are_no_numbers_stop_the_run_before_they_spoil_a_weight(strategy):
    model = build(strategy, KIND, head_lr=1.0)
    before = copied(model)

    def spoil(module, inputs, outputs):
        outputs = outputs.clone()
        outputs[[0, 2]] = torch.inf
        return outputs

    model.head.register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0, in u30 and u32: "):
        fit(model, batch(4_800, 4_000, 3_200, seed=3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@every_pretraining
def test_frames_that_are_no_numbers_stop_the_run_before_they_spoil_a_weight(strategy):
    model = build(strategy, KIND, head_lr=1.0)
    before = copied(model)

    def spoil(module, inputs, outputs):
        values = (outputs[0] if isinstance(outputs, tuple) else outputs).clone()
        values[[0, 2]] = torch.inf
        return (values, *outputs[1:]) if isinstance(outputs, tuple) else values

    model.encoder.blocks[-1].register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0, in train/0/0 and train/0/2: "):
        fit(model, batch(4_800, 4_000, 3_200, seed=3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_loss_that_is_no_number_though_the_outputs_are_names_the_batch():
    model = build(PartialFineTuning, KIND)
    model.objective.class_weights.fill_(torch.nan)
    expected = "at step 0, though the outputs are finite, for u00 and u01: "
    with pytest.raises(FloatingPointError, match=expected):
        fit(model, PAIR)


def test_many_utterances_are_counted():
    names = tuple(f"n{number}" for number in range(8))
    outputs = torch.full((8, 2), torch.nan)
    with pytest.raises(FloatingPointError, match="in n0, n1, n2, n3, n4 and 3 more: "):
        LossWatch().add("step 4", names, torch.tensor(torch.nan), outputs)


def test_losses_that_are_numbers_are_forgotten():
    watch = LossWatch()
    for step in range(3):
        watch.add(f"step {step}", ("a",), torch.tensor(1.0), torch.zeros(1, 2))
    assert watch.steps == []


# Number formats ---------------------------------------------------------------------------------------------


def test_mixed_precision_refuses_full_precision():
    model = build(MixedPrecisionFineTuning, KIND)
    message = (
        "MixedPrecisionFineTuning trains in precision 'bf16-mixed', but the trainer has '32-true': "
        "give it precision='bf16-mixed', or use PartialFineTuning, which takes any."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(model, PAIR, precision="32-true")
    assert model.global_step == 0


@pytest.mark.parametrize("given", ["32-true", "bf16-mixed"])
def test_float16_on_the_cpu_is_refused_with_what_works_there(given):
    model = build(MixedPrecisionFineTuning, KIND, precision="16-mixed")
    message = (
        "MixedPrecisionFineTuning trains in precision '16-mixed', which needs a GPU: "
        "use 'bf16-mixed' on the CPU."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(model, PAIR, precision=given)
    assert model.global_step == 0


@every_kind
def test_mixed_precision_computes_blocks_in_half_precision_and_keeps_weights_in_float32(kind):
    model = build(MixedPrecisionFineTuning, kind)
    formats = []
    block = model.encoder.blocks[-1]
    block.feed_forward.intermediate_dense.register_forward_hook(lambda *it: formats.append(it[2].dtype))
    model.head.register_forward_hook(lambda *it: formats.append(it[2].dtype))
    fit(model, PAIR)
    assert formats == [torch.bfloat16] * 2
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(PAIR.waveforms, PAIR.lengths).dtype == torch.float32


def test_mixed_precision_may_be_tested_in_any_precision():
    model = build(MixedPrecisionFineTuning, KIND)
    (scores,) = trainer(precision="32-true").test(model, loader(PAIR), verbose=False)
    assert "test/ua" in scores


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_other_strategies_take_any_precision(precision):
    assert fit(build(PartialFineTuning, KIND), PAIR, precision=precision).global_step == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bad", [3, 19])
def test_on_a_gpu_losses_are_looked_at_together_and_name_the_step(bad):
    batches = [batch(4_800, 3_200, seed=seed) for seed in range(20)]
    batches[bad].waveforms[1, 100] = torch.nan
    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {bad}, in u{bad}1: "):
        fit(build(PartialFineTuning, KIND), *batches, accelerator="gpu", devices=1)
