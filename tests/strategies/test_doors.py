"""What anybody adds from a package of their own, by the page on adding: none of it touches the library."""

import importlib
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from ser_strategies.cli import main
from ser_strategies.encoder import LoRA, add_adapter, freeze, thaw, train_top_blocks
from ser_strategies.encoder.checkpoints import RECORD
from ser_strategies.strategies import LoRAFineTuning, PartialFineTuning, VanillaFineTuning, load_strategy
from ser_strategies.strategies.guards import GradientGuard
from tests.documented import forget, write_files
from tests.strategies.conftest import (
    CLASSES,
    WARNINGS,
    Losses,
    Rates,
    batch,
    copied,
    fit,
    frames,
    loader,
    logits,
    trainable,
    trainer,
)

pytestmark = WARNINGS
KIND = "random:wav2vec2-tiny"
BLOCKS, SIZE = 4, 64
PAGE = Path(__file__).parents[2] / "docs" / "adding.md"
PAIR, OTHER = batch(4_800, 3_200), batch(3_200, 4_000, seed=1)
FAST = {"encoder_lr": 1e-3, "head_lr": 1e-2}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """The files of the page, importable as they would be from a folder on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("own")
    write_files(PAGE, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    forget(sys.modules, "my_package")
    yield folder
    # It stays importable, behind everything: in later tests, too, jsonargparse asks for every strategy.
    sys.path.remove(str(folder))
    sys.path.append(str(folder))
    forget(sys.modules, "my_package")


def mine(module, name):
    return getattr(importlib.import_module(f"my_package.{module}"), name)


def held(path):
    return torch.load(path, weights_only=True)["state_dict"]


def trained(model, path, epochs=1, **options):
    made = trainer(max_epochs=epochs, **options)
    made.fit(model, loader(PAIR, OTHER))
    made.save_checkpoint(path)
    return path


# Gradual unfreezing -----------------------------------------------------------------------------------------


class Blocks(Callback):
    """Keeps the weights of each block after each epoch, before the first of all; and a checkpoint."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_train_start(self, trainer, model):
        self.seen.append([copied(block) for block in model.encoder.blocks])

    def on_train_epoch_end(self, trainer, model):
        self.seen.append([copied(block) for block in model.encoder.blocks])
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


def moved(before, after):
    """Which blocks changed, and whether none of the others did by as much as a bit."""
    pairs = zip(before, after, strict=True)
    return [any(not torch.equal(old[name], new[name]) for name in old) for old, new in pairs]


class Unfreezing(Callback):
    """The same from outside: a callback for a strategy that declares three blocks."""

    def on_train_start(self, trainer, model):
        self.on_train_epoch_start(trainer, model)

    def on_train_epoch_start(self, trainer, model):
        rests, trains = freeze, thaw
        for number in range(1, BLOCKS):
            change = trains if number >= BLOCKS - 1 - trainer.current_epoch else rests
            change(model.encoder.blocks[number])


def gradual(way):
    torch.manual_seed(0)
    if way == "subclass":
        return mine("gradual", "GradualUnfreezing")(KIND, num_classes=CLASSES, **FAST), []
    return PartialFineTuning(KIND, num_classes=CLASSES, **FAST), [Unfreezing()]


@pytest.mark.parametrize("way", ["subclass", "callback"])
def test_gradual_unfreezing_trains_saves_reloads_and_resumes(way, tmp_path):
    model, callbacks = gradual(way)
    blocks, losses = Blocks(tmp_path), Losses()
    made = trainer(max_epochs=3, callbacks=[*callbacks, blocks, losses])
    made.fit(model, loader(PAIR, OTHER))
    steps = [moved(*pair) for pair in zip(blocks.seen, blocks.seen[1:], strict=False)]
    assert steps == [[False, False, False, True], [False, False, True, True], [False, True, True, True]]

    plain = trained(PartialFineTuning(KIND, num_classes=CLASSES), tmp_path / "plain.ckpt")
    for epoch in range(3):
        assert set(held(tmp_path / f"{epoch}.ckpt")) == set(held(plain))
    again = load_strategy(tmp_path / "2.ckpt")
    assert type(again) is type(model)
    assert torch.equal(logits(again, PAIR), logits(model, PAIR))

    later, callbacks = gradual(way)
    rest = Losses()
    resumed = trainer(max_epochs=3, callbacks=[*callbacks, rest])
    resumed.fit(later, loader(PAIR, OTHER), ckpt_path=tmp_path / "0.ckpt")
    assert rest.values == losses.values[2:]
    assert torch.equal(logits(later, PAIR), logits(model, PAIR))


