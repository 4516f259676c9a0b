"""The words of `compare`: what it understands, and what it says of slips."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ser_strategies.cli.compare import EXAMPLES, parse
from ser_strategies.common.errors import MistypedError
from ser_strategies.comparison.ledger import write_comparison
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.runs import engines
from ser_strategies.runs.arguments import SCORES, SCORES_OF
from ser_strategies.runs.arms import called, find_arms

SYNTHETIC = ("--data", "Synthetic")


def understood(*words):
    return parse("compare", words)[1]


def arms_of(*words):
    return {arm.name: arm for arm in find_arms(understood(*words))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", (0, 1, 2)), ("1", (0,)), ("0,7", (0, 7)), ("3..5", (3, 4, 5)), ("5,", None), ("0", None)],
)
def test_seeds_are_a_number_of_them_or_a_list(text, expected):
    words = ("--strategies", "vanilla", *SYNTHETIC, "--seeds", text)
    if expected is None:
        with pytest.raises(MistypedError, match="--seeds"):
            understood(*words)
    else:
        assert understood(*words).seeds == expected


def test_a_single_fold_is_that_fold():
    assert understood("a.yaml", "--folds", "2").folds == (2,)
    assert understood("a.yaml", "--folds", "1..3").folds == (1, 2, 3)
    assert understood("a.yaml", "--folds", "all").folds == "all"
    assert understood("a.yaml").folds == (None,)


def test_words_go_to_all_to_one_and_to_one_stage():
    arms = arms_of(
        *("--strategies", "vanilla", "lora", "tapt", *SYNTHETIC, "--data.speakers", "3"),
        *("--lora.model.rank", "4", "--tapt.1-adapt.trainer.max_epochs=5", "--trainer.accelerator=cpu"),
    )
    lora, (adapt, finetune) = arms["lora"].stages[0].words, arms["tapt"].stages
    for words in (arms["vanilla"].stages[0].words, lora, adapt.words, finetune.words):
        assert "--data.speakers" in words
        assert "--trainer.accelerator=cpu" in words
    assert lora[-2:] == ("--model.rank", "4")
    assert "--trainer.max_epochs=5" in adapt.words
    assert "--trainer.max_epochs=5" not in finetune.words


def test_options_of_models_go_to_what_predicts_emotion():
    arms = arms_of("--strategies", "vanilla", "ptapt", *SYNTHETIC, "--model.pooling=mean+std")
    assert "--model.pooling=mean+std" in arms["vanilla"].stages[0].words
    with_it = ["--model.pooling=mean+std" in stage.words for stage in arms["ptapt"].stages]
    assert with_it == [False, False, True]


def test_the_encoder_is_where_a_strategy_starts(tmp_path):
    (tmp_path / "chain").mkdir()
    for name in ("1-adapt", "2-finetune"):
        (tmp_path / "chain" / f"{name}.yaml").write_text("{}\n")
    (tmp_path / "one.yaml").write_text("{}\n")
    encoder = "--model.encoder=random:wavlm-tiny"
    arms = arms_of(str(tmp_path / "chain"), str(tmp_path / "one.yaml"), *SYNTHETIC, encoder)
    assert encoder in arms["one"].stages[0].words
    assert [encoder in stage.words for stage in arms["chain"].stages] == [True, True]
    presets = arms_of("--strategies", "ptapt", *SYNTHETIC, encoder)["ptapt"].stages
    assert [encoder in stage.words for stage in presets] == [True, True, False]


def test_what_starts_from_a_checkpoint_keeps_to_it(tmp_path):
    (tmp_path / "chain").mkdir()
    encoders = {
        "1-adapt": "random:wavlm-tiny",
        "2-more": "random:wavlm-tiny",
        "3-finetune": "runs/1-adapt/best.ckpt",
    }
    for name, encoder in encoders.items():
        text = f"model:\n  class_path: TAPT\n  init_args:\n    encoder: {encoder}\n"
        (tmp_path / "chain" / f"{name}.yaml").write_text(text)
    word = "--model.encoder=random:hubert-tiny"
    stages = arms_of(str(tmp_path / "chain"), *SYNTHETIC, word)["chain"].stages
    assert [word in stage.words for stage in stages] == [True, True, False]


def test_files_may_stand_behind_options_of_compare(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    wishes = understood(str(tmp_path / "one.yaml"), "--seeds", "1", str(tmp_path / "two.yaml"))
    assert [path.stem for _, path in wishes.strategies] == ["one", "two"]


def test_a_baseline_may_be_what_was_compared_before(tmp_path):
    write_comparison(tmp_path, {"names": ["frozen"]})
    words = ("--strategies", "vanilla", *SYNTHETIC, "--baseline=frozen", f"--out={tmp_path}")
    assert list(arms_of(*words)) == ["vanilla"]


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("--epochs", "7"), ("--trainer.max_epochs=7", "--trainer.max_steps=-1")),
        (("--steps", "200"), ("--trainer.max_steps=200", "--trainer.val_check_interval=20")),
        (("--steps", "15"), ("--trainer.max_steps=15", "--trainer.val_check_interval=3")),
        (("--steps", "29"), ("--trainer.max_steps=29", "--trainer.val_check_interval=3")),
        (("--steps", "3"), ("--trainer.max_steps=3", "--trainer.val_check_interval=1")),
        (("--seconds", "90061"), ("--trainer.max_time=01:01:01:01", "--trainer.max_epochs=-1")),
        (("--patience", "2"), ("--patience=2",)),
    ],
)
def test_a_budget_is_that_of_the_fine_tuning(words, last):
    stages = arms_of("--strategies", "tapt", *SYNTHETIC, *words)["tapt"].stages
    assert set(last) <= set(stages[-1].words)
    assert not set(last) & set(stages[0].words)


def test_published_encoders_do_not_learn_at_the_rates_of_random_weights():
    words = arms_of("--strategies", "lora", "--data", "CREMAD", "--model.encoder", "facebook/wav2vec2-base")
    said = " ".join(words["lora"].stages[0].words)
    assert "facebook/wav2vec2-base" in said
    assert "--model.encoder_lr=5e-4" in said
    assert "head_lr" not in said
    assert "FlatThenDecay" not in said


MISTAKES = {
    "nothing": ((), ("nothing to compare", "--strategies", "vanilla")),
    "an unknown strategy": (("--strategies", "vanila", *SYNTHETIC), ("vanila", "did you mean vanilla?")),
    "a file behind --strategies": (("--strategies", "here.yaml", *SYNTHETIC), ("without --strategies",)),
    "a strategy as a file": (("lora",), ("lora does not exist", "--strategies lora")),
    "a file that is not there": (("nowhere.yaml",), ("nowhere.yaml does not exist",)),
    "a strategy twice": (("--strategies", "lora", "lora", *SYNTHETIC), ("lora is named twice",)),
    "no encoder for a real corpus": (
        ("--strategies", "lora", "--data", "CREMAD"),
        ("--model.encoder is missing", "facebook/wav2vec2-base"),
    ),
    "options for nobody": (
        ("--strategies", "lora", *SYNTHETIC, "--lorra.model.rank=4"),
        ("--lorra.", "did you mean lora?"),
    ),
    "options for no stage": (
        ("--strategies", "tapt", *SYNTHETIC, "--tapt.1-adopt.trainer.max_epochs=4"),
        ("1-adopt", "did you mean 1-adapt?"),
    ),
    "two budgets": (
        ("--strategies", "lora", *SYNTHETIC, "--epochs=3", "--steps=4"),
        ("--epochs and --steps",),
    ),
    "a budget and the trainer's": (
        ("--strategies", "lora", *SYNTHETIC, "--epochs=3", "--trainer.max_epochs=4"),
        ("--epochs is the budget", "--trainer.max_epochs"),
    ),
    "no budget at all": (("--strategies", "lora", *SYNTHETIC, "--epochs=0"), ("--epochs must be 1 or more",)),
    "a seed of its own": (
        ("--strategies", "lora", *SYNTHETIC, "--seed_everything=3"),
        ("--seed_everything", "--seeds"),
    ),
    "a fold of its own": (("--strategies", "lora", *SYNTHETIC, "--data.fold=3"), ("--data.fold", "--folds")),
    "a folder of its own": (
        ("--strategies", "lora", *SYNTHETIC, "--trainer.default_root_dir=x"),
        ("--out",),
    ),
    "a configuration as for fit": (("--config", "examples/lora.yaml"), ("as they are",)),
    "a class for all": (("--strategies", "lora", *SYNTHETIC, "--model=LoRAFineTuning"), ("name strategies",)),
    "a baseline that is not compared": (
        ("--strategies", "lora", "partial", *SYNTHETIC, "--baseline=vanilla"),
        ("--baseline vanilla", "lora, partial"),
    ),
    "a class for one": (("--strategies", "lora", *SYNTHETIC, "--lora.model=TAPT"), ("compare another",)),
    "an order for one": (("--strategies", "lora", *SYNTHETIC, "--lora.data.order_seed=9"), ("--seeds",)),
    "an order, spelled out": (("--strategies", "lora", *SYNTHETIC, "--data.init_args.fold=9"), ("--folds",)),
    "a report and seeds": (("--report", "x", "--seeds", "7"), ("leave --seeds out",)),
    "a negative margin": (
        ("--strategies", "lora", *SYNTHETIC, "--margin=-1"),
        ("--margin must be from 0 to 100 points, got -1",),
    ),
    "an unknown score": (
        ("--strategies", "lora", *SYNTHETIC, "--score", "f1macro"),
        ("did you mean f1_macro?",),
    ),
    "an unknown cost": (
        ("--strategies", "lora", *SYNTHETIC, "--cost", "inference_byte"),
        ("--cost inference_byte is not known", "did you mean inference_bytes?"),
    ),
    "no corpus": (("--strategies", "lora"), ("--data is missing", "Synthetic")),
    "a report and strategies": (("--report", "x", "--strategies", "lora"), ("--report runs nothing",)),
    "an unknown option": (("--strategies", "lora", "--sedes=3"), ("--sedes", "--seeds")),
    "folds that count down": (("a.yaml", "--folds=5..1"), ("--folds", "1..5")),
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_slip_is_one_sentence(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here.yaml").write_text("{}\n")
    with pytest.raises(MistypedError) as error:
        find_arms(understood(*words))
    for each in expected:
        assert each in str(error.value)


def test_names_of_configurations_are_names_of_strategies(tmp_path):
    for name in ("model", "a b"):
        (tmp_path / f"{name}.yaml").write_text("{}\n")
        with pytest.raises(MistypedError, match="its name would be that of a strategy"):
            find_arms(understood(str(tmp_path / f"{name}.yaml")))


def test_runs_go_by_the_names_of_their_folders(tmp_path):
    """All of their configurations are called config.yaml."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("model: {class_path: VanillaFineTuning}\n")
    files = [tmp_path / "one/config.yaml", tmp_path / "two/config.yaml"]
    for given in (files, [path.parent for path in files]):
        arms = arms_of(*map(str, given), "--seeds=1")
        assert list(arms) == ["one", "two"]
        words = [arm.stages[0].words[:2] for arm in arms.values()]
        assert words == [("--config", str(path)) for path in files]
    assert [called(path) for path in (*files, tmp_path / "mine.yaml")] == ["one", "two", "mine"]


