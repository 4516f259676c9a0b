"""Where the stages of a chain go, and what they start from."""

from pathlib import Path

import pytest
import yaml

from ser_strategies.cli.run import parse
from ser_strategies.fit.noise import quiet
from ser_strategies.runs.fingerprints import DataPrints
from ser_strategies.runs.plan import plan_chain
from ser_strategies.runs.stages import find_stages
from tests.cli.conftest import ENCODER, Noise

pytestmark = pytest.mark.usefixtures("one_parser")

SPEAKERS = {"speakers": 3, "utterances_per_speaker": 8}


class Folds(Noise):
    """A corpus that has folds, of which only the options matter here."""

    def __init__(self, *, fold: int = 1, order_seed: int = 0) -> None:
        super().__init__()
        self.fold, self.order_seed = fold, order_seed


def stage(
    strategy: str,
    encoder: str,
    *,
    folder: str | None,
    data: dict | None = None,
    options: dict | None = None,
    trainer: dict | None = None,
) -> str:
    """The text of a stage's file."""
    run = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1, **(trainer or {})}
    if folder is not None:
        run["default_root_dir"] = folder
    config = {
        "seed_everything": 0,
        "model": {"class_path": strategy, "init_args": {"encoder": encoder, **(options or {})}},
        "data": data or {"class_path": "Synthetic", "init_args": SPEAKERS},
        "trainer": run,
    }
    return yaml.safe_dump(config, sort_keys=False)


def write_chain(
    name: str,
    *,
    encoder1: str = ENCODER,
    encoder2: str | None = None,
    folder1: str | None = "",
    folder2: str | None = "",
    data: dict | None = None,
    trainer: dict | None = None,
) -> Path:
    """A chain of two stages: partial fine-tuning, and vanilla fine-tuning from its best checkpoint."""
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    places = [
        given if given != "" else f"runs/{folder.name}/{stem}"
        for given, stem in ((folder1, "1-adapt"), (folder2, "2-finetune"))
    ]
    encoder2 = encoder2 or f"runs/{folder.name}/1-adapt/best.ckpt"
    first = stage(
        *("PartialFineTuning", encoder1),
        folder=places[0],
        data=data,
        options={"top_blocks": 2},
        trainer=trainer,
    )
    second = stage("VanillaFineTuning", encoder2, folder=places[1], data=data, trainer=trainer)
    (folder / "1-adapt.yaml").write_text(first)
    (folder / "2-finetune.yaml").write_text(second)
    return folder


def planned(*words: str):
    """What `run` would plan for these words."""
    quiet()
    return [cell.steps for cell in plan_chain(parse("run", list(words)), DataPrints())]


def encoders(steps) -> list[str]:
    return [step.config["model"]["init_args"]["encoder"] for step in steps]


def test_ten_comes_after_nine(here):
    for number in range(1, 12):
        Path(f"{number}-stage.yaml").touch()
    Path("README.md").touch()
    Path("common.yaml").touch()
    assert [each.number for each in find_stages(here)] == list(range(1, 12))
    assert find_stages(here)[9].name == "10-stage"


def test_without_fold_and_seed_the_stages_stay_where_their_files_say(here):
    write_chain("examples/mine")
    ((first, second),) = planned("examples/mine")
    assert (first.folder, second.folder) == (Path("runs/mine/1-adapt"), Path("runs/mine/2-finetune"))
    assert encoders([first, second]) == [ENCODER, "runs/mine/1-adapt/best.ckpt"]
    assert (first.scores, second.scores) == (False, True)
    assert first.wanted == ("best.ckpt",)
    assert second.inputs == {"1-adapt/best.ckpt": Path("runs/mine/1-adapt/best.ckpt")}
    assert str(first) == "1-adapt"


def test_every_fold_has_every_seed_and_hands_over_within_both(here):
    data = {"class_path": "tests.cli.test_chain_plan.Folds"}
    write_chain("mine", data=data)
    rounds = planned("mine", "--fold", "1..2", "--seed", "0,4")
    numbers = [(1, 0), (1, 4), (2, 0), (2, 4)]
    assert [(steps[0].fold, steps[0].seed) for steps in rounds] == numbers
    for steps, (fold, seed) in zip(rounds, numbers, strict=True):
        place = f"runs/mine/fold-{fold}/seed-{seed}"
        assert [step.folder for step in steps] == [Path(place, "1-adapt"), Path(place, "2-finetune")]
        assert encoders(steps)[1] == f"{place}/1-adapt/best.ckpt"
        for step in steps:
            assert step.config["seed_everything"] == seed
            assert step.config["data"]["init_args"]["fold"] == fold
            assert step.config["data"]["init_args"]["order_seed"] == seed
            assert step.config["trainer"]["default_root_dir"] == str(step.folder)
    assert str(rounds[1][1]) == "2-finetune (fold 1, seed 4)"


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("--seed", "7"), "elsewhere/seed-7"),
        (("--fold", "2"), "elsewhere/fold-2"),
        ((), "elsewhere"),
    ],
)
def test_a_level_that_is_not_asked_for_is_left_out(words, place, here):
    write_chain("mine", data={"class_path": "tests.cli.test_chain_plan.Folds"})
    ((first, second),) = planned("mine", "--out", "elsewhere", *words)
    assert (first.folder, second.folder) == (Path(place, "1-adapt"), Path(place, "2-finetune"))
    assert encoders([first, second])[1] == f"{place}/1-adapt/best.ckpt"


