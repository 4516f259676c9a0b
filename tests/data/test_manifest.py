"""Somebody's own recordings: every format, every protocol, and one sentence for every mistake."""

import itertools
import json
import pickle
import re
import zlib

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.model_selection import StratifiedGroupKFold

from ser_strategies.data.manifest import Manifest
from ser_strategies.data.rules import GroupFolds
from tests.data.real import real_data

RATE = 16_000
SPLITS = ("train", "val", "test")


def noise(name, samples=800):
    return np.random.default_rng(zlib.crc32(name.encode())).uniform(-0.5, 0.5, samples).astype(np.float32)


def record(folder, *paths, samples=800):
    """Writes a sound for each path, each another one."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, noise(path, samples), RATE)


def rows(speakers=6, each=4, labels=("anger", "neutral")):
    return pd.DataFrame(
        [
            {"path": f"{speaker}_{number}.wav", "label": labels[number % len(labels)], "speaker": speaker}
            for speaker in (f"s{index}" for index in range(speakers))
            for number in range(each)
        ]
    )


@pytest.fixture
def manifest(tmp_path):
    """Writes a table and its sounds, and gives the corpus."""

    def make(table, *, name="mine.csv", **options):
        record(tmp_path, *table["path"].unique())
        table.to_csv(tmp_path / name, index=False)
        return Manifest(str(tmp_path / name), **options)

    return make


@pytest.fixture
def written(tmp_path):
    """Writes a table as it is given, without sounds, and gives the corpus."""

    def make(content, *, name="mine.csv", **options):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
        return Manifest(str(tmp_path / name), **options)

    return make


def members(corpus):
    return {split: set(corpus.split(split)["id"]) for split in SPLITS}


# Formats ----------------------------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {
        "path": ["a/1.wav", "a/2.wav", "b 3.wav", "b/ü.wav", "c/5.wav", "c/6.wav"],
        "label": ["Wut", "Ärger", "Wut", "Ärger", "Wut", "Ärger"],
        "speaker": ["7", "7", "8", "8", "9", "9"],
        "gender": ["f", "F", "male", "m", None, None],
        "split": ["train", "train", "val", "val", "test", "test"],
        "text": ["eins, zwei", 'so "sagt" man', "zwei\nZeilen", None, "a;b|c", "tab\tulator"],
        "valence": [1.5, 2.0, None, 4.0, 5.25, -6e-3],
        "seconds": [0.05, 0.06, 0.07, 0.08, 0.09, 0.1],
    }
)


def _csv(table, path, *, encoding="utf-8", **options):
    path.write_bytes(table.to_csv(index=False, lineterminator="\n", **options).encode(encoding))


def _json(table, path):
    lines = [json.dumps(row, ensure_ascii=False) for row in json.loads(table.to_json(orient="records"))]
    path.write_text("\n".join(lines[:2]) + "\n\n" + "\r\n".join(lines[2:]), encoding="utf-8")


def _sparse_json(table, path):
    numbers = table.assign(speaker=table["speaker"].astype(int))
    found = [
        {name: value for name, value in row.items() if value == value} for row in numbers.to_dict("records")
    ]
    path.write_text("\n".join(json.dumps(row) for row in found))


def _categories(table, path):
    numbers = table.assign(speaker=table["speaker"].astype("int32"), label=table["label"].astype("category"))
    numbers.assign(valence=numbers["valence"].astype("float32")).to_parquet(path)


FORMATS = {
    "mine.csv": _csv,
    "quoted.csv": lambda table, path: _csv(table, path, quoting=1),
    "semicolons.csv": lambda table, path: _csv(table, path, sep=";"),
    "tabs.csv": lambda table, path: _csv(table, path, sep="\t"),
    "bars.csv": lambda table, path: _csv(table, path, sep="|"),
    "mine.tsv": lambda table, path: _csv(table, path, sep="\t"),
    "commas.tsv": _csv,
    "MINE.CSV": _csv,
    "mark.csv": lambda table, path: _csv(table, path, encoding="utf-8-sig"),
    "utf-16.csv": lambda table, path: _csv(table, path, encoding="utf-16"),
    "utf-32.csv": lambda table, path: _csv(table, path, encoding="utf-32"),
    "mine.jsonl": _json,
    "mine.ndjson": _sparse_json,
    "mine.parquet": lambda table, path: table.to_parquet(path),
    "typed.parquet": _categories,
}


def read(folder, name, write, **options):
    record(folder, *TABLE["path"])
    write(TABLE, folder / name)
    corpus = Manifest(str(folder / name), **options)
    return corpus, corpus.everything()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A folder with the sounds, and what a plain table of them holds."""
    folder = tmp_path_factory.mktemp("reference")
    return folder, read(folder, "reference.csv", _csv)[1]


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_gives_the_same_table(reference, name):
    folder, expected = reference
    corpus, table = read(folder, name, FORMATS[name])
    pd.testing.assert_frame_equal(table, expected, rtol=1e-7 if name == "typed.parquet" else 1e-12)
    assert corpus.labels == ("Wut", "Ärger")
    assert corpus.dimensions == ("valence",)


