"""A report to show to strangers says nothing of whose machine it is from."""

import json
import re
import socket

import pytest
import yaml

from ser_strategies.cli import main
from ser_strategies.comparison.public import Hiding
from tests.comparison.conftest import build

PRIVATE = ("alice", "bob", "/home", "gpu-box", "hf_abcdefghijklmnopqrst", "hunter22", "groupdisk")
TOKEN = PRIVATE[4]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A ledger of two people's runs, whose names stand wherever a path can, with both reports of it."""
    with pytest.MonkeyPatch.context() as machine:
        machine.setenv("HOME", "/home/alice")
        machine.setenv("LOGNAME", "alice")
        machine.setattr(socket, "gethostname", lambda: "gpu-box.uni.example")
        folder = made(tmp_path_factory.mktemp("public") / "runs")
        main(["compare", "--report", str(folder)])
        before = sorted(folder.rglob("*"))
        main(["compare", "--report", str(folder), "--public"])
        assert [
            each for each in sorted(folder.rglob("*")) if "public" not in each.relative_to(folder).parts
        ] == before
    return folder


def made(folder):
    build(folder, arms=("vanilla", "lora"), folds=1, seeds=2, failed=None, speakers=6, utterances=12)
    options = {
        "encoder": "/home/alice/models/wavlm",
        "root": "/groupdisk/alice/IEMOCAP",
        "save_to": "/home/bob/x",
        "api_token": "hunter22",
        "header": f"Bearer {TOKEN}",
    }
    failed = "cannot read /home/bob/IEMOCAP/a.wav (gpu-box, user Alice): give --data.root"
    failed += " <script>alert(1)</script>\n# a heading"
    for index, cell in enumerate(sorted((folder / "cells").iterdir())):
        (cell / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": options}}))
        test = json.loads((cell / "test.json").read_text())
        test["encoder"] = {**test.get("encoder", {}), "source": "/home/alice/models/wavlm"}
        (cell / "test.json").write_text(json.dumps(test))
        if index == 0:
            facts = json.loads((cell / "cell.json").read_text())
            (cell / "cell.json").write_text(json.dumps(facts | {"status": "failed", "error": failed}))
    return folder


def told(folder):
    """What of the private things stands in the files of a folder, and where."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".html", ".md", ".csv", ".tex", ".json", ".svg", ".png"}
    return [
        (path.name, word) for path in files for word in PRIVATE if word.encode() in path.read_bytes().lower()
    ]


def test_a_public_report_names_nobody(ledger):
    assert told(ledger / "public") == []
    facts = json.loads((ledger / "public/report.json").read_text())
    said = (ledger / "public/report.md").read_text().replace("\\", "")
    assert "cannot read ~/IEMOCAP/a.wav (host, user user): give --data.root" in said
    settings = facts["settings"]["lora"][0]["model"]["init_args"]
    assert settings["encoder"] == "~/models/wavlm"
    assert settings["root"] == "…/IEMOCAP"
    assert settings["api_token"] == "***"


def test_the_report_for_oneself_says_all(ledger):
    assert "/home/alice/models/wavlm" in (ledger / "report.json").read_text()


def test_numbers_are_the_same(ledger):
    own, shared = (json.loads((ledger / name / "report.json").read_text()) for name in ("", "public"))
    for part in ("score", "differences", "fronts", "curves", "recalls", "calibration", "groups", "seconds"):
        assert own[part] == shared[part], part
    assert [row["score"] for row in own["table"]] == [row["score"] for row in shared["table"]]


def test_what_a_run_says_is_text_on_the_page(ledger):
    page, text = (ledger / "report.html").read_text(), (ledger / "report.md").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "\\<script\\>alert(1)" in text
    assert re.search(r"(?<!\\)<script|^# a heading", text, re.MULTILINE) is None


def test_public_goes_with_a_report(ledger, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--strategies", "lora", "--public"])
    assert ended.value.code == 2
    assert "give it with --report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/home/alice/x and /Users/carol/y", "~/x and ~/y"),
        ("C:\\Users\\carol\\corpora\\x", "~\\corpora\\x"),
        ("/data/alice/CREMA-D/AudioWAV", "…/AudioWAV"),
        ("alice@gpu-box", "user@host"),
        ("malice and alice2 stay", "malice and alice2 stay"),
        ("https://user:pw@example.org/a/b", "https://***@example.org/a/b"),
        ("w/o, and/or, 1/2, ~/x/y, random:wav2vec2-tiny", "w/o, and/or, 1/2, ~/x/y, random:wav2vec2-tiny"),
        ("facebook/wav2vec2-base", "facebook/wav2vec2-base"),
    ],
)
def test_what_is_hidden(said, shown, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    assert Hiding({"alice": "user", "gpu-box": "host"})(said) == shown
