"""`doctor` and `prepare`: what they say of a corpus, to people and to programs, and how they end."""

import json
import re
import shutil
from functools import partial

import av
import numpy as np
import pytest
import soundfile

from ser_strategies.cli import main
from ser_strategies.data.corpora.crema_d import CREMAD
from ser_strategies.data.corpora.iemocap import IEMOCAP
from ser_strategies.data.corpora.meld import MELD
from ser_strategies.data.corpora.msp_podcast import MSPPodcast
from tests.data import test_crema_d, test_iemocap, test_meld, test_msp_podcast
from tests.data.real import real_data


@pytest.fixture
def crema(tmp_path):
    return test_crema_d.write(tmp_path / "CREMA-D")


def doctor(capsys, *words, data="CREMAD", **options):
    """Exit code and what was said."""
    code = 0
    try:
        main(
            [
                "doctor",
                f"--data={data}",
                *(f"--data.{name}={value}" for name, value in options.items()),
                *words,
            ]
        )
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr()


def report_of(capsys, *words, **where):
    code, said = doctor(capsys, *words, "--json=-", **where)
    return code, json.loads(said.out)


def findings(report):
    return {finding["check"]: finding for finding in report["findings"]}


def test_a_corpus_that_is_well_ends_with_zero(crema, capsys, monkeypatch):
    monkeypatch.setattr("ser_strategies.data.corpora.crema_d.CREMAD.differences", lambda self: [])
    code, said = doctor(capsys, root=crema)
    assert code == 0
    assert "60 utterances in the label files, 60 with a sound" in said.out
    assert "nothing keeps it from being used" in said.out
    assert "Traceback" not in said.err


def test_programs_read_what_people_do(crema, capsys, tmp_path):
    code, report = report_of(capsys, root=crema)
    assert code == 0
    assert report["healthy"]
    assert report["splits"]["test"]["utterances"] == 12
    doctor(capsys, f"--json={tmp_path / 'report.json'}", root=crema)
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_counts_that_differ_from_the_published_ones_are_warnings(crema, capsys):
    code, report = report_of(capsys, root=crema)
    found = findings(report)["not-as-published"]
    assert (code, found["severity"]) == (0, "warning")
    assert "in all: 60 utterances, published 7,442" in found["examples"]


def break_sounds(folder):
    """Every kind of broken file, by the finding it should be."""
    files = sorted(folder.glob("*.wav"))
    missing, empty, pointer, garbage, cut, silent, nan, stereo, rate, twice = files[:10]
    missing.unlink()
    empty.write_bytes(b"")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 72804\n")
    garbage.write_bytes(b"no sound at all, but more than a header's worth of bytes" * 4)
    cut.write_bytes(cut.read_bytes()[:-500])
    soundfile.write(silent, np.zeros(16_000), 16_000)
    soundfile.write(nan, np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(stereo, np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, 2)), 16_000)
    soundfile.write(rate, np.random.default_rng(1).uniform(-0.5, 0.5, 44_100), 44_100)
    shutil.copyfile(files[20], twice)
    (folder / "1001_XXX_ANG_XX.wav").write_bytes(files[20].read_bytes())
    (folder / "._1001_DFA_ANG_XX.wav").write_bytes(b"macOS")
    return {
        "missing-sound": missing,
        "empty": empty,
        "lfs-pointer": pointer,
        "unreadable": garbage,
        "truncated": cut,
        "silent": silent,
        "not-finite": nan,
        "several-channels": stereo,
        "odd-rate": rate,
        "identical-sound": twice,
    }