def test_a_table_says_what_it_holds(tmp_path):
    _, table = read(tmp_path, "reference.csv", _csv)
    assert table["id"].tolist() == ["a/1", "a/2", "b 3", "b/ü", "c/5", "c/6"]
    assert table["speaker"].tolist() == TABLE["speaker"].tolist()
    assert table["gender"].dropna().tolist() == ["female", "female", "male", "male"]
    assert table["text"].fillna("").tolist() == TABLE["text"].fillna("").tolist()
    assert table["split"].tolist() == TABLE["split"].tolist()
    np.testing.assert_array_equal(table["valence"], TABLE["valence"])
    np.testing.assert_array_equal(table["seconds"], TABLE["seconds"])


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16", "utf-8"])
def test_another_encoding_is_read_where_it_is_named(tmp_path, encoding):
    _, table = read(tmp_path, "x.csv", lambda t, path: _csv(t, path, encoding=encoding), encoding=encoding)
    assert table["label"].unique().tolist() == ["Wut", "Ärger"]


def test_spreadsheet_debris_is_no_mistake(written, tmp_path):
    record(tmp_path, "a.wav", "b.wav")
    corpus = written(
        "\n, Path ,EMOTION, spk,,\r\n,a.wav, x ,bob,,\n,,,,,\r\n\n1,b.wav,y,ann,,,,\n".replace(" x ", " x"),
        protocol="random",
    )
    assert corpus.table()["label"].tolist() == ["x", "y"]
    assert corpus.table()["speaker"].tolist() == ["bob", "ann"]


ALIASES = [
    {
        "path": "file",
        "label": "emotion",
        "speaker": "spk",
        "gender": "sex",
        "text": "transcript",
        "seconds": "duration",
        "activation": "arousal",
    },
    {"path": "filename", "speaker": "speaker_id", "text": "transcription"},
    {"path": "audio"},
]


def test_other_names_of_columns(manifest, written):
    table = rows().assign(gender="f", text="hello", seconds=1.0, activation=2.0)
    expected = manifest(table).everything()
    for aliases in ALIASES:
        shouted = table.rename(columns={column: alias.upper() for column, alias in aliases.items()})
        renamed = written(shouted.to_csv(index=False), name="renamed.csv")
        pd.testing.assert_frame_equal(renamed.everything(), expected)
    mine = {column: f"mine {column}" for column in ALIASES[0]}
    named = written(table.rename(columns=mine).to_csv(index=False), name="named.csv", columns=mine)
    pd.testing.assert_frame_equal(named.everything(), expected)


def test_columns_decides_between_two(written, manifest):
    manifest(rows())
    two = rows().assign(emotion="x").to_csv(index=False)
    assert written(two, columns={"label": "label"}).labels == ("anger", "neutral")


# Files ------------------------------------------------------------------------------------------------------


def test_paths_may_be_written_in_many_ways(written, tmp_path):
    record(tmp_path, "a.wav", "b/c d.wav", "b/é.wav", "e.wav", "f/g.wav")
    corpus = written(
        "path,label,split\n"
        f"{tmp_path}/a.wav,x,train\nb\\c d.wav,y,train\n./b//é.wav,x,val\nb/../e.wav,y,test\n"
        f"../{tmp_path.name}/f/g.wav,x,test\n"
    )
    assert corpus.table()["path"].tolist() == ["a.wav", "b/c d.wav", "b/é.wav", "e.wav", "f/g.wav"]
    assert len(corpus.waveform(corpus.split("test").iloc[1])) == 800


def test_a_root_elsewhere(written, tmp_path):
    record(tmp_path / "sounds", "a.wav", "b.wav")
    (tmp_path / "link").symlink_to(tmp_path / "sounds")
    content = f"path,label\na.wav,x\n{tmp_path}/sounds/b.wav,y\n"
    corpus = written(content, root=str(tmp_path / "link"), protocol="random")
    assert corpus.table()["path"].tolist() == ["a.wav", "b.wav"]


def test_an_unknown_duration_is_estimated(manifest):
    table = rows().assign(seconds=[np.nan, 9.0] * 12)
    seconds = manifest(table).everything()["seconds"]
    assert (seconds[1::2] == 9.0).all()
    np.testing.assert_allclose(seconds[::2], 0.05, rtol=0.01)


def test_missing_sounds_are_counted_where_they_are_to_be_skipped(manifest, tmp_path):
    corpus = manifest(rows(each=6), damaged="skip", folds=6)
    (tmp_path / "s3_1.wav").unlink()
    (tmp_path / "s2_1.wav").write_bytes(b"no sound")
    assert len(corpus.everything()) == 35
    assert corpus.facts()["dropped"] == {"the sound is missing": 1}
    for loader in (corpus.train_dataloader(), corpus.val_dataloader(), corpus.test_dataloader()):
        list(loader)
    assert list(corpus.facts()["unreadable"]) == ["s2_1"]


def test_batches_come_out_right(manifest):
    labels = ("joy", "anger", "calm")
    table = rows(labels=labels, each=6).assign(
        gender=["f", "m"] * 18,
        text="hello",
        arousal=np.arange(36.0),
        valence=np.nan,
        raters="joy;joy|r3=calm",
    )
    corpus = manifest(table, classes=("joy", "calm", "anger"), dimensions=("valence", "arousal"))
    (batch,) = corpus.val_dataloader()
    first = table.set_index("path").loc[list(batch.paths)]
    assert corpus.labels == ("joy", "calm", "anger")
    assert corpus.dimensions == ("valence", "activation")
    assert [corpus.labels[label] for label in batch.labels] == first["label"].tolist()
    assert torch.equal(batch.soft_labels, torch.tensor([[2 / 3, 1 / 3, 0.0]]).expand(len(first), 3))
    assert batch.dimensions[:, 0].isnan().all()
    assert batch.dimensions[:, 1].tolist() == first["arousal"].tolist()
    assert batch.speakers == tuple(first["speaker"])
    assert set(batch.genders) == {"female", "male"}
    assert batch.texts == ("hello",) * len(first)
    for waveform, path in zip(batch.waveforms, batch.paths, strict=True):
        np.testing.assert_allclose(waveform, noise(path), atol=1e-4)