def test_a_parameter_that_thaws_and_gets_no_gradient_is_found():
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    guard = GradientGuard("Mine", layer.named_parameters())
    layer.weight.grad = torch.ones(2, 2)
    guard.check()
    layer.bias.requires_grad_(True)
    with pytest.raises(
        ValueError, match="1 of the 2 parameters that Mine declares trainable got no gradient"
    ):
        guard.check()


def test_a_parameter_that_thaws_among_several_processes_is_refused():
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    guard = GradientGuard("Mine", layer.named_parameters(), alone=False)
    layer.weight.grad = torch.ones(2, 2)
    guard.check()
    thaw(layer)
    with pytest.raises(
        ValueError, match=r"bias began to train after several processes .*--trainer\.devices 1"
    ):
        guard.check()


def test_a_strategy_that_trains_biases_saves_biases(tmp_path):
    model = mine("bias", "BiasFineTuning")(KIND, num_classes=CLASSES)
    found = held(trained(model, tmp_path / "a.ckpt"))
    of_encoder = {name for name in found if name.startswith("encoder.")}
    assert of_encoder == {
        f"encoder.{name}"
        for name, _ in model.encoder.named_parameters()
        if name.endswith("bias") and ".layers." in name
    }
    assert torch.equal(logits(load_strategy(tmp_path / "a.ckpt"), PAIR), logits(model, PAIR))
    after = VanillaFineTuning(str(tmp_path / "a.ckpt"), num_classes=2)
    assert torch.equal(frames(after.encoder, PAIR), frames(model.encoder, PAIR))


# Parameter groups -------------------------------------------------------------------------------------------


def test_rates_of_layer_wise_decay_are_those_of_the_formula_and_logged_by_name(tmp_path):
    model = mine("layerwise", "LayerWiseDecay")(KIND, num_classes=CLASSES, decay=0.5, warmup_steps=1, **FAST)
    rates = Rates()
    logger = CSVLogger(tmp_path, name="", version="")
    trained(
        model,
        tmp_path / "a.ckpt",
        callbacks=[rates, LearningRateMonitor()],
        logger=logger,
        log_every_n_steps=1,
    )
    names = [group["name"] for group in model.trainer.optimizers[0].param_groups]
    formula = {f"block_{k}": 1e-3 * 0.5 ** (BLOCKS - 1 - k) for k in range(BLOCKS)} | {
        "below": 1e-3 / 16,
        "head": 1e-2,
    }
    assert set(names) == set(formula)
    first, second = (dict(zip(names, step, strict=True)) for step in rates.values)
    assert second == pytest.approx(formula)
    assert first == pytest.approx({name: rate / 2 for name, rate in formula.items()})
    logged = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {f"lr-AdamW/{name}" for name in formula} <= set(logged)
    resumed = trainer(max_epochs=2)
    resumed.fit(load_strategy(tmp_path / "a.ckpt"), loader(PAIR, OTHER), ckpt_path=tmp_path / "a.ckpt")
    rates = {group["name"]: group["lr"] for group in resumed.optimizers[0].param_groups}
    assert rates == pytest.approx(formula)
    assert resumed.global_step == 4


def groups_of(change):
    class Odd(mine("layerwise", "LayerWiseDecay")):
        def parameter_groups(self):
            return change(super().parameter_groups())

    return Odd(KIND, num_classes=CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda groups: groups[1:], "is in none"),
        (lambda groups: [*groups, {**groups[0], "name": "again"}], "is in several"),
        (lambda groups: [{**each, "name": "one"} for each in groups], "a name of its own"),
        (
            lambda groups: [*groups, {"name": "x", "params": [torch.nn.Parameter(torch.ones(1))]}],
            "not among may_train",
        ),
    ],
)
def test_groups_that_are_not_what_trains_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        trainer().fit(groups_of(change), loader(PAIR))


def test_a_group_may_have_its_own_weight_decay():
    def split(groups):
        return [{**each, "weight_decay": 0.0 if each["name"] == "head" else 0.3} for each in groups]

    model = groups_of(split)
    made = trainer()
    made.fit(model, loader(PAIR))
    assert {g["name"]: g["weight_decay"] for g in made.optimizers[0].param_groups}["head"] == 0.0


# Adapters ---------------------------------------------------------------------------------------------------


def bottleneck(width=8):
    return mine("bottleneck", "BottleneckFineTuning")(KIND, num_classes=CLASSES, width=width, **FAST)