def test_every_kind_of_damage_is_named_with_what_to_do(crema, capsys):
    broken = break_sounds(crema / "AudioWAV")
    code, report = report_of(capsys, "--full", root=crema)
    found = findings(report)
    assert code == 1
    for check, path in broken.items():
        assert path.stem in " ".join(found[check]["examples"]), check
        assert found[check]["advice"], check
    assert found["extra-sound"]["examples"] == ["AudioWAV/1001_XXX_ANG_XX.wav"]
    assert found["macos"]["examples"] == ["AudioWAV/._1001_DFA_ANG_XX.wav"]
    severities = [finding["severity"] for finding in report["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_what_only_listening_tells_needs_full(crema, capsys):
    break_sounds(crema / "AudioWAV")
    found = findings(report_of(capsys, root=crema)[1])
    assert not found.keys() & {"silent", "not-finite"}
    assert {"empty", "lfs-pointer", "unreadable", "truncated", "odd-rate"} <= found.keys()


def test_unknown_labels_do_not_keep_it_from_looking_on(crema, capsys):
    summary = crema / "processedResults" / "summaryTable.csv"
    summary.write_text(summary.read_text().replace("1001_MTI_ANG_XX", "1001_MTI_JOY_XX"))
    code, report = report_of(capsys, root=crema)
    found = findings(report)
    assert code == 1
    assert found["unknown-label"]["examples"] == ["1001_MTI_JOY_XX: JOY"]
    assert found["missing-sound"]["count"] == 1


def test_a_wrong_root_is_one_finding_and_says_where_to_get_the_corpus(tmp_path, capsys):
    code, report = report_of(capsys, root=tmp_path)
    (finding,) = report["findings"]
    assert code == 1
    assert "processedResults/summaryTable.csv" in finding["words"]
    assert "github.com/CheyneyComputerScience/CREMA-D" in finding["words"]


def test_leaks_that_a_protocol_declares_are_notes(crema, capsys):
    code, report = report_of(capsys, "--data.protocol=emobox-speaker-dependent", root=crema)
    assert findings(report)["leak"]["severity"] == "note"
    assert code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is missing: expected one of IEMOCAP"),
        (["--data=CREMAD"], "CREMAD needs root"),
        (["--data=CREMA", "--data.root=x"], "did you mean CREMAD"),
        (["--data=CREMAD", "--data.root=x", "--data.labels=voise"], "did you mean voice"),
        (["--data=CREMAD", "--data.root=x", "--data.fold=9"], "fold must be 1 to 5"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "prepare"])
def test_a_mistake_is_one_sentence(command, words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, *words])
    said = capsys.readouterr().err
    assert stop.value.code in {1, 2}
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("spoil", "how"),
    [
        (lambda text: text.encode("cp1252"), "not UTF-8 in line 3, so it is read as Windows' code page"),
        (
            lambda text: text.replace("\u2019", "\x92").encode(),
            "characters of Windows' code page written as if they were Latin-1, first in line 3",
        ),
    ],
)
def test_a_table_in_an_unexpected_encoding_is_told(spoil, how, tmp_path, capsys):
    root = test_meld.write_sounds(test_meld.write_tables(tmp_path / "MELD.Raw"))
    assert "label-encoding" not in findings(report_of(capsys, data="MELD", root=root)[1])
    path = root / "train_sent_emo.csv"
    path.write_bytes(spoil(path.read_text(encoding="utf-8")))
    found = findings(report_of(capsys, data="MELD", root=root)[1])["label-encoding"]
    assert (found["severity"], found["count"]) == ("note", 1)
    assert found["examples"] == [f"train_sent_emo.csv ({how})"]


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        (MELD, {}, 3),
        (IEMOCAP, {}, 15),  # ten dialogues, and what is said in five of them
        (CREMAD, {}, 2),
        (CREMAD, {"labels": "voice"}, 3),
        (MSPPodcast, {}, 1),
        (MSPPodcast, {"votes": True}, 2),
    ],
)
def test_the_label_files_of_every_corpus_are_looked_at(kind, options, count, tmp_path):
    make = {
        MELD: test_meld.write_tables,
        IEMOCAP: test_iemocap.lay_out,
        CREMAD: test_crema_d.write,
        MSPPodcast: partial(test_msp_podcast.lay_out, ratings="WorkerID"),
    }[kind]
    (tmp_path / "corpus").mkdir()
    files = kind(str(make(tmp_path / "corpus")), **options).label_files()
    assert len(set(files)) == count
    assert all(path.is_file() for path in files)


def test_values_outside_the_scale_of_a_corpus_are_told(tmp_path, capsys):
    root = test_iemocap.lay_out(tmp_path)
    assert "dimension-scale" not in findings(report_of(capsys, data="IEMOCAP", root=root)[1])
    sheet = next(root.rglob("Session1/dialog/EmoEvaluation/*impro01.txt"))
    # Valence, activation, dominance, as the file has them.
    changed = re.sub(r"\[[\d.]+, ([\d.]+), [\d.]+\]", r"[5.5000, \1, 0.5000]", sheet.read_text(), count=1)
    sheet.write_text(changed)
    _, report = report_of(capsys, data="IEMOCAP", root=root)
    found = {each["words"]: each for each in report["findings"] if each["check"] == "dimension-scale"}
    valence, dominance = (
        f"values of {name} outside the scale from 1 to 5" for name in ("valence", "dominance")
    )
    assert found.keys() == {valence, dominance}
    assert [found[valence]["examples"], found[dominance]["examples"]] == [
        ["Ses01F_impro01_F000: 5.5"],
        ["Ses01F_impro01_F000: 0.5"],
    ]
    assert found[valence]["severity"] == "warning"


def test_the_scale_of_msp_podcast_ends_at_seven(tmp_path, capsys):
    root = test_msp_podcast.lay_out(tmp_path)
    assert "dimension-scale" not in findings(report_of(capsys, data="MSPPodcast", root=root)[1])
    path = root / "Labels" / "labels_consensus.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {"EmoAct": "7.2"}
    path.write_text("\n".join([header, ",".join(cells.values()), *rest, ""]))
    found = findings(report_of(capsys, data="MSPPodcast", root=root)[1])["dimension-scale"]
    assert found["words"] == "values of activation outside the scale from 1 to 7"
    assert found["examples"][0].endswith(": 7.2")