def test_a_worker_process_gets_no_table_and_can_read(manifest):
    corpus = manifest(rows(), workers=1)
    corpus.setup("fit")
    assert len(pickle.dumps(corpus)) < 5000
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(corpus)).everything(), corpus.everything())
    assert sum(len(batch.ids) for batch in corpus.train_dataloader()) == len(corpus.split("train"))


# Labels, votes, dimensions ----------------------------------------------------------------------------------


def test_an_empty_label_is_counted_unless_there_is_something_else(manifest):
    table = rows().assign(valence=np.nan, raters=None)
    table.loc[[0, 1, 2], "label"] = None
    table.loc[1, "valence"] = 1.0
    table.loc[2, "raters"] = "anger"
    corpus = manifest(table)
    assert corpus.everything()["id"].tolist() == [path.removesuffix(".wav") for path in table["path"][1:]]
    assert corpus.facts()["dropped"] == {"the label is empty": 1}
    assert corpus.everything()["label"].isna().sum() == 2


def test_votes_become_shares_and_labels(manifest):
    votes = ["a;a;b", "x=b|y=b|z=a", "a ; b;", "c", None, "b;b;b;c"]
    table = rows(each=1).drop(columns="label").assign(raters=votes)
    corpus = manifest(table, protocol="test-only")
    found = corpus.everything()
    assert corpus.labels == ("a", "b", "c")
    shares = found[["vote/a", "vote/b", "vote/c"]].to_numpy()
    expected = [[2, 1, 0], [1, 2, 0], [1, 1, 0], [0, 0, 1], [0, 3, 1]]
    np.testing.assert_allclose(shares, [np.array(row) / sum(row) for row in expected])
    assert found["label"].fillna("").tolist() == ["a", "b", "", "c", "b"]
    ratings = corpus.ratings()
    assert ratings[ratings["id"] == "s1_0"].to_numpy().tolist() == [
        ["s1_0", "x", "b"],
        ["s1_0", "y", "b"],
        ["s1_0", "z", "a"],
    ]
    assert ratings[ratings["id"] == "s0_0"]["rater"].tolist() == ["s0_0/0", "s0_0/1", "s0_0/2"]
    assert len(ratings) == 3 + 3 + 2 + 1 + 4


def test_a_label_weighs_more_than_votes(manifest):
    corpus = manifest(rows().assign(raters="anger;anger;neutral"))
    assert corpus.everything()["label"].tolist() == rows()["label"].tolist()


def test_dimensions_alone_will_do(manifest):
    table = rows().drop(columns="label").assign(arousal=1.0, valence=2.0, dominance=np.nan, tension=3.0)
    corpus = manifest(table)
    assert corpus.labels == ()
    assert corpus.dimensions == ("activation", "valence")  # nobody filled in dominance
    assert corpus.task.startswith("Manifest/mine/none/speaker-folds-v2/")
    corpus = manifest(table, dimensions=("tension", "arousal"))
    assert corpus.dimensions == ("tension", "activation")
    assert manifest(rows().assign(valence=1.0), classes=()).everything()["label"].isna().all()


def test_without_labels_one_can_predict(manifest):
    table = rows().drop(columns=["label", "speaker"])
    corpus = manifest(table, classes=("neutral", "anger"), protocol="test-only")
    corpus.setup("predict")
    assert corpus.labels == ("neutral", "anger")
    assert len(corpus.split("test")) == 24
    with pytest.raises(
        ValueError, match=r"no utterance of the test split of .* has a label: fill it in, or only"
    ):
        corpus.setup("test")
    # An unfilled template is as good as no column.
    assert len(manifest(table.assign(label=None), classes=("a", "b"), protocol="test-only").table()) == 24


def test_a_manifest_may_be_called_none(manifest):
    corpus = manifest(rows(), name="none.csv")
    assert corpus.labels == ("anger", "neutral")
    assert corpus.everything()["label"].notna().all()


# Parts of recordings ----------------------------------------------------------------------------------------


def parts(**changes):
    table = pd.DataFrame(
        {
            "path": ["x.wav", "x.wav", "y.wav", "y.wav", "z.wav"],
            "start": [0.0, 0.5, 0.0, 0.25, None],
            "end": [0.5, 1.0, 0.25, 1.0, None],
            "label": ["a", "b", "a", "b", "a"],
            "speaker": ["s1", "s1", "s2", "s2", "s3"],
            "split": ["train", "train", "val", "val", "test"],
        }
    )
    return table.assign(**changes)


def parted(folder, table, **options):
    record(folder, *table["path"].unique(), samples=RATE)
    table.to_csv(folder / "parts.csv", index=False)
    return Manifest(str(folder / "parts.csv"), **options)


def test_parts_are_read_from_where_they_start_to_where_they_end(tmp_path):
    corpus = parted(tmp_path, parts())
    table = corpus.everything()
    assert table["id"].tolist()[:2] == ["x@0.000-0.500", "x@0.500-1.000"]
    assert table["id"].tolist()[4] == "z"
    assert table["seconds"].tolist()[:4] == [0.5, 0.5, 0.25, 0.75]
    assert table["recording"].tolist()[:4] == ["x.wav", "x.wav", "y.wav", "y.wav"]
    sound = corpus.waveform(table.iloc[3].to_dict())
    np.testing.assert_allclose(sound, noise("y.wav", RATE)[4000:], atol=1e-4)
    assert len(corpus.waveform(table.iloc[4].to_dict())) == RATE
    (batch,) = corpus.train_dataloader()
    assert batch.lengths.tolist() == [8000, 8000]


