"""Corpora as sound, as stored frames and for units, through the command line, on small copies."""

import json

import pytest

from ser_strategies.cli import main
from ser_strategies.data.corpora import CORPORA
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.strategies import (
    STRATEGIES,
    AnnotatorFineTuning,
    CachedFineTuning,
    PartialFineTuning,
    Recognizer,
)
from tests.cli.conftest import CPU, ENCODER
from tests.data import test_crema_d, test_iemocap, test_meld, test_msp_podcast

COMMON = (
    f"--model.encoder={ENCODER}",
    *CPU,
    "--data.batch_size=8",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=2",
    "--trainer.num_sanity_val_steps=0",
)


def _iemocap(folder):
    test_iemocap.lay_out(folder)
    return "--data=IEMOCAP", f"--data.root={folder}"


def _msp_podcast(folder):
    test_msp_podcast.lay_out(folder)
    return "--data=MSPPodcast", f"--data.root={folder}", "--data.labels=4-class"


def _meld(folder):
    test_meld.write_sounds(test_meld.write_tables(folder))
    return "--data=MELD", f"--data.root={folder}"


def _crema_d(folder):
    test_crema_d.write(folder)
    return "--data=CREMAD", f"--data.root={folder}", "--data.fold=3"


def _manifest(folder):
    Synthetic(speakers=5, utterances_per_speaker=4).save(folder)
    return "--data=Manifest", f"--data.path={folder / 'manifest.csv'}", "--data.protocol=speaker-folds"


def _synthetic(folder):
    return "--data=Synthetic", "--data.speakers=3", "--data.utterances_per_speaker=4"


TREES = {
    "IEMOCAP": _iemocap,
    "MSPPodcast": _msp_podcast,
    "MELD": _meld,
    "CREMAD": _crema_d,
    "Manifest": _manifest,
    "Synthetic": _synthetic,
}
# Corpora that are read by the code of another one; their own tests hold what their names and tables mean.
READ_ALIKE = {
    **dict.fromkeys(("RAVDESS", "EMODB", "TESS", "SAVEE", "NEMO", "ASED", "SUBESCO", "MSPImprov"), "IEMOCAP"),
    "Folder": "Manifest",
    "Together": "Synthetic",
    "EmoBox": "Manifest",
    "Kaldi": "Manifest",
    "Lhotse": "Manifest",
    "HuggingFace": "Manifest",
    "Audformat": "Manifest",
}


@pytest.fixture(scope="module")
def corpus(request, tmp_path_factory):
    """The words that describe a corpus."""
    return TREES[request.param](tmp_path_factory.mktemp("corpora") / request.param)


def test_every_corpus_is_looked_at():
    assert {kind.__name__ for kind in CORPORA} == TREES.keys() | READ_ALIKE.keys()


def further(is_so):
    return pytest.mark.further if is_so else ()


def trained_and_tested(strategy, corpus, folder, *, tests=True):
    """The folder of a run that was trained, and tested, and says the same of its data both times."""
    words = (f"--model={strategy}", *corpus, *COMMON, f"--trainer.default_root_dir={folder}")
    main(["fit", *words])
    fit = json.loads((folder / "fit.json").read_text())["data"]
    if tests:
        main(["test", *words])
        assert json.loads((folder / "test.json").read_text())["data"] == fit
    assert len(fit["digest"]) == 16
    assert fit["task"].startswith(corpus[0].removeprefix("--data="))
    assert all(split["utterances"] for split in fit["splits"].values())
    return folder


# Every corpus is read as stored frames here, and as sound and for units below. Strategies that read sound
# read it alike: one corpus is enough for each of the others, of which full fine-tuning is a further case.
FURTHER = {"VanillaFineTuning"}
PAIRS = [
    *((tree, CachedFineTuning) for tree in TREES),
    *(
        ("CREMAD", strategy)
        for strategy in STRATEGIES
        if issubclass(strategy, Recognizer)
        # The last learns ratings of dimensions, which CREMA-D's raters did not give.
        and strategy not in {CachedFineTuning, PartialFineTuning, AnnotatorFineTuning}
    ),
]


@pytest.mark.parametrize(
    ("corpus", "strategy"),
    [pytest.param(tree, kind.__name__, marks=further(kind.__name__ in FURTHER)) for tree, kind in PAIRS],
    indirect=["corpus"],
)
def test_a_strategy_trains_and_tests_on_a_corpus(corpus, strategy, tmp_path, monkeypatch):
    """Each corpus is tested below, too: stored frames of a test split are those of a train split."""
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "cache"))
    stored = strategy == CachedFineTuning.__name__
    trained_and_tested(strategy, corpus, tmp_path / "run", tests=not stored or corpus[0] == "--data=CREMAD")