@pytest.mark.parametrize(
    "written", ["./runs/mine/1-adapt/last.ckpt", "runs/x/../mine/1-adapt/last.ckpt", "/"]
)
def test_a_hand_off_is_understood_however_it_is_written(written, here):
    if written == "/":
        written = str(here / "runs/mine/1-adapt/last.ckpt")
    write_chain("mine", encoder2=written)
    ((_, second),) = planned("mine", "--seed", "1")
    assert encoders([second]) == ["runs/mine/seed-1/1-adapt/last.ckpt"]


def test_a_link_to_the_place_of_the_runs_is_followed(here):
    Path("disk").mkdir()
    Path("runs").symlink_to("disk")
    write_chain("mine", encoder2=str(here / "disk/mine/1-adapt/best.ckpt"))
    ((_, second),) = planned("mine", "--seed", "1")
    assert encoders([second]) == ["runs/mine/seed-1/1-adapt/best.ckpt"]


@pytest.mark.parametrize(
    "other",
    ["runs/mine/1-adapter/best.ckpt", "runs/1-adapt/best.ckpt", "models/mine", "facebook/wav2vec2-base"],
)
def test_what_lies_elsewhere_is_left_alone(other, here):
    write_chain("mine", encoder2=other)
    ((_, second),) = planned("mine", "--seed", "1")
    assert encoders([second]) == [other]
    assert second.inputs == {}


def test_a_stage_without_a_folder_has_the_one_of_its_name(here):
    write_chain("mine", folder1=None, folder2=None)
    ((first, second),) = planned("mine", "--seed", "1")
    assert encoders([first, second])[1] == "runs/mine/seed-1/1-adapt/best.ckpt"


def test_a_stage_whose_file_names_another_folder_is_found_there(here):
    write_chain("mine", folder1="old/place", encoder2="old/place/best.ckpt")
    ((first, second),) = planned("mine")
    assert first.folder == Path("runs/mine/1-adapt")
    assert encoders([second]) == ["runs/mine/1-adapt/best.ckpt"]


def test_hand_offs_are_found_in_lists_and_on_the_command_line(here):
    write_chain("mine")
    callbacks = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": "runs/mine/2-finetune/more"},
        }
    ]
    Path("more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    words = ("--2-finetune.config", "more.yaml", "--2-finetune.model.encoder=runs/mine/1-adapt/last.ckpt")
    ((first, second),) = planned("mine", "--seed", "3", *words)
    (callback,) = second.config["trainer"]["callbacks"]
    assert callback["init_args"]["dirpath"] == "runs/mine/seed-3/2-finetune/more"
    assert second.inputs == {"1-adapt/last.ckpt": Path("runs/mine/seed-3/1-adapt/last.ckpt")}
    assert first.config["trainer"]["callbacks"] is None


def test_a_stage_may_name_any_checkpoint_that_its_callbacks_write(here):
    write_chain("mine", encoder2="runs/mine/1-adapt/third.ckpt")
    more = {"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}]}}
    Path("more.yaml").write_text(yaml.safe_dump(more))
    ((first, _),) = planned("mine", "--1-adapt.config", "more.yaml")
    assert first.wanted == ("third.ckpt",)


def test_options_of_one_stage_prevail_over_those_of_all(here):
    write_chain("mine")
    words = ("--trainer.max_epochs=3", "--1-adapt.trainer.max_epochs", "5", "--1-adapt.model.top_blocks", "1")
    ((first, second),) = planned("mine", *words)
    assert first.config["trainer"]["max_epochs"] == 5
    assert second.config["trainer"]["max_epochs"] == 3
    assert first.config["model"]["init_args"]["top_blocks"] == 1


def test_only_the_place_differs_between_two_places(here):
    write_chain("mine")
    ((_, one),) = planned("mine")
    ((_, other),) = planned("mine", "--out", str(here / "other"))
    assert one.portable == other.portable
    assert one.portable["model"]["init_args"]["encoder"] == "<1-adapt>/best.ckpt"


def test_data_that_an_earlier_stage_makes_are_not_looked_for_beforehand(here):
    write_chain("mine")
    made = ("--2-finetune.data=Manifest", "--2-finetune.data.path=runs/mine/1-adapt/said.csv")
    ((first, second),) = planned("mine", *made)
    assert (first.late_data, second.late_data) == (False, True)
    assert "1-adapt/said.csv" in second.inputs


def test_seeds_share_a_look_at_the_data_unless_it_is_drawn_from_them(here):
    write_chain("mine")
    looks = DataPrints()
    taken = [looks.take(steps[0].config["data"]) for steps in planned("mine", "--seed", "0,1")]
    assert taken[0] is taken[1]
    assert taken[0].has_test
    assert taken[0].sounds is None