def test_parts_of_one_recording_stay_together(tmp_path):
    apart = parts(split=["train", "test", "val", "val", "test"], speaker=["s1", "s4", "s2", "s2", "s3"])
    with pytest.raises(ValueError, match=r"train and test share 1 session .* such as x.wav"):
        parted(tmp_path, apart).everything()
    # The user knows better, as long as no moment is in two splits.
    parted(tmp_path, apart.assign(session=list("12345"))).everything()
    overlapping = apart.assign(session=list("12345"), end=[0.6, 1.0, 0.25, 1.0, None])
    with pytest.raises(ValueError, match=r"share 1 .*sound .* such as x@0.000-0.600 = x@0.500-1.000"):
        parted(tmp_path, overlapping).everything()
    whole = apart.assign(session=list("12345"), path=["x.wav", "z.wav", "y.wav", "y.wav", "z.wav"])
    with pytest.raises(ValueError, match="Leave one row of each such group"):
        parted(tmp_path, whole.assign(split=["train", "train", "val", "val", "test"])).everything()


@pytest.mark.parametrize(("end", "said"), [(1.4, None), (1500.0, "ends at 1.00 s, but the part to 1500 s")])
def test_a_part_must_be_in_its_recording(tmp_path, end, said):
    corpus = parted(tmp_path, parts(end=[0.5, end, 0.25, 1.0, None]))
    utterance = corpus.split("train").iloc[1].to_dict()
    if said is None:  # annotations are seldom exact
        assert len(corpus.waveform(utterance)) == 8000
    else:
        with pytest.raises(ValueError, match=said):
            corpus.waveform(utterance)


# Protocols --------------------------------------------------------------------------------------------------


def test_the_own_column_splits_by_default(manifest):
    words = {
        "s0": "Train",
        "s1": "valid",
        "s2": "dev",
        "s3": "validation",
        "s4": "development",
        "s5": " TEST",
    }
    table = rows()
    corpus = manifest(table.assign(split=table["speaker"].map(words)))
    assert corpus.protocol.name == "own"
    assert {split: set(corpus.split(split)["speaker"]) for split in SPLITS} == {
        "train": {"s0"},
        "val": {"s1", "s2", "s3", "s4"},
        "test": {"s5"},
    }


@pytest.mark.parametrize("folds", [3, 5])
def test_the_test_splits_of_all_folds_are_the_corpus(manifest, folds):
    table = rows(speakers=11, each=5, labels=("a", "b", "c"))
    every = [members(manifest(table, folds=folds, fold=fold + 1)) for fold in range(folds)]
    tested = [name for split in every for name in split["test"]]
    assert sorted(tested) == sorted(path.removesuffix(".wav") for path in table["path"])
    for fold, split in enumerate(every):
        assert split["val"] == every[(fold + 1) % folds]["test"]
        speakers = [{name.partition("_")[0] for name in split[part]} for part in SPLITS]
        assert all(not first & second for first, second in itertools.combinations(speakers, 2))
        assert sum(map(len, split.values())) == 55


def test_folds_do_not_depend_on_the_order_of_rows(manifest):
    table = rows(speakers=10, each=5, labels=("a", "b", "c"))
    expected = members(manifest(table))
    facts = manifest(table).facts()
    for seed in range(3):
        corpus = manifest(table.sample(frac=1, random_state=seed))
        assert members(corpus) == expected
        assert corpus.facts()["digest"] == facts["digest"]
        assert corpus.task == facts["task"]


def uneven(seed, groups, classes=4):
    """Speakers with more or less to say, in moods of their own."""
    rng = np.random.default_rng(seed)
    counts = [
        rng.multinomial(rng.integers(5, 60), rng.dirichlet(np.full(classes, 1.0))) for _ in range(groups)
    ]
    return pd.DataFrame(
        [
            {"id": f"{group}-{label}-{number}", "speaker": f"s{group}", "label": f"c{label}"}
            for group, each in enumerate(counts)
            for label, count in enumerate(each)
            for number in range(count)
        ]
    )


def imbalance(numbers, table):
    """By how much the folds differ in their share of each class."""
    shares = pd.crosstab(numbers, table["label"])
    return (shares / shares.sum()).to_numpy().var(axis=0).sum()


def fold_numbers(table, folds):
    rule, numbers = GroupFolds(folds=folds), pd.Series(0, index=table.index)
    for fold in range(1, folds + 1):
        numbers[rule.assign(table, fold) == "test"] = fold
    return numbers


def test_folds_are_better_balanced_than_those_of_scikit_learn():
    ratios = []
    for seed in range(8):
        table = uneven(seed, groups=25)
        numbers = pd.Series(0, index=table.index)
        splits = StratifiedGroupKFold(5).split(table, table["label"], table["speaker"])
        for fold, (_, test) in enumerate(splits, 1):
            numbers.iloc[test] = fold
        ratios.append(imbalance(fold_numbers(table, 5), table) / imbalance(numbers, table))
    # Both are greedy: ours wins most draws, and is never far behind.
    assert np.median(ratios) < 0.9
    assert max(ratios) < 2