# Of the others chains train on a manifest as sound, and pretrainings have units of the embedded corpus.
@pytest.mark.parametrize(
    "corpus",
    [pytest.param(tree, marks=further(tree in {"CREMAD", "Manifest", "Synthetic"})) for tree in TREES],
    indirect=True,
)
def test_a_corpus_trains_a_teacher_and_an_encoder_is_adapted_by_its_units(corpus, tmp_path):
    """Units ask the most of a corpus."""
    teacher, run = trained_and_tested("PartialFineTuning", corpus, tmp_path / "teacher"), tmp_path / "run"
    words = [
        *("--model=PTAPT", f"--model.teacher={teacher / 'best.ckpt'}", "--model.clusters=[2,3]"),
        *("--model.kmeans_passes=2", "--model.mask_time_length=2", *corpus, *COMMON),
        f"--trainer.default_root_dir={run}",
    ]
    main(["fit", *words])
    fit, taught = (json.loads((folder / "fit.json").read_text()) for folder in (run, teacher))
    assert fit["data"]["splits"] == taught["data"]["splits"]
    assert fit["units"]["utterances"] <= fit["data"]["splits"]["train"]["utterances"]


def test_a_checkpoint_is_not_tested_on_another_fold_of_its_corpus(tmp_path, capsys):
    words = [
        "--model=PartialFineTuning",
        *_crema_d(tmp_path / "CREMA-D"),
        *COMMON,
        f"--trainer.default_root_dir={tmp_path / 'run'}",
    ]
    main(["fit", *words])
    with pytest.raises(SystemExit) as stop:
        main(["test", *words, "--data.fold=4"])
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert "12 of the 12 test utterances were heard in training by the checkpoint" in said
    assert "speaker-5fold-v1/fold-3: give the same options of --data" in said
    assert not (tmp_path / "run" / "test.json").exists()
    main(["test", *words, "--data.labels=voice"])  # another label set, the same speakers


def test_what_is_left_out_and_what_splits_share_is_told(tmp_path, capsys):
    root = tmp_path / "CREMA-D"
    words = ["--model=PartialFineTuning", *_crema_d(root), *COMMON]
    words = [word for word in words if not word.startswith("--data.fold")]
    (root / "AudioWAV" / "1001_MTI_ANG_XX.wav").unlink()
    main(
        [
            "fit",
            *words,
            "--data.damaged=skip",
            "--data.protocol=emobox-speaker-dependent",
            f"--trainer.default_root_dir={tmp_path / 'run'}",
        ]
    )
    said = capsys.readouterr().out
    assert "note: train and test share" in said
    assert "note: 1 utterances left out: the sound is missing" in said
    assert "note: not as published: in all: 60 utterances, published 7,442" in said
    facts = json.loads((tmp_path / "run" / "fit.json").read_text())["data"]
    assert facts["dropped"]["the sound is missing"] == 1
    assert any("speakers" in brand for brand in facts["brands"])


def test_an_unreadable_sound_stops_the_run_or_is_counted_and_named_live_as_in_a_cache(tmp_path, capsys):
    root = tmp_path / "CREMA-D"
    words = [*_crema_d(root), *COMMON, "--data.damaged=skip"]
    words = [word for word in words if "limit_" not in word]
    damaged = root / "AudioWAV" / "1003_MTI_ANG_XX.wav"  # trains in fold 3
    damaged.write_bytes(b"RIFF" + damaged.read_bytes()[4:20] + b"\0" * 300)
    live = ["--model=PartialFineTuning", *words]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *live, f"--trainer.default_root_dir={tmp_path / 'live'}", "--data.damaged=stop"])
    assert stop.value.code == 1
    assert "utterance '1003_MTI_ANG_XX' of CREMAD cannot be used" in capsys.readouterr().err
    (root / "AudioWAV" / "1003_MTI_DIS_XX.wav").unlink()
    cached = ["--model=CachedFineTuning", *words, f"--model.cache={tmp_path / 'frames'}"]
    note = "note: 1 utterances could not be read, such as 1003_MTI_ANG_XX\n"
    main(["cache", "estimate", *cached])
    main(["cache", "build", *cached])
    assert capsys.readouterr().out.endswith(note)
    facts = []
    for name, run in (("cached", cached), ("live", live)):
        main(["fit", *run, f"--trainer.default_root_dir={tmp_path / name}", "--overwrite"])
        said = capsys.readouterr()
        assert note in said.out
        assert note not in said.err
        facts.append(json.loads((tmp_path / name / "fit.json").read_text())["data"])
    assert facts[0] == facts[1]
    assert list(facts[0]["unreadable"]) == ["1003_MTI_ANG_XX"]
    assert facts[0]["dropped"]["the sound is missing"] == 1
    with pytest.raises(SystemExit) as stop:
        main(["cache", "build", *cached, "--data.damaged=stop"])
    assert stop.value.code == 1
