"""Relatives of the three families, from folders: data2vec, UniSpeech(-SAT), HuBERT with batch norm."""

from typing import Any

import pytest
import torch
from transformers import AutoModel

from ser_strategies.encoder import Encoder, LoRA, add_adapter, train_top_blocks
from ser_strategies.encoder.exporting import export_encoder
from ser_strategies.encoder.families import FAMILIES, PRE_NORM, TINY
from ser_strategies.parts.adaptation import UnitPrediction
from ser_strategies.strategies import TAPT, LoRAFineTuning, PartialFineTuning, VanillaFineTuning
from tests.encoder.conftest import TOLERANCE, alone, error, noise, padded, project, stir
from tests.encoder.test_tuning import SETTINGS
from tests.strategies.conftest import build, saved
from tests.strategies.conftest import stir as stir_what_trains

# As published: data2vec has five narrow convolutions for positions where the others have one wide one.
DATA2VEC = {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "data2vec": ("data2vec-audio", TINY | DATA2VEC),
    "UniSpeech": ("unispeech", TINY),
    "UniSpeech-SAT": ("unispeech-sat", TINY),
    "UniSpeech-SAT, large": ("unispeech-sat", TINY | PRE_NORM),
    "mHuBERT": ("hubert", TINY | {"conv_pos_batch_norm": True}),
}
LENGTHS = (9_000, 5_321, 700)
# All kinds are trained whole; in part and with an adapter, what has a norm, positions or blocks of its own.
SOME = (
    ("mHuBERT", PartialFineTuning),
    ("UniSpeech-SAT, large", LoRAFineTuning),
    ("data2vec", LoRAFineTuning),
)


def stock_of(kind: str) -> Any:
    """transformers' own model, nothing of it as it was drawn: statistics that batch norm has learned, too."""
    family, settings = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = FAMILIES[family].config(**settings)
        model = FAMILIES[family].model(config).eval()
    stir(model)
    generator = torch.Generator().manual_seed(1)
    for name, values in model.named_buffers():
        if name.endswith("running_mean"):
            values.add_(torch.randn(values.shape, generator=generator))
        if name.endswith("running_var"):
            values.mul_(torch.rand(values.shape, generator=generator) + 0.5)
    return model


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def stock(kind):
    return stock_of(kind)


@pytest.fixture
def published(stock, folder):
    return folder(stock, normalise=False)


def test_a_clip_gives_the_frames_that_transformers_makes_of_it_alone(stock, published):
    clip = noise(LENGTHS[1], level=1.0)
    with torch.no_grad():
        found = Encoder(str(published)).eval()(*alone(clip), layers=True)
        said = stock(clip[None], output_hidden_states=True)
    assert error(found.values, said.last_hidden_state) < TOLERANCE
    # Above the last block of a pre-norm encoder we give what its norm leaves, transformers what enters it.
    for mine, theirs in zip(found.layers[:-1], said.hidden_states[:-1], strict=True):
        assert error(mine, theirs) < TOLERANCE


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_frames_do_not_depend_on_neighbours_and_what_is_behind_the_end(mode, published):
    """In training, too, where batch norm would take the statistics of the batch."""
    encoder = Encoder(str(published), dropout=0.0)
    encoder.train(mode == "train")
    before = {name: values.clone() for name, values in encoder.named_buffers()}
    clips = [noise(length, seed) for seed, length in enumerate(LENGTHS)]
    together = encoder(*padded(clips, junk=(7.0, -3.0)))
    for row, clip in enumerate(clips):
        single = encoder(*alone(clip)).values[0]
        assert error(together.values[row, : len(single)], single) < TOLERANCE
        assert int(together.mask[row].sum()) == len(single)
    assert all(torch.equal(values, before[name]) for name, values in encoder.named_buffers())


def test_gradients_of_a_padded_batch_are_the_sum_of_those_of_clips_alone(published):
    encoder = Encoder(str(published), dropout=0.0)
    clips = [noise(length, seed) for seed, length in enumerate(LENGTHS)]

    def gradients(batches: list[Any]) -> dict[str, torch.Tensor]:
        encoder.zero_grad()
        for batch in batches:
            frames = encoder(*batch)
            project(frames.values, frames.mask).backward()
        return {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}

    one, other = gradients([padded(clips)]), gradients([alone(clip) for clip in clips])
    assert one.keys() == other.keys() == {n for n, p in encoder.named_parameters() if p.requires_grad}
    for name in one:
        assert error(one[name], other[name]) < 1e-3 or one[name].norm() < 1e-5, name


def test_blocks_freeze_and_an_adapter_goes_in(published):
    partial = Encoder(str(published))
    train_top_blocks(partial, 1)
    trained = {name for name, each in partial.named_parameters() if each.requires_grad}
    last = {name for name, _ in partial.named_parameters() if ".encoder.layers.3." in name}
    assert last <= trained
    assert all(name in last or name.startswith("model.encoder.layer_norm.") for name in trained)
    adapted = Encoder(str(published))
    add_adapter(adapted, LoRA(**SETTINGS, targets=("q_proj", "v_proj")))
    frames = adapted(*padded([noise(length) for length in LENGTHS]))
    project(frames.values, frames.mask).backward()
    assert {
        name for name, each in adapted.named_parameters() if each.grad is not None
    } == adapted.adapter_names


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        pytest.param(
            *(kind, strategy),
            id=f"{kind}-{strategy.__name__}",
            marks=() if strategy is VanillaFineTuning or (kind, strategy) in SOME else pytest.mark.further,
        )
        for kind in KINDS
        for strategy in (VanillaFineTuning, PartialFineTuning, LoRAFineTuning)
    ],
    indirect=["kind"],
)
def test_a_strategy_trains_is_saved_read_and_exported(strategy, published, tmp_path):
    model = build(strategy, str(published))
    stir_what_trains(model)
    path = saved(model, tmp_path / "run" / "best.ckpt")
    clip = alone(noise(LENGTHS[1]))
    with torch.no_grad():
        wanted = model.eval().encoder(*clip).values
        again = Encoder(str(path)).eval()(*clip).values
        made = export_encoder(path.parent, tmp_path / "folder")
        shipped = Encoder(str(made.folder)).eval()(*clip).values
        theirs = AutoModel.from_pretrained(made.folder).eval()(clip[0]).last_hidden_state
    for found in (again, shipped, theirs):
        assert error(found, wanted) < TOLERANCE


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.further if kind.startswith("UniSpeech") else ()) for kind in KINDS],
    indirect=True,
)
def test_an_adaptation_learns_units(published, tmp_path):
    """None of them has wav2vec2's quantiser to go on with."""
    model = build(TAPT, str(published))
    assert isinstance(model.adaptation, UnitPrediction)
    path = saved(model, tmp_path / "adapted" / "best.ckpt")
    clip = alone(noise(LENGTHS[1]))
    with torch.no_grad():
        assert torch.equal(Encoder(str(path)).eval()(*clip).values, model.eval().encoder(*clip).values)