def test_folds_are_among_the_best_there_are():
    every = np.array(list(itertools.product(range(3), repeat=8)))
    for seed in range(6):
        table = uneven(seed, groups=8, classes=3)
        counts = pd.crosstab(table["speaker"], table["label"])
        shares = (counts / counts.sum()).to_numpy()
        held = np.stack([(every == fold).astype(float) @ shares for fold in range(3)])
        better = held.var(axis=0).sum(axis=-1) < imbalance(fold_numbers(table, 3), table) - 1e-9
        assert better.mean() < 0.05


@pytest.mark.parametrize("protocol", ["speaker-folds", "random"])
def test_a_missing_sound_moves_nobody_to_another_split(manifest, tmp_path, protocol):
    options = {"protocol": protocol, "damaged": "skip", "allow_leakage": True}
    table = rows(speakers=7, each=8)
    whole, task = members(manifest(table, **options)), manifest(table, **options).task
    corpus = manifest(table, **options)
    gone = {f"s{speaker}_{number}" for speaker in (0, 3) for number in range(7)}
    for name in gone:
        (tmp_path / f"{name}.wav").unlink()
    assert members(corpus) == {split: names - gone for split, names in whole.items()}
    assert corpus.task == task


def test_those_who_share_a_session_or_a_dialogue_stay_together(manifest):
    table = rows(speakers=9)
    pair = {"s0": "A", "s1": "A", "s2": "B", "s3": "B", "s4": "C"}
    table = table.assign(session=table["speaker"].map(pair), dialogue=None)
    table.loc[table["path"] == "s3_0.wav", "dialogue"] = "d"
    table.loc[table["path"] == "s4_1.wav", "dialogue"] = "d"
    for fold in range(1, 4):
        corpus = manifest(table, folds=3, fold=fold)
        where = corpus.everything().groupby("speaker")["split"].first()
        assert where["s0"] == where["s1"]
        assert where["s2"] == where["s3"] == where["s4"]
        assert corpus.facts()["brands"] == []


def test_chance_is_drawn_within_classes(manifest):
    corpus = manifest(rows(each=20).drop(columns="speaker"), protocol="random")
    counts = pd.crosstab(corpus.everything()["split"], corpus.everything()["label"])
    assert counts.loc["test"].tolist() == [12, 12]
    assert counts.loc["val"].tolist() == [6, 6]
    assert corpus.facts()["unchecked"] == ["whether splits share speakers (120 utterances name none)"]


def test_chance_among_known_speakers_is_a_leak(manifest):
    with pytest.raises(
        ValueError, match=r"the splits of Manifest \(random\) leak: train and val share"
    ) as error:
        manifest(rows(each=20), protocol="random").everything()
    assert "Choose --data.protocol speaker-folds, or give --data.allow_leakage true" in str(error.value)
    corpus = manifest(rows(each=20), protocol="random", allow_leakage=True)
    brands = corpus.facts()["brands"]
    assert len(brands) == 3
    assert "train and test share 6 speakers (100.0% of the test utterances), such as s0, s1, s2" in brands


def test_a_split_that_shares_a_speaker_is_refused_or_branded(manifest):
    table = rows().assign(split=["train"] * 15 + ["val"] * 5 + ["test"] * 4)
    with pytest.raises(ValueError, match=r"train and val share 1 speaker .*, such as s3"):
        manifest(table).setup("fit")
    corpus = manifest(table, allow_leakage=True)
    corpus.setup("fit")
    leak = "train and val share 1 speaker (20.0% of the val utterances), such as s3"
    assert corpus.facts()["brands"] == [leak]


def test_the_same_sound_in_two_splits_is_refused(manifest, tmp_path):
    table = rows().assign(split=["train"] * 16 + ["val"] * 4 + ["test"] * 4)
    corpus = manifest(table)
    (tmp_path / "s5_3.wav").write_bytes((tmp_path / "s0_0.wav").read_bytes())
    with pytest.raises(ValueError, match=r"train and test share 1 .*sound .*, such as s0_0 = s5_3"):
        corpus.everything()
    twice = table.assign(id=[str(number) for number in range(24)])
    twice.loc[23, "path"] = "s0_0.wav"
    with pytest.raises(ValueError, match=r"train and test share 1 .*sound .*, such as 0 = 23\. Leave one"):
        manifest(twice).everything()


def test_a_task_changes_with_what_its_splits_go_by(manifest):
    table = rows().assign(split=["train"] * 16 + ["val"] * 4 + ["test"] * 4)
    task = manifest(table).task
    assert re.fullmatch(r"Manifest/mine/own-v1/[0-9a-f]{8}", task)
    assert manifest(table.assign(text="other words")).task == task
    assert manifest(table.assign(split=["test"] * 4 + ["val"] * 4 + ["train"] * 16)).task != task
    assert re.fullmatch(
        r"Manifest/mine/speaker-folds-v2/\w{8}/fold-2-of-6", manifest(rows(), folds=6, fold=2).task
    )


# Mistakes ---------------------------------------------------------------------------------------------------

HEAD = "path,label,speaker\n"
GOOD = HEAD + "a.wav,x,s1\nb.wav,y,s2\nc.wav,x,s3\nd.wav,y,s4\ne.wav,x,s5\n"
SPLIT = "path,label,split\na.wav,x,train\nb.wav,y,train\nc.wav,x,val\nd.wav,y,test\n"


def case(content, said, *, name="mine.csv", **options):
    """What is written and asked for, and a part of what is said about it."""
    return content, said, name, options


