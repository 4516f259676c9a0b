"""`test --robustness`: scores under disturbances beside the plain ones, which stay as they were."""

import json

import pandas as pd

from ser_strategies.cli import main
from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.intervals import interval
from ser_strategies.runs import grid
from tests.cli.conftest import CPU, ENCODER
from tests.cli.test_compare import load

DATA = ("--data=Synthetic", "--data.speakers=5", "--data.utterances_per_speaker=8")


def test_disturbed_scores_stand_beside_the_plain_ones(tmp_path, capsys):
    folder = tmp_path / "run"
    words = ("--model=PartialFineTuning", f"--model.encoder={ENCODER}", *CPU, *DATA)
    words += (f"--trainer.default_root_dir={folder}",)
    main(["fit", *words, "--trainer.max_epochs=1"])
    main(["test", *words])
    plain = (folder / "test.json").read_text()
    before = sorted(path.name for path in folder.iterdir())
    main(["test", *words, "--robustness=quieter-20,first-25%"])
    assert (folder / "test.json").read_text() == plain
    assert sorted({path.name for path in folder.iterdir()} - {*before}) == [
        "test-robustness.json",
        "test-robustness.parquet",
        "test-robustness.svg",
    ]
    whole = json.loads((folder / "test-robustness.json").read_text())
    found = whole["scores"]
    assert list(found) == ["clean", "quieter-20", "first-25%"]
    metrics = json.loads(plain)["metrics"]
    assert found["clean"] == {name: value for name, value in metrics.items() if value is not None}
    # The encoder normalizes what it hears, so that a level changes nothing but rounding; a cut does.
    assert abs(found["quieter-20"]["test/loss"] - found["clean"]["test/loss"]) < 1e-3
    assert found["first-25%"]["test/loss"] != found["clean"]["test/loss"]
    told = capsys.readouterr().out
    assert "20 dB quieter" in told
    said = pd.read_parquet(folder / "test-robustness.parquet")
    clean = pd.read_parquet(folder / "test.parquet")
    assert said["disturbance"].value_counts().to_dict() == dict.fromkeys(
        ["quieter-20", "first-25%"], len(clean)
    )
    assert "speaker" not in said
    ends = whole["intervals"]["clean"]
    score = interval(align([(None, 0, clean)]))
    assert (ends["low"], ends["high"]) == (score.low, score.high)
    assert "under disturbances of the test sounds" in told


def test_a_comparison_tests_each_run_so_and_what_kept_its_weights_later(tmp_path, capsys, monkeypatch):
    """One report is written, of both disturbances: it takes longer than a run."""
    out = tmp_path / "out"
    words = ("compare", "--strategies", "partial", f"--model.encoder={ENCODER}", *CPU, *DATA, "--seeds=1")
    words += ("--epochs=1", "--keep_checkpoints", f"--out={out}")
    with monkeypatch.context() as patch:
        patch.setattr(grid, "write_report", load)
        main([*words, "--robustness=first-25%"])
    (place,) = (path.parent for path in out.rglob("test-robustness.json"))
    learned = (place / "fit.json").stat().st_mtime_ns
    assert list(scores_in(place)) == ["clean", "first-25%"]
    main([*words, "--robustness=first-25%,quieter-20"])
    assert list(scores_in(place)) == ["clean", "first-25%", "quieter-20"]
    assert (place / "fit.json").stat().st_mtime_ns == learned
    report = (out / "report.md").read_text()
    assert "## Robustness" in report
    assert "| 20 dB quieter | " in report
    # Without weights nothing can be tested any more, which is told.
    (place / "best.ckpt").unlink()
    capsys.readouterr()
    monkeypatch.setattr(grid, "write_report", load)
    main([*words, "--robustness=telephone"])
    assert "1 run finished before --robustness was asked for" in capsys.readouterr().out


def scores_in(place):
    return json.loads((place / "test-robustness.json").read_text())["scores"]