def test_a_bottleneck_trains_as_many_weights_as_on_paper_and_saves_no_more(tmp_path):
    model = bottleneck()
    before = copied(model)
    found = held(trained(model, tmp_path / "a.ckpt"))
    inside = {name: tensor for name, tensor in found.items() if name.startswith("encoder.")}
    assert sum(tensor.numel() for tensor in inside.values()) == BLOCKS * (2 * SIZE * 8 + 8 + SIZE)
    assert set(inside) == {name for name in trainable(model) if name.startswith("encoder.")}
    rest = {name for name in before if name.startswith("encoder.") and name not in inside}
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in rest)
    assert all(not torch.equal(before[name], after[name]) for name in inside)
    assert torch.equal(logits(load_strategy(tmp_path / "a.ckpt"), PAIR), logits(model, PAIR))


def test_an_adapter_that_cannot_be_merged_is_carried_through_the_stages_that_follow(tmp_path):
    first = bottleneck()
    one = trained(first, tmp_path / "1.ckpt")
    expected = frames(first.encoder, PAIR)
    for strategy, whole in ((VanillaFineTuning, True), (PartialFineTuning, False)):
        second = strategy(str(one), num_classes=CLASSES, **FAST)
        assert torch.equal(frames(second.encoder, PAIR), expected)
        second.train()
        two = trained(second, tmp_path / "2.ckpt")
        assert second.whole == whole
        assert not torch.equal(frames(second.encoder, PAIR), expected)
        assert torch.equal(logits(load_strategy(two), PAIR), logits(second, PAIR))
        third = PartialFineTuning(str(two), num_classes=CLASSES)
        assert torch.equal(frames(third.encoder, PAIR), frames(second.encoder, PAIR))
        assert torch.equal(
            logits(load_strategy(trained(third, tmp_path / "3.ckpt")), PAIR), logits(third, PAIR)
        )
    with pytest.raises(ValueError, match=r"has the adapter BottleneckAdapter, with room for no other"):
        LoRAFineTuning(str(one), num_classes=CLASSES)


def test_an_adapter_that_a_checkpoint_could_not_hold_is_refused():
    from ser_strategies.encoder import Adapter

    class Loose(Adapter):
        def inject(self, encoder):
            pass

    with pytest.raises(ValueError, match="Loose must be a dataclass"):
        add_adapter(PartialFineTuning(KIND, num_classes=2).encoder, Loose())


def test_the_slot_is_for_one():
    model = LoRAFineTuning(KIND, num_classes=2)
    with pytest.raises(ValueError, match="has the adapter LoRA"):
        add_adapter(model.encoder, LoRA(2, 2.0, 0.0, ("q_proj",), False, False))


# Parts ------------------------------------------------------------------------------------------------------

OWN = {
    "pooling": "my_package.parts.MaxPooling",
    "head": {"class_path": "my_package.parts.CosineHead", "init_args": {"scale": 16.0}},
    "class_loss": "my_package.parts.FocalLoss",
    "class_weights": "my_package.parts.effective_number",
    "class_counts": (3, 1, 2, 4),
}


def test_parts_of_ones_own_compute_what_they_say_and_come_back_from_the_checkpoint(tmp_path):
    model = PartialFineTuning(KIND, num_classes=CLASSES, **OWN)
    path = trained(model, tmp_path / "a.ckpt")
    model.eval()
    with torch.no_grad():
        found = model.encoder(PAIR.waveforms, PAIR.lengths)
        rows = [values[mask].max(0).values for values, mask in zip(found.values, found.mask, strict=True)]
        weight = model.head.weight
        by_hand = torch.stack([16 * torch.cosine_similarity(row[None], weight) for row in rows])
        torch.testing.assert_close(logits(model, PAIR), by_hand, rtol=1e-5, atol=1e-5)
        chances = by_hand.softmax(1)[torch.arange(2), PAIR.labels]
        weights = torch.tensor([0.01 / (1 - 0.99**n) for n in OWN["class_counts"]])[PAIR.labels]
        torch.testing.assert_close(
            model.loss_of(PAIR), -(weights * (1 - chances) ** 2 * chances.log()).mean()
        )
        unknown = PAIR._replace(labels=torch.tensor([0, -1]))
        one = -(weights[0] * (1 - chances[0]) ** 2 * chances[0].log())
        torch.testing.assert_close(model.loss_of(unknown), one)
        assert model.loss_of(PAIR._replace(labels=torch.tensor([-1, -1]))) == 0
    assert torch.load(path, weights_only=True)["hyper_parameters"]["head"] == OWN["head"]
    assert torch.equal(logits(load_strategy(path), PAIR), logits(model, PAIR))