def test_the_scores_that_may_be_asked_for_are_those_there_are():
    named = [*SCORES, "recall/a", *(f"{each}x" for each in SCORES_OF[1:])]
    for name in named:
        assert score_named(name, ("a", "b"), ("x",)).name == name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--on=ray",), ("ray", [])),
        (("--on=ray", "--ray.gpus=0.5", "--ray.retries", "5"), ("ray", ["--gpus=0.5", "--retries", "5"])),
        (("--on", "slurm", "--slurm.partition", "gpu"), ("slurm", ["--partition", "gpu"])),
        (("--local.memory=8", "--jobs=2"), ("local", ["--memory=8", "--jobs=2"])),
        (("--jobs=2",), None),
    ],
)
def test_where_runs_go_is_said_with_options_of_its_own(words, expected):
    assert parse("compare", ["--strategies", "frozen", "--lora.model.rank=4", *words])[2] == expected
    assert parse("compare", ["--strategies", "frozen", *words])[1].options.special == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--on=ray", "--slurm.time=3"),
            "--slurm.time is for --on slurm, and this is --on ray: leave it out",
        ),
        (("--on=slurm", "--jobs=3"), "--jobs is for --on local"),
        (("--on=dask",), "argument --on"),
    ],
)
def test_options_of_another_place_are_refused(words, expected):
    with pytest.raises(MistypedError, match=expected):
        parse("compare", ["--strategies", "frozen", *words])