def test_a_page_saved_under_several_names_is_unreadable_and_no_leak(crema, capsys):
    sounds = sorted((crema / "AudioWAV").glob("*.wav"))
    for path in (sounds[0], sounds[20], sounds[40]):  # of three folds
        path.write_bytes(b"<html><body>404 Not Found</body></html>\n" * 3)
    code, report = report_of(capsys, root=crema)
    found = findings(report)
    assert code == 1
    assert found["unreadable"]["count"] == 3
    assert not found.keys() & {"identical-sound", "leak"}
    # Nor does a run take them for shared: it stops at the first that it reads.
    (crema / "AudioWAV" / sounds[0].name).write_bytes(sounds[1].read_bytes())
    assert findings(report_of(capsys, root=crema)[1])["identical-sound"]["count"] == 1
    assert CREMAD(str(crema)).brands() == []


def test_the_real_tables_of_crema_d_lack_7430_sounds_and_it_goes_on(capsys):
    root = real_data("CREMA-D")
    code, report = report_of(capsys, "--full", root=root)
    found = findings(report)
    assert code == 1
    assert found["missing-sound"]["words"] == "7,430 of 7,442 sounds are missing"
    assert report["sounds"] == 12
    assert report["splits"]["train"]["utterances"] == 12
    assert "not-as-published" not in found


# prepare ----------------------------------------------------------------------------------------------------


def film(path, seconds=0.5):
    """A clip with a tone in its centre channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.zeros((6, round(seconds * 48_000)), np.float32)
    samples[2] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples.shape[1]) / 48_000)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=48_000, layout="5.1")
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="5.1")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)


@pytest.fixture
def meld(tmp_path):
    root = test_meld.write_tables(tmp_path / "MELD.Raw")
    for folder, name, _ in test_meld.clips():
        film(root / folder / f"{name}.mp4")
    return root


def test_films_become_sounds_beside_them_and_are_kept(meld, capsys):
    films = sorted(meld.rglob("*.mp4"))
    words = ["prepare", "--data=MELD", f"--data.root={meld}", "--processes=1"]
    main(words)
    assert f"{len(films)} sounds written, 0 were there, 0 films failed" in capsys.readouterr().out
    sound, rate = soundfile.read(films[0].with_suffix(".flac"))
    assert rate == 16_000
    assert np.abs(np.fft.rfft(sound))[200:240].max() > 100
    main(words)
    assert f"0 sounds written, {len(films)} were there" in capsys.readouterr().out


def test_a_film_that_gives_no_sound_is_named_and_the_others_go_on(meld, capsys):
    films = sorted(meld.rglob("*.mp4"))
    films[0].write_bytes(b"no film")
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "--data=MELD", f"--data.root={meld}", "--processes=1"])
    said = capsys.readouterr().out
    assert stop.value.code == 1
    assert f"{len(films) - 1} sounds written, 0 were there, 1 films failed" in said
    assert str(films[0]) in said


def test_a_corpus_without_films_says_so(crema, capsys):
    main(["prepare", "--data=CREMAD", f"--data.root={crema}"])
    assert "has no films to prepare" in capsys.readouterr().out


# Several corpora --------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """Two folders of the same classes; speaker b of the second one says what a of the first one said."""
    roots = []
    for place, level in (("one", 0.1), ("two", 0.5)):
        (tmp_path / place).mkdir()
        for number, name in enumerate(f"{who}_{label}" for who in "abc" for label in ("joy", "fear", "awe")):
            sound = np.full(8_000, level + number / 100)
            soundfile.write(tmp_path / place / f"{name}.wav", sound, 16_000)
        roots.append(tmp_path / place)
    (roots[1] / "b_joy.wav").write_bytes((roots[0] / "a_joy.wav").read_bytes())
    for who in "abc":
        (roots[1] / f"{who}_awe.wav").rename(roots[1] / f"{who}_anger.wav")
    return roots


def of(*roots):
    return str([{"Folder": {"root": str(root), "label": "{speaker}_{label}", "folds": 3}} for root in roots])


def test_several_corpora_are_examined_each_and_together(pair, capsys):
    code, report = report_of(capsys, data="Together", of=of(*pair))
    assert code == 1
    found = findings(report)
    assert found["shared-sound"]["examples"] == ["Folder/a_joy = Folder-2/b_joy"]
    assert found["shared-sound"]["severity"] == "error"
    assert "in different splits" in found["shared-sound"]["words"]
    left_out = {each["words"]: each["count"] for each in report["findings"] if each["check"] == "left-out"}
    assert left_out == {
        "utterances left out, Folder: not every corpus has the class awe": 3,
        "utterances left out, Folder-2: not every corpus has the class anger": 3,
    }
    assert (report["utterances"], report["sounds"]) == (18, 18)
    assert report["splits"]["train"]["classes"] == {"fear": 2, "joy": 2}
    # What is wrong with one is told of that one, and nothing is said of what lies between.
    (pair[1] / "c_fear.wav").write_bytes(b"no sound")
    code, report = report_of(capsys, data="Together", of=of(*pair))
    assert code == 1
    assert [each["words"] for each in report["findings"] if each["severity"] == "error"] == [
        "Folder-2: sounds: each cannot be read as sound"
    ]
