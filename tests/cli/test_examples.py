"""Every YAML in examples/demo/ runs as it is, but for its size; the others are what `compare` trains."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from ser_strategies import Synthetic, strategies
from ser_strategies.cli import main
from ser_strategies.encoder import Encoder
from ser_strategies.fit.noise import quiet
from ser_strategies.runs.presets import PRESETS, STARTER, Start
from ser_strategies.runs.stages import resolve
from ser_strategies.strategies.checkpointed import origins_of
from tests.cli.conftest import CPU, DEMO, EXAMPLES, everything_in

pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures("one_parser")]

SIZE = {"speakers": 3, "utterances_per_speaker": 4}
TINY = (
    *(f"--data.{name}={value}" for name, value in SIZE.items()),
    "--trainer.max_epochs=1",
    *CPU,
    "--trainer.num_sanity_val_steps=0",
)


def agreement(predicted, true):
    """Concordance correlation coefficient."""
    covariance = np.cov(predicted, true, ddof=0)
    return 2 * covariance[0, 1] / (np.trace(covariance) + (np.mean(predicted) - np.mean(true)) ** 2)


def expected_scores(said: pd.DataFrame, kept: dict) -> dict[str, float]:
    """The test scores, from the table of predictions and the corpus alone."""
    corpus = Synthetic(**SIZE)
    columns = {"label": "true", **{name: f"true/{name}" for name in corpus.dimensions}}
    truth = corpus.split("test")[["id", *columns]].rename(columns=columns)
    table = said.merge(truth, on="id", validate="one_to_one")
    assert len(table) == len(truth) == len(said)
    scores = {}
    if kept["labels"]:
        true, predicted = table["true"], table["label"]
        scores["test/ua"] = balanced_accuracy_score(true, predicted)
        scores["test/wa"] = (true == predicted).mean()
        scores["test/f1_macro"] = f1_score(true, predicted, average="macro")
        scores["test/f1_weighted"] = f1_score(true, predicted, average="weighted")
        assert kept["confusion"] == confusion_matrix(true, predicted, labels=kept["labels"]).tolist()
    if "test/tvd" in kept["metrics"]:
        return {}  # of raters, whose scores have references of their own
    for name in kept["dimensions"]:
        scores[f"test/ccc_{name}"] = agreement(table[name], table[f"true/{name}"])
        scores[f"test/rmse_{name}"] = ((table[name] - table[f"true/{name}"]) ** 2).mean() ** 0.5
    return scores


# What trains like another of them; that they are configurations of `fit` is looked at each time.
LIKE_OTHERS = {DEMO / "mixed_precision.yaml", DEMO / "partial.yaml", DEMO / "tapt"}


def marked(paths):
    """Paths as cases, those like others as further ones."""
    return [
        pytest.param(path, id=path.stem, marks=pytest.mark.further if path in LIKE_OTHERS else ())
        for path in paths
    ]


@pytest.mark.parametrize("example", marked(sorted(DEMO.glob("*.yaml"))))
def test_an_example_is_fitted_and_tested_and_predicts(example, here):
    folder = Path(yaml.safe_load(example.read_text())["trainer"]["default_root_dir"])
    words = ["--config", str(example), *TINY]
    main(["fit", *words])
    main(["test", *words])
    kept = {"best.ckpt", "last.ckpt", "config.yaml", "environment.json", "fit.json", "test.json", "logs"}
    assert kept <= everything_in(folder)
    assert list(folder.glob("logs/*/metrics.csv"))
    assert {path.name for path in here.iterdir()} == {"runs"}

    main(["predict", *words, "--output", "said.csv"])
    tested = json.loads((folder / "test.json").read_text())
    expected = expected_scores(pd.read_csv("said.csv"), tested)
    assert expected or "test/tvd" in tested["metrics"]
    assert {name: tested["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-6)


# Strategies for `compare`, which brings corpus and folders.
ODYSSEY, RATERS = (sorted((EXAMPLES / study).glob("*.yaml")) for study in ("odyssey", "annotators"))
ARMS = [*ODYSSEY, *RATERS]
CHAINS = sorted({path.parent for path in DEMO.glob("*/*.yaml")})


@pytest.mark.parametrize("chain", marked(CHAINS))
def test_a_chain_runs_stage_by_stage_each_from_the_one_before(chain, here):
    stages = sorted(chain.glob("*.yaml"))
    assert [path.stem.split("-")[0] for path in stages] == [str(n + 1) for n in range(len(stages))]
    for path in stages:
        folder = Path("runs", f"{chain.name}-demo", path.stem)
        config = yaml.safe_load(path.read_text())
        assert config["trainer"]["default_root_dir"] == str(folder)
        words = ["--config", str(path), *TINY]
        main(["fit", *words])
        kind = getattr(strategies, config["model"]["class_path"].rpartition(".")[2])
        if issubclass(kind, strategies.Recognizer):
            main(["test", *words])
            tested = json.loads((folder / "test.json").read_text())
            assert tested["data"]["brands"] == [], "every stage has the same split"
        else:
            main(["validate", *words])
            best = json.loads((folder / "fit.json").read_text())["best"]
            validated = json.loads((folder / "val.json").read_text())["metrics"]
            assert best["monitor"] == "val/loss"
            assert best["score"] == pytest.approx(validated["val/loss"], abs=1e-5)
        assert earlier_stages(config) <= {
            str(done / "best.ckpt") for done in Path("runs", f"{chain.name}-demo").iterdir()
        }
    assert {path.name for path in here.iterdir()} == {"runs"}
    main(["predict", *words, "--output", "said.csv"])
    expected = expected_scores(pd.read_csv("said.csv"), tested)
    assert {name: tested["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert expected

    # The last stage starts from what the one before it has made of its encoder, and from nothing else.
    adapted, tuned = (
        strategies.load_strategy(f"runs/{chain.name}-demo/{path.stem}/best.ckpt") for path in stages[-2:]
    )
    assert isinstance(adapted, strategies.Pretraining)
    start = Encoder(f"runs/{chain.name}-demo/{stages[-2].stem}/best.ckpt").identity
    state = torch.load(f"runs/{chain.name}-demo/{stages[-1].stem}/best.ckpt", weights_only=True)
    assert state["ser_strategies"]["encoder"]["identity"]["fingerprint"] == start.fingerprint
    origins = origins_of(f"runs/{chain.name}-demo/{stages[-1].stem}/best.ckpt")
    assert len(origins) == len(stages)
    assert len({origin["splits"] for origin in origins}) == 1
    assert tuned.encoder.identity.family == adapted.encoder.identity.family


def earlier_stages(config: dict) -> set[str]:
    """The checkpoints that a stage starts from."""
    options = config["model"]["init_args"]
    return {options[name] for name in ("encoder", "teacher") if str(options.get(name)).endswith(".ckpt")}


def test_every_strategy_has_an_example():
    for folder in (DEMO, EXAMPLES):
        shown = {
            yaml.safe_load(path.read_text())["model"]["class_path"].rpartition(".")[2]
            for path in folder.rglob("*.yaml")
            if folder == DEMO or DEMO not in path.parents
        }
        assert {kind.__name__ for kind in strategies.STRATEGIES} <= shown


def test_every_example_has_a_folder_of_its_own_and_those_of_the_demo_run_offline():
    paths = sorted(path for path in EXAMPLES.rglob("*.yaml") if path not in ARMS)
    folders = [yaml.safe_load(path.read_text())["trainer"]["default_root_dir"] for path in paths]
    assert len(set(folders)) == len(folders)
    for path in paths:
        if DEMO not in path.parents:
            continue
        config = yaml.safe_load(path.read_text())
        encoder = config["model"]["init_args"]["encoder"]
        if not encoder.startswith("random:") and encoder != STARTER:
            assert encoder in {f"{folder}/best.ckpt" for folder in folders}, "made by an earlier stage"


# What a reader copies ---------------------------------------------------------------------------------------

PUBLISHED = sorted(path for path in EXAMPLES.rglob("*.yaml") if DEMO not in path.parents and path not in ARMS)
BASE = "facebook/wav2vec2-base"


def resolved(*words: str) -> dict:
    """The configuration that words of `fit` come to; nothing is fetched or built."""
    return deepcopy(resolved_once(words))


@cache
def resolved_once(words: tuple[str, ...]) -> dict:
    quiet()
    return resolve("stage", [*words, "--data.root=."], Path("runs/x")).config


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_for_a_published_encoder_is_a_configuration_of_fit(path):
    encoder = resolved("--config", str(path))["model"]["init_args"]["encoder"]
    assert encoder.endswith(".ckpt") or encoder.count("/") == 1


def test_examples_like_others_are_configurations_of_fit():
    paths = [path for like in LIKE_OTHERS for path in ([like] if like.suffix else sorted(like.glob("*")))]
    assert len(paths) == 4
    quiet()
    for path in paths:
        config = resolve("stage", ["--config", str(path)], Path("runs/x")).config
        assert config["model"]["class_path"].startswith("ser_strategies.")


@pytest.mark.parametrize("path", ODYSSEY, ids=lambda path: path.stem)
def test_an_arm_of_the_odyssey_study_is_what_its_name_says(path):
    """Each pooling and set of conditions once as `fit` understands it; nothing else differs between arms."""
    (config,) = yaml.safe_load(path.read_text()).values()
    written = dict(config["init_args"])
    options = {"conditions": [], "gender_at_test": "predicted", **written}
    if path.stem in {"attentive", "mhfa", "mean-gender", "std-text", "attention-gender-text"}:
        options = resolved("--config", str(path), "--data=CREMAD")["model"]["init_args"]
    assert "-".join([options["pooling"], *options["conditions"]]) == path.stem
    assert options["gender_at_test"] == ("given" if "gender" in options["conditions"] else "predicted")
    assert ("text_encoder" in written) == ("text" in options["conditions"])
    same = {
        "encoder": STARTER,
        "top_blocks": 0,
        "head": "mlp",
        "head_lr": 2e-3,
        "text_encoder": "random:bert-tiny",
    }
    own = ("pooling", "conditions", "gender_at_test")
    assert config["class_path"] == "CachedFineTuning"
    assert {name: value for name, value in written.items() if name not in own} == {
        name: value for name, value in same.items() if name in written or name != "text_encoder"
    }


def test_arms_of_the_study_of_raters_differ_in_what_their_names_say():
    found = {}
    for path in RATERS:
        options = resolved("--config", str(path), "--data=CREMAD")["model"]["init_args"]
        objective = options.pop("objective")["init_args"]
        unless_given = {"distribution_weight": 1.0, "consensus_weight": 0.0, "variance_weight": 0.0}
        weights = [objective.get(name, value) for name, value in unless_given.items()]
        found[path.stem] = objective.get("predicts", "raters"), *weights
        assert options == found.setdefault("all", options)
    del found["all"]
    assert {name: what for name, (what, *_) in found.items() if what != "raters"} == {
        name: name for name in ("cells", "consensus", "votes")
    }
    assert {name: weights for name, (what, *weights) in found.items() if what == "raters"} == {
        "raters": [0, 0, 0],
        "raters-kde": [1, 0, 0],
        "raters-mu": [0, 1, 0],
        "raters-sigma": [0, 0, 1],
        "raters-sigma-shares": [1, 0, 1],
    }


@pytest.mark.parametrize(
    ("preset", "files"),
    [
        ("vanilla", ["vanilla.yaml"]),
        ("partial", ["partial.yaml"]),
        ("lora", ["lora.yaml"]),
        ("mixed-precision", ["mixed_precision.yaml"]),
        ("cached", ["cached.yaml"]),
        ("tapt", ["tapt/1-adapt.yaml", "tapt/2-finetune.yaml"]),
        ("ptapt", ["ptapt/1-teacher.yaml", "ptapt/2-adapt.yaml", "ptapt/3-finetune.yaml"]),
    ],
)
def test_what_a_reader_copies_is_what_compare_trains(preset, files):
    for stage, file in zip(PRESETS[preset](Start(BASE, f"runs/{preset}")), files, strict=True):
        copied = resolved("--config", str(EXAMPLES / file))
        compared = resolved(*stage.words, "--data=CREMAD")
        assert copied["model"] == compared["model"]
        assert copied["trainer"]["max_epochs"] == compared["trainer"]["max_epochs"]


def test_the_examples_come_with_the_package(here, refused, capsys):
    main(["examples", "mine"])
    assert "mine/demo/lora.yaml" in capsys.readouterr().out
    assert {path.name for path in (here / "mine").iterdir()} >= {
        path.name for path in EXAMPLES.glob("*.yaml")
    }
    assert (here / "mine/demo/lora.yaml").read_bytes() == (EXAMPLES / "demo/lora.yaml").read_bytes()
    assert "is there already" in refused("examples", "mine")