MISTAKES = {
    "an unknown ending": case(
        GOOD, "ends in .xlsx, expected one of .csv, .tsv, .jsonl, .ndjson, ", name="mine.xlsx"
    ),
    "nothing in it": case("", "mine.csv is empty: expected a table"),
    "nothing but commas": case(",,\n\n,,\n", "mine.csv is empty: expected a table"),
    "an empty line file": case("\n", "mine.jsonl is empty: expected a table", name="mine.jsonl"),
    "only a header": case(HEAD, "has no rows, only the columns path, label, speaker: expected one"),
    "no header": case("a.wav,x,s1\n", "has no column path (or file, filename, audio): got a.wav, x, s1"),
    "no path": case("label,speaker\nx,s1\n", "Let its first line name the columns, or say which it is"),
    "two names of a column": case(
        "path,label,emotion\na.wav,x,y\n",
        "has more than one column for label (label and emotion), expected one: take the others "
        "away, or choose with --data.columns '{label: label}'.",
    ),
    "a column twice": case("path,label,Label\na.wav,x,y\n", "more than one column for label (label and"),
    "an unknown column": case(GOOD, "--data.columns names 'labels', expected", columns={"labels": "mood"}),
    "a column not there": case(
        GOOD,
        "has no column 'mood', which --data.columns gives for label: got path, label, speaker.",
        columns={"label": "mood"},
    ),
    "another encoding": case(
        "path,label\na.wav,x\nb.wav,Ärger\n".encode("cp1252"),
        "mine.csv, line 3: the byte 0xc4 is not utf-8: save the table as UTF-8, or say what it "
        "is written in, such as --data.encoding cp1252",
    ),
    "the wrong encoding": case(GOOD + "ä", "the byte 0xc3 is not ascii: save the table as", encoding="ascii"),
    "no encoding": case(GOOD, "--data.encoding utf8mb4 is not known: expected one", encoding="utf8mb4"),
    "no text": case(GOOD.encode("utf-16-le"), "is no text, or UTF-16 that does not say so"),
    "too many cells": case(
        "path,label,text\na.wav,x,hello\nb.wav,y,well, hello\n",
        "mine.csv, line 3 has 4 cells, expected 3 as in the header: put a cell with a comma in "
        "it in quotation",
    ),
    "too few cells": case("path;label;speaker\na.wav;x\n", "line 2 has 2 cells, expected 3"),
    "an open quotation mark": case(
        'path,label,text\na.wav,x,"hello\nb.wav,y,hello\n',
        "mine.csv, line 2: a quotation mark is not closed, or stands inside a cell",
    ),
    "a line after lines in a cell": case(
        'path,label,text,valence\na.wav,x,"two\nlines",1\n\nb.wav,y,hello,much\n',
        "mine.csv, line 5: valence is 'much', expected a number.",
    ),
    "a comma of thousands": case(
        "path;label;Arousal\na.wav;x;1,500\nb.wav;y;2,250\n",
        "mine.csv, line 2: Arousal is '1,500' (and 1 more like it), expected a number, with a "
        "decimal point in place of the comma.",
    ),
    "an endless number": case("path,valence,split\na.wav,inf,test\n", "valence is 'inf', expected a number."),
    "bad JSON": case(
        '{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "label": }\n',
        "mine.jsonl, line 2 is not JSON (Expecting value at character 28): got",
        name="mine.jsonl",
    ),
    "a JSON list": case('[{"path": "a.wav"}]\n', "mine.jsonl, line 1 is [{", name="mine.jsonl"),
    "a nested value": case(
        '{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "label": ["x", "y"]}\n',
        'mine.ndjson, line 2: label is ["x", "y"], expected text or a number.',
        name="mine.ndjson",
    ),
    "a truth for a number": case(
        '{"path": "a.wav", "valence": true}\n', "line 1: valence is true, exp", name="mine.jsonl"
    ),
    "no parquet": case(GOOD, "mine.parquet is not a parquet file that can be read (", name="mine.parquet"),
    "no path in a row": case(HEAD + "a.wav,x,s1\n ,y,s2\n", "line 3: path is empty, expected a sound file."),
    "a path on the net": case(
        HEAD + "https://example.org/a.wav,x,s1\n",
        "line 2: path is 'https://example.org/a.wav', expected a path below --data.root, which may be a URL.",
    ),
    "an absolute path outside": case(
        HEAD + "/data/me/b/a.wav,x,s1\n/data/me/c/b.wav,y,s2\n",
        "line 2: path is '/data/me/b/a.wav' (and 1 more like it), which is outside of the root "
        "{root}: give a folder that holds every sound, such as --data.root /data/me.",
    ),
    "a relative path outside": case(
        HEAD + "a.wav,x,s1\n../b.wav,x,s2\n",
        "line 3: path is '../b.wav', which is outside of the root {root}: write paths from a "
        "folder that holds",
    ),
    "the same file twice": case(
        HEAD + "a.wav,x,s1\nb.wav,y,s2\n./a.wav,x,s3\n",
        "mine.csv, lines 2 and 4: both are a.wav, expected it once: take one away.",
    ),
    "names that differ in their ending": case(
        HEAD + "a.wav,x,s1\na.flac,y,s2\n",
        "lines 2 and 3: a.wav and a.flac both get the id 'a': take one away, or add a column id.",
    ),
    "the same id twice": case(
        "path,label,id\na.wav,x,1\nb.wav,y,1\n",
        "lines 2 and 3: both have the id '1', expected another one in each row.",
    ),
    "no id": case("path,label,id\na.wav,x,1\nb.wav,y,\n", "line 3: id is empty, expected a name that no"),
    "labels in two cases": case(
        HEAD + "a.wav,Anger,s1\nb.wav,y,s2\nc.wav,anger,s3\n",
        "mine.csv: 'Anger' (line 2) and 'anger' (line 4) as label differ only in case or spaces: "
        "write them alike.",
    ),
    "labels with a space": case(
        HEAD + "a.wav,anger,s1\nb.wav,anger ,s2\n",
        "'anger' (line 2) and 'anger ' (line 3) as label differ only in case or spaces",
    ),
    "a space after every label": case(HEAD + "a.wav,x ,s1\nb.wav,y ,s2\n", "without space around it."),
    "labels in two encodings": case(
        HEAD + "a.wav,\u00c4rger,s1\nb.wav,A\u0308rger,s2\n",
        "as label differ only in how their letters are encoded: write them alike.",
    ),
    "speakers in two cases": case(
        HEAD + "a.wav,x,Bob\nb.wav,y,bob\n",
        "'Bob' (line 2) and 'bob' (line 3) as speaker differ only in case or spaces: write them "
        "alike, or, if they",
    ),
    "an unknown label": case(
        GOOD + "f.wav,anegr,s1\n",
        "line 7: label is 'anegr', expected one of anger, x, y; did you mean anger?",
        classes=("anger", "x", "y"),
    ),
    "one class": case(
        HEAD + "a.wav,x,s1\nb.wav,x,s2\n",
        "mine.csv has only one class, x, expected two or more: name all of them, as in --data.classes",
    ),
    "one class asked for": case(GOOD, "label is 'y' (and 1 more like it), expected one", classes=("x",)),
    "a class twice": case(GOOD, "--data.classes must be a list of different", classes=("x", "y", "x")),
    "classes as text": case(GOOD, "--data.classes must be a list of different names", classes="x, y"),
    "nothing to learn": case(
        "path,speaker\na.wav,s1\n",
        "mine.csv has nothing to learn, only path, speaker: add a column label, raters, "
        "activation, valence or",
    ),
    "an empty column of labels": case(HEAD + "a.wav,,s1\n", "mine.csv has nothing to learn, only path"),
    "votes with commas": case(
        'path,raters\na.wav,"x,y"\n',
        "line 2: raters is 'x,y', expected votes with ; or | between them, as in anger;anger;neutral.",
    ),
    "a vote for no label": case(
        "path,label,raters\na.wav,x,x;y\nb.wav,y,y;other\n",
        "line 3: raters is 'y;other', expected one of x, y. Name all with --data.classes to have more than",
    ),
    "a dimension not there": case(
        GOOD,
        "mine.csv has no column tension, which --data.dimensions names: add it, with numbers.",
        dimensions=("tension",),
    ),
    "a dimension under two names": case(
        GOOD, "--data.dimensions must be a list of different names", dimensions=("arousal", "activation")
    ),
    "a dimension of text": case(GOOD, "--data.dimensions names label, expected", dimensions=("label",)),
    "no duration": case("path,label,seconds\na.wav,x,0\n", "line 2: seconds is 0, expected more than 0."),
    "a start without an end": case(
        "path,label,start\na.wav,x,0\n", "mine.csv has a column start but no end: give both, in seconds."
    ),
    "an end without a start": case(
        "path,label,start,end\na.wav,x,0,1\nb.wav,y,,1\n",
        "line 3: start is empty, expected a time, as it has an end: give both or none.",
    ),
    "an end before its start": case(
        "path,label,start,end\na.wav,x,2,1.5\n", "line 2: end is 1.5, expected more than its start, 2."
    ),
    "a part twice": case(
        "path,label,start,end\na.wav,x,0,1\na.wav,y,0.0,1.0\n",
        "lines 2 and 3: both are a.wav from the same start to the same end, expected it once: take one away.",
    ),
    "an unknown split": case(
        SPLIT + "e.wav,y,eval\n",
        "line 6: split is 'eval', expected train, val (or valid, validation, dev, development) "
        "or test; another",
    ),
    "no split in a row": case(SPLIT + "e.wav,y,\n", "line 6: split is empty, expected train, val"),
    "neither split nor speakers": case(
        "path,label\na.wav,x\nb.wav,y\n",
        "mine.csv has neither a column split nor a column speaker, so that nothing keeps a voice "
        "from being in training and test: add one; or give --data.protocol random",
    ),
    "only unknown speakers": case(HEAD + "a.wav,x,unknown\nb.wav,y,\n", "neither a column split nor"),
    "own without a split": case(GOOD, "has no column split, by which the protocol own", protocol="own"),
    "folds without speakers": case(
        SPLIT,
        "mine.csv has no column speaker, by which the protocol speaker-folds goes: add it, or choose another",
        protocol="speaker-folds",
    ),
    "a protocol that is none": case(
        GOOD, "protocol must be one of own, own-folds, speaker-folds, ", protocol="kfold"
    ),
    "a speaker unknown": case(
        GOOD + "f.wav,x,\n",
        "line 7: speaker is empty, expected who speaks, as folds go by speaker: name all, or choose another",
    ),
    "a fold too many": case(GOOD, "fold must be 1 to 5 for the protocol speaker-folds, got 6.", fold=6),
    "a fold of one": case(SPLIT, "fold must be only 1 for the protocol own, got 2.", fold=2),
    "too few folds": case(GOOD, "--data.folds must be 3 or more (one tests, one validates, the", folds=2),
    "too few speakers": case(
        GOOD,
        "mine.csv has 5 speakers, too few for 10 folds, which take 3 or more: give --data.folds 5.",
        folds=10,
    ),
    "one speaker": case(HEAD + "a.wav,x,s\nb.wav,y,s\n", "has 1 speaker, too few for 5 folds, which take"),
    "sessions that are none": case(
        "path,label,speaker,session\na.wav,x,s1,1\nb.wav,y,s2,1\nc.wav,x,s3,2\nd.wav,y,s4,2\ne.wav,x,s5,3\n",
        "has 5 speakers in 3 groups by session and dialogue, too few for 5 folds, which take 3 "
        "or more: give --data.folds 3; a number that starts again for each speaker is no session.",
        folds=5,
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_told_in_one_sentence(written, tmp_path, mistake):
    content, said, name, options = MISTAKES[mistake]
    with pytest.raises(ValueError) as error:  # noqa: PT011  # what it says is compared below
        written(content, name=name, **options)
    message = str(error.value)
    assert said.replace("{root}", str(tmp_path)) in message
    assert name in message or message.startswith(("--data.", "protocol", "fold"))
    assert "\n" not in message
    assert message.endswith((".", "?"))


def test_nested_parquet_is_refused(tmp_path):
    table = pd.DataFrame({"path": [{"bytes": b"", "path": "a.wav"}], "label": ["x"]})
    table.to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match=r"mine.parquet: path holds struct<.*>, expected text or numbers\."):
        Manifest(str(tmp_path / "mine.parquet"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("mne.csv", r"--data.path .*mne.csv does not exist: expected a table .*; did you mean .*mine.csv\?"),
        ("nowhere/at-all.csv", r"--data.path .*at-all.csv does not exist: expected .* for each utterance\."),
        (".", r"--data.path .* is a folder: expected a table .*; did you mean .*mine.csv\?"),
    ],
)
def test_a_table_that_is_not_there(written, tmp_path, asked, said):
    written(GOOD)
    with pytest.raises(FileNotFoundError, match=said):
        Manifest(str(tmp_path / asked))


def test_a_root_that_is_not_there(written):
    with pytest.raises(
        FileNotFoundError, match=r"--data.root /nowhere does not exist: expected the folder of .*mine"
    ):
        written(GOOD, root="/nowhere").table()


def test_missing_sounds_are_named_with_what_is_nearly_there(written, tmp_path):
    corpus = written(GOOD)
    with pytest.raises(
        FileNotFoundError, match=r"none of the 5 sounds of .* not even .*a.wav \(line 2\): give the f"
    ):
        corpus.table()
    record(tmp_path, "a.wav", "b.wav", "c.wav", "e.wav")
    record(tmp_path, "D.flac")
    with pytest.raises(FileNotFoundError) as error:
        written(GOOD).table()
    expected = (
        f"1 of 5 sounds of {tmp_path}/mine.csv are missing, such as {tmp_path}/d.wav (line 5; there is "
        f"{tmp_path}/D.flac): correct the paths, or give --data.damaged skip"
    )
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("gone", "options", "said"),
    [
        (
            "val",
            {},
            "has no val under the protocol own (train 16, val 0, test 4): mark the utterances",
        ),
        ("train", {}, "has no train under the protocol own (train 0, val 4, test 4)"),
        (
            "",
            {"protocol": "test-only"},
            "has no train under the protocol test-only (train 0, val 0, test 24)",
        ),
        ("", {"protocol": "random", "allow_leakage": True, "classes": ()}, "label"),
    ],
)
def test_an_empty_split_is_told_with_what_to_do(manifest, gone, options, said):
    table = rows().assign(split=["train"] * 16 + ["val"] * 4 + ["test"] * 4)
    corpus = manifest(table[table["split"] != gone], **options)
    if said == "label":  # without classes or dimensions there is nothing to ask for
        corpus.setup("fit")
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011  # what it says is compared below
        corpus.setup("fit")
    assert said in str(error.value)