def test_the_help_names_every_option_of_every_place():
    for name, home in engines.HOMES.items():
        module, _, kind = home.rpartition(".")
        for option in set(engines.options_of(getattr(import_module(module), kind))) - {"jobs"}:
            assert f"--{name}.{option}" in EXAMPLES, (name, option)


def test_an_engine_is_imported_on_request_alone_and_named_where_it_is_missing(monkeypatch):
    package = Path(engines.__file__).parents[1]
    imports = re.compile(r"^(import|from) (ray|submitit)\b", re.MULTILINE)
    assert not [path for path in package.rglob("*.py") if imports.search(path.read_text(encoding="utf-8"))]
    for name, missing in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(MistypedError, match=rf'is not installed: pip install "ser-strategies\[{name}\]"'):
            engines.engine(name, [])
    assert engines.engine("local", ["--memory=8"]).needs.memory == 8.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--memroy=8"], "--local.memroy is not known; did you mean --local.memory?"),
        (["--jobs=two"], "--local.jobs takes a whole number, got 'two'"),
        (["--memory"], "--local.memory needs a value"),
        (["--memory", "--jobs=2"], "--local.memory needs a value"),
        (["--memory=8", "9"], "'9' belongs to no option"),
        (["--memory=-1"], "memory must be more than 0, got -1"),
        (["--jobs=0"], "jobs must be 1 or more, got 0"),
    ],
)
def test_a_slip_in_an_option_of_a_place_is_one_sentence(words, expected):
    with pytest.raises(MistypedError, match=re.escape(expected)):
        engines.engine("local", words)