def test_a_class_and_a_partial_are_as_good_as_their_paths(tmp_path):
    from functools import partial

    head = partial(mine("parts", "CosineHead"), scale=16.0)
    model = PartialFineTuning(KIND, num_classes=CLASSES, pooling=mine("parts", "MaxPooling"), head=head)
    assert (model.hparams["pooling"], model.hparams["head"]) == (OWN["pooling"], OWN["head"])
    assert model.head.scale == 16.0
    again = load_strategy(trained(model, tmp_path / "a.ckpt"))
    assert torch.equal(logits(again, PAIR), logits(model, PAIR))


def test_a_loss_of_dimensions_and_an_objective_of_ones_own(tmp_path, package):
    (package / "my_package" / "further.py").write_text(
        "from torch import nn\n"
        "from ser_strategies.parts.objectives import Dimensions\n\n"
        "class Squared(nn.Module):\n"
        "    def forward(self, predictions, targets):\n"
        "        return (predictions - targets).square().nanmean()\n\n"
        "class Scaled(Dimensions):\n"
        "    def __init__(self, labels, dimensions, factor=1.0):\n"
        "        super().__init__(dimensions)\n"
        "        self.factor = factor\n"
        "    def loss(self, outputs, batch):\n"
        "        return self.factor * super().loss(outputs, batch)\n"
    )
    importlib.invalidate_caches()
    targets = PAIR._replace(dimensions=torch.tensor([[0.1, 0.9], [0.5, torch.nan]]))
    wanted = {"objective": "dimensions", "dimensions": ("valence", "activation")}
    model = PartialFineTuning(KIND, dimension_loss="my_package.further.Squared", **wanted).eval()
    made = logits(model, PAIR)
    expected = (made - targets.dimensions).square()[~targets.dimensions.isnan()].mean()
    torch.testing.assert_close(model.loss_of(targets), expected)
    plain = PartialFineTuning(KIND, **wanted).eval()
    path = {"class_path": "my_package.further.Scaled", "init_args": {"factor": 3.0}}
    tripled = PartialFineTuning(KIND, **(wanted | {"objective": path})).eval()
    tripled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(tripled.loss_of(targets), 3 * plain.loss_of(targets))
    fit(tripled, targets).save_checkpoint(tmp_path / "a.ckpt")
    assert load_strategy(tmp_path / "a.ckpt").objective.factor == 3.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pooling": "meen"},
            r"pooling must be one of mean, .*mhfa, projected, got 'meen' \(did you mean mean\?\)",
        ),
        ({"pooling": "my_package.parts.MinPooling"}, r"pooling: my_package\.parts has no 'MinPooling'"),
        ({"pooling": "your_package.Pooling"}, r"pooling: cannot import 'your_package\.Pooling'"),
        ({"pooling": "my_package.parts.effective_number"}, "is not the class of one: expected a subclass of"),
        ({"pooling": "my_package.parts.FocalLoss"}, "must say in `size`"),
        ({"pooling": "torch.nn.Flatten"}, "must say in `size`"),
        (
            {"pooling": {"class_path": "my_package.parts.MaxPooling", "init_args": {"a": 1}}},
            "cannot be made from",
        ),
        ({"pooling": {"path": "x"}}, "or the import path of your own"),
        (
            {"head": "my_package.parts.CosineHead", "head_dropout": 0.1},
            "head_size and head_dropout are for linear",
        ),
        (
            {"class_loss": "my_package.parts.FocalLoss", "label_smoothing": 0.1},
            "label_smoothing is for cross-entropy",
        ),
        ({"class_loss": "my_package.parts.CosineHead"}, r"class_loss: .* cannot be made from"),
        ({"class_loss": "my_package.bottleneck.Bottleneck"}, r"class_loss: .* cannot be made from"),
        (
            {"class_weights": {"class_path": "my_package.parts.effective_number", "init_args": {"b": 1}}},
            "init_args",
        ),
        (
            {"objective": "my_package.parts.FocalLoss"},
            r"subclass of ser_strategies\.parts\.objectives\.Objective",
        ),
        ({"head": torch.nn.Linear(2, 2)}, "give Linear itself, or a partial of it"),
        ({"pooling": lambda size: None}, "cannot be found by its path"),
    ],
)
def test_a_part_that_is_none_is_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        PartialFineTuning(KIND, num_classes=CLASSES, **options)
    assert "\n" not in str(refusal.value)