def test_nothing_but_missing_sounds_is_told_so(written):
    corpus = written(SPLIT, damaged="skip")
    with pytest.raises(
        ValueError, match=r"has no train under .* \(train 0, val 0, test 0\): 4 sounds are missing"
    ):
        corpus.setup("fit")


def test_a_test_split_alone_can_be_tested(manifest):
    corpus = manifest(rows().assign(split="test"))
    corpus.setup("test")
    with pytest.raises(ValueError, match="has no train"):
        corpus.setup("fit")


# Real recordings --------------------------------------------------------------------------------------------


def test_nemo_by_speaker():
    path = str(real_data("nemo") / "manifest.csv")
    corpora = [Manifest(path, folds=6, fold=fold) for fold in range(1, 7)]
    first = corpora[0]
    first.setup("fit")
    assert first.labels == ("anger", "fear", "happiness", "neutral", "sadness", "surprised")
    assert first.facts()["splits"]["test"]["classes"] == dict.fromkeys(first.labels, 28)
    assert first.everything()["gender"].value_counts().to_dict() == {"female": 504, "male": 504}
    tested = [set(corpus.split("test")["speaker"]) for corpus in corpora]
    assert [len(speakers) for speakers in tested] == [1] * 6
    assert len(set.union(*tested)) == 6
    batch = next(iter(first.val_dataloader()))
    assert batch.waveforms.shape[0] == 16
    assert abs(batch.lengths[0].item() / RATE - first.split("val")["seconds"].max()) < 0.001
    assert any("ż" in text for text in first.everything()["text"])