def test_a_part_that_gives_another_shape_is_refused(package):
    (package / "my_package" / "odd.py").write_text(
        "from torch import nn\n\n"
        "class First(nn.Module):\n"
        "    size = 7\n"
        "    def __init__(self, size):\n        super().__init__()\n"
        "    def forward(self, frames, mask):\n        return frames[:, 0]\n\n"
        "class NoMask(First):\n"
        "    def forward(self, frames):\n        return frames[:, 0]\n"
    )
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=r"First must return a tensor of shape \(2, 7\), got \(2, 64\)"):
        PartialFineTuning(KIND, num_classes=CLASSES, pooling="my_package.odd.First")
    with pytest.raises(ValueError, match=r"NoMask cannot take tensors of shape \(2, 3, 64\), \(2, 3\)"):
        PartialFineTuning(KIND, num_classes=CLASSES, pooling="my_package.odd.NoMask")


def test_trying_a_part_draws_no_random_number():
    torch.manual_seed(0)
    PartialFineTuning(KIND, num_classes=CLASSES)
    expected = torch.rand(1)
    torch.manual_seed(0)
    PartialFineTuning(KIND, num_classes=CLASSES, pooling="my_package.parts.MaxPooling")
    assert torch.equal(torch.rand(1), expected)


# Trust ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", ["strategy", "part", "adapter"])
def test_code_of_a_stranger_runs_on_request_only(thing, tmp_path):
    if thing == "part":
        model = PartialFineTuning(KIND, num_classes=CLASSES, **OWN)
    else:
        model = (
            bottleneck()
            if thing == "adapter"
            else mine("gradual", "GradualUnfreezing")(KIND, num_classes=CLASSES)
        )
    path = trained(model, tmp_path / "a.ckpt")
    expected = logits(model, PAIR)
    forget(sys.modules, "my_package")
    for trust in ((), "my_pack", "my_package.elsewhere"):
        with pytest.raises(ValueError, match=r"a\.ckpt needs my_package\..*, or give trust='my_package'"):
            load_strategy(path, trust=trust)
        assert not [name for name in sys.modules if name.startswith("my_package")]
    if thing == "adapter":
        with pytest.raises(
            ValueError, match=r"cannot find 'my_package\.bottleneck\.BottleneckAdapter': import"
        ):
            VanillaFineTuning(str(path), num_classes=2)
    again = load_strategy(path, trust="my_package")
    assert torch.equal(logits(again, PAIR), expected)
    assert torch.equal(logits(load_strategy(path), PAIR), expected)  # it has been imported by now


def test_predict_takes_a_strangers_checkpoint_on_request(tmp_path, capsys):
    path = trained(bottleneck(), tmp_path / "a.ckpt")
    sound, table = tmp_path / "one.wav", tmp_path / "said.csv"
    soundfile.write(sound, PAIR.waveforms[0].numpy(), 16_000)
    words = ["predict", str(sound), f"--ckpt_path={path}", f"--output={table}", "--accelerator=cpu"]
    forget(sys.modules, "my_package")
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    assert "`predict` takes --trust my_package" in capsys.readouterr().err
    assert not table.exists()
    main([*words, "--trust", "my_package"])
    assert len(table.read_text().splitlines()) == 2


def test_a_checkpoint_cannot_name_just_anything(tmp_path):
    path = trained(mine("gradual", "GradualUnfreezing")(KIND, num_classes=CLASSES), tmp_path / "a.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[RECORD]["class_path"] = "subprocess.Popen"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"subprocess\.Popen, which is not a strategy"):
        load_strategy(path)


def test_a_checkpoint_of_the_first_format_loads(tmp_path):
    for strategy in (PartialFineTuning, LoRAFineTuning):
        model = strategy(KIND, num_classes=CLASSES)
        path = trained(model, tmp_path / "a.ckpt")
        checkpoint = torch.load(path, weights_only=True)
        record = checkpoint[RECORD]
        del record["class_path"]
        adapter = record["encoder"].pop("adapter")
        record["encoder"]["lora"] = adapter and adapter["init_args"]
        record["format"] = 1
        torch.save(checkpoint, path)
        assert torch.equal(logits(load_strategy(path), PAIR), logits(model, PAIR))
        after = VanillaFineTuning(str(path), num_classes=2)
        torch.testing.assert_close(
            frames(after.encoder, PAIR), frames(model.encoder, PAIR), rtol=1e-4, atol=1e-5
        )


def test_true_is_no_number_of_blocks():
    with pytest.raises(ValueError, match=r"top_blocks must be between 0 and 4 .*got True"):
        PartialFineTuning(KIND, num_classes=2, top_blocks=True)
    with pytest.raises(ValueError, match="got True"):
        train_top_blocks(PartialFineTuning(KIND, num_classes=2).encoder, True)
